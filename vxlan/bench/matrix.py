"""The run: overlays x tests, in rounds in which the overlays take turns.

The worlds come one after the other (each kind of cable has its own), and within one
world all overlays stand side by side.  A round runs every test on every overlay, one
sample at a time, so nothing else of ours is busy while one is taken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from vxlan.bench import load, method
from vxlan.bench.generator import LoadError
from vxlan.bench.load import Sample
from vxlan.bench.overlays import OVERLAYS
from vxlan.bench.world import BUILD_ERRORS, Kind, Site, why_not
from vxlan.lab import Lab
from vxlan.lab.topology import undisturbed

FIRST_OVERHEAD = 0.15
"""Seconds that a sample takes besides its traffic, until it was seen."""

Progress = Callable[[str, float], None]
"""What is done now, and which part of the run is behind us, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run.  `budget` bounds the whole run, in seconds; None: `seconds` each.

    Where the time is up before all rounds are, as on a busy machine, there are fewer.
    """

    overlays: tuple[str, ...]
    tests: tuple[str, ...]
    kinds: tuple[Kind, ...] = (Kind(),)
    rounds: int = 5
    seconds: float = 1.0
    budget: float | None = None


class Key(NamedTuple):
    """What one list of samples belongs to."""

    kind: Kind
    overlay: str
    test: str


@dataclass(slots=True)
class Results:
    """Samples by round (None: it failed), and why what is missing is missing."""

    settings: Settings
    samples: dict[Key, list[Sample | None]] = field(default_factory=dict)
    reasons: dict[tuple[Kind, str], str] = field(default_factory=dict)
    failures: dict[Key, str] = field(default_factory=dict)
    finished: dict[Kind, int] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def rounds(self) -> int:
        """How many rounds were finished of each kind of cable."""
        return min((self.finished.get(kind, 0) for kind in self.settings.kinds), default=0)

    def take(self, key: Key, sample: Sample | None, why: str = "") -> None:
        """Note one sample, or why there is none."""
        self.samples.setdefault(key, []).append(sample)
        if sample is None:
            self.failures[key] = why


class World:
    """All overlays of one kind of cable; a context manager."""

    def __init__(self, kind: Kind, names: Sequence[str]) -> None:
        self.kind, self.names = kind, names
        self.sites: dict[str, Site] = {}
        self.reasons: dict[str, str] = {}
        self._all: list[Site] = []

    def __enter__(self) -> World:
        self._lab = Lab("bench").__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            try:
                for site in self._all:
                    site.close()
            finally:
                self._lab.close()

    def build(self, name: str) -> None:
        """Build one overlay; if it cannot be, `reasons` says why."""
        overlay = OVERLAYS[name]
        if why := overlay.missing():
            self.reasons[name] = why
            return
        try:
            site = Site(self._lab, f"o{len(self._all)}", self.kind)
            self._all.append(site)
            overlay.build(site)
            site.open_ends()
        except LoadError as error:
            self.reasons[name] = f"it stands, but nothing passes: {error}"
            self._drop()
        except BUILD_ERRORS as error:
            self.reasons[name] = why_not(error)
            self._drop()
        else:
            self.sites[name] = site

    def _drop(self) -> None:
        """What was built of an overlay that does not work must not run beside the others."""
        site = self._all[-1]
        for node in self._lab.nodes:
            if node.name.startswith(site.hosts_named):
                node.stop()
        site.close()

    def ours(self) -> set[int]:
        """Pids that belong to the measurement."""
        pids = {os.getpid()}
        for site in self.sites.values():
            pids.update(site.agents, site.vteps)
        return pids


class Run:
    """One run of the matrix."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings, self._progress = settings, progress
        self.results = Results(settings)
        self._total = (
            len(settings.kinds) * len(settings.overlays) * len(settings.tests) * settings.rounds
        )
        self._done = 0
        self._began = time.monotonic()
        self._overhead = FIRST_OVERHEAD
        self._round_took = 0.0

    def run(self) -> Results:
        """Everything; Ctrl-C ends it early with what there is, and leaves nothing behind."""
        with suppress(KeyboardInterrupt):
            for number, kind in enumerate(self.settings.kinds, start=1):
                self._run_kind(kind, number / len(self.settings.kinds))
            return self.results
        self.results.interrupted = True
        return self.results

    def _run_kind(self, kind: Kind, part: float) -> None:
        """All rounds of one kind of cable, while `part` of the budget is not used up."""
        with World(kind, self.settings.overlays) as world:
            for name in self.settings.overlays:
                self._tell(f"{kind}: building {name}")
                world.build(name)
            for name, why in world.reasons.items():
                self.results.reasons[kind, name] = why
            self._total -= len(world.reasons) * len(self.settings.tests) * self.settings.rounds
            for round_ in range(self.settings.rounds):
                if round_ and self._late(part):
                    break
                self._run_round(world, round_)
                self.results.finished[kind] = round_ + 1

    def _late(self, part: float) -> bool:
        """Whether another round as long as the last one would not end in time."""
        budget = self.settings.budget
        after = time.monotonic() - self._began + self._round_took
        return budget is not None and after > part * budget

    def _run_round(self, world: World, round_: int) -> None:
        seconds = self._seconds()
        began, count = time.monotonic(), 0
        for name in self.settings.tests:
            for overlay in method.turns(tuple(world.sites), round_):
                self._tell(f"{world.kind}: round {round_ + 1}, {name}, {overlay}")
                self._sample(world, Key(world.kind, overlay, name), seconds)
                count += 1
        self._round_took = time.monotonic() - began
        if count:
            self._overhead = max(self._round_took / count - seconds, 0.0)

    def _sample(self, world: World, key: Key, seconds: float) -> None:
        site = world.sites[key.overlay]
        try:
            test = load.TESTS[key.test]
            sample = load.measure(test, site.ends, seconds, site.vteps, world.ours())
            self.results.take(key, sample)
        except LoadError as error:
            self.results.take(key, None, str(error))
        self._done += 1

    def _seconds(self) -> float:
        if self.settings.budget is None:
            return self.settings.seconds
        left = self.settings.budget - (time.monotonic() - self._began)
        fits = method.seconds_for_each(left, self._total - self._done, self._overhead)
        return min(fits, self.settings.seconds)

    def _tell(self, text: str) -> None:
        self._progress(text, self._done / max(self._total, 1))
