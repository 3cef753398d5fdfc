"""Faults in the Python engine: put between it and its underlay, and their clock.

Theory of operation
===================

    no fault     _underlay is the Underlay that `start` was given
    a fault      _underlay is a FaultInjector around it        vxlan/middleware.py

The engine sends and receives through `_underlay` and knows no more, so a node without
faults does not even ask whether there are any.  What is held back comes out by `_ring`,
which an alarm of the event loop calls at the time that vxlan/faults.py named.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop, Handle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vxlan.drop import Drop
from vxlan.engine import Datagram, FaultRefused, FaultState
from vxlan.fault import Fault, vni_of
from vxlan.faults import Faults, Way
from vxlan.fdb import Remote
from vxlan.middleware import FaultInjector, UnderlayPort
from vxlan.recorder import Recorder, tell_sent
from vxlan.vtep import Vtep
from vxlan.watched import tell_decap

if TYPE_CHECKING:
    from vxlan.underlay import Underlay


class Injecting:
    """The part of PythonEngine that injects faults; the surroundings of `Faults`."""

    vtep: Vtep
    _loop: AbstractEventLoop
    _underlay: UnderlayPort
    _recorder: Recorder | None
    _source_port: Callable[[Datagram], int]

    def __init__(self) -> None:
        self._faults = Faults(self)
        self._injector: FaultInjector | None = None
        self._alarm: Handle | None = None
        self._alarm_due = 0.0

    # -- the Engine contract ------------------------------------------------------------

    def fault_add(self, fault: Fault, now: float) -> int:
        if self._injector is None:
            raise FaultRefused("the engine does not run: faults begin after its start")
        if fault.source and fault.side != "decap":
            self._injector.open_forger(fault.source)
        number = self._faults.add(fault, now)
        self._underlay = self._injector
        return number

    def fault_clear(self, number: int | None) -> int:
        cleared = self._faults.clear(number)
        self._step_aside()
        return cleared

    def faults(self) -> list[FaultState]:
        return self._faults.states()

    # -- the surroundings of faults -----------------------------------------------------

    def lose(self, side: Way, datagram: Datagram) -> None:
        vni = vni_of(datagram.payload)
        segment = None if vni is None else self.vtep.segments.get(vni)
        (segment or self.vtep).tally.drop(Drop.FAULT_INJECTED, datagram.remote.address)
        if self._recorder is None:
            return
        if side == "decap":
            tell_decap(self._recorder, datagram, Drop.FAULT_INJECTED)
        else:
            lost = (datagram, Drop.FAULT_INJECTED)
            tell_sent(self._recorder, self._source_port, [datagram], [lost])

    def lose_icmp(self, address: str) -> None:
        self.vtep.tally.drop(Drop.FAULT_INJECTED, address)

    def flooded(self, vni: int) -> Sequence[Remote]:
        segment = self.vtep.segments.get(vni)
        return segment.flood_list if segment is not None else ()

    def wake(self, due: float) -> None:
        """Ring at the earliest of the times that are asked for."""
        if self._alarm is None or due < self._alarm_due:
            self._silence()
            self._alarm_due = due
            self._alarm = self._loop.call_later(max(0.0, due - time.monotonic()), self._ring)

    # -- what a capture is told ---------------------------------------------------------

    def _tell_sent(
        self, datagrams: Sequence[Datagram], refused: Sequence[tuple[Datagram, Drop]]
    ) -> None:
        """Of what was to be sent, as it was after all faults."""
        if self._recorder is None:
            return
        if self._injector is not None and self._underlay is self._injector:
            datagrams = self._injector.passed
        tell_sent(self._recorder, self._source_port, datagrams, refused)

    # -- in the loop ---------------------------------------------------------------------

    def _start_faults(self, underlay: Underlay) -> None:
        self._underlay = underlay
        self._injector = FaultInjector(underlay, self._faults)

    def _stop_faults(self) -> None:
        self._silence()
        if self._injector is not None:
            self._injector.close()
            self._injector = None

    def _step_aside(self) -> None:
        """Out of the way when nothing is to be done any more."""
        if self._injector is not None and not self._faults:
            self._injector.close()
            self._underlay = self._injector.port

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        if self._injector is None:
            return
        now = time.monotonic()
        arrived, refused = self._injector.release(now)
        self._tell_sent((), refused)
        for datagram, why in refused:
            self._refused_late(datagram, why, now)
        for datagram in arrived:
            self._take([datagram], now)
        self._read_errors()
        self._flush()
        self._report()
        self._step_aside()

    def _refused_late(self, datagram: Datagram, why: Drop, now: float) -> None:
        vni = vni_of(datagram.payload)
        if vni is not None and vni in self.vtep.segments:
            self._refused(vni, datagram.remote, why, now)

    # -- what the engine has -------------------------------------------------------------

    def _take(self, datagrams: Sequence[Datagram], now: float) -> None:
        raise NotImplementedError

    def _refused(self, vni: int, remote: Remote, why: Drop, now: float) -> None:
        raise NotImplementedError

    def _read_errors(self) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        raise NotImplementedError

    def _report(self) -> None:
        raise NotImplementedError
