"""The pool of source ports of one address family.

`size` slots divide the port range evenly; slot i begins at low + i * ports / size
and takes its first free port.  All sockets are opened at once: the privileges and
the namespace in which a VTEP starts may not be there when its thousandth flow
comes, and a pool that cannot work is refused at start.  Where ports or descriptors
run out, slots share sockets: less entropy, no loss, and a sentence that says so.
"""

from __future__ import annotations

import errno
import resource
from socket import (
    AF_INET6,
    IP_TOS,
    IP_TTL,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_TCLASS,
    IPV6_UNICAST_HOPS,
    socket,
)

from vxlan.udpsock import DEFAULT_TTL, SocketOptions, UnderlayError, open_sender

_TAKEN = frozenset((errno.EADDRINUSE, errno.EACCES))
"""A port that another has, or one below 1024 without the privilege: the next may do."""


class Sender:
    """One sending socket and the TOS and TTL it is set to.

    `sendto` is the socket's own method, kept because looking it up for each packet
    costs as much as comparing the marks.
    """

    __slots__ = ("_six", "port", "sendto", "socket", "tos", "ttl")

    def __init__(self, sock: socket) -> None:
        self.socket = sock
        self.sendto = sock.sendto
        self.port: int = sock.getsockname()[1]
        self.tos = 0
        self.ttl = DEFAULT_TTL
        self._six = sock.family == AF_INET6

    def mark(self, tos: int, ttl: int) -> None:
        """Let what is sent from now on carry `tos` and `ttl` (0: the default of 64).

        Setting the socket costs 0.8 us when a flow changes its marks; a control
        message would cost that for every datagram.  Raises OSError.
        """
        setsockopt = self.socket.setsockopt
        if tos != self.tos:
            level, option = (IPPROTO_IPV6, IPV6_TCLASS) if self._six else (IPPROTO_IP, IP_TOS)
            setsockopt(level, option, tos)
            self.tos = tos
        if ttl != self.ttl:
            level, option = (IPPROTO_IPV6, IPV6_UNICAST_HOPS) if self._six else (IPPROTO_IP, IP_TTL)
            setsockopt(level, option, ttl or DEFAULT_TTL)
            self.ttl = ttl


class PortPool:
    """`slots[flow * size >> 32]` is the sender of a flow.  `sockets` are theirs to close."""

    def __init__(
        self, address: str, ports: tuple[int, int], size: int, options: SocketOptions
    ) -> None:
        """Raises UnderlayError when not one port can be had."""
        self.address, self.ports = address, ports
        self.size = min(size, ports[1] - ports[0] + 1, _descriptors_to_spare())
        self.sockets: list[socket] = []
        self._options = options
        trouble = self._open_all()
        if not self.sockets:
            raise UnderlayError(
                f"underlay {address}: none of the source ports {ports[0]}-{ports[1]} can be "
                f"opened ({trouble}): choose another srcport range"
            )
        senders = [Sender(sock) for sock in self.sockets]
        self.slots = [senders[at % len(senders)] for at in range(self.size)]

    def shortfall(self, wanted: int) -> str:
        """A sentence if there are fewer than `wanted` source ports, else empty."""
        if len(self.sockets) >= wanted:
            return ""
        return (
            f"underlay {self.address}: {len(self.sockets)} source ports instead of {wanted}: "
            "less flow entropy: widen srcport, or raise the limit of open files (LimitNOFILE)"
        )

    def _open_all(self) -> str:
        """Open up to `size` sockets; why there are not more, or empty."""
        for slot in range(self.size):
            try:
                sock = self._open(slot)
            except OSError as error:
                return error.strerror or str(error)
            if sock is None:
                return "all are taken"
            self.sockets.append(sock)
        return ""

    def _open(self, slot: int) -> socket | None:
        """A socket on the first free port from the slot's own onwards, round the range."""
        low, span = self.ports[0], self.ports[1] - self.ports[0] + 1
        for step in range(span):
            port = low + (slot * span // self.size + step) % span
            try:
                return open_sender(self.address, port, self._options)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
        return None


def _descriptors_to_spare() -> int:
    """A quarter of those this process may have: two families leave half for the rest."""
    return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
