"""The tests: which traffic each makes, and which figures come of it.

One `Sample` is one test on one overlay in one round.  A test gives several figures:
the stream that is timed also tells what each gigabyte cost, and the round trips have
percentiles.  Each figure becomes a row of the result (vxlan/bench/report.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vxlan.bench import noise
from vxlan.bench.ends import Agent
from vxlan.bench.generator import LoadError

if TYPE_CHECKING:
    from vxlan.lab.namespace import Namespace


class Figure(NamedTuple):
    """One kind of result: its unit, which direction is better, and what it says."""

    unit: str
    better: Literal["more", "less"]
    text: str


class End(NamedTuple):
    """One end of a path: who makes traffic there, and the address that reaches it.

    `bind` is the address that the end itself has, which differs behind a published port.
    """

    agent: Agent
    address: str
    bind: str
    namespace: Namespace | None = None


@dataclass(slots=True)
class Sample:
    """The figures of one test, and what the machine did meanwhile."""

    figures: dict[str, float]
    disturbance: float = 0.0
    stolen: float = 0.0
    mhz: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)


class Test(NamedTuple):
    """A name, what it runs between two ends, and whether from the second to the first."""

    name: str
    run: Callable[[End, End, float], Sample]
    text: str
    back: bool = False


_PERCENTILES = {"0.5": "p50", "0.9": "p90", "0.99": "p99", "0.999": "p99.9"}

FIGURES = {
    "tcp-1": Figure("Gbit/s", "more", "TCP, one stream"),
    "tcp-1-back": Figure("Gbit/s", "more", "TCP, one stream, the other way"),
    "tcp-4": Figure("Gbit/s", "more", "TCP, four streams"),
    "tcp-4-back": Figure("Gbit/s", "more", "TCP, four streams, the other way"),
    "iperf3-tcp-1": Figure("Gbit/s", "more", "TCP, one stream, by iperf3"),
    "iperf3-tcp-4": Figure("Gbit/s", "more", "TCP, four streams, by iperf3"),
    "cpu-all": Figure("s/GB", "less", "CPU seconds of the whole machine for each GB of one stream"),
    "cpu-vteps": Figure("s/GB", "less", "of these, in the processes of both tunnel end points"),
    **{
        f"udp-{size}": Figure("packets/s", "more", f"UDP, {size} bytes of payload, received")
        for size in (64, 256, 512, 1024, 1400)
    },
    "udp-64-loss": Figure("%", "less", "of these 64-byte datagrams, lost"),
    "udp-64-twice": Figure("%", "less", "of these, received once more"),
    **{f"rr-{p}": Figure("us", "less", f"round trip, {p}") for p in _PERCENTILES.values()},
}


def tcp(streams: int, name: str) -> Callable[[End, End, float], Sample]:
    """Streams from the first end to the second, checked where they arrive."""

    def run(source: End, sink: End, seconds: float) -> Sample:
        sent, got = exchange(source, sink, "tcp", {"streams": streams}, seconds)
        if not got["intact"] or got["bytes"] != sent["bytes"]:
            raise LoadError("the data that arrived is not the data that was sent")
        return Sample({name: got["bytes"] * 8 / got["seconds"] / 1e9}, detail=got)

    return run


def udp(size: int) -> Callable[[End, End, float], Sample]:
    """A flood of datagrams: what arrives each second, and the part that does not."""

    def run(source: End, sink: End, seconds: float) -> Sample:
        sent, got = exchange(source, sink, "udp", {"size": size}, seconds)
        if not got["intact"]:
            raise LoadError("a datagram that arrived is not one that was sent")
        lost = max(0.0, 100 * (1 - got["packets"] / sent["packets"]))
        twice = 100 * got["duplicates"] / max(got["packets"], 1)
        figures = {f"udp-{size}": got["rate"], f"udp-{size}-loss": lost}
        if twice:
            figures[f"udp-{size}-twice"] = twice
        return Sample({name: v for name, v in figures.items() if name in FIGURES}, detail=got)

    return run


def round_trips(source: End, sink: End, seconds: float) -> Sample:
    """One request at a time, 64 bytes each way."""
    told, _ = exchange(source, sink, "rr", {}, seconds)
    if not told["intact"]:
        raise LoadError("an answer that arrived is not the request that was sent")
    return Sample(_percentiles(told["quantiles"], told["requests"] - told["lost"]), detail=told)


def _percentiles(quantiles: dict[str, float], trips: int) -> dict[str, float]:
    """Those for which there were enough: of fewer than 1000 trips, p99.9 is but the longest."""
    return {
        f"rr-{name}": quantiles[q]
        for q, name in _PERCENTILES.items()
        if round(trips * (1 - float(q)), 6) >= 1
    }


def iperf3(streams: int) -> Callable[[End, End, float], Sample]:
    """The same as `tcp`, by a program that people know; it does not check what arrives."""

    def run(source: End, sink: End, seconds: float) -> Sample:
        assert sink.namespace is not None
        assert source.namespace is not None
        server = sink.namespace.popen(
            ["iperf3", "--server", "--one-off", "--forceflush"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert server.stdout is not None
            server.stdout.readline()
            server.stdout.readline()  # its second line says that it listens
            answer = source.namespace.run(
                ["iperf3", "--client", sink.address, "--json", *_iperf3_time(seconds, streams)],
                timeout=seconds + 10,
            )
        except subprocess.SubprocessError as error:
            raise LoadError(f"iperf3: {error}") from error
        finally:
            server.kill()
            server.communicate()
        rate = json.loads(answer)["end"]["sum_received"]["bits_per_second"]
        return Sample({f"iperf3-tcp-{streams}": rate / 1e9})

    return run


def _iperf3_time(seconds: float, streams: int) -> list[str]:
    return ["--time", str(max(1, round(seconds))), "--parallel", str(streams)]


TESTS = {
    test.name: test
    for test in (
        Test("tcp-1", tcp(1, "tcp-1"), "one TCP stream, and what each GB costs"),
        Test("tcp-4", tcp(4, "tcp-4"), "four TCP streams"),
        Test("tcp-1-back", tcp(1, "tcp-1-back"), "one TCP stream, the other way", back=True),
        Test("tcp-4-back", tcp(4, "tcp-4-back"), "four TCP streams, the other way", back=True),
        Test("udp-64", udp(64), "a flood of 64-byte datagrams"),
        Test("rr", round_trips, "requests and responses, one at a time"),
        *(Test(f"udp-{n}", udp(n), f"a flood of {n}-byte datagrams") for n in (256, 512, 1024)),
        Test("udp-1400", udp(1400), "a flood of 1400-byte datagrams"),
        Test("iperf3-tcp-1", iperf3(1), "one TCP stream by iperf3"),
        Test("iperf3-tcp-4", iperf3(4), "four TCP streams by iperf3"),
    )
}

QUICK = ("tcp-1", "tcp-4", "udp-64", "rr")


def present() -> tuple[str, ...]:
    """The tests that can run here."""
    iperf = shutil.which("iperf3") is not None
    return tuple(name for name in TESTS if iperf or not name.startswith("iperf3"))


def exchange(
    source: End, sink: End, kind: str, arguments: dict[str, Any], seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Traffic from one end to the other; what the source and what the sink tell."""
    there = {} if kind == "rr" else arguments
    sink.agent.ask(f"{kind}_sink", address=sink.bind, **there)
    port = sink.agent.reply()["port"]
    source.agent.ask(f"{kind}_source", address=sink.address, port=port, seconds=seconds, **there)
    return _both(source.agent, sink.agent)


def _both(source: Agent, sink: Agent) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both results; both are read even if one is an error, so that the next test can begin."""
    told: list[dict[str, Any]] = []
    errors: list[LoadError] = []
    for agent in (source, sink):
        try:
            told.append(agent.result())
        except LoadError as error:
            errors.append(error)
    if errors:
        raise errors[-1]
    return told[0], told[1]


def measure(
    test: Test, ends: tuple[End, End], seconds: float, vteps: Collection[int], ours: Collection[int]
) -> Sample:
    """Run a test, and look at the machine before and after.  Raises LoadError."""
    source, sink = reversed(ends) if test.back else ends
    before, spent = noise.read(), noise.cpu_of(vteps)
    sample = test.run(source, sink, seconds)
    spent = noise.cpu_of(vteps) - spent
    used = noise.between(before, noise.read(), ours)
    sample.disturbance, sample.stolen, sample.mhz = used.disturbance, used.stolen, noise.mhz()
    if test.name == "tcp-1":
        gigabytes = sample.detail["bytes"] / 1e9
        sample.figures["cpu-all"] = max(used.busy - used.others, 0.0) / gigabytes
        if vteps:
            sample.figures["cpu-vteps"] = spent / gigabytes
    return sample


def wait_until_open(ends: tuple[End, End], timeout: float = 15.0) -> None:
    """Try until requests are answered.  Raises LoadError with what stood in the way."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            exchange(*ends, "rr", {}, 0.02)
        except LoadError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
