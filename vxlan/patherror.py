"""What the error queue of a UDP socket says about the path to a remote.

With IP_RECVERR the kernel queues each ICMP error that quotes one of our datagrams,
and each datagram of ours that no device could carry (ip(7), section IP_RECVERR).
An entry is a `struct sock_extended_err` in a control message:

    ee_errno u32 | origin u8 | type u8 | code u8 | pad u8 | info u32 | data u32
    and behind it the socket address of the router or host that complained

ICMP is easy to forge.  What is read here is a report, never a command: the
sockets ignore a path MTU from it, and who acts on one applies a floor of his own.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from socket import AF_INET, AF_INET6, MSG_DONTWAIT, MSG_ERRQUEUE, inet_ntop, socket
from typing import NamedTuple

_EXTENDED_ERR = struct.Struct("=IBBBBII")
_SPACE = 256
_QUOTE = 2048

_ORIGIN = {1: "local", 2: "icmp", 3: "icmp6"}

_MEANING = {
    ("icmp", 3, 0): "network unreachable",
    ("icmp", 3, 1): "host unreachable",
    ("icmp", 3, 2): "UDP unreachable",
    ("icmp", 3, 3): "port unreachable: no VTEP runs there",
    ("icmp", 3, 4): "packet too big",
    ("icmp", 3, 9): "network prohibited",
    ("icmp", 3, 10): "host prohibited",
    ("icmp", 3, 13): "prohibited by a filter",
    ("icmp", 11, 0): "TTL exceeded",
    ("icmp6", 1, 0): "no route",
    ("icmp6", 1, 1): "prohibited by a filter",
    ("icmp6", 1, 3): "address unreachable",
    ("icmp6", 1, 4): "port unreachable: no VTEP runs there",
    ("icmp6", 2, 0): "packet too big",
    ("icmp6", 3, 0): "hop limit exceeded",
}


class PathError(NamedTuple):
    """One entry of an error queue.

    address  where our datagram went;  port: None when the kernel does not tell
    errno    EMSGSIZE, EHOSTUNREACH, ECONNREFUSED, ...
    mtu      what the complainer says fits, bytes of an outer IP packet, or None
    origin   "local" (this host), "icmp" or "icmp6"; type, code: of the ICMP message
    payload  as much of our UDP payload as was quoted; b"" for local ones
    detail   all of it, in words for people
    """

    address: str
    port: int | None
    errno: int
    mtu: int | None
    origin: str
    type: int
    code: int
    payload: bytes
    detail: str


def read_errors(sock: socket, limit: int) -> list[PathError]:
    """Take up to `limit` entries out of the error queue of a socket; never blocks."""
    found: list[PathError] = []
    while len(found) < limit:
        try:
            payload, ancillary, _, address = sock.recvmsg(
                _QUOTE, _SPACE, MSG_ERRQUEUE | MSG_DONTWAIT
            )
        except OSError:  # EAGAIN: the queue is empty
            break
        for _, _, data in ancillary:
            if len(data) >= _EXTENDED_ERR.size:
                found.append(_parse(data, payload, address))
    return found


def _parse(data: bytes, payload: bytes, address: tuple[str, int]) -> PathError:
    code_of_error, origin_number, kind, code, _, info, _ = _EXTENDED_ERR.unpack_from(data)
    origin = _ORIGIN.get(origin_number, "other")
    mtu = info if code_of_error == errno.EMSGSIZE and info else None
    what = _MEANING.get((origin, kind, code)) or os.strerror(code_of_error).lower()
    who = _offender(data[_EXTENDED_ERR.size :]) if origin != "local" else None
    size = f", it takes {mtu} bytes" if mtu else ""
    return PathError(
        address=address[0],
        port=address[1] or None,
        errno=code_of_error,
        mtu=mtu,
        origin=origin,
        type=kind,
        code=code,
        payload=payload,
        detail=f"{who or 'this host'} says: {what}{size}",
    )


def _offender(sockaddr: bytes) -> str | None:
    """The address in a struct sockaddr_in or sockaddr_in6, or None."""
    family = int.from_bytes(sockaddr[:2], sys.byteorder)
    if family == AF_INET and len(sockaddr) >= 8:
        return inet_ntop(AF_INET, sockaddr[4:8])
    if family == AF_INET6 and len(sockaddr) >= 24:
        return inet_ntop(AF_INET6, sockaddr[8:24])
    return None
