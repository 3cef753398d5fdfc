"""`pyvxlan bench` as a user runs it: a matrix as small as it gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vxlan import netns
from vxlan.lab import Host, Lab, segment
from vxlan.lab.noderun import Node

pytestmark = pytest.mark.namespaces

BENCH = (sys.executable, "-m", "vxlan", "bench")
SMALL = ("--rounds", "3", "--seconds", "0.1", "--mtu", "1500", "--wire")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def left_behind(before: set[str]) -> set[str]:
    return {name for name in set(netns.names()) - before if name.startswith("bench-")}


def test_a_small_matrix_measures_and_leaves_nothing() -> None:
    before = set(netns.names())
    overlays = "none,kernel,python,fastpath-tap,fastpath-macvlan,docker-pyvxlan,macvlan,ipvlan-l3"
    done = subprocess.run(
        [*BENCH, "--json", "--overlays", overlays, "--tests", "tcp-1,rr", *SMALL],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    by_overlay = {row["overlay"]: row for row in rows if row["test"] in ("rr-p50", None)}
    assert set(by_overlay) == set(overlays.split(","))
    assert len(by_overlay["python"]["rounds"]) == 3
    assert by_overlay["kernel"]["ratio_to_kernel"] == 1.0
    assert by_overlay["docker-pyvxlan"]["median"] is not None, by_overlay["docker-pyvxlan"]["why"]
    assert {row["test"] for row in rows if row["overlay"] == "python"} >= {"tcp-1", "cpu-vteps"}
    assert left_behind(before) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_tells_what_it_has_and_leaves_nothing(number: signal.Signals) -> None:
    before = set(netns.names())
    run = subprocess.Popen(
        [*BENCH, "--json", "--overlays", "kernel", "--tests", "rr", "--rounds", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert run.stderr is not None
    assert "building kernel" in run.stderr.readline()
    time.sleep(2)
    run.send_signal(number)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 130
    assert json.loads(out)["interrupted"]
    assert left_behind(before) == set()


def test_an_unknown_overlay_is_wrong_usage() -> None:
    done = subprocess.run(
        [*BENCH, "--overlays", "gre"], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode == 2
    assert "no overlay gre: there are none, kernel" in done.stderr


# -- between two hosts, each with a node of its own -----------------------------------------


class Pair(NamedTuple):
    """A host, and the node that runs there."""

    host: Host
    node: Node


@pytest.fixture
def two_hosts() -> Iterator[tuple[Pair, Pair]]:
    with Lab("pair") as lab:
        pairs = []
        for number in (1, 2):
            host = lab.host(f"h{number}", f"192.0.2.{number}/24")
            folder = lab.directory / host.name
            folder.mkdir()
            node = Node(host, host.name, (), folder, own_runtime=True)
            overlay = {"address": [f"10.42.0.{number}/24"], "tap": "vxlan42"}
            node.configure([{**segment(42, f"192.0.2.{3 - number}"), **overlay}], LOCAL[number])
            lab.nodes.append(node)
            pairs.append(Pair(host, node))
        lab.start(*lab.nodes)
        yield pairs[0], pairs[1]


LOCAL = {number: {"local": [f"192.0.2.{number}"], "engine": "auto"} for number in (1, 2)}


def bench_at(place: Pair, *words: str) -> subprocess.Popen[str]:
    runtime = {"PYVXLAN_RUNTIME_DIR": str(place.node.log_path.parent)}
    started: Any = place.host.popen(
        [*BENCH, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), **runtime},
    )
    return started  # type: ignore[no-any-return]


@pytest.fixture
def served(two_hosts: tuple[Pair, Pair]) -> Iterator[subprocess.Popen[str]]:
    serving = bench_at(two_hosts[1], "serve")
    assert serving.stderr is not None
    try:
        assert "serving on 10.42.0.2" in serving.stderr.readline()
        yield serving
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=20)


@pytest.mark.usefixtures("served")
def test_two_hosts_measure_over_the_overlay_and_beside_it(two_hosts: tuple[Pair, Pair]) -> None:
    words = ("remote", "10.42.0.2", "--rounds", "1", "--seconds", "0.1", "--json")
    asking = bench_at(two_hosts[0], *words)
    out, errors = asking.communicate(timeout=60)
    assert asking.returncode == 0, errors
    found = json.loads(out)
    by_test = {row["test"]: row for row in found["rows"]}
    assert not found["interrupted"]
    assert {"tcp-1", "tcp-4", "udp-64", "rr-p50"} <= set(by_test)
    assert all(row["overlay"] > 0 < row["beside"] for row in (by_test["tcp-1"], by_test["rr-p50"]))


def test_ctrl_c_of_the_host_that_asks_lets_the_next_one_ask(
    two_hosts: tuple[Pair, Pair], served: subprocess.Popen[str]
) -> None:
    assert served.stderr is not None
    asking = bench_at(two_hosts[0], "remote", "10.42.0.2", "--rounds", "500", "--json")
    assert "192.0.2.1" not in served.stderr.readline()
    time.sleep(1)
    asking.send_signal(signal.SIGINT)
    out, _ = asking.communicate(timeout=30)
    assert asking.returncode == 130
    assert json.loads(out)["interrupted"]
    assert "is done" in served.stderr.readline()
