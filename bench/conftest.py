"""How the in-memory suites measure, and what they print.

Every test hands `per_packet` one call that works on a known number of packets; the
result is nanoseconds for each packet, minimum and median over the rounds.  The
minimum is what to compare: nothing can make code run faster than it does, while
other load makes every other figure larger.  No time decides whether a test passes.

    make bench          measures, saves JSON with this machine's description, and
                        shows the minimum that was last saved beside it
    make bench-smoke    each test once, without measuring
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from implementations import BATCH, compiled, engines

from vxlan import __version__

ROUND_NS = 2_000_000
ROUNDS = 40
MOST_SECONDS = 3.0

Measure = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--largest-table",
        type=int,
        default=1_000_000,
        help="leave out forwarding tables with more entries",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    largest = config.getoption("--largest-table")
    kept, left_out = [], []
    for item in items:
        entries = getattr(item, "callspec", None) and item.callspec.params.get("entries", 0)
        (left_out if entries and entries > largest else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def per_packet(benchmark: Any) -> Measure:
    """per_packet(packets, call, *arguments): time calls that work on `packets` packets each.

    `setup` makes the arguments anew for each round, which then is one call.
    """

    def measure(
        packets: int, call: Callable[..., object], *arguments: Any, setup: Any = None
    ) -> None:
        benchmark.extra_info["packets"] = packets
        if setup:
            benchmark.pedantic(call, setup=setup, rounds=ROUNDS)
            return
        rounds, iterations = (1, 1) if benchmark.disabled else plan(call, arguments)
        benchmark.pedantic(call, arguments, rounds=rounds, iterations=iterations)

    return measure


def plan(call: Callable[..., object], arguments: tuple[Any, ...]) -> tuple[int, int]:
    """Rounds long enough for the clock, few enough for whoever waits."""
    call(*arguments)
    start = time.perf_counter_ns()
    call(*arguments)
    took = max(time.perf_counter_ns() - start, 50)
    iterations = max(1, ROUND_NS // took)
    rounds = int(MOST_SECONDS * 1e9 / (iterations * took))
    return max(5, min(ROUNDS, rounds)), iterations


@pytest.fixture(scope="session", params=engines())
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- what is saved ------------------------------------------------------------------------


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["kernel"] = platform.release()
    machine_info["cores"] = os.cpu_count()
    machine_info["load"] = os.getloadavg()[0]
    machine_info["batch"] = BATCH
    machine_info["pyvxlan"] = __version__
    machine_info["checksums by"] = getattr(compiled(), "SUM", "Python")


def pytest_benchmark_update_json(benchmarks: Any, output_json: dict[str, Any]) -> None:
    for one in output_json["benchmarks"]:
        one["ns_per_packet"] = ns_per_packet(one)


def ns_per_packet(saved: dict[str, Any]) -> dict[str, float]:
    packets = saved["extra_info"].get("packets", 1)
    return {word: saved["stats"][word] * 1e9 / packets for word in ("min", "median")}


# -- what is printed ----------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[LAST] = last_saved(Path(session.config.rootpath))


LAST = pytest.StashKey[dict[str, float]]()


def last_saved(root: Path) -> dict[str, float]:
    """Test name -> minimum when it was last saved, which may have been a run of a part."""
    found: dict[str, float] = {}
    saved = (root / ".benchmarks").glob("*/*.json")
    for path in sorted(saved, key=lambda path: path.stat().st_mtime):
        benchmarks = json.loads(path.read_text())["benchmarks"]
        found |= {one["fullname"]: ns_per_packet(one)["min"] for one in benchmarks}
    return found


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    measured = [one for one in session.benchmarks if one.stats.rounds] if session else []
    if not measured or config.getoption("benchmark_disable"):
        return
    terminalreporter.section("nanoseconds for each packet")
    for line in table(measured, config.stash[LAST]):
        terminalreporter.write_line(line)


def table(measured: list[Any], last: dict[str, float]) -> Iterator[str]:
    yield f"{'':<52}{'min':>12}{'median':>12}{'last min':>12}{'now/last':>10}"
    for one in measured:
        packets = one.extra_info.get("packets", 1)
        least, median = (value * 1e9 / packets for value in (one.stats.min, one.stats.median))
        before = last.get(one.fullname)
        compared = f"{before:>12,.0f}{least / before:>10.2f}" if before else ""
        name = one.name.removeprefix("test_")
        yield f"{name:<52}{least:>12,.0f}{median:>12,.0f}{compared}"
