"""Segments that come and go by command: whose they are, what is refused, what a reload leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.memory_node import A, B, FakeTap, World, make_world
from vxlan import tap_handing
from vxlan.config import ConfigError, load
from vxlan.tap import TapError
from vxlan.tap_handing import Wish

ONE = f'[[segment]]\nvni = 42\nremotes = ["{A}"]\n'


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


async def vnis(world: World) -> dict[int, str]:
    shown = await world.call("show")
    return {segment["vni"]: segment["owner"] for segment in shown["segments"]}


def test_a_node_without_segments_waits_for_them(world: World) -> None:
    async def scenario() -> None:
        async with world.run(""):
            assert await vnis(world) == {}
            added = await world.call(
                "segment.add", vni=7, remotes=[A, B], tap="t7", mtu=1300, owner="docker"
            )
            assert added["added"] is True
            assert (added["segment"]["tap"], added["segment"]["mtu"]) == ("t7", 1300)
            rows = await world.call("remote.show", vni=7)
            assert [row["address"] for row in rows] == [A, B]
            assert await vnis(world) == {7: "docker"}
            assert await world.call("segment.del", vni=7, owner="docker") == {}
            assert await vnis(world) == {}
            assert world.attachments[0].tap is None

    asyncio.run(scenario())


def test_asking_again_is_no_error_and_changes_nothing(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            await world.call("segment.add", vni=7, remotes=[B], owner="docker")
            before = running.segments[7]
            again = await world.call("segment.add", vni=7, remotes=[B], owner="docker", mtu=None)
            assert again["added"] is False
            assert running.segments[7] is before

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ({"vni": 42}, "conflict", "VNI 42 is taken by the configuration: choose another"),
        ({"vni": 7}, "conflict", "VNI 7 is taken by docker"),
        (
            {"vni": 7, "owner": "docker", "bridge": "br7", "ageing": 9},
            "conflict",
            "ageing 300.0 -> 9.0",
        ),
        ({"vni": 8, "tap": "vxlan42"}, "conflict", "vxlan42 is already a device of segment 42"),
        ({"vni": 8, "bridge": "br7"}, "conflict", "br7 is already a device of segment 7"),
        ({"vni": 8, "mtu": 1500, "remotes": [B]}, "conflict", "mtu 1500 does not fit"),
        ({"vni": 8, "remotes": ["2001:db8::1"]}, "usage", "no IPv6 address"),
        ({"vni": 1 << 24}, "usage", "vni: 16777216 is not a VNI"),
        ({"remotes": [B]}, "usage", "no vni"),
        ({"vni": 8, "remote": [B]}, "usage", "remote: no such key: did you mean remotes?"),
        ({"vni": 8, "remotes": [7]}, "usage", "remotes[0]: 7 is not a text"),
        ({"vni": 8, "mtu": 600, "address": "2001:db8:42::1/64"}, "usage", "mtu: 600 is too small"),
        ({"vni": 8, "owner": "config"}, "usage", "owner: choose"),
        ({"vni": 8, "owner": "a\nb"}, "usage", "owner: choose"),
        ({"vni": 8, "tap_from": "taps"}, "usage", "tap_from: 'taps': give the path of a socket"),
        ({"vni": 8, "tap_from": "/" + 107 * "x"}, "usage", "up to 107 bytes"),
        ({"vni": 8, "tap_from": 7}, "usage", "tap_from: 7 is not a text"),
        ({"vni": 8, "tap_from": "/x", "bridge": "br8"}, "usage", "bridge: whoever owns the TAP"),
        ({"vni": 8, "tap_from": "/x", "address": "10.8.0.1/24"}, "usage", "address: whoever owns"),
        ({"vni": 8, "tap_from": "/nowhere"}, "failed", "its owner does not answer at /nowhere"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    world: World, args: dict[str, Any], code: str, words: str
) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("segment.add", vni=7, bridge="br7", owner="docker")
            refused = await world.refusal("segment.add", **args)
            assert words in str(refused)
            assert refused.code == code
            assert await vnis(world) == {42: "config", 7: "docker"}

    asyncio.run(scenario())


def test_a_tap_is_handed_over_and_asked_for_again_when_it_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, Wish]] = []
    given: list[FakeTap] = []

    def fetch(*request: Any) -> FakeTap:
        asked.append(request)
        if len(asked) == 2:
            raise TapError("tap vxlan7: its owner does not answer at /run/x.taps")
        given.append(FakeTap("vxlan7"))
        return given[-1]

    monkeypatch.setattr(tap_handing, "fetch", fetch)

    async def scenario() -> None:
        async with world.run(ONE):
            args = {"vni": 7, "owner": "docker", "tap_from": "/run/x.taps"}
            assert (await world.call("segment.add", **args))["added"] is True
            assert (await world.call("segment.add", **args))["added"] is False
            other = await world.refusal("segment.add", **{**args, "tap_from": "/run/y.taps"})
            assert "tap_from: it is served already and differs" in str(other)
            given[0].lose()
            while len(given) < 2:
                await asyncio.sleep(0.01)
            assert given[0].closed
            assert asked == [("/run/x.taps", "vxlan7", Wish(7))] * 3
            await world.call("segment.del", vni=7, owner="docker")
            assert given[1].closed

    asyncio.run(scenario())


def test_a_tap_that_cannot_be_made_leaves_no_segment(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            world.failures.append("in the way")
            refused = await world.refusal("segment.add", vni=7)
            assert "in the way" in str(refused)
            assert await vnis(world) == {42: "config"}
            await world.call("segment.add", vni=7)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ({"vni": 42}, "conflict", "belongs to the configuration: take it out there"),
        ({"vni": 7}, "conflict", "belongs to docker: give owner 'docker'"),
        ({"vni": 9}, "not_found", "no segment 9 here"),
        ({}, "usage", "vni: None is not a VNI"),
        ({"vni": 7, "tap": "t7"}, "usage", "no such argument: tap"),
    ],
)
def test_only_its_owner_deletes_a_segment(
    world: World, args: dict[str, Any], code: str, words: str
) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("segment.add", vni=7, owner="docker")
            refused = await world.refusal("segment.del", **args)
            assert words in str(refused)
            assert refused.code == code
            assert await vnis(world) == {42: "config", 7: "docker"}

    asyncio.run(scenario())


def test_a_reload_leaves_them_alone(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("segment.add", vni=7, remotes=[B], owner="docker")
            world.write("[[segment]]\nvni = 43\n")
            assert (await world.call("reload"))["changed"] == [
                "segment 42: removed", "segment 43: added",
            ]  # fmt: skip
            assert await vnis(world) == {7: "docker", 43: "config"}
            world.write("[[segment]]\nvni = 7\n")
            refused = await world.refusal("reload")
            assert "VNI 7 is taken by docker, who added it by command" in str(refused)
            assert await vnis(world) == {7: "docker", 43: "config"}

    asyncio.run(scenario())


def test_a_reload_that_fails_half_way_leaves_them_alone(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("segment.add", vni=7, remotes=[B], owner="docker")
            world.failures.append("in the way")
            world.write("[[segment]]\nvni = 43\n")
            await world.refusal("reload")
            assert await vnis(world) == {7: "docker", 42: "config"}

    asyncio.run(scenario())


def test_a_file_without_segments_says_where_to_send_from(tmp_path: Path) -> None:
    path = tmp_path / "docker.toml"
    path.write_text('[vtep]\nlocal = "192.0.2.1"\n')
    assert load(path).segments == ()
    path.write_text("[vtep]\ndstport = 4790\n")
    with pytest.raises(ConfigError, match="there is no segment: add a .* or set local or dev"):
        load(path)


def test_what_the_kernel_tells_is_asked_for_once_and_not_by_each_segment(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as node:
            for vni in range(100, 110):
                await world.call("segment.add", vni=vni, remotes=[A, B])
            world.kernel.mtus[B], before = 1400, world.kernel.asked
            await node._look()
            assert world.kernel.asked - before == 1
            assert {segment.mtu for segment in node.segments.values()} == {1450, 1350}

    asyncio.run(scenario())
