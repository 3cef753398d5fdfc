"""Sightings of packets at many interfaces become journeys of one packet each.

Theory of operation
===================

    c1/eth0 out     a/vxlan42 out     a/eth0 out     b/eth0 in     b/vxlan42 in     c2/eth0 in
    rank 0          1                 2              5             6                7
                                      a/eth0 out     c/eth0 in     c/vxlan42 in     c3/eth0 in

All sightings with the same identity (vxlan/lab/view/identity.py) within a short time
are one journey, also where it branches because a VTEP sends a copy to each remote.  The
rank of a stop says how far along it is; the predecessor of a sighting is the nearest
earlier one that it can have come from.

A sighting that a journey has already (same stop, direction and outer receiver) is
another packet that looks the same, and begins a journey of its own.  A journey of which
nothing was seen for `QUIET` seconds is complete; a late sighting opens it again while it
is remembered, so a packet that the underlay delays is still one packet.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vxlan import wire
from vxlan.lab.view.identity import Outer, identity, outer_of, routed_identity
from vxlan.lab.view.scene import Stop

QUIET = 0.3
"""Seconds after which a journey is over."""

REMEMBERED = 3.0
"""Seconds for which a late sighting still belongs to it."""

MOST_JOURNEYS = 96
"""Journeys that are remembered."""

MOST_NEW = 8
"""New journeys in one batch, in the overlay and in the underlay; more are skipped, and counted."""

MOST_STEPS = 64
"""Steps of one journey: a broadcast to many hosts takes three for each."""

Direction = Literal["in", "out"]

_RANKS: dict[tuple[str, Direction], int] = {
    ("station", "out"): 0,
    ("tap", "out"): 1,
    ("underlay", "out"): 2,
    ("router", "in"): 3,
    ("router", "out"): 4,
    ("underlay", "in"): 5,
    ("tap", "in"): 6,
    ("station", "in"): 7,
}


class Sighting(NamedTuple):
    """A frame that passed a stop; `when` in seconds since 1970."""

    stop: Stop
    direction: Direction
    when: float
    frame: bytes


@dataclass(frozen=True)
class Step:
    """One sighting of a journey; `before` is the number of the step that it came from."""

    stop: Stop
    direction: Direction
    when: float
    frame: bytes
    outer: Outer | None
    before: int | None

    @property
    def port(self) -> int:
        """Behind which UDP port there is VXLAN in it."""
        return self.outer.port if self.outer else wire.DSTPORT

    @property
    def rank(self) -> int:
        """How far along the way its stop is."""
        return _RANKS[self.stop.kind, self.direction]


@dataclass
class Journey:
    """One packet and its copies."""

    number: int
    key: bytes
    overlay: bool
    steps: list[Step] = field(default_factory=list)
    done: bool = False

    @property
    def last(self) -> float:
        """When it was seen last."""
        return max(step.when for step in self.steps)

    def has(self, sighting: Sighting, outer: Outer | None) -> bool:
        """Whether a sighting would be the second of its kind."""
        to = outer.destination if outer else None
        return any(
            step.stop == sighting.stop
            and step.direction == sighting.direction
            and (step.outer.destination if step.outer else None) == to
            for step in self.steps
        )

    def add(self, sighting: Sighting, outer: Outer | None) -> Step:
        """Append a step."""
        step = Step(*sighting, outer, None)
        step = Step(*sighting, outer, self._before(step))
        self.steps.append(step)
        self.done = False
        return step

    def _before(self, step: Step) -> int | None:
        """The nearest earlier step that this one can have come from."""
        fitting = [
            (earlier.rank, number)
            for number, earlier in enumerate(self.steps)
            if earlier.rank < step.rank and _leads(earlier, step)
        ]
        return max(fitting, default=(0, None))[1]


def _leads(earlier: Step, step: Step) -> bool:
    """Whether a packet can go from one stop to the other without being seen between."""
    if (step.stop.kind == "underlay" and step.direction == "in") or step.stop.kind == "router":
        if earlier.outer is None or step.outer is None:
            return earlier.rank in (2, 3, 4)
        return earlier.outer.destination == step.outer.destination
    if earlier.stop.kind == "station":
        return step.rank in (1, 7)
    return earlier.stop.owner == step.stop.owner or step.rank == 7


def _order(one: Sighting) -> tuple[float, int]:
    """By time; what one kernel does with a packet in one go has one time."""
    return one.when, _RANKS[one.stop.kind, one.direction]


class Journeys:
    """All that are under way.  `ports` are those of the VTEPs.  Not for several threads."""

    def __init__(self, ports: Container[int] = (wire.DSTPORT,)) -> None:
        self.ports = ports
        self._known: OrderedDict[int, Journey] = OrderedDict()
        self._numbers = 0
        self._fresh = Counter[bool]()
        self.skipped = 0

    def add(self, sightings: Iterable[Sighting]) -> list[Journey]:
        """Take sightings in, in the order of their time; the journeys that grew, oldest first."""
        grown: dict[int, Journey] = {}
        self._fresh.clear()
        for sighting in sorted(sightings, key=_order):
            journey = self._add(sighting)
            if journey is not None:
                grown[journey.number] = journey
        return [grown[number] for number in sorted(grown)]

    def settle(self, now: float) -> list[Journey]:
        """The journeys that are over by now and were not before; forgets old ones."""
        over = [one for one in self._known.values() if not one.done and one.last + QUIET <= now]
        for journey in over:
            journey.done = True
        for journey in [one for one in self._known.values() if one.last + REMEMBERED <= now]:
            del self._known[journey.number]
        return over

    def _add(self, sighting: Sighting) -> Journey | None:
        outer, key, overlay = self._read(sighting)
        for journey in reversed(self._known.values()):
            if journey.key == key and not journey.has(sighting, outer):
                return self._grow(journey, sighting, outer)
        if self._fresh[overlay] == MOST_NEW:
            self.skipped += 1
            return None
        self._fresh[overlay] += 1
        self._numbers += 1
        journey = self._known[self._numbers] = Journey(self._numbers, key, overlay)
        while len(self._known) > MOST_JOURNEYS:
            self._known.popitem(last=False)
        return self._grow(journey, sighting, outer)

    def _grow(self, journey: Journey, sighting: Sighting, outer: Outer | None) -> Journey | None:
        if len(journey.steps) >= MOST_STEPS:
            return None
        journey.add(sighting, outer)
        return journey

    def _read(self, sighting: Sighting) -> tuple[Outer | None, bytes, bool]:
        """Outer headers, identity, and whether it belongs to the overlay."""
        if sighting.stop.kind in ("station", "tap"):
            return None, identity(sighting.frame), True
        outer = outer_of(sighting.frame, self.ports)
        inner = outer.inner if outer else None
        if inner is not None:
            return outer, identity(inner), True
        return outer, b"underlay" + routed_identity(sighting.frame), False
