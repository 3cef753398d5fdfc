"""`pyvxlan show --watch`: rates between two answers, and how they are printed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clirun import ROOT, complaint, process, run
from tests.fakenode import counters, fake_node, remote, segment, shown
from vxlan.cli.rates import between
from vxlan.cli.watch import bits


class Growing:
    """A node that sends 1000 frames of 100 bytes each second, and drops 10 of them."""

    def __init__(self, drops: str = "UNKNOWN_REMOTE") -> None:
        self.asked = 0
        self.drops = drops

    def __call__(self, _args: dict[str, Any]) -> dict[str, Any]:
        at, self.asked = self.asked, self.asked + 1
        dropped = {self.drops: 10 * at + 5} if self.drops else {}
        sent = {"encap_packets": 1000 * at, "encap_bytes": 100_000 * at}
        one = segment(
            counters=counters(dropped, **sent),
            remotes=[remote("192.0.2.2", **sent), remote("192.0.2.3", state="down")],
        )
        return shown("lab", one, uptime=100.0 + at)


# -- rates ---------------------------------------------------------------------------


def test_rates_are_differences_by_time() -> None:
    node = Growing()
    found = between(node({}), node({}), 1_800_000_000.0)
    assert (found["name"], found["interval"], found["time"]) == ("lab", 1.0, 1_800_000_000.0)
    (one,) = found["segments"]
    assert (one["vni"], one["encap_pps"], one["encap_bps"]) == (42, 1000.0, 800_000.0)
    assert one["drops"] == {"UNKNOWN_REMOTE": {"pps": 10.0, "total": 15}}
    assert [other["encap_pps"] for other in one["remotes"]] == [1000.0, 0.0]


def test_a_node_that_began_anew_has_no_rates_yet() -> None:
    before, after = Growing()({}), {**shown("lab", pid=7), "uptime": 1.0}
    found = between(before, after, 0.0)
    assert found["interval"] == 0.0
    assert found["segments"][0]["encap_pps"] == 0.0


def test_a_segment_that_is_new_counts_from_zero() -> None:
    new = segment(7, counters=counters(encap_packets=30), remotes=[])
    found = between(shown("lab", uptime=10.0), shown("lab", segment(), new, uptime=20.0), 0.0)
    assert [one["encap_pps"] for one in found["segments"]] == [0.0, 3.0]


@given(before=st.integers(0, 2**63), after=st.integers(0, 2**63), took=st.floats(0.1, 3600))
def test_no_rate_is_negative(before: int, after: int, took: float) -> None:
    one, other = (
        shown("lab", segment(counters=counters({"HDR_TRUNC": n}, encap_bytes=n)), uptime=at)
        for n, at in ((before, 0.0), (after, took))
    )
    (found,) = between(one, other, 0.0)["segments"]
    assert found["encap_bps"] >= 0
    assert found["drops"]["HDR_TRUNC"]["pps"] >= 0


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 bit/s"), (999, "999 bit/s"), (12_300_000, "12.3 Mbit/s"), (1e12, "1.0 Tbit/s")],
)
def test_bits(amount: float, text: str) -> None:
    assert bits(amount) == text


# -- the command ---------------------------------------------------------------------


def test_json_is_one_object_a_line() -> None:
    with fake_node(show=Growing()):
        result = run("show", "--watch", "0.1", "--count", "3", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert [one["segments"][0]["encap_pps"] for one in lines] == [1000.0] * 3
    assert [one["segments"][0]["drops"]["UNKNOWN_REMOTE"]["total"] for one in lines] == [15, 25, 35]


def test_plain_lines_tell_rates_and_the_remedy_of_drops() -> None:
    with fake_node(show=Growing()):
        text = run("show", "--watch=0.1", "--count", "1").stdout
    words = [" ".join(line.split()) for line in text.splitlines()]
    assert "42 all 1000/s 800.0 kbit/s 0/s 0 bit/s 10/s" in words
    assert "192.0.2.2 up 1000/s 800.0 kbit/s 0/s 0 bit/s 0/s" in words
    (dropped,) = [line for line in words if "UNKNOWN_REMOTE" in line]
    assert dropped.startswith("10/s 15 42 UNKNOWN_REMOTE datagram came from an address")
    assert "pyvxlan remote add" in dropped


def test_where_nothing_was_dropped_that_is_said() -> None:
    with fake_node(show=Growing(drops="")):
        assert "none since the node began" in run("show", "--watch=0.1", "--count=1").stdout


def test_a_bare_watch_looks_each_second() -> None:
    with fake_node(show=Growing()), process("show", "--json", "--watch") as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["segments"][0]["encap_pps"] == 1000.0
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0


def test_on_a_terminal_the_same_lines_are_drawn_again() -> None:
    ours, theirs = pty.openpty()
    with fake_node(show=Growing()), os.fdopen(theirs, "wb") as terminal:
        command = [sys.executable, "-m", "vxlan", "show", "--watch=0.1", "--count=2"]
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
        subprocess.run(command, cwd=ROOT, stdout=terminal, env=env, timeout=30, check=True)
        drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert drawn.count("UNKNOWN_REMOTE") >= 2
    assert "\x1b[1A" in drawn, "the second round is drawn over the first"


def test_a_node_that_ends_ends_the_watching() -> None:
    with fake_node(show=Growing()) as node, process("show", "--watch=0.1", "--json") as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        node.stop()
        _, said = child.communicate(timeout=10)
    assert (child.returncode, said.count("\n")) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--watch", "lab"), "write `show lab --watch`"),
        (("--watch", "0"), "it must be 0.1 to 3600"),
        (("--watch", "nan"), "it must be 0.1 to 3600"),
        (("--count", "3"), "--count goes with --watch"),
        (("--watch", "1", "--count", "0"), "--count"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    assert said in complaint(run("show", *arguments), 2)
