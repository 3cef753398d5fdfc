"""What becomes of a packet that does not fit: an honest answer, or fragments.

Theory of operation
===================

A packet that is too big for the overlay is never lost without a word:

    IPv4, DF set     ICMP "fragmentation needed", next-hop MTU (RFC 1191)
    IPv6             ICMPv6 "Packet Too Big" (RFC 4443, section 3.2)
    IPv4, DF clear   fragmented, inside: each fragment is a frame of its own (RFC 791)
    anything else    nothing can be said: counted, and an event

The VTEP has no address in the container's network, and needs none.  The answer
is addressed as if the station that the packet was for had sent it: addresses and
MACs of the packet change places.  So the bridge sees it come from where that
station is, and the container's stack, which checks that an ICMP quotes a packet
of its own, accepts it and lowers its path MTU for that one destination.

No answer is ever given about an ICMP error, to or about a group or broadcast
address, or about a fragment that is not the first (RFC 1122, section 3.2.2): two
stacks could otherwise talk about each other's complaints for ever.  An
`AnswerBudget` bounds how many are given.
"""

from __future__ import annotations

from vxlan.icmp import ICMP_HLEN, icmpv4, icmpv6
from vxlan.transport import find_ipv6_upper
from vxlan.wire import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPV4_HLEN,
    IPV6_HLEN,
    Inner,
    checksum,
)

MAX_ICMPV4 = 576
"""Bytes of the whole answer over IPv4 (RFC 1812, section 4.3.2.3)."""
MAX_ICMPV6 = 1280
"""Bytes of the whole answer over IPv6 (RFC 4443, section 2.4)."""

_INTERNETWORK_CONTROL = 0xC0
_DF, _MF, _OFFSET = 0x4000, 0x2000, 0x1FFF
_ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
_COPIED = 0x80


class AnswerBudget:
    """How many answers may be given: `rate` each second, `burst` at once."""

    __slots__ = ("_burst", "_left", "_rate", "_when")

    def __init__(self, rate: float = 1000.0, burst: int = 100) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._when = float(burst), 0.0

    def take(self, now: float) -> bool:
        """Whether one more answer may be given."""
        self._left = min(self._burst, self._left + (now - self._when) * self._rate)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def dont_fragment(frame: bytes, inner: Inner) -> bool:
    """Whether an inner IP packet must not be fragmented on its way."""
    return inner.version == 6 or bool(frame[inner.l3 + 6] & 0x40)


# -- the answer --------------------------------------------------------------------


def too_big_answer(frame: bytes, inner: Inner, mtu: int) -> bytes | None:
    """The frame that tells its sender that only `mtu` bytes fit; None where none is due."""
    if frame[0] & 1 or not inner.version:
        return None
    build = _answer_ipv4 if inner.version == 4 else _answer_ipv6
    packet = build(frame[inner.l3 :], mtu)
    if packet is None:
        return None
    return frame[6:12] + frame[0:6] + frame[12 : inner.l3] + packet


def _answer_ipv4(packet: bytes, mtu: int) -> bytes | None:
    source, destination = packet[12:16], packet[16:20]
    header_length = (packet[0] & 0x0F) * 4
    if not _is_station(source) or not _is_station(destination):
        return None
    if int.from_bytes(packet[6:8], "big") & _OFFSET:
        return None
    if packet[9] == IPPROTO_ICMP and packet[header_length : header_length + 1] in _ERROR_TYPES:
        return None
    quote = packet[: MAX_ICMPV4 - IPV4_HLEN - ICMP_HLEN]
    message = b"\x03\x04\0\0" + mtu.to_bytes(4, "big") + quote
    return icmpv4(destination, source, message, tos=_INTERNETWORK_CONTROL)


_ERROR_TYPES = frozenset(bytes((kind,)) for kind in _ICMP_ERRORS)


def _is_station(address: bytes) -> bool:
    """Whether an IPv4 address is neither zero nor loopback, group nor broadcast."""
    return 0 < address[0] < 224 and address[0] != 127


def _answer_ipv6(packet: bytes, mtu: int) -> bytes | None:
    source, destination = packet[8:24], packet[24:40]
    if source[0] == 0xFF or destination[0] == 0xFF or not any(source):
        return None
    protocol, offset, later_fragment = find_ipv6_upper(packet)
    if later_fragment:
        return None
    if protocol == IPPROTO_ICMPV6 and packet[offset : offset + 1] < b"\x80":
        return None
    quote = packet[: MAX_ICMPV6 - IPV6_HLEN - ICMP_HLEN]
    message = b"\x02\0\0\0" + mtu.to_bytes(4, "big") + quote
    return icmpv6(destination, source, message)


# -- fragments ---------------------------------------------------------------------


def fragment_ipv4(frame: bytes, inner: Inner, mtu: int) -> list[bytes]:
    """The frame as frames whose IPv4 packets fit `mtu` (RFC 791, section 3.2).

    An empty list where that cannot be done: DF, a header that is malformed or
    leaves no room for 8 bytes of payload.
    """
    packet = frame[inner.l3 :]
    header_length, total = (packet[0] & 0x0F) * 4, int.from_bytes(packet[2:4], "big")
    field = int.from_bytes(packet[6:8], "big")
    room = (mtu - header_length) // 8 * 8
    if field & _DF or not IPV4_HLEN <= header_length <= total <= len(packet) or room < 8:
        return []
    if (field & _OFFSET) * 8 + total - header_length > 65535:
        return []
    payload = packet[header_length:total]
    link, first = frame[: inner.l3], packet[:header_length]
    later = first[:IPV4_HLEN] + _copied_options(first[IPV4_HLEN:])
    return [
        link + _fragment(later if at else first, payload, at, room, field)
        for at in range(0, len(payload), room)
    ]


def _fragment(header: bytes, payload: bytes, at: int, room: int, field: int) -> bytes:
    part = payload[at : at + room]
    more = _MF if at + room < len(payload) else field & _MF
    made = bytearray(header)
    made[0] = 0x40 | len(header) // 4
    made[2:4] = (len(header) + len(part)).to_bytes(2, "big")
    made[6:8] = (field & ~(_MF | _OFFSET) | more | (field & _OFFSET) + at // 8).to_bytes(2, "big")
    made[10:12] = b"\0\0"
    made[10:12] = checksum(bytes(made)).to_bytes(2, "big")
    return bytes(made) + part


def _copied_options(options: bytes) -> bytes:
    """The options that every fragment carries: those with the copied flag."""
    kept, at = b"", 0
    while at < len(options) and options[at] != 0:
        length = 1 if options[at] == 1 else options[at + 1] if at + 1 < len(options) else 0
        if not length or at + length > len(options):
            break
        if options[at] & _COPIED:
            kept += options[at : at + length]
        at += length
    return kept + bytes(-len(kept) % 4)
