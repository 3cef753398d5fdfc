"""The faults of a VTEP: which packets they hit, and what is held back.

Theory of operation
===================

    engine --- datagrams ---> pass_on("encap") --- parcels ---> underlay
    engine <-- datagrams ---- pass_on("decap") <-- parcels ---- underlay

Every datagram passes all faults in the order in which they were added.  Each may take
it away, change it, copy it or make it late.  What is late waits in a heap, `MAX_HELD`
packets at the most, and comes out of `due` when its time has come; `surroundings.wake`
is told when that is.  Nothing here sends, sleeps or reads a clock, and the dice of each
fault are its own, from its seed: the same packets give the same outcome.

A packet that a fault discards is counted like every other discard, under the reason
FAULT_INJECTED, which nothing else uses.  So an injected fault is never mistaken for a
real one.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from vxlan.engine import Datagram, FaultRefused, FaultState
from vxlan.fault import Fault, Kind, announcement
from vxlan.fdb import Remote

Way = Literal["encap", "decap"]
"""On which side a datagram passes."""

MAX_FAULTS = 32
"""Faults of one node at a time."""

MAX_HELD = 1024
"""Packets that wait at a time; one more is discarded."""

_SPOILING = frozenset((Kind.CLEAR_I, Kind.RESERVED, Kind.FORGE_MAC))
_NEXT_TO_IT = frozenset((Kind.FLAP, Kind.FILTER_ICMP))
"""Kinds that take no datagram on its way."""


class Surroundings(Protocol):
    """What faults need of the VTEP that they are in."""

    def lose(self, side: Way, datagram: Datagram) -> None:
        """A fault has discarded a datagram."""

    def lose_icmp(self, address: str) -> None:
        """A fault has discarded what was said of our datagrams to an underlay address."""

    def flooded(self, vni: int) -> Sequence[Remote]:
        """The flood list of a segment; empty where there is none."""

    def wake(self, due: float) -> None:
        """Something is to be taken out of `due` at this time, monotonic seconds."""


class Parcel(NamedTuple):
    """A datagram on its way; `due` when it goes on, `source` whom it claims to come from."""

    datagram: Datagram
    due: float
    source: str = ""


class Claim(NamedTuple):
    """What a router would say of a datagram that was too big (RFC 1191)."""

    remote: Remote
    mtu: int
    payload: bytes


@dataclass(slots=True)
class Active:
    """A fault in force: how many packets matched, and how many of them it hit."""

    number: int
    fault: Fault
    began: float
    dice: random.Random
    seen: int = 0
    hits: int = 0
    due: float = 0.0  # of the next announcement

    def strikes(self, side: Way, datagram: Datagram) -> bool:
        """Whether this datagram is hit."""
        return self.fault.takes(side, datagram) and self.roll()

    def roll(self) -> bool:
        """Count something that matches, and let the dice say whether it is hit."""
        self.seen += 1
        hit = self.fault.share >= 1 or self.dice.random() < self.fault.share
        self.hits += hit
        return hit


class Faults:
    """All faults of one VTEP."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.claims: list[Claim] = []
        self._surroundings = surroundings
        self._active: dict[int, Active] = {}
        self._held: list[tuple[float, int, Way, Parcel]] = []
        self._last = 0
        self._order = 0

    # -- which there are ---------------------------------------------------------------

    def __iter__(self) -> Iterator[Active]:
        return iter(self._active.values())

    def __bool__(self) -> bool:
        """Whether anything is to be done: a fault in force, or a packet that waits."""
        return bool(self._active or self._held or self.claims)

    def add(self, fault: Fault, now: float) -> int:
        """Begin; the number of the fault.  Raises FaultRefused when there are too many."""
        if len(self._active) >= MAX_FAULTS:
            raise FaultRefused(f"there are {MAX_FAULTS} faults already: clear some")
        self._last += 1
        active = Active(self._last, fault, now, random.Random(fault.seed), due=now)
        self._active[self._last] = active
        if fault.kind is Kind.FLAP:
            self._surroundings.wake(now)
        return self._last

    def clear(self, number: int | None) -> int:
        """End one fault or all; how many.  What waits still comes when it is due."""
        gone = [one for one in self._active if number in (None, one)]
        for one in gone:
            del self._active[one]
        return len(gone)

    def states(self) -> list[FaultState]:
        """All faults in force, for people."""
        return [FaultState(one.number, one.fault, one.began, one.seen, one.hits) for one in self]

    # -- packets -----------------------------------------------------------------------

    def pass_on(self, side: Way, datagrams: Iterable[Datagram], now: float) -> list[Parcel]:
        """What goes on at once of these datagrams, in order."""
        parcels = [Parcel(datagram, now) for datagram in datagrams]
        for active in self._active.values():
            if active.fault.kind not in _NEXT_TO_IT:
                room = MAX_HELD - len(parcels)
                after: list[Parcel] = []
                for parcel in parcels:
                    passed = self._through(active, side, parcel)
                    after += passed if room > 0 else passed[:1]
                    room -= len(passed) - 1
                parcels = after
        return [parcel for parcel in parcels if not self._hold(side, parcel, now)]

    def _through(self, active: Active, side: Way, parcel: Parcel) -> tuple[Parcel, ...]:
        if not active.strikes(side, parcel.datagram):
            return (parcel,)
        fault, datagram = active.fault, parcel.datagram
        if fault.kind is Kind.DUPLICATE:
            return (parcel, parcel)
        if fault.kind in (Kind.DELAY, Kind.REORDER):
            return (parcel._replace(due=parcel.due + fault.delay),)
        if fault.kind in _SPOILING:
            changed = datagram._replace(payload=fault.spoil(datagram.payload))
            return (parcel._replace(datagram=changed),)
        if fault.kind is Kind.FORGE_SOURCE:
            return (_forged(parcel, side, fault.source),)
        if fault.icmp and side == "encap":
            self._claim(datagram, fault.mtu, parcel.due)
        self._surroundings.lose(side, datagram)
        return ()

    def _claim(self, datagram: Datagram, mtu: int, now: float) -> None:
        """Let the sender hear of it, as from a router on the way."""
        if len(self.claims) < MAX_HELD:
            self.claims.append(Claim(datagram.remote, mtu, datagram.payload))
            self._surroundings.wake(now)

    def _hold(self, side: Way, parcel: Parcel, now: float) -> bool:
        """Whether a parcel does not go on now: it waits, or found no room to wait."""
        if parcel.due <= now:
            return False
        if len(self._held) >= MAX_HELD:
            self._surroundings.lose(side, parcel.datagram)
            return True
        self._order += 1
        heapq.heappush(self._held, (parcel.due, self._order, side, parcel))
        self._surroundings.wake(self._held[0][0])
        return True

    # -- time --------------------------------------------------------------------------

    def due(self, now: float) -> tuple[list[Parcel], list[Parcel]]:
        """What is to go on now: (towards the underlay, from it)."""
        out = [parcel for active in self for parcel in self._announce(active, now)]
        arrived: list[Parcel] = []
        while self._held and self._held[0][0] <= now:
            _, _, side, parcel = heapq.heappop(self._held)
            (out if side == "encap" else arrived).append(parcel)
        if self._held:
            self._surroundings.wake(self._held[0][0])
        return out, arrived

    def _announce(self, active: Active, now: float) -> list[Parcel]:
        fault = active.fault
        if fault.kind is not Kind.FLAP or fault.vni is None:
            return []
        hit = active.due <= now and active.roll()
        if active.due <= now:
            active.due = now + fault.period
        self._surroundings.wake(active.due)
        if not hit:
            return []
        payload = announcement(fault.vni, fault.as_mac)
        return [
            Parcel(Datagram(remote, payload), now, fault.source)
            for remote in self._surroundings.flooded(fault.vni)
            if fault.remote in (None, remote.address)
        ]

    # -- ICMP --------------------------------------------------------------------------

    def filters(self, address: str) -> bool:
        """Whether what a router says of our datagrams to an address is to be lost."""
        filtering = (one for one in self if one.fault.kind is Kind.FILTER_ICMP)
        for active in filtering:
            if active.fault.remote in (None, address) and active.roll():
                self._surroundings.lose_icmp(address)
                return True
        return False


def _forged(parcel: Parcel, side: Way, source: str) -> Parcel:
    if side == "encap":
        return parcel._replace(source=source)
    datagram = parcel.datagram
    return parcel._replace(datagram=datagram._replace(remote=Remote(source, datagram.remote.port)))
