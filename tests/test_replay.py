"""`pyvxlan replay`: which packets of a capture are taken, and when they are sent."""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clirun import complaint, run
from tests.fakenode import fake_node, refusal
from tests.frames import A, B, ether, ipv4, udp, vxlan
from vxlan import outer
from vxlan.pcap import ETHERNET, RAW_IP, Direction, Interface, PcapWriter
from vxlan.pcap_read import packets
from vxlan.replay import Pace, Replay, Taken, send

TAP, UNDERLAY = Interface("vxlan42", ETHERNET), Interface("underlay", RAW_IP)
FRAME = ether(B, A, 0x0800, ipv4(udp()))
WHEN = 1_800_000_000_000_000_000


def carried(frame: bytes, vni: int = 42, port: int = 4789) -> bytes:
    return outer.datagram(vxlan(vni, frame), ("192.0.2.2", 50123), ("192.0.2.1", port))


class Capture:
    """A capture to replay, as a file and as bytes."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.writer = PcapWriter(self.out, (UNDERLAY, TAP))
        self.when = WHEN

    def put(
        self,
        data: bytes,
        *,
        tap: bool = False,
        direction: Direction | None = "in",
        length: int | None = None,
        comment: str = "",
    ) -> Capture:
        self.when += 1_000_000
        self.writer.packet(
            int(tap), self.when, data, direction=direction, length=length, comment=comment
        )
        return self

    def write(self, path: Path) -> str:
        path.write_bytes(self.out.getvalue())
        return str(path)

    def taken(self, replay: Replay) -> list[tuple[int | None, bytes]]:
        found = replay.frames(packets(io.BytesIO(self.out.getvalue())))
        return [(one.vni, one.frame) for one in found]


# -- which ---------------------------------------------------------------------------


def test_what_came_in_is_taken_and_unwrapped() -> None:
    capture = (
        Capture().put(FRAME, tap=True).put(carried(FRAME)).put(FRAME, tap=True, direction="out")
    )
    capture.put(carried(FRAME), direction="out")
    replay = Replay(4789)
    assert capture.taken(replay) == [(None, FRAME), (42, FRAME)]
    assert replay.skipped == {"went out": 2}


def test_a_capture_without_directions_is_taken_whole() -> None:
    capture = Capture().put(FRAME, tap=True, direction=None).put(carried(FRAME), direction=None)
    assert len(capture.taken(Replay(4789))) == 2


def test_what_is_cut_or_no_frame_is_left_out_and_counted() -> None:
    capture = Capture().put(FRAME[:30], tap=True, length=len(FRAME)).put(b"\x45" + bytes(19))
    capture.put(carried(FRAME, port=53)).put(carried(FRAME[:9])).put(b"", tap=True)
    replay = Replay(4789)
    assert capture.taken(replay) == []
    assert replay.skipped == {"cut": 1, "no frame": 4}


def test_one_segment_only() -> None:
    capture = Capture().put(carried(FRAME, 7)).put(carried(FRAME, 42))
    replay = Replay(4789, vni=42)
    assert capture.taken(replay) == [(42, FRAME)]
    assert replay.skipped == {"another segment": 1}


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=90)), max_size=8))
def test_whatever_is_in_a_capture_is_taken_or_counted(found: list[tuple[bool, bytes]]) -> None:
    capture, replay = Capture(), Replay(4789)
    for tap, data in found:
        capture.put(data, tap=tap)
    assert len(capture.taken(replay)) + sum(replay.skipped.values()) == len(found)


# -- sending -------------------------------------------------------------------------


def test_frames_are_sent_as_they_are_and_refusals_counted() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        long = Taken(2, WHEN, bytes(100_000), None)
        sent, refused = send(here, [Taken(1, WHEN, FRAME, None), long], 0)
        assert there.recv(2000) == FRAME
    assert (sent, dict(refused)) == (1, {"Message too long": 1})


@pytest.mark.parametrize(("speed", "least"), [(1.0, 0.08), (4.0, 0.02), (0, 0.0)])
def test_frames_keep_their_distance(speed: float, least: float) -> None:
    pace, began = Pace(speed), time.monotonic()
    for at in (0, 40, 80, 60):
        pace.wait(WHEN + at * 1_000_000)
    assert time.monotonic() - began >= least


def test_a_long_silence_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("vxlan.replay.time.sleep", slept.append)
    pace = Pace(1.0)
    pace.wait(WHEN)
    pace.wait(WHEN + 3600 * 10**9)
    assert sum(slept) <= 5.1


@pytest.fixture
def capture(tmp_path: Path) -> Callable[[Capture], str]:
    return lambda made: made.write(tmp_path / "c.pcapng")


# -- judging -------------------------------------------------------------------------


def explained(**changes: Any) -> dict[str, Any]:
    """As much of an explanation as is printed."""
    return {
        "verdict": "decap", "reason": "known_remote", "vni": 42, "remotes": [],
        "inner": {"hex": FRAME.hex()}, **changes,
    }  # fmt: skip


def test_a_node_is_asked_about_what_came_in(capture: Callable[[Capture], str]) -> None:
    made = Capture().put(FRAME, tap=True).put(carried(FRAME)).put(FRAME, tap=True, direction="out")
    encap = explained(
        verdict="encap", reason="fdb_entry", remotes=[{"address": "192.0.2.2", "port": 4789}]
    )
    path = capture(made)
    with fake_node(explain=lambda args: dict(encap if "frame" in args else explained())) as node:
        result = run("replay", path, "-n", node.name)
    first, second = result.stdout.splitlines()
    assert result.exit_code == 0
    assert first.startswith("     1 02:00:00:00:00:0a > 02:00:00:00:00:0b 10.42.0.1:1000 > ")
    assert first.endswith("UDP: encap fdb_entry vni 42 -> 192.0.2.2")
    assert second.endswith("UDP: decap known_remote vni 42")
    assert result.stderr == "1 encap, 1 decap\n"
    assert [args for op, args in node.asked if op == "explain"] == [
        {"frame": FRAME.hex(), "vni": 42},
        {"datagram": vxlan(42, FRAME).hex(), "src": "192.0.2.2", "tos": 0},
    ]


def test_what_is_decided_otherwise_is_found(capture: Callable[[Capture], str]) -> None:
    made = Capture().put(carried(FRAME), comment="dropped UNKNOWN_REMOTE (vni 42): stranger")
    made.put(carried(FRAME), comment="decap vni 42 <- 192.0.2.2")
    path = capture(made)
    with fake_node(explain=lambda _: explained()) as node:
        result = run("replay", path, "-n", node.name, "--changed")
        told = run("replay", path, "-n", node.name, "--json", "-c", "1").stdout
    (line,) = result.stdout.splitlines()
    assert line.endswith("(then: dropped UNKNOWN_REMOTE (vni 42): stranger)")
    assert result.stderr == "2 decap, 1 otherwise than when they were captured\n"
    answer = json.loads(told)
    assert (answer["number"], answer["changed"], answer["verdict"]) == (1, True, "decap")
    assert answer["captured"] == "dropped UNKNOWN_REMOTE (vni 42): stranger"


def test_what_a_node_does_not_judge_is_counted(capture: Callable[[Capture], str]) -> None:
    made = Capture().put(FRAME, tap=True).put(FRAME[:20], tap=True, length=60)
    made.put(b"\x45" + bytes(30)).put(b"", tap=True)
    path = capture(made)
    with fake_node(explain=refusal("segment 42 is not here", "not_found")) as node:
        result = run("replay", path, "-n", node.name)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "4 not judged\n")


def test_a_node_that_does_not_run_is_one_line(capture: Callable[[Capture], str]) -> None:
    assert "no node named gone runs" in complaint(
        run("replay", capture(Capture()), "-n", "gone"), 3
    )


def test_a_capture_that_is_cut_is_judged_up_to_there(capture: Callable[[Capture], str]) -> None:
    path = capture(Capture().put(carried(FRAME)).put(carried(FRAME)))
    Path(path).write_bytes(Path(path).read_bytes()[:-9])
    with fake_node(explain=lambda _: explained()) as node:
        result = run("replay", path, "-n", node.name)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)
    assert result.stderr.count("\n") == 1


# -- what goes wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"not a capture", "neither a pcap nor a pcapng file"),
        (b"\x0a\x0d\x0d\x0a\x1c\0", "c.pcapng: "),
    ],
)
def test_what_is_no_capture_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "c.pcapng"
    path.write_bytes(content)
    assert said in complaint(run("replay", str(path), "--into", "lo"), 1)
    assert "nosuch: No such file or directory: name a capture" in complaint(
        run("replay", str(tmp_path / "nosuch"), "--into", "lo"), 1
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--into", "x", "--at", "y"), "two places"),
        ((), "where to: `--into IFACE`"),
        (("-n", "lab", "--into", "x"), "where to: "),
        (("--into", "x", "--changed"), "--changed goes with -n"),
        (("--speed", "-1"), "speed"),
        (("--count", "0"), "count"),
        (("--vni", "99999999"), "vni"),
    ],
)
def test_wrong_usage(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    (tmp_path / "c").write_bytes(b"")
    assert said in complaint(run("replay", str(tmp_path / "c"), *args), 2)


@pytest.mark.namespaces
def test_an_interface_that_is_not_there_is_one_line(capture: Callable[[Capture], str]) -> None:
    path = capture(Capture().put(FRAME, tap=True))
    said = complaint(run("replay", path, "--into", "nosuch0"), 1)
    assert said == "pyvxlan: nosuch0: No such device: `ip link` shows what is there\n"
