"""TCP MSS clamping: a connection is told at its start how much fits.

Theory of operation
===================

Each end of a TCP connection announces in its SYN the longest segment it wants
to receive (RFC 9293, section 3.7.1).  A container with an MTU of 1500 announces
1460, and segments of that length do not fit an overlay of 1450.  The VTEP lowers
the number in passing, in both directions, so that the two ends agree on what the
path carries without waiting for an ICMP that a container's firewall may discard:

    MSS <= overlay MTU - IP header - TCP header, both without options

It is only ever lowered, only where the option is there, and only in a segment
that is whole and well-formed; everything else passes as it is, so a SYN that was
valid stays valid.  The checksum follows by RFC 1624.

A checksum that the sender left to the network card holds only the sum of the
pseudo-header (see vxlan/offload.py).  The option is not part of that, so such a
field must stay as it is.
"""

from __future__ import annotations

from vxlan.transport import TCP_HLEN, Transport, find_transport, unfinished
from vxlan.wire import IPPROTO_TCP, checksum_update

MIN_MSS = 64
"""Below this no path can be meant; Linux does not go lower either (tcp_min_snd_mss is 48)."""

_SYN = 0x02
_OPT_END, _OPT_NOP, _OPT_MSS = 0, 1, 2
_MSS_LENGTH = 4
_CHECK_AT = 16


def may_be_syn(frame: bytes) -> bool:
    """False for nearly every frame, at a fifth of the cost of looking closely."""
    if len(frame) < 54 or frame[12] != 8 or frame[13] or frame[14] != 0x45:
        return True
    return frame[23] == IPPROTO_TCP and bool(frame[47] & _SYN)


def clamp_mss(frame: bytes, mtu: int, most: int | None = None) -> bytes:
    """The frame, its MSS lowered to what `mtu` and `most` allow if it is a SYN.

    `mtu` is the longest inner packet of the path in bytes, `most` a bound of the
    operator.  Returns the very same object where nothing has to change.
    """
    found = find_transport(frame)
    if found is None or found.protocol != IPPROTO_TCP or found.end < found.l4 + TCP_HLEN:
        return frame
    if not frame[found.l4 + 13] & _SYN:
        return frame
    limit = mtu - found.ip_header - TCP_HLEN
    limit = max(limit if most is None else min(limit, most), MIN_MSS)
    at = _mss_option(frame, found)
    if at is None or (frame[at] << 8 | frame[at + 1]) <= limit:
        return frame
    return _rewrite(frame, found, at, limit)


def _mss_option(frame: bytes, found: Transport) -> int | None:
    """The offset of the MSS value; None where there is none, or options are malformed."""
    at, end = found.l4 + TCP_HLEN, found.l4 + (frame[found.l4 + 12] >> 4) * 4
    if end > found.end:
        return None
    while at < end and frame[at] != _OPT_END:
        if frame[at] == _OPT_NOP:
            at += 1
            continue
        if at + 2 > end or frame[at + 1] < 2 or at + frame[at + 1] > end:
            return None
        if frame[at] == _OPT_MSS:
            return at + 2 if frame[at + 1] == _MSS_LENGTH else None
        at += frame[at + 1]
    return None


def _rewrite(frame: bytes, found: Transport, at: int, mss: int) -> bytes:
    changed = bytearray(frame)
    changed[at : at + 2] = mss.to_bytes(2, "big")
    if not unfinished(frame, found, _CHECK_AT):
        _update_checksum(frame, changed, found.l4 + _CHECK_AT, at, found.l4)
    return bytes(changed)


def _update_checksum(frame: bytes, changed: bytearray, check_at: int, at: int, l4: int) -> None:
    """Follow a change of two bytes at `at`, which may lie across two words of the sum."""
    check = int.from_bytes(frame[check_at : check_at + 2], "big")
    first = at - (at - l4) % 2
    for word in range(first, at + 2, 2):
        old = int.from_bytes(frame[word : word + 2], "big")
        check = checksum_update(check, old, int.from_bytes(changed[word : word + 2], "big"))
    changed[check_at : check_at + 2] = check.to_bytes(2, "big")
