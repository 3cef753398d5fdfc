"""Where the transport header of an inner packet lies.

One walk for everything that looks behind the IP header: the MSS clamp, the
virtio_net_hdr, and the rule that no ICMP error is answered with another.  It
believes no length field beyond the end of the frame, walks at most
`MAX_EXTENSIONS` IPv6 extension headers, and finds nothing in a fragment: half a
packet has no transport header that may be trusted.
"""

from __future__ import annotations

from typing import NamedTuple

from vxlan.wire import ETH_P_IP, ETH_P_IPV6, IPV4_HLEN, IPV6_HLEN, ethertype_at

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_WALKED = frozenset((_HOP_BY_HOP, _ROUTING, _DESTINATION))
_NO_TRANSPORT = _WALKED | {_FRAGMENT}
MAX_EXTENSIONS = 8
TCP_HLEN = 20


class Transport(NamedTuple):
    """Where a transport header lies in a frame; `end` is that of the IP packet."""

    protocol: int
    l3: int
    l4: int
    end: int
    ip_header: int  # length of an IP header without options: 20 or 40


def find_transport(frame: bytes) -> Transport | None:
    """The transport header of an unfragmented IP packet; None where there is none."""
    ethertype, l3 = ethertype_at(frame)
    if ethertype == ETH_P_IP:
        return _find_ipv4(frame, l3)
    if ethertype == ETH_P_IPV6:
        return _find_ipv6(frame, l3)
    return None


def _find_ipv4(frame: bytes, l3: int) -> Transport | None:
    if len(frame) < l3 + IPV4_HLEN or frame[l3] >> 4 != 4:
        return None
    l4 = l3 + (frame[l3] & 0x0F) * 4
    end = l3 + (frame[l3 + 2] << 8 | frame[l3 + 3])
    fragment = frame[l3 + 6] & 0x3F or frame[l3 + 7]
    if fragment or l4 < l3 + IPV4_HLEN or not l4 <= end <= len(frame):
        return None
    return Transport(frame[l3 + 9], l3, l4, end, IPV4_HLEN)


def _find_ipv6(frame: bytes, l3: int) -> Transport | None:
    if len(frame) < l3 + IPV6_HLEN or frame[l3] >> 4 != 6:
        return None
    end = l3 + IPV6_HLEN + (frame[l3 + 4] << 8 | frame[l3 + 5])
    if end > len(frame):
        return None
    protocol, offset, _ = find_ipv6_upper(frame[l3:end])
    if offset > end - l3 or protocol in _NO_TRANSPORT:
        return None
    return Transport(protocol, l3, l3 + offset, end, IPV6_HLEN)


def find_ipv6_upper(packet: bytes) -> tuple[int, int, bool]:
    """Protocol and offset behind the extension headers of an IPv6 packet of 40 bytes or more.

    The walk stops at a fragment header; the last value says that it is not the
    first fragment.  A header that is cut off is given as the protocol itself.
    """
    protocol, at = packet[6], IPV6_HLEN
    for _ in range(MAX_EXTENSIONS):
        if protocol == _FRAGMENT:
            offset = int.from_bytes(packet[at + 2 : at + 4], "big") >> 3
            return protocol, at, offset > 0
        if protocol not in _WALKED or len(packet) < at + 8:
            break
        protocol, at = packet[at], at + (packet[at + 1] + 1) * 8
    return protocol, at, False


def pseudo_sum(frame: bytes, found: Transport) -> int:
    """The sum of the pseudo-header of TCP and UDP, modulo 65535 (RFC 9293, section 3.1)."""
    at, size = (12, 8) if found.ip_header == IPV4_HLEN else (8, 32)
    addresses = frame[found.l3 + at : found.l3 + at + size]
    return (int.from_bytes(addresses, "big") + found.protocol + found.end - found.l4) % 0xFFFF


def unfinished(frame: bytes, found: Transport, check_at: int) -> bool:
    """Whether the checksum field at l4 + `check_at` holds the pseudo-header's sum and no more."""
    check = frame[found.l4 + check_at] << 8 | frame[found.l4 + check_at + 1]
    return check != 0 and check % 0xFFFF == pseudo_sum(frame, found)
