"""The outer headers of a UDP payload: made here where the kernel makes them in earnest.

Theory of operation
===================

An engine hands payloads to UDP sockets, so it never sees the headers around them.
A capture shows them all the same, as they are on the wire, as far as that is known:

    sent       addresses, ports, tos and ttl are what the socket was told; DF is set
    received   addresses, the sender's port and tos are known; the TTL is written as 64
    both       IPv4 identification 0; checksums as they must be

A payload of which not all bytes were kept has the lengths of the whole packet and no
UDP checksum.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from vxlan.wire import IPPROTO_UDP, UDP_HLEN, checksum, ones_sum

DEFAULT_TTL = 64
_DF = 0x4000
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")


def datagram(
    payload: bytes,
    src: tuple[str, int],
    dst: tuple[str, int],
    *,
    tos: int = 0,
    ttl: int = 0,
    length: int | None = None,
) -> bytes:
    """An IP packet of `payload`; `length` is that of the whole payload.

    `src` and `dst` are addresses of one family with their ports.  Raises ValueError
    for what is no IP address.
    """
    whole = len(payload) if length is None else length
    source, destination = (ip_address(end[0]).packed for end in (src, dst))
    udp_length = min(UDP_HLEN + whole, 0xFFFF)
    check = 0
    if whole == len(payload):
        pseudo = source + destination + struct.pack("!HH", IPPROTO_UDP, udp_length)
        ports = _UDP.pack(src[1], dst[1], udp_length, 0)
        check = checksum(payload, ones_sum(pseudo) + ones_sum(ports)) or 0xFFFF
    udp = _UDP.pack(src[1], dst[1], udp_length, check)
    make = _ipv6 if len(source) == 16 else _ipv4
    return make(source, destination, udp_length, tos, ttl or DEFAULT_TTL) + udp + payload


def _ipv4(source: bytes, destination: bytes, length: int, tos: int, ttl: int) -> bytes:
    total = min(_IPV4.size + length, 0xFFFF)
    fields = (0x45, tos, total, 0, _DF, ttl, IPPROTO_UDP)
    check = checksum(_IPV4.pack(*fields, 0, source, destination))
    return _IPV4.pack(*fields, check, source, destination)


def _ipv6(source: bytes, destination: bytes, length: int, tos: int, ttl: int) -> bytes:
    return _IPV6.pack(6 << 28 | tos << 20, length, IPPROTO_UDP, ttl, source, destination)
