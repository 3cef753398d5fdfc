"""The underlay: UDP sockets that carry datagrams between VTEPs.  No policy.

Theory of operation
===================

One socket for each local address receives.  Many send, and receive nothing:

    remotes --> (LOCAL, dstport)                 receivers    `queues` for each local address
    remotes <-- (LOCAL, 49152 ... 65535)         pool         `pool` for each family

With several queues as many sockets share the port, and the kernel chooses one by the
hash of a datagram's flow (SO_REUSEPORT).

Routers and network cards spread load by a hash over addresses and ports, so the
outer source port carries the entropy of the inner flow (RFC 7348, section 5).  A
UDP socket has one source port; therefore a pool of them, chosen by the flow's
hash: one flow always leaves by one port, and different flows by many.  The slots
divide the port range evenly (vxlan/portpool.py); one that somebody else holds is
skipped.

Datagrams are not fragmented on their way (DF), whatever path MTU the kernel
believes in: one forged ICMP would otherwise stop all larger traffic for minutes.
What ICMP says is read from the error queues by `errors`, as a report.

An ICMP error also poisons the socket: its next send fails with that error and
sends nothing, though the datagram may go to quite another remote.  Such errors
are consumed by failing once, so `send` tries once more; only a second failure is
the datagram's own.

The error queues announce themselves by POLLERR, which libuv, under uvloop, takes
for the end of a descriptor.  So all sending sockets sit in one epoll that reports
errors and nothing else; `error_fd` is its descriptor and merely becomes readable.

With `gro` the kernel merges datagrams of one flow, so that one call may receive
up to 64 KiB; `receive` cuts them apart again.
"""

from __future__ import annotations

import ipaddress
import select
import sys
from collections.abc import Mapping, Sequence
from socket import (
    AF_INET,
    AF_INET6,
    IP_TOS,
    IPV6_TCLASS,
    socket,
)

from vxlan.burst import NOT_SUPPORTED, runs, send_run
from vxlan.drop import Drop
from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.patherror import PathError, read_errors
from vxlan.portpool import PortPool, Sender
from vxlan.udpsock import (
    CONSEQUENCE,
    DEFAULT_TTL,
    MAX_RCVBUF,
    UDP_GRO,
    SocketOptions,
    UnderlayError,
    adopt_receivers,
    drops_of,
    family_of,
    open_receivers,
    receive_buffer,
)
from vxlan.underlay_errno import LEFT_BY_ICMP, reason_of

__all__ = ["PathError", "Underlay", "UnderlayError"]

_BUFFER = 65536
_ANCILLARY = 128
_MAX_SOURCES = 4096
_MAX_ERRORS = 256


class Underlay:
    """The sockets of one VTEP.  Whoever opened it closes it; one thread uses it.

    receivers  non-blocking sockets bound to `port`: `queues` for each local address,
               side by side
    error_fd   readable while `errors` has something to tell
    granted    what the kernel granted, by name
    fallbacks  one sentence for each thing that was wanted and not granted
    """

    def __init__(
        self,
        local: Sequence[str],
        port: int,
        *,
        srcport: tuple[int, int] = (49152, 65535),
        pool: int = 256,
        udpcsum: bool = True,
        udp6zerocsumtx: bool = False,
        udp6zerocsumrx: bool = False,
        rcvbuf: int = 0,
        gro: bool = False,
        queues: int = 1,
        held: Mapping[str, list[socket]] | None = None,
    ) -> None:
        """Open everything.  Raises UnderlayError.

        The first address of each family is the source of what is sent.  srcport
        is inclusive; rcvbuf in bytes, 0 = as much as the kernel grants, up to 32 MiB.
        `held` are receivers by their address that were bound before, `queues` for each.
        """
        options = SocketOptions(udpcsum, udp6zerocsumtx, udp6zerocsumrx, rcvbuf, gro)
        self.local = tuple(dict.fromkeys(_canonical(address) for address in local))
        self.port = port
        self.granted: dict[str, bool | int | str] = {}
        self.fallbacks: list[str] = []
        self.receivers: tuple[socket, ...] = ()
        self.gso = udpcsum
        self._pools: dict[int, PortPool] = {}
        self._pool4: PortPool | None = None
        self._pool6: PortPool | None = None
        self._sources: dict[object, Remote] = {}
        self._seen_drops: dict[socket, int] = {}
        self._senders: dict[int, socket] = {}
        self._errors = select.epoll()
        self.error_fd = self._errors.fileno()
        try:
            self._open(options, srcport, pool, queues, held or {})
        except BaseException:
            self.close()
            raise

    def send(self, datagram: Datagram) -> Drop | None:
        """Hand one datagram to the kernel; None when it was taken."""
        remote, payload, flow, tos, ttl = datagram
        pool = self._pool6 if ":" in remote[0] else self._pool4
        if pool is None:
            return Drop.UNDERLAY_UNREACHABLE
        sender = pool.slots[flow * pool.size >> 32]
        try:
            if sender.tos != tos or sender.ttl != ttl:
                sender.mark(tos, ttl)
            sender.sendto(payload, remote)
        except OSError as error:
            return _send_again(sender, datagram, error)
        return None

    def source_port(self, datagram: Datagram) -> int:
        """The port that a datagram leaves from; 0 if it cannot leave."""
        pool = self._pool6 if ":" in datagram.remote.address else self._pool4
        return 0 if pool is None else pool.slots[datagram.flow * pool.size >> 32].port

    def send_all(self, datagrams: Sequence[Datagram]) -> list[tuple[Datagram, Drop]]:
        """Hand many datagrams to the kernel, in order; those it refused, and why.

        Neighbours of one flow go in one system call where the kernel can do that.
        """
        refused: list[tuple[Datagram, Drop]] = []
        for run in runs(datagrams):
            if len(run) > 1 and self.gso and self._send_run(run):
                continue
            for datagram in run:
                why = self.send(datagram)
                if why is not None:
                    refused.append((datagram, why))
        return refused

    def _send_run(self, run: Sequence[Datagram]) -> bool:
        """Whether the kernel took all of them at once."""
        pool = self._pool6 if ":" in run[0].remote.address else self._pool4
        if pool is None:
            return False
        try:
            send_run(pool.slots[run[0].flow * pool.size >> 32], run)
        except OSError as error:
            if error.errno in NOT_SUPPORTED:
                self._give_up_gso(error)
            return False
        return True

    def _give_up_gso(self, error: OSError) -> None:
        self.gso = False
        self.granted["gso"] = False
        self.fallbacks.append(
            f"underlay: no UDP segmentation offload here ({error.strerror}): "
            "one system call for each datagram"
        )

    def unmark(self) -> None:
        """Let every sender carry TOS 0 and TTL 64 again: what the workers rely on."""
        for pool in self._pools.values():
            for sender in pool.slots:
                if sender.tos or sender.ttl != DEFAULT_TTL:
                    sender.mark(0, DEFAULT_TTL)

    def receive(self, sock: socket) -> list[Datagram]:
        """Datagrams from one of `receivers`; an empty list when none waits."""
        try:
            payload, ancillary, _, source = sock.recvmsg(_BUFFER, _ANCILLARY)
        except OSError:  # EAGAIN; anything else is as transient, and poll tells again
            return []
        tos = size = 0
        for _, kind, data in ancillary:
            if kind == IP_TOS:
                tos = data[0]
            elif kind == IPV6_TCLASS:
                tos = int.from_bytes(data, sys.byteorder)
            elif kind == UDP_GRO:
                size = int.from_bytes(data, sys.byteorder)
        remote = self._sources.get(source) or self._remember(source)
        if not size or size >= len(payload):
            return [Datagram(remote, payload, 0, tos)]
        return [
            Datagram(remote, payload[at : at + size], 0, tos) for at in range(0, len(payload), size)
        ]

    def errors(self) -> list[PathError]:
        """What the path to remotes reported since the last call; at most a few hundred.

        If there is more, `error_fd` stays readable.
        """
        found: list[PathError] = []
        for fd, _ in self._errors.poll(0, 64):
            found += read_errors(self._senders[fd], _MAX_ERRORS - len(found))
        return found

    def take_rcvbuf_drops(self) -> int:
        """Datagrams the kernel discarded at `receivers` since the last call."""
        lost = 0
        for sock in self.receivers:
            drops = drops_of(sock)
            lost += (drops - self._seen_drops.get(sock, 0)) & 0xFFFFFFFF
            self._seen_drops[sock] = drops
        return lost

    def pool_fds(self) -> dict[int, list[int]]:
        """The sending sockets: {AF_INET or AF_INET6: descriptors, by slot}.

        Slot = flow * slots >> 32.  Where ports ran out a descriptor stands there twice.
        """
        return {
            family: [sender.socket.fileno() for sender in pool.slots]
            for family, pool in self._pools.items()
        }

    def close(self) -> None:
        """Close every socket.  May be called again."""
        for sock in (*self.receivers, *self._senders.values()):
            sock.close()
        self.receivers = ()
        self._senders.clear()
        self._pools.clear()
        self._pool4 = self._pool6 = None
        self._errors.close()

    # -- opening ------------------------------------------------------------------------

    def _open(
        self,
        options: SocketOptions,
        srcport: tuple[int, int],
        size: int,
        queues: int,
        held: Mapping[str, list[socket]],
    ) -> None:
        if not self.local:
            raise UnderlayError("underlay: no local address: give --local or --dev")
        if not 1 <= srcport[0] <= srcport[1] <= 65535 or size < 1:
            raise UnderlayError(f"underlay: srcport {srcport[0]}-{srcport[1]} is no range of ports")
        for address in self.local:
            if address in held:
                self.receivers += tuple(adopt_receivers(held[address], options))
            else:
                self.receivers += tuple(open_receivers(address, self.port, options, queues))
        for address in self.local:
            if family_of(address) not in self._pools:
                self._add_pool(address, srcport, size, options)
        self._pool4, self._pool6 = self._pools.get(AF_INET), self._pools.get(AF_INET6)
        self._tell_granted(options)

    def _add_pool(
        self, address: str, srcport: tuple[int, int], size: int, options: SocketOptions
    ) -> None:
        pool = self._pools[family_of(address)] = PortPool(address, srcport, size, options)
        for sender in pool.sockets:
            self._senders[sender.fileno()] = sender
            self._errors.register(sender.fileno(), 0)  # errors come without being asked for
        self.granted["source_ports"] = len(self._senders)
        if pool.shortfall(size):
            self.fallbacks.append(pool.shortfall(size))

    def _tell_granted(self, options: SocketOptions) -> None:
        wanted = options.rcvbuf or MAX_RCVBUF
        granted = min(receive_buffer(sock) for sock in self.receivers)
        self.granted["rcvbuf"] = granted
        if granted < wanted:
            self.fallbacks.append(
                f"underlay: receive buffer of {granted >> 10} KiB instead of {wanted >> 10} KiB: "
                "raise net.core.rmem_max or run with CAP_NET_ADMIN"
            )
        if options.gro:
            self.granted["gro"] = "UDP_GRO" not in options.refused
        self.granted["dont_fragment"] = "don't fragment" not in options.refused
        self.fallbacks.extend(
            f"underlay: the kernel refused {what}: {CONSEQUENCE[what]}"
            for what in sorted(options.refused)
        )

    def _remember(self, source: tuple[str, int]) -> Remote:
        """Remotes by socket address; a forger of many sources must not fill the memory."""
        if len(self._sources) >= _MAX_SOURCES:
            self._sources.clear()
        remote = self._sources[source] = Remote(source[0], source[1])
        return remote


def _send_again(sender: Sender, datagram: Datagram, error: OSError) -> Drop | None:
    """After a failed send: once more if the error may be that of an earlier datagram."""
    if error.errno in LEFT_BY_ICMP:
        try:
            sender.mark(datagram.tos, datagram.ttl)
            sender.sendto(datagram.payload, datagram.remote)
        except OSError as own:
            error = own
        else:
            return None
    return reason_of(error)


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise UnderlayError(
            f"underlay: {address!r} is no IP address: write 192.0.2.1 or 2001:db8::1"
        ) from None
