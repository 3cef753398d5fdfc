"""A capture that is replayed: into a TAP, from a container of a lab, before a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packets import probe_frame
from worlds import Pair, lab_of

from tests.clirun import complaint, run
from tests.topologies import PAIR
from vxlan.lab import RunningLab, Sniffer, ping
from vxlan.pcap import ETHERNET, RAW_IP, Interface, PcapWriter

pytestmark = pytest.mark.namespaces

WHEN = 1_800_000_000_000_000_000


def written(path: Path, tap: str, *frames: bytes) -> str:
    """A capture of what came from a TAP."""
    with path.open("wb") as out:
        writer = PcapWriter(out, (Interface("underlay", RAW_IP), Interface(tap, ETHERNET)))
        for at, frame in enumerate(frames):
            writer.packet(1, WHEN + at * 1_000_000, frame, direction="in")
            writer.packet(1, WHEN + at * 1_000_000, frame[::-1], direction="out")
    return str(path)


def test_frames_go_through_a_tap_as_from_a_container(shared_pair: Pair, tmp_path: Path) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    tap = shared_pair.node.call("show")["segments"][0]["tap"]
    ends = shared_pair.c2.mac.hex(":"), "02:00:00:00:55:01"
    frames = [probe_frame(b"number %d" % at, *ends, sport=7000 + at) for at in range(5)]
    path = written(tmp_path / "c.pcapng", tap, *frames, bytes(9000))
    command = [sys.executable, "-m", "vxlan", "replay", path, "--into", tap, "--json"]
    with Sniffer(shared_pair.c2, shared_pair.c2.link) as seen:
        sending = shared_pair.a.popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        told = json.loads(sending.communicate(timeout=30)[0])
        seen.wait_for(lambda one: one.data == frames[-1], what="the last replayed frame")
    assert (told["sent"], told["skipped"]) == (6, {"went out": 6})
    assert sending.returncode == 0


def test_a_node_judges_what_it_captured(shared_pair: Pair, tmp_path: Path) -> None:
    path, node = tmp_path / "c.pcapng", shared_pair.node
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    command = [sys.executable, "-m", "vxlan", "capture", node.name, "-w", str(path), "-c", "8"]
    with subprocess.Popen(
        [*command, "--ip", shared_pair.c2.address], stderr=subprocess.PIPE
    ) as one:
        while one.poll() is None:
            ping(shared_pair.c1, shared_pair.c2.address, timeout=0.2)
    assert run("replay", str(path), "-n", node.name, "--changed").stdout == ""
    node.call("remote.del", dst=shared_pair.b.address)
    changed = run("replay", str(path), "-n", node.name, "--changed", "--json").stdout.splitlines()
    reasons = {json.loads(line)["reason"] for line in changed}
    assert reasons == {"NO_TX_TARGET", "UNKNOWN_REMOTE"}


@pytest.fixture(scope="module")
def there(labs: Path) -> RunningLab:
    return lab_of(labs, PAIR)


def test_a_container_of_a_lab_sends_them(there: RunningLab, tmp_path: Path) -> None:
    c1, c2 = there.containers["c1"], there.containers["c2"]
    frame = probe_frame(b"in a lab", c2.mac.hex(":"), c1.mac.hex(":"))
    path = written(tmp_path / "c.pcapng", "vxlan42", frame)
    with Sniffer(c2, c2.link) as seen:
        result = run("replay", path, "--at", "c1", "--lab", there.name, "--speed", "0")
        seen.wait_for(lambda one: one.data == frame, what="the replayed frame")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 frames sent, 1 left out (went out)\n"
    assert "has no" in complaint(run("replay", path, "--at", "zz", "--lab", there.name), 1)
