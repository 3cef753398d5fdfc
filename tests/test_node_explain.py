"""A running node is asked about packets, and goes on as if it had not been."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.frames import BROADCAST, ether, ipv4, udp, vxlan
from tests.memory_node import LOCAL, A, C, World, make_world
from tests.test_node import MAC, ONE, TWO
from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.netdev import Neighbour, NetdevError
from vxlan.wire import mac_bytes

FRAME = ether(BROADCAST, mac_bytes(MAC))
PAYLOAD = vxlan(42, FRAME).hex()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


def ask(world: World, segments: str = ONE, **args: Any) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        async with world.run(segments):
            found: dict[str, Any] = await world.call("explain", **args)
            return found

    return asyncio.run(scenario())


def refusal(world: World, segments: str = ONE, **args: Any) -> tuple[str, str]:
    async def scenario() -> tuple[str, str]:
        async with world.run(segments):
            refused = await world.refusal("explain", **args)
            return refused.code, str(refused)

    return asyncio.run(scenario())


# -- frames and datagrams ------------------------------------------------------------------


def test_a_frame_is_explained_with_the_names_of_the_node(world: World) -> None:
    found = ask(world, frame=FRAME.hex())
    assert (found["node"], found["side"], found["vni"]) == (world.name, "encap", 42)
    assert (found["verdict"], found["reason"], found["flooded"]) == ("encap", "flood_list", True)
    assert found["segment"]["tap"] == "vxlan42"
    assert found["segment"]["mtu"] == 1450
    (remote,) = found["remotes"]
    assert (remote["address"], remote["port"], remote["state"]) == (A, world.port, "unknown")
    assert remote["path"]["mtu"] == 1500
    assert (found["outer"]["src"], found["outer"]["dst"]) == (LOCAL, A)


def test_the_source_port_is_that_of_the_socket(world: World) -> None:
    async def scenario() -> tuple[int, int | None]:
        async with world.run(ONE) as node:
            found = await world.call("explain", frame=FRAME.hex())
            (sent,) = node.engine.encap(42, [FRAME], 1.0)
            return found["outer"]["sport"], node.underlay.source_port(sent)

    said, real = asyncio.run(scenario())
    assert said == real


def test_a_datagram_teaches_nothing_and_is_not_counted(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE):
            before = await world.call("show")
            found = await world.call("explain", datagram=PAYLOAD, src=A)
            assert (found["verdict"], found["learning"]["what"]) == ("decap", "learned")
            assert found["outer"]["dst"] == LOCAL
            again = await world.call("explain", datagram=PAYLOAD, src=C)
            assert again["reason"] == "UNKNOWN_REMOTE"
            after = await world.call("show")
            assert after["segments"][0]["counters"] == before["segments"][0]["counters"]
            assert after["segments"][0]["fdb_entries"] == 0
            assert after["segments"][0]["remotes"][0]["state"] == "unknown"

    asyncio.run(scenario())


def test_an_entry_is_shown_with_its_source_and_age(world: World) -> None:
    async def scenario() -> None:
        async with world.run(ONE) as node:
            now = node.began
            node.engine.decap([Datagram(Remote(A, 50000), bytes.fromhex(PAYLOAD))], now)
            answer = ether(mac_bytes(MAC), mac_bytes("02:00:00:00:00:bb"))
            found = await world.call("explain", frame=answer.hex())
            assert (found["reason"], found["entry"]["source"]) == ("fdb_entry", "data")
            assert (found["entry"]["state"], found["entry"]["used"]) == ("dynamic", None)
            assert found["entry"]["age"] > 0
            still = await world.call("fdb.why", mac=MAC)
            assert still["entry"]["used"] is None, "asking is no use of the entry"

    asyncio.run(scenario())


def test_what_is_too_big_is_answered_in_words_only(world: World) -> None:
    big = ether(ethertype=0x0800, payload=ipv4(udp(payload=bytes(1500))))
    found = ask(world, frame=big.hex())
    assert (found["verdict"], found["reason"]) == ("drop", "PKT_TOO_BIG")
    assert (found["mtu"]["fate"], found["mtu"]["limit"]) == ("answered", 1450)
    assert found["mtu"]["bound"] == "the overlay MTU"
    assert found["answer"] is not None


def test_a_probe_is_no_frame(world: World) -> None:
    probe = bytes(8) + b"PVXP" + bytes((1, 0, 0, 0)) + b"12345678" + bytes(80)
    found = ask(world, datagram=probe.hex(), src=A)
    assert (found["verdict"], found["reason"]) == ("probe", "probe")
    assert found["rules"] == []


# -- words ---------------------------------------------------------------------------------


def test_an_address_stands_for_the_mac_that_the_host_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [Neighbour("10.42.0.12", mac_bytes(MAC)), Neighbour("10.42.0.13", None)]
    host = SimpleNamespace(
        NetdevError=NetdevError,
        neighbours=lambda name: known,
        addresses=lambda name: ["10.42.0.1/24"],
        link=lambda name: SimpleNamespace(mac=b"\2\0\0\0\0\1"),
    )
    monkeypatch.setattr("vxlan.node_words.netdev", host)
    words = {"from": "10.42.0.1", "to": "10.42.0.12", "proto": "tcp", "size": 1450, "df": True}
    found = ask(world, **words)
    assert (found["inner"]["src"], found["inner"]["dst"]) == ("02:00:00:00:00:01", MAC)
    assert (found["inner"]["packet"], found["verdict"]) == (1450, "encap")
    assert found["notes"] == []
    assert refusal(world, **{**words, "to": "10.42.0.13"})[0] == "not_found"


@pytest.mark.parametrize(
    ("to", "mac"),
    [
        ("255.255.255.255", "ff:ff:ff:ff:ff:ff"),
        ("10.42.0.255", "ff:ff:ff:ff:ff:ff"),
        ("239.129.2.3", "01:00:5e:01:02:03"),
        ("ff02::1:3", "33:33:00:01:00:03"),
    ],
)
def test_a_group_has_its_mac(world: World, to: str, mac: str) -> None:
    segments = f'{ONE}bridge = "br42"\naddress = ["10.42.0.1/24"]\n'
    source = "fd42::b" if ":" in to else "10.42.0.11"
    found = ask(world, segments, **{"from": source, "to": to, "proto": "udp"})
    assert (found["inner"]["dst"], found["flooded"]) == (mac, True)
    assert any("stands in for it" in note for note in found["notes"])


def test_an_arp_question_needs_no_mac(world: World) -> None:
    found = ask(world, **{"from": "10.42.0.11", "to": "10.42.0.12", "proto": "arp"})
    assert found["inner"]["arp"]["target"] == "10.42.0.12"
    assert found["reason"] == "flood_list"


# -- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ({}, "usage", "one packet at a time"),
        ({"frame": "00", "datagram": "00"}, "usage", "one packet at a time"),
        ({"frame": "zz"}, "usage", "hexadecimal"),
        ({"frame": "00" * 140000}, "usage", "at most"),
        ({"frame": "00", "src": A}, "usage", "belong to a datagram"),
        ({"datagram": "00"}, "usage", "src is missing"),
        ({"datagram": "00", "src": "here"}, "usage", "not an IP address"),
        ({"datagram": "00", "src": A, "tos": 300}, "usage", "must be 0 to 255"),
        ({"frame": "00", "vni": 7}, "not_found", "no segment 7 here: there are 42"),
        ({"frame": "00", "bytes": 1}, "usage", "no such argument: bytes"),
        ({"from": "10.42.0.11"}, "usage", "to is missing"),
        ({"from": "10.42.0.11", "to": "10.42.0.12"}, "not_found", "MAC of 10.42.0.12 is not known"),
        ({"from": "10.42.0.11", "to": "fd42::1"}, "usage", "one is IPv4, one is IPv6"),
        ({"from": "a", "to": "b"}, "usage", "no station"),
    ],
)
def test_a_request_that_is_wrong(world: World, args: dict[str, Any], code: str, text: str) -> None:
    found, said = refusal(world, **args)
    assert found == code
    assert text in said


def test_several_segments_want_a_vni(world: World) -> None:
    assert "give a vni" in refusal(world, TWO, frame=FRAME.hex())[1]
    assert ask(world, TWO, frame=FRAME.hex(), vni=7)["vni"] == 7
