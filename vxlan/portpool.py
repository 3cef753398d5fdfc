"""The pool of source ports of one address family.

`size` slots divide the port range evenly; slot i begins at low + i * ports / size.
A slot is filled when its first flow comes: with a socket on its first free port,
or, when the whole range is taken or descriptors have run out, with the socket of
another slot.  The first slot is filled at once, so that a pool that cannot work
is refused when the VTEP starts and not when traffic does.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
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

    __slots__ = ("_six", "sendto", "socket", "tos", "ttl")

    def __init__(self, sock: socket) -> None:
        self.socket = sock
        self.sendto = sock.sendto
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
    """`slots[flow * size >> 32]` is the sender of a flow, or None: then `fill` it."""

    def __init__(
        self,
        address: str,
        ports: tuple[int, int],
        size: int,
        options: SocketOptions,
        on_open: Callable[[socket], None],
        fallbacks: list[str],
    ) -> None:
        """`on_open` is told of each new socket, which the caller closes.  Raises UnderlayError."""
        self._address, self._options = address, options
        self._low, self._span = ports[0], ports[1] - ports[0] + 1
        self._on_open, self._fallbacks = on_open, fallbacks
        self._exhausted = False
        self.size = min(size, self._span)
        self.slots: list[Sender | None] = [None] * self.size
        if self.size < size:
            fallbacks.append(
                f"underlay {address}: {self.size} source ports instead of {size}: "
                "widen srcport for more flow entropy"
            )
        self.fill(0)

    def fill(self, slot: int) -> Sender:
        """The sender of an empty slot: its own, or another's when no more can be opened."""
        sender = None
        if not self._exhausted:
            try:
                sender = self._open(slot)
            except OSError as error:
                self._share(error.strerror or str(error))
        if sender is None:
            sender = next((one for one in self.slots[slot::-1] + self.slots if one), None)
        if sender is None:
            raise UnderlayError(
                f"underlay {self._address}: no source port in {self._low}-"
                f"{self._low + self._span - 1} could be opened: choose another srcport range"
            )
        self.slots[slot] = sender
        return sender

    def open_all(self) -> list[int]:
        """Fill every slot; the descriptors, by slot (a shared one stands there twice)."""
        return [(self.slots[at] or self.fill(at)).socket.fileno() for at in range(self.size)]

    def _open(self, slot: int) -> Sender | None:
        """A socket on the first free port from the slot's own onwards, round the range."""
        first = slot * self._span // self.size
        for step in range(self._span):
            port = self._low + (first + step) % self._span
            try:
                sock = open_sender(self._address, port, self._options)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                continue
            self._on_open(sock)
            return Sender(sock)
        self._share("all ports of the range are taken")
        return None

    def _share(self, why: str) -> None:
        self._exhausted = True
        opened = len({id(sender) for sender in self.slots if sender})
        self._fallbacks.append(
            f"underlay {self._address}: {opened} source ports instead of {self.size} ({why}): "
            "raise the limit of open files (LimitNOFILE) or widen srcport"
        )
