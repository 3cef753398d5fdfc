"""Results as rows, and rows as Markdown.  Scripts rely on the keys of a row.

    overlay, test, mtu, wire   which figure of what (wire: every datagram a real packet)
    unit, better               "more" or "less"
    median, low, high          of the rounds; low and high hold the middle half
    ratio_to_kernel            median of the ratios round by round, 1 for the kernel itself;
                               null where there is nothing to divide by, and for a loss
    ratio_low, ratio_high      the middle half of these ratios
    rounds, ratios             the values themselves
    others, steal              parts of the machine, 0 to 1, median of the rounds: what was not ours
                               to use, and what the hypervisor took of that
    mhz                        how fast the cores ran behind each sample; 0 where that is not told
    verdict                    "ok", "too noisy", "failed", "cannot run"
    why                        for the last two

An overlay that cannot run is one row with `test` and the figures null.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from vxlan import __version__
from vxlan.bench import method, noise
from vxlan.bench.generator import GENERATOR
from vxlan.bench.load import FIGURES, Figure, Sample
from vxlan.bench.matrix import Key, Results
from vxlan.bench.overlays import BASE
from vxlan.bench.world import Kind

Row = dict[str, Any]

VERSION = 1


def as_dict(results: Results, command: str) -> dict[str, Any]:
    """All that `--json` prints."""
    settings = results.settings
    return {
        "version": VERSION,
        "pyvxlan": __version__,
        "command": command,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": noise.machine(),
        "generator": GENERATOR,
        "rounds": settings.rounds,
        "rounds_finished": results.rounds,
        "interrupted": results.interrupted,
        "rows": rows(results),
        "latency": list(_latencies(results)),
    }


def rows(results: Results) -> list[Row]:
    """One row for each figure, and one for each overlay that could not run."""
    found = [row for key in results.samples for row in _rows_of(results, key)]
    found += [_absent(kind, name, why) for (kind, name), why in results.reasons.items()]
    return found


def _rows_of(results: Results, key: Key) -> Iterator[Row]:
    samples = results.samples[key]
    base = results.samples.get(key._replace(overlay=BASE), [])
    names = {name: None for sample in samples if sample for name in sample.figures}
    for name in names:
        yield _row(key, name, samples, base, results.failures.get(key))
    if not names:
        yield _failed(key, results.failures.get(key, "not measured"))


def _row(
    key: Key,
    name: str,
    samples: Sequence[Sample | None],
    base: Sequence[Sample | None],
    why: str | None,
) -> Row:
    own = [sample.figures.get(name) if sample else None for sample in samples]
    theirs = [sample.figures.get(name) if sample else None for sample in base]
    values = [value for value in own if value is not None]
    compared = [] if FIGURES[name].unit == "%" else method.ratios(own, theirs)
    disturbed = [sample.disturbance for sample in samples if sample]
    verdict = method.verdict(values, () if key.overlay == BASE else compared, disturbed)
    return {
        **_head(key.kind, key.overlay, name, FIGURES[name]),
        **_three("median", "low", "high", method.summary(values)),
        **_three("ratio_to_kernel", "ratio_low", "ratio_high", method.summary(compared)),
        "rounds": values,
        "ratios": compared,
        "others": median(disturbed),
        "steal": median(sample.stolen for sample in samples if sample),
        "mhz": median(sample.mhz for sample in samples if sample),
        "verdict": verdict,
        "why": why,
    }


def _three(middle: str, low: str, high: str, found: method.Summary | None) -> Row:
    if found is None:
        return dict.fromkeys((middle, low, high))
    return {middle: found.median, low: found.low, high: found.high}


def _head(kind: Kind, overlay: str, test: str | None, figure: Figure | None) -> Row:
    return {
        "overlay": overlay,
        "test": test,
        "mtu": kind.mtu,
        "wire": kind.wire,
        "unit": figure.unit if figure else None,
        "better": figure.better if figure else None,
    }


_NOTHING = dict.fromkeys(
    (
        *("median", "low", "high", "ratio_to_kernel", "ratio_low", "ratio_high"),
        *("others", "steal", "mhz"),
    )
)


def _absent(kind: Kind, name: str, why: str) -> Row:
    lists: Row = {"rounds": [], "ratios": []}
    return {**_head(kind, name, None, None), **_NOTHING, **lists} | {
        "verdict": "cannot run",
        "why": why,
    }


def _failed(key: Key, why: str) -> Row:
    figure = FIGURES.get(key.test)
    lists: Row = {"rounds": [], "ratios": []}
    return {**_head(key.kind, key.overlay, key.test, figure), **_NOTHING, **lists} | {
        "verdict": "failed",
        "why": why,
    }


def _latencies(results: Results) -> Iterator[dict[str, Any]]:
    """The distribution of round trips, for plots: median over the rounds of each quantile."""
    for key, samples in results.samples.items():
        found = [sample.detail for sample in samples if sample and "quantiles" in sample.detail]
        if found:
            yield {
                "overlay": key.overlay,
                "mtu": key.kind.mtu,
                "wire": key.kind.wire,
                "quantiles": {
                    q: median(one["quantiles"][q] for one in found) for q in found[0]["quantiles"]
                },
                "histogram": _added(one["histogram"] for one in found),
            }


def _added(histograms: Iterable[list[list[float]]]) -> list[list[float]]:
    total: dict[float, float] = {}
    for histogram in histograms:
        for bound, count in histogram:
            total[bound] = total.get(bound, 0) + count
    return [[bound, total[bound]] for bound in sorted(total)]


# -- for people -----------------------------------------------------------------------------

TITLES = ("test", "overlay", "median", "", "middle half", "to kernel", "middle half", "verdict")

RIGHT = ("median", "to kernel")


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One row in words, in the order of TITLES."""
    noisy = row["verdict"] == "too noisy"
    ratio = "" if row["ratio_to_kernel"] is None else f"{row['ratio_to_kernel']:.2f}"
    return (
        row["test"] or "all",
        row["overlay"],
        digits(row["median"]),
        row["unit"] or "",
        span(row["low"], row["high"]),
        "?" if noisy and ratio else ratio,
        span(row["ratio_low"], row["ratio_high"], 2),
        row["verdict"] if not row["why"] else f"{row['verdict']}: {row['why']}",
    )


def digits(value: float | None, places: int | None = None) -> str:
    """About three digits that mean something."""
    if value is None:
        return ""
    if places is None:
        places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f}"


def span(low: float | None, high: float | None, places: int | None = None) -> str:
    """ "3.1 to 3.4"."""
    if low is None or high is None:
        return ""
    return f"{digits(low, places)} to {digits(high, places)}"


def groups(found: Sequence[Row]) -> Iterator[tuple[Kind, list[Row]]]:
    """The rows of each kind of cable, by test, then in the order in which they ran."""
    kinds = list(dict.fromkeys(Kind(row["mtu"], row["wire"]) for row in found))
    order = list(FIGURES)
    for kind in kinds:
        chosen = [row for row in found if (row["mtu"], row["wire"]) == kind]
        chosen.sort(key=lambda r: order.index(r["test"]) if r["test"] in order else len(order))
        yield kind, chosen


def markdown(result: Mapping[str, Any]) -> str:
    """One table for each kind of cable, overlays down and figures across."""
    machine = result["machine"]
    head = (
        f"`{result['command']}`, {result['date']}, pyvxlan {result['pyvxlan']}, "
        f"Linux {machine['kernel']}, {machine['cores']} cores {machine['cpu']}, "
        f"{result['rounds_finished']} rounds.  Medians; in brackets the ratio to the kernel's "
        "driver, or ? where the rounds disagree or the machine was busy."
    )
    lines = [head]
    for kind, chosen in groups(result["rows"]):
        lines += ["", f"**{kind}**", "", *_matrix(chosen)]
    return "\n".join(lines) + "\n"


def _matrix(chosen: Sequence[Row]) -> Iterator[str]:
    units = {row["test"]: row["unit"] for row in chosen if row["median"] is not None}
    yield _line(["overlay", *(f"{test}, {unit}" for test, unit in units.items())])
    yield _line(["---", *("---:" for _ in units)])
    for overlay in dict.fromkeys(row["overlay"] for row in chosen):
        own = {row["test"]: row for row in chosen if row["overlay"] == overlay}
        if any(row["median"] is not None for row in own.values()):
            yield _line([overlay, *(_cell(own.get(test)) for test in units)])
    reasons = [f"{row['overlay']}: {row['why']}" for row in chosen if row["why"]]
    yield from ("", *(f"- {reason}" for reason in reasons)) if reasons else ()


def _cell(row: Row | None) -> str:
    if row is None or row["median"] is None:
        return ""
    median = digits(row["median"])
    if row["verdict"] != "ok":
        return f"{median} (?)"
    if row["ratio_to_kernel"] is None or row["overlay"] == BASE:
        return median
    return f"{median} ({row['ratio_to_kernel']:.2f})"


def _line(words: Iterable[str]) -> str:
    return "| " + " | ".join(word.replace("|", "/") for word in words) + " |"
