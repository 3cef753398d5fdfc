"""A running node without root: its operations, its events, its MTU, a TAP that is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.memory_node import LOCAL, A, B, C, FakeTap, World, make_world, until
from vxlan import api
from vxlan.fdb import Remote
from vxlan.node import Node, NodeError, run_node

ONE = f'[[segment]]\nvni = 42\nremotes = ["{A}"]\n'
TWO = f'{ONE}\n[[segment]]\nvni = 7\nremotes = ["{B}"]\n'
MAC = "02:00:00:00:00:aa"
OTHER = "02:00:00:00:00:bb"
FLOOD = "00:00:00:00:00:00"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


def run(test: Any) -> None:
    asyncio.run(test)


def addresses(rows: list[dict[str, Any]]) -> list[str]:
    return [row["address"] for row in rows]


# -- show ---------------------------------------------------------------------------------


def test_show_says_what_runs(world: World) -> None:
    async def scenario() -> None:
        async with world.run(TWO):
            shown = await world.call("show")
        json.dumps(shown)
        assert (shown["version"], shown["name"]) == (1, world.name)
        assert shown["engine"]["name"] == "python"
        assert shown["engine"]["granted"]["tap_vnet_hdr"] is True
        assert shown["vtep"]["local"] == [LOCAL]
        assert shown["vtep"]["dstport"] == world.port
        assert shown["vtep"]["counters"]["drops"] == {}
        first = shown["segments"][0]
        assert (first["vni"], first["tap"], first["bridge"]) == (42, "vxlan42", None)
        assert (first["mtu"], first["mtu_auto"]) == (1450, True)
        assert first["mtu_limit"] == (
            f"the path to {A} through eth0 carries 1500, VXLAN over IPv4 takes 50"
        )
        assert first["policy"]["max_frame"] == 1464
        assert first["fdb_entries"] == 0
        assert first["counters"]["encap_packets"] == 0
        assert [(one["address"], one["state"]) for one in first["remotes"]] == [(A, "unknown")]

    run(scenario())


def test_counters_and_state_follow_the_traffic(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as node:
            frame = bytes.fromhex("ffffffffffff0200000000aa0800") + bytes(50)
            (sent,) = node.engine.encap(42, [frame], 1.0)
            heard = sent._replace(remote=Remote(A, 50000))
            stranger = sent._replace(remote=Remote(C, 50000))
            node.engine.decap([heard, stranger], 2.0)
            (segment,) = (await world.call("show"))["segments"]
        counters = segment["counters"]
        assert (counters["encap_packets"], counters["decap_packets"]) == (1, 1)
        assert counters["drops"] == {"UNKNOWN_REMOTE": 1}
        assert segment["remotes"][0]["state"] == "up"
        assert segment["remotes"][0]["counters"]["decap_packets"] == 1
        assert segment["fdb_entries"] == 1

    run(scenario())


# -- entries ------------------------------------------------------------------------------


def test_the_words_of_bridge_fdb(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("fdb.add", mac=MAC, dst=B)
            await world.call("fdb.add", mac=MAC, dst=B)
            refused = await world.refusal("fdb.add", mac=MAC, dst=C)
            assert refused.code == "conflict"
            assert "`pyvxlan fdb replace`" in str(refused)
            await world.call("fdb.replace", mac=MAC, dst=C, port=8472)
            flood, entry = await world.call("fdb.show")
            assert (flood["mac"], flood["state"], flood["dst"]) == (
                FLOOD,
                "static",
                [{"address": A, "port": world.port}],
            )
            assert entry["dst"] == [{"address": C, "port": 8472}]
            assert (entry["state"], entry["source"], entry["used"]) == ("static", "operator", None)
            await world.call("fdb.del", mac=MAC)
            assert (await world.refusal("fdb.del", mac=MAC)).code == "not_found"

    run(scenario())


def test_an_operator_overrules_what_was_learned_without_replace(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as node:
            await world.call("fdb.add", mac=MAC, dst=A, state="dynamic")
            await world.call("fdb.add", mac=MAC, dst=B, state="extern_learn")
            await world.call("fdb.add", mac=MAC, dst=C)
            entry = node.engine.fdb_get(42, bytes.fromhex("0200000000aa"))
            assert entry is not None
            assert entry.names(C)
            why = await world.call("fdb.why", mac=MAC)
            assert why["entry"]["shadowed"]["dst"] == [{"address": B, "port": world.port}]
            refused = await world.refusal("fdb.add", mac=MAC, dst=A, state="extern_learn")
            assert refused.code == "conflict"

    run(scenario())


def test_one_remote_of_an_entry_is_deleted(world: World) -> None:
    entry = f'[[segment.fdb]]\nmac = "{MAC}"\ndst = ["{B}", "{C}"]\n'

    async def scenario() -> None:
        async with world.run(ONE + entry):
            assert (await world.refusal("fdb.del", mac=MAC, dst=A)).code == "not_found"
            await world.call("fdb.del", mac=MAC, dst=B)
            _, left = await world.call("fdb.show")
            assert addresses(left["dst"]) == [C]
            assert left["source"] == "config"
            await world.call("fdb.del", mac=MAC, dst=C)
            assert len(await world.call("fdb.show")) == 1

    run(scenario())


def test_the_zero_mac_edits_the_flood_list(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("fdb.add", mac=FLOOD, dst=B)
            assert addresses(await world.call("remote.show")) == [A, B]
            await world.call("fdb.del", mac=FLOOD, dst=A)
            await world.call("fdb.replace", mac=FLOOD, dst=C)
            assert addresses(await world.call("remote.show")) == [C]
            assert (await world.refusal("fdb.del", mac=FLOOD)).code == "usage"

    run(scenario())


def test_flush_by_state_and_by_remote(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("fdb.add", mac=MAC, dst=B)
            await world.call("fdb.add", mac=OTHER, dst=A, state="dynamic")
            assert await world.call("fdb.flush", state="dynamic", dst=B) == {"flushed": 0}
            assert await world.call("fdb.flush", state="dynamic") == {"flushed": 1}
            assert await world.call("fdb.flush") == {"flushed": 1}

    run(scenario())


def test_a_full_table_is_named(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE + "maxaddress = 1\n"):
            await world.call("fdb.add", mac=MAC, dst=B)
            refused = await world.refusal("fdb.add", mac=OTHER, dst=B)
            assert (refused.code, "raise maxaddress" in str(refused)) == ("conflict", True)

    run(scenario())


def test_why_tells_the_last_moves(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            for dst in (A, B, C):
                await world.call("fdb.replace", mac=MAC, dst=dst)
            why = await world.call("fdb.why", mac=MAC)
            assert why["entry"]["dst"][0]["address"] == C
            moves = [(past["was"], past["remote"]["address"]) for past in why["history"]]
            assert moves[0] == (None, A)
            assert ({"address": B, "port": world.port}, C) in moves
            assert await world.call("fdb.why", mac=OTHER) == {"entry": None, "history": []}

    run(scenario())


# -- remotes ------------------------------------------------------------------------------


def test_remotes_come_and_go(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            await world.call("remote.add", dst=f"{B}:8472")
            await world.call("remote.add", dst=B, port=8472)
            rows = await world.call("remote.show")
            assert [(row["address"], row["port"]) for row in rows] == [(A, world.port), (B, 8472)]
            await world.call("remote.del", dst=A)
            assert (await world.refusal("remote.del", dst=A)).code == "not_found"

    run(scenario())


def test_our_own_address_in_the_file_is_ignored_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    entry = f'[[segment.fdb]]\nmac = "{MAC}"\ndst = "{LOCAL}"\n'

    async def scenario() -> None:
        async with world.run(f'[[segment]]\nvni = 1\nremotes = ["{LOCAL}", "{A}"]\n{entry}'):
            assert addresses(await world.call("remote.show")) == [A]
            assert len(await world.call("fdb.show")) == 1

    run(scenario())
    assert f"remote {LOCAL}:{world.port} is ourselves: ignored" in caplog.text


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        ("fdb.add", {"mac": "x", "dst": A}, "mac: 'x' is not a MAC address"),
        ("fdb.add", {"mac": "01:00:5e:00:00:01", "dst": A}, "is a group address"),
        ("fdb.add", {"mac": MAC}, "dst is missing"),
        ("fdb.add", {"mac": MAC, "dst": "2001:db8::1"}, "local has no IPv6 address"),
        ("fdb.add", {"mac": MAC, "dst": LOCAL}, "is this VTEP itself"),
        ("fdb.add", {"mac": MAC, "dst": A, "port": 0}, "port: 0 is not a UDP port"),
        ("fdb.add", {"mac": MAC, "dst": A, "state": "x"}, "is not one of dynamic, extern_learn"),
        ("fdb.add", {"mac": MAC, "dst": A, "vlan": 5}, "no such argument: vlan"),
        ("fdb.add", {"mac": MAC, "dst": ["x"]}, "dst: ['x'] is not a text"),
        ("fdb.flush", {"dst": "x"}, "dst: 'x' is not an IP address"),
        ("fdb.show", {"vni": "x"}, "vni: 'x' is not a VNI"),
        ("remote.add", {"dst": "239.0.0.1"}, "multicast group"),
        ("show", {"x": 1}, "no such argument: x (this takes none)"),
    ],
)
def test_wrong_arguments_are_refused(
    world: World, op: str, args: dict[str, Any], expected: str
) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            before = await world.call("fdb.show")
            refused = await world.refusal(op, **args)
            assert (refused.code, expected in str(refused)) == ("usage", True), str(refused)
            assert len(await world.call("fdb.show")) == len(before)

    run(scenario())


def test_with_two_segments_the_vni_must_be_said(world: World) -> None:
    async def scenario() -> None:
        async with world.run(TWO):
            assert "there are 42, 7" in str(await world.refusal("remote.add", dst=C))
            assert (await world.refusal("remote.add", vni=8, dst=C)).code == "not_found"
            await world.call("remote.add", vni=7, dst=C)
            assert addresses(await world.call("remote.show", vni=42)) == [A]
            assert addresses(await world.call("remote.show")) == [A, B, C]

    run(scenario())


# -- MTU ----------------------------------------------------------------------------------


def test_the_smallest_path_decides(world: World) -> None:
    world.kernel.mtus[B] = 1400

    async def scenario() -> None:
        async with world.run(ONE) as node:
            await world.call("remote.add", dst=B)
            assert (node.segments[42].mtu, node.segments[42].policy.mtu) == (1350, 1350)
            assert world.attachments[0].mtu == 1350
            await world.call("remote.del", dst=B)
            assert node.segments[42].mtu == 1450
            await world.call("fdb.add", mac=MAC, dst=B)
            assert node.segments[42].mtu == 1350
            await world.call("fdb.flush")
            assert world.attachments[0].mtu == 1450

    run(scenario())


def test_a_configured_mtu_that_cannot_fit_is_refused_with_the_numbers(world: World) -> None:
    config = world.write(ONE + "mtu = 1500\n")
    with pytest.raises(NodeError) as refused:
        asyncio.run(Node(config).run())
    assert str(refused.value) == (
        f"segment 42: mtu 1500 does not fit: the path to {A} through eth0 carries 1500, "
        'VXLAN over IPv4 takes 50: at most 1450 (or mtu = "auto")'
    )
    assert api.running() == []
    assert world.attachments == []


def test_a_remote_whose_path_is_too_narrow_for_the_configured_mtu_is_refused(
    world: World,
) -> None:
    world.kernel.mtus[B] = 1400

    async def scenario() -> None:
        async with world.run(ONE + "mtu = 1450\n") as node:
            refused = await world.refusal("remote.add", dst=B)
            assert (refused.code, "at most 1350" in str(refused)) == ("conflict", True)
            assert node.engine.remotes(42) == (Remote(A, world.port),)

    run(scenario())


def test_a_path_that_shrinks_and_goes_away(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE + "mtu = 1450\n") as node:
            segment = node.segments[42]
            world.kernel.mtus[A] = 1300
            await segment.refit(ways={})
            assert (segment.mtu, segment.config.mtu) == (1250, 1450)
            world.kernel.mtus[A], world.kernel.wired = None, False
            await segment.refit(ways={})
            assert segment.mtu == 1250
            world.kernel.wired = True
            await segment.refit(ways={})
            assert segment.mtu == 1450

    run(scenario())


def test_a_segment_without_remotes_has_the_mtu_of_our_own_link(world: World) -> None:
    async def scenario() -> None:
        async with world.run("[[segment]]\nvni = 42\n"):
            (shown,) = (await world.call("show"))["segments"]
        assert shown["mtu"] == 1450
        assert shown["mtu_limit"] == (f"eth0 with {LOCAL} carries 1500, VXLAN over IPv4 takes 50")

    run(scenario())


# -- events -------------------------------------------------------------------------------


async def collect(world: World, events: list[dict[str, Any]]) -> None:
    """Follow the event stream until the node ends."""

    def follow() -> None:
        for event in api.stream(world.name, "monitor"):
            events.append(event)  # noqa: PERF402  (the list is read while it grows)

    await asyncio.to_thread(follow)


def test_events_are_told_to_who_monitors(world: World) -> None:
    events: list[dict[str, Any]] = []
    world.kernel.mtus[B] = 1400

    async def scenario() -> None:
        async with world.run(ONE) as node:
            following = asyncio.create_task(collect(world, events))
            await until(lambda: node._server._subscribers, "the stream")
            await world.call("remote.add", dst=B)
            await until(lambda: len(events) >= 2, "two events")
        await following

    run(scenario())
    added, changed = events[:2]
    assert (added["event"], added["vni"], added["remote"]["address"]) == ("remote_added", 42, B)
    assert changed["event"] == "mtu_changed"
    assert changed["detail"].startswith("1450 -> 1350: the path to")


def test_a_lost_tap_is_made_anew_after_some_tries(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with world.run(TWO) as node:
            attachment, other = world.attachments
            lost = attachment.tap
            assert isinstance(lost, FakeTap)
            world.failures += ["in the way", "in the way"]
            lost.lose()
            await until(lambda: attachment.opened == 2, "a second TAP")
            assert lost.closed
            assert (other.opened, len(node.segments)) == (1, 2)
            await until(lambda: "tap back" in caplog.text, "the line in the log")

    run(scenario())
    assert "tap lost" in caplog.text
    assert caplog.text.count("in the way: trying on") == 1


def test_a_node_ends_while_it_still_tries_to_make_a_tap(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            tap = world.attachments[0].tap
            assert isinstance(tap, FakeTap)
            world.failures += ["in the way"] * 1000
            tap.lose()
            await until(lambda: len(world.failures) < 999, "two tries")

    run(scenario())
    assert world.attachments[0].opened == 1


def test_down_answers_and_ends(world: World) -> None:
    async def scenario() -> None:
        node = Node(world.write(ONE))
        task = asyncio.create_task(node.run())
        await until(lambda: world.name in api.running(), "the node")
        assert (await world.call("down"))["pid"] > 0
        await asyncio.wait_for(task, 10)

    run(scenario())
    tap = world.attachments[0].tap
    assert tap is None
    assert api.running() == []


def test_a_start_that_fails_half_way_leaves_nothing(world: World) -> None:
    world.failures += ["never"]
    config = world.write(TWO)
    with pytest.raises(NodeError, match="tap vxlan42: never"):
        asyncio.run(Node(config).run())
    assert all(attachment.tap is None for attachment in world.attachments)
    assert not api.socket_path(world.name).exists()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCAL, world.port))


def test_the_exit_status_of_a_node_that_cannot_start(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOCAL, world.port))
        assert run_node(world.write(ONE)) == 1
    assert str(world.port) in caplog.records[-1].getMessage()


def test_without_uvloop_a_node_runs_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    def end_it() -> None:
        api.call(world.name, "down")

    config = world.write(ONE)
    ending = threading.Thread(target=retry, args=(end_it,))
    ending.start()
    assert run_node(config) == 0
    ending.join(10)
    assert "uvloop is not installed" in caplog.text


def retry(action: Callable[[], None]) -> None:
    """Until the node is there."""
    for _ in range(1000):
        try:
            return action()
        except api.NotRunning:
            time.sleep(0.01)
    return None


def test_the_service_manager_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")

        async def scenario() -> None:
            async with world.run(ONE):
                await world.call("reload")
                await asyncio.sleep(0.05)

        run(scenario())
        manager.setblocking(False)
        told = []
        while True:
            try:
                told.append(manager.recv(1000).decode())
            except BlockingIOError:
                break
    kinds = [text.split("\n")[0] for text in told if text != "WATCHDOG=1"]
    assert kinds == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert any("MONOTONIC_USEC=" in text for text in told)
    assert "WATCHDOG=1" in told
