"""A VTEP that is watched: the same two questions, and a record of each answer.

Theory of operation
===================

`encap` and `decap` are those of `Vtep` (vxlan/vtep.py), which is asked and decides as
ever.  What it decided is read from the counters: each discard is counted under one
reason, so the counter that went up while a packet was looked at is the packet's reason.
A capture therefore cannot tell another story than `pyvxlan show`.

An engine that is not watched does not pass through here.  The compiled engine uses
`tell_encap` and `tell_decap` for what it leaves to Python.
"""

from __future__ import annotations

from vxlan.drop import Count, Counters, Drop, Tally
from vxlan.engine import Datagram, Frame
from vxlan.fdb import FdbEntry, Remote
from vxlan.recorder import Recorder, how_found
from vxlan.sight import NO_FLAGS, Flag, Seen, Where, vni_of
from vxlan.vtep import Vtep
from vxlan.wire import VXLAN_HLEN

_NOTHING = Counters()
_OWN = (Count.PROBES, Count.ANNOUNCEMENTS)
_TARGETED = (None, Drop.PKT_TOO_BIG)
"""What is decided when it is known whom a frame goes to."""


class Difference:
    """What goes up in some counters, of one underlay address (None: local), from now on."""

    def __init__(self, address: str | None, *tallies: Tally) -> None:
        self._address = address
        self._tallies = tallies
        self._before = [(list(one.drops), list(one.counts)) for one in self._counters()]

    def _counters(self) -> list[Counters]:
        """Without making any: who is only looked at is not counted apart."""
        if self._address is None:
            return [tally.local for tally in self._tallies]
        own = [tally.by_remote.get(self._address, _NOTHING) for tally in self._tallies]
        return own + [tally.other for tally in self._tallies]

    def reason(self) -> Drop | None:
        """The discard that was counted."""
        for now, (drops, _) in zip(self._counters(), self._before, strict=True):
            if now.drops != drops:
                return next(why for why in Drop if now.drops[why] != drops[why])
        return None

    def counted(self, which: Count) -> bool:
        """Whether something else was."""
        pairs = zip(self._counters(), self._before, strict=True)
        return any(now.counts[which] != counts[which] for now, (_, counts) in pairs)


class WatchedVtep:
    """`encap` and `decap` of a `Vtep`, which a `Recorder` is told of."""

    def __init__(self, vtep: Vtep, recorder: Recorder) -> None:
        self._vtep = vtep
        self._recorder = recorder

    def encap(self, vni: int, frame: bytes, now: float) -> list[Datagram]:
        """As Vtep.encap."""
        segment = self._vtep.segments[vni]
        difference = Difference(None, segment.tally)
        made = self._vtep.encap(vni, frame, now)
        entry = segment.fdb.get(frame[0:6])
        tell_encap(self._recorder, vni, frame, entry, segment.flood_list, difference, now)
        return made

    def decap(self, datagram: Datagram, now: float) -> Frame | None:
        """As Vtep.decap."""
        vtep, source = self._vtep, datagram.remote.address
        vni = vni_of(datagram.payload)
        segment = vtep.segments.get(vni) if vni is not None else None
        tallies = (vtep.tally, segment.tally) if segment else (vtep.tally,)
        difference = Difference(source, *tallies)
        frame = vtep.decap(datagram, now)
        changed = frame is not None and frame.data != datagram.payload[VXLAN_HLEN:]
        own = vni is None and any(map(difference.counted, _OWN))
        flags = Flag.CHANGED if changed else Flag.OWN if own else NO_FLAGS
        tell_decap(self._recorder, datagram, difference.reason(), flags)
        return frame


def tell_encap(
    recorder: Recorder,
    vni: int,
    frame: bytes,
    entry: FdbEntry | None,
    flood_list: tuple[Remote, ...],
    difference: Difference,
    now: float,
) -> None:
    """Record a frame from a TAP; `entry` is its destination's."""
    reason = difference.reason()
    if reason is None and recorder.sight.drops:
        return
    if difference.counted(Count.SUPPRESSED):
        tell_answered(recorder, vni, frame)
        return
    seen = Seen(Where.TAP_IN, frame, len(frame), vni=vni, reason=reason, targets=0)
    targets = entry.remotes if entry else flood_list
    if reason in _TARGETED and targets:
        found, age = how_found(entry, now)
        seen = seen._replace(remote=targets[0], targets=len(targets), found=found, age=age)
        flags = _flags(difference)
        recorder.put(seen._replace(flags=flags), targets)
    else:
        recorder.put(seen)


def tell_answered(recorder: Recorder, vni: int, frame: bytes) -> None:
    """Record a frame that asked for a neighbour, and was answered here."""
    flags = Flag.SUPPRESSED
    recorder.put(Seen(Where.TAP_IN, frame, len(frame), vni=vni, targets=0, flags=flags))


def _flags(difference: Difference) -> Flag:
    flags = NO_FLAGS
    for which, flag in (
        (Count.CLAMPED, Flag.CHANGED),
        (Count.FRAGMENTED, Flag.FRAGMENTED),
        (Count.TOO_BIG_ANSWERED, Flag.ANSWERED),
    ):
        if difference.counted(which):
            flags |= flag
    return flags


def tell_decap(
    recorder: Recorder, datagram: Datagram, reason: Drop | None, flags: Flag = NO_FLAGS
) -> None:
    """Record a datagram from the underlay."""
    if reason is None and recorder.sight.drops:
        return
    payload = datagram.payload
    recorder.put(
        Seen(
            Where.UNDERLAY_IN, payload, len(payload), vni=vni_of(payload), reason=reason,
            remote=datagram.remote, flags=flags, tos=datagram.tos,
        )
    )  # fmt: skip
