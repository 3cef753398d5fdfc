"""The outer headers of a captured packet, read as the kernel reads them.

Theory of operation
===================

    | outer IP, 20 or 40 | UDP, 8 | VXLAN, 8 | inner frame |
    |<-- parse_outer ------------>|<- Outer.payload ------>|

On its way a datagram never comes here: the kernel takes these headers off and tells what
matters by control messages.  `parse_outer` does the same to what was captured, down to
the datagram that a VTEP is given (vxlan/outer.py makes the headers).  Where the kernel
would give it to no VTEP, or not as it is, OuterError says why.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal, NamedTuple

from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.transport import find_ipv6_upper
from vxlan.wire import IPPROTO_UDP, IPV4_HLEN, IPV6_HLEN, UDP_HLEN, ones_sum

_MF, _OFFSET = 0x2000, 0x1FFF
_FRAGMENT, _FRAGMENT_HLEN = 44, 8

Summed = Literal["right", "none", "unfinished", "wrong"]


class OuterError(ValueError):
    """A UDP packet that the kernel gives to no VTEP; one line says why."""


class Outer(NamedTuple):
    """A captured datagram: both ends, the fields that matter, and the UDP payload, which
    begins at `at` in its IP packet."""

    source: Remote
    target: Remote
    tos: int
    ttl: int
    at: int
    payload: bytes
    summed: Summed

    @property
    def received(self) -> Datagram:
        """What the VTEP at `target` is given."""
        return Datagram(self.source, self.payload, tos=self.tos)


def parse_outer(packet: bytes, port: int) -> Outer | None:
    """The datagram in an IP packet; None where it is no UDP, or not for this port.

    Raises OuterError where it is, and the kernel would not hand it on as it is.
    """
    if len(packet) >= IPV4_HLEN and packet[0] >> 4 == 4:
        return _parse_ipv4(packet, port)
    if len(packet) >= IPV6_HLEN and packet[0] >> 4 == 6:
        return _parse_ipv6(packet, port)
    return None


def _parse_ipv4(packet: bytes, port: int) -> Outer | None:
    header, total = (packet[0] & 0x0F) * 4, int.from_bytes(packet[2:4], "big")
    field = int.from_bytes(packet[6:8], "big")
    if packet[9] != IPPROTO_UDP or field & _OFFSET or _port(packet, header) != port:
        return None
    if field & _MF:
        raise OuterError(_IN_PIECES)
    if not IPV4_HLEN <= header <= total <= len(packet):
        raise OuterError(f"the outer IPv4 header claims {total} bytes, {len(packet)} are there")
    ends = packet[12:16], packet[16:20]
    return _parse_udp(*ends, packet[1], packet[8], header, packet[header:total])


def _parse_ipv6(packet: bytes, port: int) -> Outer | None:
    end = IPV6_HLEN + int.from_bytes(packet[4:6], "big")
    protocol, at, later = find_ipv6_upper(packet)
    if protocol == _FRAGMENT and packet[at : at + 1] == bytes((IPPROTO_UDP,)) and not later:
        if _port(packet, at + _FRAGMENT_HLEN) == port:
            raise OuterError(_IN_PIECES)
        return None
    if protocol != IPPROTO_UDP or _port(packet, at) != port:
        return None
    if not at <= end <= len(packet):
        raise OuterError(f"the outer IPv6 header claims {end} bytes, {len(packet)} are there")
    tos = (packet[0] << 4 | packet[1] >> 4) & 0xFF
    return _parse_udp(packet[8:24], packet[24:40], tos, packet[7], at, packet[at:end])


def _port(packet: bytes, at: int) -> int:
    """The destination port of a UDP header; -1 where that is cut off."""
    return int.from_bytes(packet[at + 2 : at + 4], "big") if len(packet) >= at + 4 else -1


_IN_PIECES = (
    "this is one fragment of an outer datagram: the kernel makes it whole before a VTEP sees it"
)


def _parse_udp(source: bytes, target: bytes, tos: int, ttl: int, at: int, udp: bytes) -> Outer:
    size = int.from_bytes(udp[4:6], "big")
    if not UDP_HLEN <= size <= len(udp):
        raise OuterError(f"the outer UDP header claims {size} bytes, {len(udp)} are there")
    udp = udp[:size]
    sport, dport = int.from_bytes(udp[0:2], "big"), int.from_bytes(udp[2:4], "big")
    return Outer(
        Remote(str(ip_address(source)), sport),
        Remote(str(ip_address(target)), dport),
        tos,
        ttl,
        at + UDP_HLEN,
        udp[UDP_HLEN:],
        _summed(udp, _pseudo(source, target, size)),
    )


def _summed(udp: bytes, pseudo: int) -> Summed:
    """An unfinished checksum is the pseudo-header's sum: the network card was to add the rest."""
    check = int.from_bytes(udp[6:8], "big")
    if not check:
        return "none"
    if (ones_sum(udp) + pseudo) % 0xFFFF == 0:
        return "right"
    return "unfinished" if check % 0xFFFF == pseudo else "wrong"


def _pseudo(source: bytes, target: bytes, size: int) -> int:
    """The sum of the pseudo-header, modulo 65535."""
    return (ones_sum(source + target) + IPPROTO_UDP + size) % 0xFFFF
