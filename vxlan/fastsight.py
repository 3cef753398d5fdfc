"""Captures of the compiled engine: its workers see for themselves, Python tells the rest.

Theory of operation
===================

    workers  -> a ring for each slot      fastpath/sight.pxd
    Python   -> the ring of slot 0        what it decides about, and what it sends itself

`take_captured` merges the rings by time.  Threads write down what they see a moment
later, so the youngest records may be left for the next look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address

from vxlan import _fastpath
from vxlan.drop import Drop
from vxlan.engine import Datagram
from vxlan.fdb import FdbEntry
from vxlan.recorder import NOTHING, Batch, Recorder
from vxlan.segment import Segment
from vxlan.sight import NO_FLAGS, Flag, Sight
from vxlan.watched import Difference, tell_answered, tell_decap, tell_encap

TAKEN = 1 << 20
"""Bytes of records that are taken at a time."""

_SIDES = {None: 0, "inner": 1, "outer": 2}


class RingRecorder(Recorder):
    """What Python itself decides about goes into the ring of the event loop's thread."""

    def __init__(self, core: _fastpath.Core, sight: Sight) -> None:
        super().__init__(sight, time.time_ns)
        self._core = core

    def store(self, record: bytes) -> bool:
        return _fastpath.put_seen(self._core, record)


class Watching:
    """The part of the compiled engine that is watched."""

    core: _fastpath.Core
    _recorder: Recorder | None = None

    def capture(self, wanted: Sight | None) -> None:
        if wanted is None:
            self._recorder = None
            _fastpath.see_nothing(self.core)
            return
        _fastpath.see_packets(
            self.core,
            wanted.vni,
            wanted.mac or b"",
            wanted.ip or b"",
            ip_address(wanted.remote).packed if wanted.remote else b"",
            wanted.drops,
            _SIDES[wanted.side],
            wanted.snaplen,
        )
        self._recorder = RingRecorder(self.core, wanted)

    def take_captured(self, held: float = 0.0) -> Batch:
        if self._recorder is None:
            return NOTHING
        until = time.time_ns() - int(held * 1e9)
        records, packets, lost = _fastpath.take_seen(self.core, until, TAKEN)
        return Batch(records, packets, lost + self._recorder.take().lost)

    # -- what Python decides about ---------------------------------------------------------

    def _tell_frame(
        self,
        segment: Segment,
        frame: bytes,
        entry: FdbEntry | None,
        now: float,
        decide: Callable[[], list[Datagram]],
    ) -> list[Datagram]:
        """Let `decide` say what becomes of a frame, and record that."""
        difference = Difference(None, segment.tally)
        made = decide()
        if self._recorder is not None:
            flood_list = segment.flood_list
            tell_encap(self._recorder, segment.vni, frame, entry, flood_list, difference, now)
        return made

    def _tell_answered(self, vni: int, frame: bytes) -> None:
        """Record a frame whose question was answered here."""
        if self._recorder is not None:
            tell_answered(self._recorder, vni, frame)

    def _tell_probe(self, datagram: Datagram, why: Drop | None) -> None:
        """Record a probe or an announcement; a reason: it was refused."""
        if self._recorder is not None:
            flags = Flag.OWN if why is None else NO_FLAGS
            tell_decap(self._recorder, datagram, why, flags)
