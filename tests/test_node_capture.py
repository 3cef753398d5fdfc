"""`capture` on the control socket of a whole node: streams, filters, slow readers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clirun import ROOT, complaint, run
from tests.frames import A as MAC
from tests.frames import B as OTHER_MAC
from tests.frames import ether, ipv4, udp, vxlan
from tests.memory_node import A, C, World, make_world, until
from vxlan import api, node_capture
from vxlan.drop import Drop
from vxlan.sight import Seen, Sight, Where, each, pack, whole

SEGMENT = f'[[segment]]\nvni = 42\nremotes = ["{A}"]\n'
FRAME = ether(MAC, OTHER_MAC, 0x0800, ipv4(udp()))
GOOD, UNKNOWN = vxlan(42, FRAME), vxlan(99, FRAME)
WHY = b"VXLAN_VNI_NOT_FOUND"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


class Client(threading.Thread):
    """Captures, and keeps what comes; ready when the constructor returns."""

    def __init__(self, name: str, **args: Any) -> None:
        super().__init__(daemon=True)
        self.about, self._chunks = api.chunks(name, "capture", **args)
        self.data = b""
        self.start()

    def run(self) -> None:
        for chunk in self._chunks:
            self.data += chunk

    def packets(self, where: Where | None = None) -> list[Seen]:
        found = list(each(self.data[: whole(self.data)]))
        return [seen for seen in found if where in (None, seen.where)]


def send(world: World, *payloads: bytes, source: str = A) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for payload in payloads:
            sender.sendto(payload, ("127.0.0.1", world.port))


async def captured(client: Client, count: int, where: Where | None = None) -> list[Seen]:
    await until(lambda: len(client.packets(where)) >= count, f"{count} packets captured")
    return client.packets(where)


def test_a_client_gets_what_comes_in_and_what_goes_out(world: World) -> None:
    async def capture() -> None:
        async with world.run(SEGMENT):
            client = await asyncio.to_thread(Client, world.name, vni=42)
            assert client.about["version"] == 1
            assert client.about["local"] == ["127.0.0.1"]
            assert client.about["segments"] == [{"vni": 42, "tap": "vxlan42"}]
            send(world, GOOD, UNKNOWN)
            send(world, GOOD, source=C)
            came = await captured(client, 2, Where.UNDERLAY_IN)
            assert [seen.reason for seen in came] == [None, Drop.UNKNOWN_REMOTE]
            assert [seen.data for seen in came] == [GOOD, GOOD]
            assert came[1].remote is not None
            assert came[1].remote.address == C
            (went,) = await captured(client, 1, Where.TAP_OUT)
            assert (went.data, went.vni) == (FRAME, 42)

    asyncio.run(capture())


def test_several_clients_get_what_each_wants(world: World) -> None:
    async def capture() -> None:
        async with world.run(SEGMENT) as node:
            everything = await asyncio.to_thread(Client, world.name, side="outer")
            drops = await asyncio.to_thread(Client, world.name, drops=True, snaplen=16)
            send(world, GOOD, UNKNOWN)
            await captured(everything, 2, Where.UNDERLAY_IN)
            (dropped,) = await captured(drops, 1)
            assert (dropped.vni, dropped.data, dropped.length) == (99, UNKNOWN[:16], len(UNKNOWN))
            captures = node._server._streams["capture"].__self__  # type: ignore[attr-defined]
            assert len(captures._streams) == 2
            captures._close(captures._streams[1])
            send(world, UNKNOWN, GOOD)
            await captured(everything, 4, Where.UNDERLAY_IN)
            assert len(drops.packets()) == 1

    asyncio.run(capture())


def test_with_nobody_who_captures_nothing_is_recorded(world: World) -> None:
    async def capture() -> None:
        async with world.run(SEGMENT) as node:
            engine: Any = node.engine
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(api.socket_path(world.name)))
                raw.sendall(b'{"op":"capture"}\n')
                await until(lambda: engine._recorder is not None, "the capture began")
            await until(lambda: engine._recorder is None, "the capture ended")
            assert engine._encap == engine.vtep.encap

    asyncio.run(capture())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"vni": -1}, "vni: -1 is not a VNI"),
        ({"mac": "x"}, "mac: 'x' is not a MAC"),
        ({"ip": "10.42"}, "ip: '10.42' is not an IP address"),
        ({"remote": "host"}, "remote: 'host' is not an IP address"),
        ({"side": "left"}, "side: 'left' is not one of inner, outer"),
        ({"snaplen": 3}, "snaplen: 3 is not a number of bytes"),
        ({"drops": 1}, "drops: 1 is neither true nor false"),
        ({"colour": "red"}, "no such argument: colour"),
    ],
)
def test_wrong_arguments_are_refused(world: World, args: dict[str, Any], said: str) -> None:
    async def ask() -> None:
        async with world.run(SEGMENT):
            with pytest.raises(api.ApiError, match=said) as refused:
                await asyncio.to_thread(api.chunks, world.name, "capture", **args)
            assert refused.value.code == "usage"

    asyncio.run(ask())


def test_captures_are_bounded_in_number(world: World) -> None:
    async def ask() -> None:
        async with world.run(SEGMENT):
            for _ in range(node_capture.MAX_STREAMS):
                await asyncio.to_thread(Client, world.name)
            with pytest.raises(api.ApiError, match="end one"):
                await asyncio.to_thread(api.chunks, world.name, "capture")

    asyncio.run(ask())


def test_a_reader_that_does_not_read_loses_records_and_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_capture, "MAX_WAITING", 20_000)
    long = vxlan(42, FRAME + bytes(1000))

    async def capture() -> None:
        async with world.run(SEGMENT):
            about, chunks = await asyncio.to_thread(api.chunks, world.name, "capture")
            assert about["dstport"] == world.port
            for _ in range(120):
                send(world, *[long] * 10)
                await asyncio.sleep(0.005)
            data, lost = b"", 0
            while not lost:
                data += await asyncio.to_thread(next, chunks)
                if not lost:
                    send(world, GOOD)
                lost = sum(seen.targets for seen in each(data[: whole(data)]) if seen.is_loss)

    asyncio.run(asyncio.wait_for(capture(), 60))


def test_records_that_a_sight_does_not_want_are_left_out_of_a_batch() -> None:
    some = [Seen(Where.TAP_IN, FRAME, 60, vni=vni) for vni in (42, 7, 42)]
    batch = node_capture.wanted(some, Sight(vni=42, snaplen=16), 5)
    assert (batch.packets, batch.lost) == (2, 5)
    assert [seen.data for seen in each(batch.records)] == [FRAME[:16]] * 2
    assert len(pack(some[0])) > len(batch.records) / 2


# -- the command ---------------------------------------------------------------------


class Command:
    """`pyvxlan capture ...` beside a node in this process."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "vxlan", "capture", *args]
        self.child = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    async def end(self, how: signal.Signals | None = None) -> tuple[int, bytes, str]:
        if how is not None:
            self.child.send_signal(how)
        out, said = await asyncio.to_thread(self.child.communicate, timeout=30)
        return self.child.returncode, out, said.decode()


async def watching(node: Any) -> None:
    await until(lambda: node.engine._recorder is not None, "the command captures")


def test_lines_tell_what_was_decided(world: World) -> None:
    async def capture() -> str:
        async with world.run(SEGMENT) as node:
            command = Command(world.name, "-c", "3", "--vni", "42")
            await watching(node)
            send(world, GOOD)
            send(world, GOOD, source=C)
            status, out, said = await command.end()
            assert (status, said) == (0, "")
            return out.decode()

    first, second, third = asyncio.run(capture()).splitlines()
    assert " in  underlay 02:00:00:00:00:0b > 02:00:00:00:00:0a 10.42.0.1:1000 > " in first
    assert first.endswith(f"decap vni 42 <- {A}")
    assert " out vxlan42 " in second
    assert f"dropped UNKNOWN_REMOTE (vni 42 <- {C}): " in third


def test_json_has_what_scripts_need(world: World) -> None:
    async def capture() -> dict[str, Any]:
        async with world.run(SEGMENT) as node:
            command = Command("--json", "--count=1", "--drops")
            await watching(node)
            send(world, UNKNOWN)
            status, out, _ = await command.end()
            assert status == 0
            return dict(json.loads(out))

    found = asyncio.run(capture())
    assert (found["interface"], found["direction"], found["vni"]) == ("outer", "in", 99)
    assert (found["verdict"], found["reason"]) == ("dropped", "VXLAN_VNI_NOT_FOUND")
    assert found["inner"]["addresses"] == ["10.42.0.1", "10.42.0.2"]


@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark: apt-get install tshark")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_file_is_whole_however_it_ends(world: World, tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "c.pcapng"

    async def capture() -> None:
        async with world.run(SEGMENT) as node:
            command = Command("-w", str(path))
            await watching(node)
            send(world, GOOD, UNKNOWN)
            await until(lambda: path.exists() and WHY in path.read_bytes(), "packets are written")
            status, _, said = await command.end(how)
            assert status == 0
            assert "packets written" in said.splitlines()[-1]

    asyncio.run(capture())
    assert os.stat(path).st_mode & 0o777 == 0o600
    fields = ("frame.interface_name", "frame.comment", "vxlan.vni", "ip.src", "udp.checksum.status")
    shown = [word for field in fields for word in ("-e", field)]
    decode = ["-d", f"udp.port=={world.port},vxlan", "-o", "udp.check_checksum:TRUE"]
    command = ["tshark", "-n", "-r", str(path), *decode, "-T", "fields", *shown, "-Y", "vxlan"]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in done.splitlines() if "\tprobe, " not in line]
    assert [row[:3] for row in rows] == [
        ["underlay", f"decap vni 42 <- {A}", "42"],
        ["underlay", f"dropped VXLAN_VNI_NOT_FOUND (vni 99 <- {A}): no segment here has this VNI",
         "99"],
    ]  # fmt: skip
    assert rows[0][3] == f"{A},10.42.0.1"
    assert rows[0][4].split(",")[0] == "1"


def test_a_ring_keeps_the_last_files(world: World, tmp_path: Path) -> None:
    path = tmp_path / "ring.pcapng"
    long = vxlan(42, FRAME + bytes(60_000))

    async def capture() -> None:
        async with world.run(SEGMENT) as node:
            command = Command("-w", str(path), "--ring", "2", "--size", "1")
            await watching(node)
            while not (tmp_path / "ring_00004.pcapng").exists():
                send(world, long)
                await asyncio.sleep(0.002)
            assert (await command.end(signal.SIGINT))[0] == 0

    asyncio.run(asyncio.wait_for(capture(), 60))
    assert [one.name[:5] for one in tmp_path.glob("ring_*")] == ["ring_"] * 2
    assert not (tmp_path / "ring_00001.pcapng").exists()


def test_a_reader_that_has_seen_enough_is_no_failure(world: World) -> None:
    async def capture() -> None:
        async with world.run(SEGMENT) as node:
            command = Command("-w", "-")
            await watching(node)
            assert command.child.stdout is not None
            command.child.stdout.close()
            while command.child.poll() is None:
                send(world, GOOD)
                await asyncio.sleep(0.01)
            assert command.child.returncode == 0
            command.child.stderr.close()  # type: ignore[union-attr]

    asyncio.run(asyncio.wait_for(capture(), 30))


def test_a_node_that_ends_ends_the_capture_with_a_line(world: World, tmp_path: Path) -> None:
    path = tmp_path / "c.pcapng"

    async def capture() -> tuple[int, bytes, str]:
        async with world.run(SEGMENT) as node:
            command = Command("-w", str(path))
            await watching(node)
            send(world, GOOD)
        return await command.end()

    status, _, said = asyncio.run(capture())
    assert (status, "has ended" in said.splitlines()[-1]) == (3, True)
    assert path.stat().st_size > 0


def test_a_place_that_cannot_be_written_is_one_line(world: World, tmp_path: Path) -> None:
    async def capture() -> tuple[int, bytes, str]:
        async with world.run(SEGMENT):
            return await Command("-w", str(tmp_path / "no" / "c.pcapng")).end()

    status, _, said = asyncio.run(capture())
    assert (status, said.count("\n")) == (1, 1), said
    assert "No such file or directory: write to another place" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--ring", "3"), "--ring needs files"),
        (("--ring", "3", "-w", "-"), "--ring needs files"),
        (("-w", "x", "--size", "3"), "--size is that of a ring's files"),
        (("-w", "x", "--json"), "leave one out"),
        (("--count", "0"), "count"),
        (("--snaplen", "1"), "snaplen"),
        (("--side", "left"), "side"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], said: str) -> None:
    assert said in complaint(run("capture", *args), 2)
