"""The question of old: "VXLAN adds 10-20 % latency and takes 50-75 % of the throughput".

What an overlay adds and takes is counted against the same containers on the same cable
without any overlay, round by round.  The answer is a sentence for each way to join
containers that runs on this host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vxlan.bench import method
from vxlan.bench.load import Sample
from vxlan.bench.matrix import Key, Results
from vxlan.bench.overlays import OVERLAYS

BARE = "none"
OF = ("kernel", "fastpath", "python", "docker-bridge", "macvlan", "ipvlan-l3")
TESTS = ("tcp-1", "rr")
CLAIM = "VXLAN adds 10-20 % latency and takes 50-75 % of the throughput"
ADDED, TAKEN = (10.0, 20.0), (50.0, 75.0)


class Answer(NamedTuple):
    """For one overlay, in percent: what it adds to the round trip, what it takes of the rate.

    Each is the median of the rounds with the middle half of them, or None with `why`.
    """

    overlay: str
    added: method.Summary | None
    taken: method.Summary | None
    verdict: str
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "overlay": self.overlay,
            "latency_added_percent": _three(self.added),
            "throughput_taken_percent": _three(self.taken),
            "verdict": self.verdict,
            "why": self.why or None,
        }


def _three(found: method.Summary | None) -> Mapping[str, float] | None:
    if found is None:
        return None
    return {"median": found.median, "low": found.low, "high": found.high}


def answers(results: Results) -> list[Answer]:
    """One for each overlay that was asked for, of the first kind of cable."""
    kind = results.settings.kinds[0]
    bare = Key(kind, BARE, "")
    return [
        _answer(results, bare._replace(overlay=name), bare, results.reasons.get((kind, name), ""))
        for name in results.settings.overlays
        if name != BARE
    ]


def _answer(results: Results, own: Key, bare: Key, why: str) -> Answer:
    if why:
        return Answer(own.overlay, None, None, "cannot run", why)
    rates = _ratios(results, own, bare, "tcp-1", "tcp-1")
    trips = _ratios(results, own, bare, "rr", "rr-p50")
    if not rates or not trips:
        return Answer(own.overlay, None, None, "failed", "no traffic passed")
    verdicts = {method.verdict(ratios, ratios, _others(results, own)) for ratios in (rates, trips)}
    verdict = next(iter(verdicts - {"ok"}), "ok")
    added = method.summary([100 * (ratio - 1) for ratio in trips])
    taken = method.summary([100 * (1 - ratio) for ratio in rates])
    return Answer(own.overlay, added, taken, verdict)


def _ratios(results: Results, own: Key, bare: Key, test: str, figure: str) -> list[float]:
    def values(key: Key) -> list[float | None]:
        samples: Sequence[Sample | None] = results.samples.get(key._replace(test=test), [])
        return [sample.figures.get(figure) if sample else None for sample in samples]

    return method.ratios(values(own), values(bare))


def _others(results: Results, key: Key) -> list[float]:
    found = (results.samples.get(key._replace(test=test), []) for test in TESTS)
    return [sample.disturbance for samples in found for sample in samples if sample]


def sentence(answer: Answer) -> str:
    """The answer in words."""
    name = OVERLAYS[answer.overlay].text
    if answer.added is None or answer.taken is None:
        return f"{name}: {answer.verdict}: {answer.why}"
    said = (
        f"{name}: {_change(answer.added, 'latency', 'adds', 'saves')}, "
        f"{_change(answer.taken, 'throughput', 'takes', 'gives')}"
    )
    return said if answer.verdict == "ok" else f"{said} ({answer.verdict}: run it again)"


def _change(found: method.Summary, what: str, more: str, less: str) -> str:
    verb = more if found.median >= 0 else less
    low, high = sorted((abs(found.low), abs(found.high)))
    if found.low < 0 < found.high:
        low = 0.0
    return f"{verb} {abs(found.median):.0f} % {what} ({low:.0f} to {high:.0f})"


def conclusion(found: Sequence[Answer]) -> str:
    """Whether the claim holds for the kernel's VXLAN on this host."""
    kernel = next((one for one in found if one.overlay == "kernel"), None)
    if kernel is None or kernel.added is None or kernel.taken is None:
        return "whether it holds here is open: the kernel's driver was not measured"
    if kernel.verdict != "ok":
        return f"whether it holds here is open: {kernel.verdict}"
    latency = _place(kernel.added.median, ADDED)
    rate = _place(kernel.taken.median, TAKEN)
    return f"of the kernel's driver on this host: its latency is {latency}, its loss {rate}"


def _place(value: float, bounds: tuple[float, float]) -> str:
    low, high = bounds
    if value < low:
        return "less than claimed"
    return "as claimed" if value <= high else "more than claimed"
