"""The options of an underlay socket, and why one could not be opened.

Two kinds of UDP socket: `open_receiver` is bound to the VXLAN port, takes what
remotes send, and sends nothing; `open_sender` is bound to one source port of the
pool and receives nothing.  vxlan/underlay.py says what they are for.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass, field
from socket import (
    AF_INET,
    AF_INET6,
    IP_RECVTOS,
    IP_TTL,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    IPV6_DONTFRAG,
    IPV6_RECVTCLASS,
    IPV6_UNICAST_HOPS,
    IPV6_V6ONLY,
    SO_RCVBUF,
    SO_REUSEPORT,
    SO_SNDBUF,
    SOCK_DGRAM,
    SOL_SOCKET,
    socket,
)

from vxlan.underlay_holder import holder_of

UDP_GRO = 104  # include/uapi/linux/udp.h
_UDP_NO_CHECK6_TX = 101
_UDP_NO_CHECK6_RX = 102
_SO_NO_CHECK = 11  # include/uapi/asm-generic/socket.h
_SO_ATTACH_FILTER = 26
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_IP_MTU_DISCOVER = 10  # include/uapi/linux/in.h, in6.h
_IP_RECVERR = 11
_IPV6_MTU_DISCOVER = 23
_IPV6_RECVERR = 25
_PMTUDISC_PROBE = 3
_TRANSPARENT: dict[int, tuple[int, int]] = {AF_INET: (IPPROTO_IP, 19), AF_INET6: (IPPROTO_IPV6, 75)}

DEFAULT_TTL = 64
MAX_RCVBUF = 32 << 20
"""Bytes asked for when nothing else was said: 0.2 s of 1 Gbit/s, kernel overhead included."""

_SNDBUF = 4 << 20
_DROPS = 8
"""Index of the discards in the array of SO_MEMINFO (include/uapi/linux/sock_diag.h)."""


class UnderlayError(Exception):
    """The underlay cannot be opened; the text is one line with the remedy."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What all sockets of an underlay have in common (words of ip-link(8), bytes).

    transparent: an address that is not ours may be sent from (IP_TRANSPARENT, ip(7)).
    `refused` gathers, as keys of `CONSEQUENCE`, what the kernel did not take.
    """

    udpcsum: bool = True
    udp6zerocsumtx: bool = False
    udp6zerocsumrx: bool = False
    rcvbuf: int = 0
    gro: bool = False
    transparent: bool = False
    refused: set[str] = field(default_factory=set)

    def apply(self, sock: socket, what: str, level: int, option: int, value: int | bytes) -> None:
        """Set a socket option, or remember that it was refused."""
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            self.refused.add(what)


CONSEQUENCE = {
    "TOS of what is received": "congestion marks of the underlay are not passed on",
    "UDP_GRO": "one system call for each datagram (Linux 5.0 has it)",
    "udp6zerocsumrx": "datagrams with a zero checksum over IPv6 are not received",
    "udp6zerocsumtx": "datagrams over IPv6 carry a checksum",
    "noudpcsum": "datagrams over IPv4 carry a checksum",
    "don't fragment": "datagrams that are too big for a router may be fragmented",
    "error queue": "ICMP errors of the underlay are not seen",
    "receive filter": "what others send to our source ports takes memory until its buffer is full",
}
"""What it means when the kernel refuses an option.  Small kernels and gVisor have not all."""


def family_of(address: str) -> int:
    """AF_INET or AF_INET6, by the text of an address."""
    return AF_INET6 if ":" in address else AF_INET


# -- receiving ----------------------------------------------------------------------


def open_receivers(address: str, port: int, options: SocketOptions, count: int) -> list[socket]:
    """`count` sockets that share what arrives for (address, port).  Raises UnderlayError.

    The first one is bound without SO_REUSEPORT: somebody else's socket must be met as
    a conflict, not as company.
    """
    found = [open_receiver(address, port, options)]
    try:
        for _ in range(count - 1):
            found[0].setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
            found.append(open_receiver(address, port, options, shared=True))
    except BaseException:
        for sock in found:
            sock.close()
        raise
    return found


def fits_receiver(sock: socket, address: str, port: int, *, shared: bool) -> bool:
    """Whether a socket that was held is one that `open_receivers` would have made."""
    try:
        kind = (sock.family, sock.type, sock.proto)
        return (
            kind == (family_of(address), SOCK_DGRAM, IPPROTO_UDP)
            and sock.getsockname()[:2] == (address, port)
            and bool(sock.getsockopt(SOL_SOCKET, SO_REUSEPORT)) == shared
            and not _is_connected(sock)
        )
    except OSError:
        return False


def _is_connected(sock: socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def adopt_receivers(found: list[socket], options: SocketOptions) -> list[socket]:
    """Go on with sockets that were held; what waits in them stays there."""
    for sock in found:
        sock.setblocking(False)
        _set_receiver(sock, sock.family, options)
        if sock.family == AF_INET6:
            try_option(sock, IPPROTO_UDP, _UDP_NO_CHECK6_RX, int(options.udp6zerocsumrx))
    return found


def open_receiver(
    address: str, port: int, options: SocketOptions, *, shared: bool = False
) -> socket:
    """A non-blocking socket that takes datagrams for (address, port).  Raises UnderlayError."""
    family = family_of(address)
    try:
        sock = socket(family, SOCK_DGRAM)
    except OSError as error:
        raise UnderlayError(f"underlay {address}: {_no_socket(error, family)}") from error
    try:
        sock.setblocking(False)
        # Before bind: nothing may arrive that was not merged or finds a small buffer.
        _set_receiver(sock, family, options)
        if shared:
            sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise UnderlayError(_explain_bind(address, port, error)) from error
    return sock


def _set_receiver(sock: socket, family: int, options: SocketOptions) -> None:
    if family == AF_INET6:
        try_option(sock, IPPROTO_IPV6, IPV6_V6ONLY, 1)  # refused once it is bound
        options.apply(sock, "TOS of what is received", IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        if options.udp6zerocsumrx:
            options.apply(sock, "udp6zerocsumrx", IPPROTO_UDP, _UDP_NO_CHECK6_RX, 1)
    else:
        options.apply(sock, "TOS of what is received", IPPROTO_IP, IP_RECVTOS, 1)
    if options.gro:
        options.apply(sock, "UDP_GRO", IPPROTO_UDP, UDP_GRO, 1)
    set_buffer(sock, options.rcvbuf or MAX_RCVBUF, SO_RCVBUF, _SO_RCVBUFFORCE)


def receive_buffer(sock: socket) -> int:
    """The receive buffer in bytes as it was asked for (the kernel doubles it for overhead)."""
    return sock.getsockopt(SOL_SOCKET, SO_RCVBUF) // 2


def drops_of(sock: socket) -> int:
    """Datagrams the kernel discarded at this socket since it was made, modulo 2**32.

    A full buffer, mostly; also a wrong outer checksum.  0 where the kernel does
    not tell (Linux before 4.12, gVisor).
    """
    try:
        answer = sock.getsockopt(SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
    except OSError:
        return 0
    if len(answer) < 4 * (_DROPS + 1):
        return 0
    return int(struct.unpack_from("=I", answer, 4 * _DROPS)[0])


# -- sending ------------------------------------------------------------------------


def open_sender(address: str, port: int, options: SocketOptions) -> socket:
    """A non-blocking socket that sends from (address, port) and receives nothing.

    DF is set and the path MTU that others may have forged is ignored; ICMP errors
    wait in the error queue.  Raises OSError: EADDRINUSE is the pool's to handle.
    """
    family = family_of(address)
    sock = socket(family, SOCK_DGRAM)
    try:
        sock.setblocking(False)
        options.apply(sock, "receive filter", SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL)
        (_set_sender6 if family == AF_INET6 else _set_sender4)(sock, options)
        set_buffer(sock, _SNDBUF, SO_SNDBUF, _SO_SNDBUFFORCE)
        if options.transparent:
            sock.setsockopt(*_TRANSPARENT[family], 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _set_sender4(sock: socket, options: SocketOptions) -> None:
    options.apply(sock, "don't fragment", IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    options.apply(sock, "error queue", IPPROTO_IP, _IP_RECVERR, 1)
    sock.setsockopt(IPPROTO_IP, IP_TTL, DEFAULT_TTL)
    if not options.udpcsum:
        options.apply(sock, "noudpcsum", SOL_SOCKET, _SO_NO_CHECK, 1)


def _set_sender6(sock: socket, options: SocketOptions) -> None:
    sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    options.apply(sock, "don't fragment", IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    options.apply(sock, "don't fragment", IPPROTO_IPV6, IPV6_DONTFRAG, 1)
    options.apply(sock, "error queue", IPPROTO_IPV6, _IPV6_RECVERR, 1)
    sock.setsockopt(IPPROTO_IPV6, IPV6_UNICAST_HOPS, DEFAULT_TTL)
    if options.udp6zerocsumtx:
        options.apply(sock, "udp6zerocsumtx", IPPROTO_UDP, _UDP_NO_CHECK6_TX, 1)


_BPF_RET_0 = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
_DROP_ALL = struct.pack("@HP", 1, ctypes.addressof(_BPF_RET_0))
"""A classic BPF program of one instruction, `ret 0`: keep no byte of any datagram."""


def set_buffer(sock: socket, size: int, option: int, force: int) -> None:
    """Ask for `size` bytes beyond the system's ceiling (CAP_NET_ADMIN), else up to it."""
    if not try_option(sock, SOL_SOCKET, force, size):
        try_option(sock, SOL_SOCKET, option, size)


def try_option(sock: socket, level: int, option: int, value: int) -> bool:
    """Set an option that the kernel may refuse; whether it did not."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


# -- why not --------------------------------------------------------------------------


def _no_socket(error: OSError, family: int) -> str:
    if error.errno == errno.EAFNOSUPPORT:
        return f"this kernel has no IPv{6 if family == AF_INET6 else 4}: take the address out"
    return f"no socket: {error.strerror}"


def _explain_bind(address: str, port: int, error: OSError) -> str:
    where = f"underlay {address} port {port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where}: taken by {holder_of(address, port)}: "
            "use another --dstport, or run in a network namespace of its own"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: not an address of this host: `ip address` lists those it has"
    if error.errno == errno.EACCES:
        return f"{where}: ports below 1024 need root or CAP_NET_BIND_SERVICE"
    return f"{where}: {error.strerror or error}"
