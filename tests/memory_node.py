"""A whole node without root: the real engine, underlay on loopback, and no devices.

Only what takes privileges is replaced: TAP and bridge by `FakeAttachment`, what the
kernel says about paths by `Kernel`.  Everything else is what runs in production, the
control socket included.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from vxlan import api, node_segment
from vxlan.config import NodeConfig, SegmentConfig, load
from vxlan.drop import Drop
from vxlan.node import Node
from vxlan.overlay_mtu import Path as Way
from vxlan.tap import TapError, TapLost

LOCAL = "127.0.0.1"
A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""Remotes that take datagrams and say nothing."""


class FakeTap:
    """A TAP that never has a frame; `lose` is what deleting the device does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.granted = {"vnet_hdr": True}
        self.fallbacks: list[str] = []
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self.fd = self._here.fileno()
        self.closed = False

    def read(self) -> bytes | None:
        try:
            if not self._here.recv(1):
                raise TapLost(f"tap {self.name}: the device was deleted")
        except BlockingIOError:
            return None
        return None

    def write(self, header: bytes, frame: bytes) -> Drop | None:
        return None

    def lose(self) -> None:
        self._there.close()

    def close(self) -> None:
        self.closed = True
        self._here.close()
        self._there.close()


class FakeAttachment:
    """Remembers what was asked of it; `failures` makes the next opens fail."""

    made: list[FakeAttachment]
    failures: list[str]

    def __init__(
        self, config: SegmentConfig, local: str, *, offload: bool, queues: int = 1
    ) -> None:
        self.config = config
        self.tap: FakeTap | None = None
        self.mtu = 0
        self.opened = 0
        self.changes: list[SegmentConfig] = []
        self.made.append(self)

    def open(self, mtu: int) -> FakeTap:
        if self.failures:
            raise TapError(f"tap {self.config.tap}: {self.failures.pop(0)}")
        self.mtu = mtu
        self.opened += 1
        self.tap = FakeTap(self.config.tap)
        return self.tap

    def close(self) -> None:
        self.close_tap()

    def close_tap(self) -> None:
        if self.tap is not None:
            self.tap.close()
            self.tap = None

    def change(self, config: SegmentConfig) -> None:
        self.changes.append(config)
        self.config = config

    def set_mtu(self, mtu: int) -> None:
        self.mtu = mtu

    def follow(self, link: object = None) -> set[bytes]:
        return {bytes.fromhex("020000000001")} if self.tap else set()


class Kernel:
    """What paths there are: 1500 bytes to everywhere, unless a test says otherwise."""

    def __init__(self) -> None:
        self.mtus: dict[str, int | None] = {}
        self.wired = True
        self.asked = 0

    def ways_to(self, addresses: Iterable[str]) -> dict[str, Way | None]:
        self.asked += 1
        known = {address: self.mtus.get(address, 1500) for address in addresses}
        return {
            address: None if mtu is None else Way(address, "eth0", mtu)
            for address, mtu in known.items()
        }

    def own_ways(self, local: Iterable[str]) -> list[Way]:
        return [Way(address, "eth0", 1500, own=True) for address in local] if self.wired else []


class World:
    """A configuration file, and the nodes that a test runs from it."""

    def __init__(self, folder: Path) -> None:
        self.kernel = Kernel()
        self.attachments: list[FakeAttachment] = []
        self.failures: list[str] = []
        self.taps_of_others: set[str] = set()
        self.path = folder / f"n{secrets.token_hex(3)}.toml"
        self.name = self.path.stem
        self.port = free_port()
        self._remotes = [silent(address, self.port) for address in (A, B, C)]

    def close(self) -> None:
        for remote in self._remotes:
            remote.close()

    def write(self, segments: str, vtep: str = "") -> NodeConfig:
        head = f'[vtep]\nlocal = "{LOCAL}"\ndstport = {self.port}\nengine = "python"\n{vtep}\n'
        self.path.write_text(head + segments)
        return load(self.path)

    @asynccontextmanager
    async def run(self, segments: str | None = None) -> AsyncIterator[Node]:
        """A node that runs until the block ends."""
        config = self.write(segments) if segments is not None else load(self.path)
        running = Node(config)
        task = asyncio.create_task(running.run())
        while self.name not in await asyncio.to_thread(api.running):
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
        await self.call("show")
        try:
            yield running
        finally:
            running.stop("the test is over")
            await asyncio.wait_for(task, 10)

    async def call(self, op: str, **args: Any) -> Any:
        return await asyncio.to_thread(api.call, self.name, op, **args)

    async def refusal(self, op: str, **args: Any) -> api.ApiError:
        with pytest.raises(api.ApiError) as caught:
            await self.call(op, **args)
        return caught.value


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def silent(address: str, port: int) -> socket.socket:
    """Without it the kernel would tell that nobody is there, and the remote were down."""
    remote = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    remote.bind((address, port))
    return remote


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so; AssertionError after 10 seconds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{what}: did not happen")


def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """For a fixture: a world in which nothing takes privileges."""
    made = World(tmp_path)
    monkeypatch.setenv("PYVXLAN_RUNTIME_DIR", str(tmp_path / "run"))
    attachment = type(
        "Attachment", (FakeAttachment,), {"made": made.attachments, "failures": made.failures}
    )
    monkeypatch.setattr(node_segment, "Attachment", attachment)
    monkeypatch.setattr("vxlan.overlay_mtu.ways_to", made.kernel.ways_to)
    monkeypatch.setattr("vxlan.overlay_mtu.own_ways", made.kernel.own_ways)
    monkeypatch.setattr("vxlan.node_reload.exists", lambda name: name in made.taps_of_others)
    monkeypatch.setattr("vxlan.capabilities.keep_only", lambda keep: [])
    yield made
    made.close()
