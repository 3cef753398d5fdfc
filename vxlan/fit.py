"""Making a frame fit the path: passed on, clamped, fragmented inside, or answered.

Theory of operation
===================

`limit` is the longest inner packet that reaches all the targets of a frame:

    limit = min(overlay MTU, room of the narrowest path) - tags

    fits, and is a SYN of TCP    its MSS is clamped          (vxlan/clamp.py)
    fits                         nothing
    too big, IPv4 without DF     fragments                   (vxlan/toobig.py)
    too big, otherwise           PKT_TOO_BIG, and an answer, or an event

So a frame either leaves unchanged, clamped or fragmented, or is answered and
counted.  Nothing that is too big disappears without a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vxlan.clamp import clamp_mss, may_be_syn
from vxlan.drop import Count, Drop
from vxlan.event import Event, EventKind
from vxlan.fdb import Remote
from vxlan.segment import Segment
from vxlan.toobig import fragment_ipv4, too_big_answer
from vxlan.wire import Inner, ethertype_at

EVENT_GAP = 1.0
"""Seconds between two events that tell of frames that were too big."""


def limit_of(segment: Segment, l3: int, targets: Iterable[Remote], rooms: Mapping[str, int]) -> int:
    """The longest inner packet, bytes, that reaches all targets.

    `l3` is where the packet begins in its frame, so that tags are counted; `rooms`
    has the longest inner frame for each underlay address whose path is known.
    """
    room = segment.max_frame
    for remote in targets:
        room = min(room, rooms.get(remote.address, room))
    return min(segment.policy.mtu, room - l3)


def clamped(
    segment: Segment, frame: bytes, targets: Iterable[Remote], rooms: Mapping[str, int]
) -> bytes:
    """The frame, its MSS lowered to what fits the targets, if the segment wants that."""
    mss = segment.policy.mss
    if mss == "off" or not may_be_syn(frame):
        return frame
    limit = limit_of(segment, ethertype_at(frame)[1], targets, rooms)
    passed = clamp_mss(frame, limit, None if mss == "clamp" else mss)
    if passed is not frame:
        segment.tally.count(Count.CLAMPED)
    return passed


def fragments(segment: Segment, frame: bytes, inner: Inner, limit: int) -> list[bytes]:
    """Frames that fit and carry what did not; empty where that cannot be."""
    if inner.version != 4:
        return []
    parts = fragment_ipv4(frame, inner, limit)
    if parts:
        segment.tally.count(Count.FRAGMENTED)
    return parts


def refuse(segment: Segment, frame: bytes, inner: Inner, limit: int, now: float) -> bytes | None:
    """Count a frame that does not fit; the answer to its sender, where there is one."""
    segment.tally.drop(Drop.PKT_TOO_BIG)
    answer = too_big_answer(frame, inner, limit)
    if answer is not None and segment.answers.take(now):
        segment.tally.count(Count.TOO_BIG_ANSWERED)
        return answer
    if now - segment.too_big_told >= EVENT_GAP:
        segment.too_big_told = now
        told = f"{len(frame) - inner.l3} bytes, {limit} fit, and no answer could be given"
        segment.log.put(Event(EventKind.TOO_BIG, now, segment.vni, frame[6:12], detail=told))
    return None
