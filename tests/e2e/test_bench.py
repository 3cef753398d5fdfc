"""`pyvxlan bench` as a user runs it: a matrix as small as it gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vxlan import netns

pytestmark = pytest.mark.namespaces

BENCH = (sys.executable, "-m", "vxlan", "bench")
SMALL = ("--rounds", "3", "--seconds", "0.1", "--mtu", "1500", "--wire")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def left_behind(before: set[str]) -> set[str]:
    return {name for name in set(netns.names()) - before if name.startswith("bench-")}


def test_a_small_matrix_measures_and_leaves_nothing() -> None:
    before = set(netns.names())
    overlays = "none,kernel,python,macvlan,ipvlan-l3"
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
