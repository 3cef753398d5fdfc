"""What a VTEP decides about one packet, and by which rule: the core, asked instead of used.

Theory of operation
===================

Nothing here decides anything.  `decide_encap` and `decide_decap` put one packet through
`Vtep.encap` and `Vtep.decap`, on a VTEP that may be thrown away (vxlan/twin.py), and
then read what happened where the core itself writes it down:

    datagrams, frames   what left
    counters            the one reason of a discard; clamped, fragmented, answered
    events              learned, moved, in conflict
    entry, limit        asked of the FDB and of vxlan/fit.py before the packet went in

`ENCAP_RULES` and `DECAP_RULES` are the two lists at the head of vxlan/vtep.py.  Of a
packet that was refused, the rules before the one that refused held, and those behind it
were not asked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vxlan import fit
from vxlan.announcement import is_announcement
from vxlan.drop import Count, Counters, Drop
from vxlan.engine import Datagram
from vxlan.event import EventKind
from vxlan.fdb import FdbEntry, Remote
from vxlan.probe import PROBE, parse_probe
from vxlan.segment import Segment
from vxlan.vtep import Vtep
from vxlan.wire import ETH_HLEN, VXLAN_HLEN, inspect, parse_vxlan

Verdict = Literal["encap", "decap", "drop", "suppress", "probe", "announcement"]
Fate = Literal["fits", "clamped", "fragmented", "answered", "unanswered"]


class Rule(NamedTuple):
    """One rule of vxlan/vtep.py, and the reasons of what it refuses; none: it refuses nothing."""

    text: str
    reasons: tuple[Drop, ...]


ENCAP_RULES = (
    Rule("an Ethernet header is there", (Drop.PKT_TOO_SMALL,)),
    Rule("the source MAC is that of one station", (Drop.MAC_INVALID_SOURCE,)),
    Rule("a tag is carried, or there is none", (Drop.VLAN_POLICY,)),
    Rule("it asks for no neighbour that is known here", ()),
    Rule("somebody is to have it", (Drop.NO_TX_TARGET,)),
    Rule("the packet fits, or can be made to", (Drop.PKT_TOO_BIG,)),
)

DECAP_RULES = (
    Rule(
        "the VXLAN header is whole, its I flag set",
        (Drop.HDR_TRUNC, Drop.VXLAN_INVALID_HDR, Drop.ANNOUNCEMENT_REFUSED),
    ),
    Rule("a segment has this VNI", (Drop.VXLAN_VNI_NOT_FOUND,)),
    Rule("the sender is not ourselves", (Drop.OWN_ADDRESS,)),
    Rule("the sender is a remote, or anybody is accepted", (Drop.UNKNOWN_REMOTE,)),
    Rule("reserved bits are zero, or ignored", (Drop.VXLAN_RESERVED_BITS,)),
    Rule("an Ethernet header is inside", (Drop.PKT_TOO_SMALL,)),
    Rule("a tag is carried, or there is none", (Drop.VLAN_POLICY,)),
    Rule("the source MAC is that of one station", (Drop.MAC_INVALID_SOURCE,)),
    Rule("and not one of our own devices", (Drop.LOCAL_MAC,)),
    Rule("congestion marks can be passed on", (Drop.IP_TUNNEL_ECN,)),
    Rule("no static entry puts the source elsewhere", (Drop.VXLAN_ENTRY_EXISTS,)),
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one packet, and why.

    side       "encap": a frame from the TAP; "decap": a datagram from the underlay
    vni        None where a datagram names none that is valid
    verdict    "suppress": a question that was answered here; "probe": it was a question
               about the path, or the answer to one; "announcement": another VTEP told
               of its stations
    drop       the reason, if the verdict is "drop"
    reason     the name of `drop`; else, in small letters, what it was that decided
    frame      the inner frame, as it came
    entry      as it was before: of the destination (encap), of the source (decap)
    targets    the remotes that were chosen (encap)
    flooded    whether those are the flood list
    limit      the longest inner packet that reaches them, bytes; None: not asked
    fate       what the MTU made of it; None: not asked.  On receipt only a SYN is clamped
    learning   "learned", "moved", "conflict", "known", "unkept" (the table has no place),
               or "off"; None: not asked
    sent       datagrams for the underlay (encap)
    delivered  the frame for the TAP (decap)
    answer     what whoever sent the frame gets: a packet-too-big, or a neighbour
    """

    side: Literal["encap", "decap"]
    vni: int | None
    verdict: Verdict
    drop: Drop | None
    reason: str
    frame: bytes
    entry: FdbEntry | None = None
    targets: tuple[Remote, ...] = ()
    flooded: bool = False
    limit: int | None = None
    fate: Fate | None = None
    learning: str | None = None
    sent: tuple[Datagram, ...] = ()
    delivered: bytes | None = None
    answer: bytes | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What was asked, in this order."""
        return ENCAP_RULES if self.side == "encap" else DECAP_RULES


def macs_of(frame: bytes) -> set[bytes]:
    """The stations whose entries a decision about this frame may need."""
    return {frame[0:6], frame[6:12]} if len(frame) >= ETH_HLEN else set()


def inner_of(datagram: Datagram) -> bytes:
    """The inner frame of a datagram, however short."""
    return datagram.payload[VXLAN_HLEN:]


# -- TAP -> underlay -------------------------------------------------------------------


def decide_encap(vtep: Vtep, vni: int, frame: bytes, now: float) -> Decision:
    """What `vtep` does with a frame from the TAP of segment `vni`.  KeyError: no such VNI."""
    segment = vtep.segments[vni]
    entry = copy.copy(segment.fdb.get(frame[0:6]))
    targets = entry.remotes if entry else segment.flood_list
    counted = segment.tally.total()
    sent = tuple(vtep.encap(vni, frame, now))
    drop, counts = _difference(counted, segment.tally.total())
    suppressed = Count.SUPPRESSED in counts
    asked = drop in (None, Drop.PKT_TOO_BIG) and not suppressed
    return Decision(
        "encap",
        vni,
        "suppress" if suppressed else "encap" if drop is None else "drop",
        drop,
        drop.name if drop is not None else _why_there(suppressed, entry),
        frame,
        entry=entry,
        targets=targets if asked else (),
        flooded=asked and entry is None,
        limit=_limit(vtep, segment, frame, targets) if asked else None,
        fate=_fate(counts, drop) if asked else None,
        sent=sent,
        answer=vtep.answers[-1].data if vtep.answers else None,
    )


def _why_there(suppressed: bool, entry: FdbEntry | None) -> str:
    return "neighbour" if suppressed else "fdb_entry" if entry else "flood_list"


def _limit(vtep: Vtep, segment: Segment, frame: bytes, targets: Iterable[Remote]) -> int:
    return fit.limit_of(segment, inspect(frame).l3, targets, vtep.paths.rooms)


def _fate(counts: set[Count], drop: Drop | None) -> Fate:
    if drop is Drop.PKT_TOO_BIG:
        return "answered" if Count.TOO_BIG_ANSWERED in counts else "unanswered"
    if Count.FRAGMENTED in counts:
        return "fragmented"
    return "clamped" if Count.CLAMPED in counts else "fits"


# -- underlay -> TAP -------------------------------------------------------------------


def decide_decap(vtep: Vtep, datagram: Datagram, now: float) -> Decision:
    """What `vtep` does with a datagram from the underlay."""
    header, frame = parse_vxlan(datagram.payload), inner_of(datagram)
    vni = header.vni if header and header.valid else None
    segment = vtep.segments.get(vni) if vni is not None else None
    entry = copy.copy(segment.fdb.get(frame[6:12])) if segment else None
    tallies = [vtep.tally, *([segment.tally] if segment else [])]
    counted = [tally.total() for tally in tallies]
    vtep.log.drain()
    taken = vtep.decap(datagram, now)
    changes = [_difference(a, b.total()) for a, b in zip(counted, tallies, strict=True)]
    drop = next((drop for drop, _ in changes if drop is not None), None)
    counts = {count for _, counts in changes for count in counts}
    learns = taken is not None or drop is _CONTRADICTED
    clamped, limit = segment is not None and Count.CLAMPED in counts, None
    if segment and clamped:
        limit = _limit(vtep, segment, frame, (segment.remote_at(datagram.remote.address),))
    return Decision(
        "decap",
        vni,
        "decap" if taken else "drop" if drop is not None else _aside(counts),
        drop,
        drop.name if drop is not None else _why_taken(segment, datagram, taken is not None),
        frame,
        entry=entry,
        limit=limit,
        fate="clamped" if clamped else None,
        learning=_learning(vtep, segment, frame[6:12]) if segment and learns else None,
        delivered=taken.data if taken else None,
    )


def _aside(counts: set[Count]) -> Verdict:
    """What is no frame of anybody."""
    return "announcement" if Count.ANNOUNCEMENTS in counts else "probe"


_CONTRADICTED = Drop.VXLAN_ENTRY_EXISTS
_LEARNING = (EventKind.LEARNED, EventKind.MOVED, EventKind.CONFLICT)


def _why_taken(segment: Segment | None, datagram: Datagram, delivered: bool) -> str:
    if delivered and segment:
        return "known_remote" if segment.knows(datagram.remote.address) else "anybody"
    if is_announcement(datagram.payload):
        return "announcement"
    probe = parse_probe(datagram.payload)
    if probe is None:
        return "echo_reply"
    return "probe" if probe.kind == PROBE else "probe_answer"


def _learning(vtep: Vtep, segment: Segment, mac: bytes) -> str:
    if not segment.policy.learning:
        return "off"
    told = [event.kind.value for event in vtep.log.drain() if event.kind in _LEARNING]
    return told[0] if told else "known" if segment.fdb.get(mac) else "unkept"


def _difference(before: Counters, after: Counters) -> tuple[Drop | None, set[Count]]:
    """The reason that was counted between the two, and what else was."""
    drops = _grown(before.drops, after.drops)
    return next((Drop(at) for at in drops), None), {
        Count(at) for at in _grown(before.counts, after.counts)
    }


def _grown(before: list[int], after: list[int]) -> Iterator[int]:
    return (at for at, (a, b) in enumerate(zip(before, after, strict=True)) if b > a)
