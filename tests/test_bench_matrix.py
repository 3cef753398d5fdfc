"""The run itself, on worlds that are none: rounds, time, Ctrl-C."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from vxlan.bench import load, matrix
from vxlan.bench.generator import LoadError
from vxlan.bench.load import Sample
from vxlan.bench.matrix import Key, Run, Settings
from vxlan.bench.world import Kind

WIRE, SUPER = Kind(1500, True), Kind(1500, False)


class NoWorld:
    """Builds every overlay but `tinc`."""

    def __init__(self, kind: Kind, names: tuple[str, ...]) -> None:
        self.kind, self.names = kind, names
        self.sites: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> NoWorld:
        return self

    def __exit__(self, *_: object) -> None:
        self.sites.clear()

    def build(self, name: str) -> None:
        if name == "tinc":
            self.reasons[name] = "tincd not installed"
        else:
            self.sites[name] = SimpleNamespace(ends=(), vteps=())

    def ours(self) -> set[int]:
        return set()


@pytest.fixture(autouse=True)
def no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "World", NoWorld)
    monkeypatch.setattr(load, "measure", lambda *_: Sample({"tcp-1": 1.0}))


def settings(**changed: Any) -> Settings:
    return Settings(**{"overlays": ("none", "kernel", "tinc"), "tests": ("tcp-1",), **changed})


def test_each_overlay_has_a_sample_of_each_round() -> None:
    told: list[tuple[str, float]] = []
    results = Run(settings(rounds=4), lambda text, part: told.append((text, part))).run()
    assert {key.overlay: len(samples) for key, samples in results.samples.items()} == {
        "none": 4,
        "kernel": 4,
    }
    assert results.reasons == {(Kind(), "tinc"): "tincd not installed"}
    assert results.rounds == 4
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert parts[-1] < 1.0


def test_a_failed_sample_is_none_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Sample:
        raise LoadError("nothing arrived")

    monkeypatch.setattr(load, "measure", fails)
    results = Run(settings(rounds=2), lambda *_: None).run()
    key = Key(Kind(), "kernel", "tcp-1")
    assert results.samples[key] == [None, None]
    assert results.failures[key] == "nothing arrived"


def test_a_busy_machine_gets_fewer_rounds_and_the_time_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(*_: object) -> Sample:
        time.sleep(0.02)
        return Sample({"tcp-1": 1.0})

    monkeypatch.setattr(load, "measure", slow)
    began = time.monotonic()
    some = settings(rounds=1000, kinds=(WIRE, SUPER), budget=0.3)
    results = Run(some, lambda *_: None).run()
    assert time.monotonic() - began < 5.0
    assert 1 <= results.rounds < 1000
    assert all(results.finished[kind] >= 1 for kind in (WIRE, SUPER))


def test_ctrl_c_keeps_the_rounds_that_were_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter(range(100))

    def until_interrupted(*_: object) -> Sample:
        if next(taken) == 5:
            raise KeyboardInterrupt
        return Sample({"tcp-1": 1.0})

    monkeypatch.setattr(load, "measure", until_interrupted)
    results = Run(settings(rounds=9), lambda *_: None).run()
    assert results.interrupted
    assert results.rounds == 2
    assert sum(len(samples) for samples in results.samples.values()) == 5


@pytest.mark.parametrize(
    ("trips", "told"), [(60, 2), (99, 2), (100, 3), (999, 3), (1000, 4), (9000, 4)]
)
def test_a_percentile_needs_enough_round_trips(trips: int, told: int) -> None:
    quantiles = {"0.5": 1.0, "0.9": 2.0, "0.99": 3.0, "0.999": 4.0}
    assert len(load._percentiles(quantiles, trips)) == told
