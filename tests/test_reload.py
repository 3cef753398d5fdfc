"""Reload: what differs is followed, what does not is left alone, what is wrong is refused whole."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.memory_node import A, B, C, World, make_world, until
from vxlan import api
from vxlan.config import NodeConfig, SegmentConfig, StaticEntry, VtepConfig, from_flags
from vxlan.fdb import Remote
from vxlan.node import Node
from vxlan.reload import Plan, compare, differences, needs_restart

MAC = "02:00:00:00:00:aa"
HELD = "02:00:00:00:00:cc"
ONE = f'[[segment]]\nvni = 42\nremotes = ["{A}"]\n'
SEVEN = f'[[segment]]\nvni = 7\nremotes = ["{B}"]\n'


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


# -- comparing ------------------------------------------------------------------------------


def node(*segments: SegmentConfig, **vtep: Any) -> NodeConfig:
    return NodeConfig("n", VtepConfig(**vtep), segments)


def test_the_plan_names_what_goes_comes_and_changes() -> None:
    same, gone, old = (SegmentConfig(vni, f"t{vni}") for vni in (1, 2, 3))
    new, fresh = replace(old, ageing=60.0), SegmentConfig(4, "t4")
    plan = compare(node(same, gone, old), node(new, fresh, same))
    assert plan == Plan((gone,), (fresh,), ((old, new),))
    assert plan.sentences() == [
        "segment 2: removed",
        "segment 4: added",
        "segment 3: ageing 300.0 -> 60.0",
    ]


def test_a_sentence_for_each_difference() -> None:
    here, there = Remote("192.0.2.2", 4789), Remote("192.0.2.3", 4789)
    stations = [bytes([2, 0, 0, 0, 0, number]) for number in range(3)]
    old = SegmentConfig(
        1, "t1", remotes=(here,), address=("10.42.0.1/24",),
        fdb=(StaticEntry(stations[0], (here,)), StaticEntry(stations[1], (here,))),
    )  # fmt: skip
    new = replace(
        old, remotes=(there,), address=(), bridge="br1", mtu=1400,
        fdb=(StaticEntry(stations[1], (there,)), StaticEntry(stations[2], (here,))),
    )  # fmt: skip
    assert sorted(differences(old, new)) == sorted(
        f"segment 1: {line}"
        for line in (
            "bridge none -> br1",
            "mtu auto -> 1400",
            "remote 192.0.2.2:4789 removed",
            "remote 192.0.2.3:4789 added",
            "address 10.42.0.1/24 removed",
            "fdb 02:00:00:00:00:00 removed",
            "fdb 02:00:00:00:00:01 changed",
            "fdb 02:00:00:00:00:02 added",
        )
    )
    assert differences(old, old) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dstport": 8472}, "vtep.dstport 4789 -> 8472"),
        ({"local": ("192.0.2.1",)}, "vtep.local none -> 192.0.2.1"),
        ({"engine": "python"}, "vtep.engine auto -> python"),
        ({"srcport": (50000, 50001)}, "vtep.srcport 49152, 65535 -> 50000, 50001"),
    ],
)
def test_what_only_a_restart_can_change(changed: dict[str, Any], words: str) -> None:
    problem = needs_restart(node(), node(**changed))
    assert problem is not None
    assert problem.startswith(f"{words}: needs a restart (`pyvxlan down n`")
    assert needs_restart(node(), node()) is None


def test_the_group_needs_a_restart() -> None:
    problem = needs_restart(node(), replace(node(), group="netdev"))
    assert problem is not None
    assert problem.startswith("group none -> netdev")


# -- a running node --------------------------------------------------------------------------


async def reload(world: World, segments: str, vtep: str = "") -> Any:
    world.write(segments, vtep)
    return (await world.call("reload"))["changed"]


async def entries(world: World, vni: int) -> dict[str, str]:
    rows = await world.call("fdb.show", vni=vni)
    return {row["mac"]: row["dst"][0]["address"] for row in rows[1:]}


def test_the_same_file_changes_nothing(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            before = running.segments[42]
            assert await reload(world, ONE) == []
            assert running.segments[42] is before
            assert world.attachments[0].opened == 1

    asyncio.run(scenario())


def test_policy_and_remotes_change_without_touching_devices_or_entries(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE + SEVEN) as running:
            await world.call("fdb.add", vni=42, mac=MAC, dst=A, state="dynamic")
            changed = await reload(
                world, f'[[segment]]\nvni = 42\nageing = 5\nremotes = ["{A}", "{C}"]\n{SEVEN}'
            )
            assert changed == [
                "segment 42: ageing 300.0 -> 5.0",
                f"segment 42: remote {C}:{world.port} added",
            ]
            assert await entries(world, 42) == {MAC: A}
            (shown, _) = (await world.call("show"))["segments"]
            assert shown["policy"]["ageing"] == 5.0
            assert [one["address"] for one in shown["remotes"]] == [A, C]
            assert [one.opened for one in world.attachments] == [1, 1]
            assert [one.changes for one in world.attachments] == [[], []]
            assert list(running.segments) == [42, 7]

    asyncio.run(scenario())


def test_what_was_added_by_command_survives_unless_the_file_had_it(world: World) -> None:
    static = f'[[segment.fdb]]\nmac = "{HELD}"\ndst = "{A}"\n'

    async def scenario() -> None:
        async with world.run(ONE + static):
            await world.call("remote.add", dst=C)
            await world.call("fdb.add", mac=MAC, dst=C)
            await reload(world, f'[[segment]]\nvni = 42\nremotes = ["{B}"]\n')
            rows = await world.call("remote.show")
            assert {row["address"] for row in rows} == {B, C}
            assert await entries(world, 42) == {MAC: C}

    asyncio.run(scenario())


def test_a_static_entry_of_the_file_follows_the_file(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            for dst in (B, C):
                await reload(world, ONE + f'[[segment.fdb]]\nmac = "{MAC}"\ndst = "{dst}"\n')
                assert await entries(world, 42) == {MAC: dst}
            await reload(world, ONE)
            assert await entries(world, 42) == {}

    asyncio.run(scenario())


def test_segments_come_and_go(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            assert await reload(world, ONE + SEVEN) == ["segment 7: added"]
            assert list(running.segments) == [42, 7]
            tap = running.segments[7].tap
            assert tap is not None
            assert await reload(world, SEVEN) == ["segment 42: removed"]
            assert list(running.segments) == [7]
            assert running.segments[7].tap is tap
            assert world.attachments[0].tap is None

    asyncio.run(scenario())


def test_other_addresses_are_followed_by_the_same_tap(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await reload(world, ONE + 'address = "10.42.0.1/24"\n')
            (attachment,) = world.attachments
            assert [one.address for one in attachment.changes] == [("10.42.0.1/24",)]
            assert attachment.opened == 1

    asyncio.run(scenario())


def test_another_tap_name_makes_another_tap_and_keeps_the_entries(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            await world.call("fdb.add", mac=MAC, dst=A, state="dynamic")
            await reload(world, ONE + 'tap = "other"\n')
            old, new = world.attachments
            assert (old.tap, running.segments[42].tap) == (None, new.tap)
            assert await entries(world, 42) == {MAC: A}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("segments", "vtep", "words"),
    [
        ("[[segment]\n", "", "not TOML"),
        (ONE + "vnii = 3\n", "", "did you mean vni?"),
        (ONE + ONE, "", "VNI 42 is already segment[0]'s"),
        (ONE, "udpcsum = false", "vtep.udpcsum True -> False: needs a restart"),
        (SEVEN + "mtu = 1500\n", "", "segment 7: mtu 1500 does not fit"),
        (SEVEN + 'tap = "eth7"\n', "", "tap eth7: an interface of that name exists"),
        (ONE + '[[segment]]\nvni = 7\nremotes = ["2001:db8::1"]', "", "no IPv6 address"),
    ],
)
def test_a_bad_file_is_refused_whole_and_the_old_one_stays(
    world: World, caplog: pytest.LogCaptureFixture, segments: str, vtep: str, words: str
) -> None:
    world.taps_of_others.add("eth7")

    async def scenario() -> None:
        async with world.run(ONE) as running:
            before = await world.call("fdb.show"), running.config
            world.path.write_text(
                f'[vtep]\nlocal = "127.0.0.1"\ndstport = {world.port}\nengine = "python"\n'
                f"{vtep}\n{segments}"
            )
            refused = await world.refusal("reload")
            assert words in str(refused)
            after = await world.call("fdb.show"), running.config
            assert [row["dst"] for row in after[0]] == [row["dst"] for row in before[0]]
            assert after[1] is before[1]
            assert list(running.segments) == [42]
            assert world.attachments[0].opened == 1

    asyncio.run(scenario())
    assert "reload refused, the old configuration stays" in caplog.text


def test_where_applying_fails_the_old_configuration_is_restored(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            world.failures += ["in the way"]
            world.write(f'[[segment]]\nvni = 8\nremotes = ["{C}"]\n')
            refused = await world.refusal("reload")
            assert "in the way: the old configuration is in force again" in str(refused)
            assert list(running.segments) == [42]
            assert running.segments[42].tap is not None
            assert [row["address"] for row in await world.call("remote.show")] == [A]

    asyncio.run(scenario())


def test_a_tap_that_cannot_be_replaced_is_put_back(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            world.failures += ["in the way"]
            world.write(ONE + 'tap = "other"\n')
            assert "in the way" in str(await world.refusal("reload"))
            assert running.segments[42].config.tap == "vxlan42"
            tap = running.segments[42].tap
            assert tap is not None
            assert tap.name == "vxlan42"

    asyncio.run(scenario())


def test_a_tap_that_cannot_be_put_back_either_is_tried_for(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as running:
            world.failures += ["in the way"] * 4
            world.write(ONE + 'tap = "other"\n')
            assert "in the way" in str(await world.refusal("reload"))
            await until(lambda: running.segments[42].tap, "the TAP to come back")
            assert running.segments[42].tap is not None
            assert running.segments[42].tap.name == "vxlan42"

    asyncio.run(scenario())


def test_sighup_reloads_and_a_bad_file_does_not_end_the_node(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with world.run(ONE):
            world.write(ONE + SEVEN)
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "segment 7: added" in caplog.text, "the reload")
            world.path.write_text("nonsense")
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "not TOML" in caplog.text, "the refusal")
            assert len((await world.call("show"))["segments"]) == 2

    asyncio.run(scenario())


def test_a_node_made_of_flags_has_nothing_to_read_again(world: World) -> None:
    config = from_flags(
        vni=42, local="127.0.0.1", remote=[A], dstport=world.port, engine="python",
        name=world.name,
    )  # fmt: skip

    async def scenario() -> None:
        task = asyncio.create_task(Node(config).run())
        await until(lambda: world.name in api.running(), "the node")
        assert "was started with flags" in str(await world.refusal("reload"))
        await world.call("down")
        await asyncio.wait_for(task, 10)

    asyncio.run(scenario())
