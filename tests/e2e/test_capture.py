"""A capture of a node against what its underlay and its containers see."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from packets import probe_frame
from worlds import VNI, Pair

from vxlan import api
from vxlan.lab import Node, ping, tcp_transfer, wait_until
from vxlan.pcap_read import Packet, packets
from vxlan.sight import Flag, Seen, Where, each, whole

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(
        not (shutil.which("tshark") and shutil.which("tcpdump")),
        reason="needs tshark and tcpdump: apt-get install tshark tcpdump",
    ),
]

PROBE = b"PVXP"
MEBI = 1 << 20


@contextmanager
def capturing(node: Node, path: Path, *args: str) -> Iterator[None]:
    """`pyvxlan capture` while the block runs; the file is whole afterwards."""
    command = [sys.executable, "-m", "vxlan", "capture", node.name, "-w", str(path), *args]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: path.exists() and path.stat().st_size > 0, 10, "the capture runs")
    yield
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert child.returncode == 0, said


def start(node: Node, **args: object) -> tuple[Any, api.Chunks]:
    """The operation `capture` itself."""
    return api.chunks(node.name, "capture", **args)


def read(path: Path) -> list[Packet]:
    with path.open("rb") as stream:
        return list(packets(stream))


def tap_of(node: Node) -> str:
    return str(node.call("show")["segments"][0]["tap"])


def totals(node: Node) -> dict[str, int]:
    return dict(node.call("show")["segments"][0]["counters"])


def settled(node: Node) -> bool:
    """Whether nothing moves any more."""
    before = totals(node)
    time.sleep(0.2)
    return totals(node) == before


def comments(path: Path, interface: str = "underlay", direction: str | None = None) -> list[str]:
    return [
        " ".join(one.comments)
        for one in read(path)
        if one.interface.name == interface and direction in (None, one.direction)
    ]


@contextmanager
def sniffing(pair: Pair, path: Path) -> Iterator[None]:
    """What crosses the underlay's link of host a, by tcpdump."""
    command = ["tcpdump", "-i", pair.a.link, "-U", "-w", str(path), "udp"]
    running = pair.a.popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    while "listening" not in (line := running.stderr.readline()):
        assert line, "tcpdump ended"
    yield
    running.terminate()
    running.communicate()


def echoes(path: Path, at: int) -> list[bytes]:
    """The outer packets, from byte `at`, that carry an echo or its answer."""
    found = (one.data[at:] for one in read(path))
    return [same_everywhere(packet) for packet in found if is_echo(packet)]


def is_echo(packet: bytes) -> bool:
    return PROBE not in packet and len(packet) == 134 and packet[36 + 14 + 9] == 1


def same_everywhere(packet: bytes) -> bytes:
    """An outer packet without what only the kernel knows: identification and checksum, TTL."""
    return packet[:4] + packet[6:8] + packet[9:10] + packet[12:]


def test_outer_packets_are_those_of_the_wire(shared_pair: Pair, tmp_path: Path) -> None:
    seen, wire = tmp_path / "seen.pcapng", tmp_path / "wire.pcap"
    with sniffing(shared_pair, wire), capturing(shared_pair.node, seen, "--side", "outer"):
        assert ping(shared_pair.c1, shared_pair.c2.address, count=5).received == 5
        wait_until(lambda: len(echoes(wire, 14)) >= 10, 10, "tcpdump wrote")
    theirs = echoes(wire, 14)
    assert Counter(echoes(seen, 0)) == Counter(theirs)


def test_each_packet_is_seen_on_both_sides_with_what_was_decided(
    shared_pair: Pair, tmp_path: Path
) -> None:
    path, b = tmp_path / "seen.pcapng", shared_pair.b.address
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    with capturing(shared_pair.node, path, "--ip", shared_pair.c2.address):
        assert ping(shared_pair.c1, shared_pair.c2.address, count=3).received == 3
    tap = tap_of(shared_pair.node)
    asked = comments(path, tap, "in")
    assert len([one for one in asked if f"encap vni {VNI} -> {b}, learned " in one]) >= 3
    assert len(comments(path, "underlay", "out")) == len(asked)
    answered = comments(path, "underlay", "in")
    assert set(answered) == set(comments(path, tap, "out")) == {f"decap vni {VNI} <- {b}"}
    assert len(answered) >= 3
    moments = [one.when or 0 for one in read(path)]
    assert moments == sorted(moments)


def test_drops_are_in_the_file_and_nothing_else(shared_pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "drops.pcapng"
    frame = probe_frame(b"refused", shared_pair.c2.mac.hex(":"), shared_pair.c1.mac.hex(":"))
    with capturing(shared_pair.node, path, "--drops"):
        assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
        with shared_pair.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"\x08\0\0\0\0\0\x63\0" + frame, (shared_pair.a.address, 4789))
        wait_until(lambda: comments(path), 10, "a drop is written")
    (said,) = comments(path)
    assert said.startswith(f"dropped VXLAN_VNI_NOT_FOUND (vni 99 <- {shared_pair.b.address}): ")


def test_a_transfer_is_seen_whole_and_agrees_with_the_counters(
    shared_pair: Pair, tmp_path: Path
) -> None:
    path, tap = tmp_path / "seen.pcapng", tap_of(shared_pair.node)
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    with capturing(shared_pair.node, path, "--snaplen", "96"):
        before = totals(shared_pair.node)
        assert tcp_transfer(shared_pair.c1, shared_pair.c2, shared_pair.c2.address, MEBI).intact
        wait_until(lambda: settled(shared_pair.node), 10, "the connection has ended")
        after = totals(shared_pair.node)
    seen = read(path)
    out, into = (
        [one for one in seen if one.interface.name == "underlay" and one.direction == side]
        for side in ("out", "in")
    )
    sent = [one for one in out if not one.comments[0].startswith("probe")]
    came = [one for one in into if not one.comments[0].startswith("probe")]
    assert after["encap_packets"] - before["encap_packets"] <= len(sent)
    assert after["decap_packets"] - before["decap_packets"] <= len(came)
    assert sum(one.length for one in sent) > MEBI
    assert all(len(one.data) <= 96 + 48 for one in seen)
    assert all(one.length <= 1500 for one in sent)
    frames = [one for one in seen if one.interface.name == tap and one.direction == "in"]
    assert sum(one.length for one in frames) > MEBI


def test_what_the_kernel_refuses_has_its_reason(shared_pair: Pair, tmp_path: Path) -> None:
    path, nowhere = tmp_path / "drops.pcapng", "203.0.113.9"
    shared_pair.node.call("fdb.add", vni=VNI, mac="02:00:00:00:44:07", dst=nowhere)
    frame = probe_frame(b"nowhere", "02:00:00:00:44:07", shared_pair.c1.mac.hex(":"))
    with capturing(shared_pair.node, path, "--remote", nowhere):
        with shared_pair.c1.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((shared_pair.c1.link, 0))
            sender.send(frame)
        wait_until(lambda: comments(path), 10, "a drop is written")
    asked = f"encap vni {VNI} -> {nowhere}, static entry"
    assert comments(path, tap_of(shared_pair.node), "in") == [asked]
    (refused,) = comments(path, "underlay", "out")
    assert refused.startswith(f"dropped UNDERLAY_UNREACHABLE (vni {VNI} -> {nowhere}): ")


def test_a_capture_that_nobody_reads_stalls_nothing(shared_pair: Pair) -> None:
    _, chunks = start(shared_pair.node)
    assert ping(shared_pair.c1, shared_pair.c2.address, count=200, interval=0.002).received == 200
    chunks.close()
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1


class Reader(threading.Thread):
    """Takes what a capture gives; everything that it said is in `packets` after `end`."""

    def __init__(self, node: Node, **args: object) -> None:
        super().__init__(daemon=True)
        _, self._chunks = start(node, **args)
        self.packets: list[Seen] = []
        self.lost = 0
        self.start()

    def run(self) -> None:
        left = b""
        for chunk in self._chunks:
            left += chunk
            for seen in each(left[: whole(left)]):
                if seen.is_loss:
                    self.lost += seen.targets
                else:
                    self.packets.append(seen._replace(data=b""))
            left = left[whole(left) :]

    def end(self) -> None:
        self._chunks.finish()
        self.join(30)
        self._chunks.close()


def test_under_load_each_packet_is_recorded_or_counted_as_lost(shared_pair: Pair) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    reader = Reader(shared_pair.node)
    before = totals(shared_pair.node)
    address = shared_pair.c2.address
    assert tcp_transfer(shared_pair.c1, shared_pair.c2, address, 32 * MEBI).intact
    wait_until(lambda: settled(shared_pair.node), 10, "the connection has ended")
    after = totals(shared_pair.node)
    reader.end()
    for where, counter in ((Where.UNDERLAY_OUT, "encap"), (Where.UNDERLAY_IN, "decap")):
        seen = sum(one.where is where and not one.flags & Flag.OWN for one in reader.packets)
        carried = after[f"{counter}_packets"] - before[f"{counter}_packets"]
        assert carried <= seen + reader.lost
        assert seen <= carried + 50, "what came before and after was little"
