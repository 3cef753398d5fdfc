"""What the fastpath cuts super-frames into, as tshark judges it on the wire."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from worlds import python_pair

from vxlan import netdev
from vxlan.lab import Container, Host, Lab, tcp_transfer, wait_until

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(
        not (shutil.which("tshark") and shutil.which("tcpdump")),
        reason="needs tshark and tcpdump: apt-get install tshark tcpdump",
    ),
]

MEBI = 1 << 20
PATH_MTU = 1500
UDP_SEGMENT = 103
BAD = "tcp.checksum.status == 0 || udp.checksum.status == 0 || ip.checksum.status == 0"
CHECKED = [
    word for layer in ("ip", "tcp", "udp") for word in ("-o", f"{layer}.check_checksum:TRUE")
]


class World:
    """Two hosts on a real wire, fastpath on both; containers with a VLAN besides."""

    def __init__(self, lab: Lab) -> None:
        pair = python_pair(lab, "fastpath")
        self.a, self.c1, self.c2 = pair.a, pair.c1, pair.c2
        self.tagged = all(self._tag(station, n) for n, station in enumerate((self.c1, self.c2), 1))

    def _tag(self, station: Container, number: int) -> bool:
        """Give a container a VLAN device; False where the kernel has none."""
        make = ["ip", "link", "add", "tag7", "link", station.link, "type", "vlan", "id", "7"]
        try:
            station.run(make)
        except subprocess.CalledProcessError:
            return False
        netdev.add_address("tag7", f"10.47.0.{number}/24", station.name)
        netdev.set_mtu("tag7", 1446, station.name)
        netdev.set_up("tag7", netns=station.name)
        return True


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    pytest.importorskip("vxlan._fastpath")
    with Lab("seg", wire=True) as lab:
        yield World(lab)


@contextmanager
def captured(host: Host, path: Path) -> Iterator[None]:
    """What a host sends on its underlay, into a file."""
    command = ["tcpdump", "-i", host.link, "-Q", "out", "-U", "-B", "65536", "-w", str(path)]
    running = host.popen([*command, "udp"], stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    while "listening" not in (line := running.stderr.readline()):
        assert line, "tcpdump ended"
    yield
    running.terminate()
    running.communicate()


def tshark(path: Path, wanted: str, *fields: str) -> list[str]:
    """The packets that match, one line each."""
    shown = [word for field in fields or ("frame.number",) for word in ("-e", field)]
    command = ["tshark", "-r", str(path), *CHECKED, "-Y", wanted, "-T", "fields", *shown]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def be_right(path: Path, judged: str, at_least: int) -> None:
    """There are packets that match, and nothing is wrong with any packet."""
    found = tshark(path, f"vxlan && {judged}")
    assert len(found) >= at_least, "the traffic that was to be judged is not there"
    assert tshark(path, BAD) == []
    assert tshark(path, "ip.flags.mf == 1 || ip.frag_offset > 0 || ipv6.fraghdr") == []
    assert tshark(path, f"frame.len > {PATH_MTU + 14}") == []
    assert tshark(path, "vxlan && _ws.malformed") == []


@pytest.mark.parametrize("kind", ["ip", "ipv6", "vlan"])
def test_tcp(world: World, tmp_path: Path, kind: str) -> None:
    if kind == "vlan" and not world.tagged:
        pytest.skip("this kernel has no VLAN devices (CONFIG_VLAN_8021Q)")
    address = {"ip": world.c2.address, "ipv6": world.c2.addresses[1], "vlan": "10.47.0.2"}[kind]
    file = tmp_path / "sent.pcap"
    with captured(world.a, file):
        assert tcp_transfer(world.c1, world.c2, address, 4 * MEBI).intact
    be_right(file, f"{kind} && tcp && frame.len >= {PATH_MTU}", 1000)
    sizes = tshark(file, "tcp.len > 0", "tcp.seq_raw", "tcp.len", "tcp.flags")
    follow_each_other([[int(word, 0) for word in line.split("\t")] for line in sizes])


def follow_each_other(segments: list[list[int]]) -> None:
    """No gap in the sequence, and FIN only at its end (nothing was lost here to be resent)."""
    fin = 0x01
    ends = {(at + length) % (1 << 32) for at, length, _ in segments}
    begins = {at for at, _, _ in segments}
    assert len(begins - ends) == 1
    assert len(ends - begins) == 1
    last = (ends - begins).pop()
    assert [at for at, length, flags in segments if flags & fin and at + length != last] == []


@pytest.mark.parametrize("family", [4, 6])
def test_udp(world: World, tmp_path: Path, family: int) -> None:
    """Datagrams that the container handed over 40 at a time (USO, where the kernel has it)."""
    address = world.c2.addresses[0 if family == 4 else 1]
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    sink, source = (c.socket(kind, socket.SOCK_DGRAM) for c in (world.c2, world.c1))
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MEBI)
    sink.bind((address, 0))
    source.connect(sink.getsockname()[:2])
    source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1400)
    file = tmp_path / "sent.pcap"
    with captured(world.a, file):
        for number in range(10):
            source.send(bytes([number]) * (1400 * 39 + 700))
        sink.settimeout(5.0)
        got = [sink.recv(2000) for _ in range(400)]
        sent = "vxlan && udp.length in {708, 1408}"
        wait_until(lambda: len(tshark(file, sent)) >= 400, 10.0, "400 datagrams in the capture")
    assert sorted(map(len, got)) == [700] * 10 + [1400] * 390
    be_right(file, f"{'ip' if family == 4 else 'ipv6'} && udp.length == 1408", 390)


def test_containers_hand_over_super_frames(world: World) -> None:
    """Else nothing above was cut by us."""
    before = reads(world.c1)
    assert tcp_transfer(world.c1, world.c2, world.c2.address, 4 * MEBI).intact
    packets, octets = (now - then for now, then in zip(reads(world.c1), before, strict=True))
    assert octets / packets > 10_000


def reads(container: Container) -> tuple[int, int]:
    """Packets and bytes that a container sent; a super-frame is one packet."""
    stats = netdev.link(container.link, container.name).stats
    return stats.tx_packets, stats.tx_bytes
