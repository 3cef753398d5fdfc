"""Three hosts that announce: nobody floods to find a station, and none stays when it is gone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packets import outer
from worlds import VNI

from vxlan.lab import Container, Host, Lab, Node, Sniffer, ping, segment, wait_until
from vxlan.neighbour import question_in
from vxlan.wire import mac_text

pytestmark = pytest.mark.namespaces

WAIT = 5.0


@dataclass(frozen=True)
class World:
    """Hosts a, b, c, a container on each of the first two, and nodes that share a key."""

    lab: Lab
    hosts: tuple[Host, Host, Host]
    c1: Container
    c2: Container
    nodes: tuple[Node, Node, Node]

    def announce(self, node: Node, container: Container) -> None:
        mac, addresses = mac_text(container.mac), list(container.addresses)
        node.call("station.add", mac=mac, address=addresses)

    def entry(self, node: Node, container: Container) -> Any:
        found = node.call("fdb.why", mac=mac_text(container.mac))["entry"]
        return found and (found["state"], found["source"], found["dst"][0]["address"])


def key_file(folder: Path, content: str) -> str:
    path = folder / "key"
    path.touch(0o600)
    path.write_text(content)
    return str(path)


@pytest.fixture
def world(engine_name: str, tmp_path: Path) -> Iterator[World]:
    with Lab("announce", wire=True) as lab:
        hosts = tuple(lab.host(name, f"192.0.2.{n}/24") for n, name in enumerate("abc", 1))
        a, b, _ = hosts
        c1 = a.container("c1", "10.42.0.11/16", "2001:db8:42::11/64")
        c2 = b.container("c2", "10.42.0.12/16", "2001:db8:42::12/64")
        key = key_file(tmp_path, secrets.token_hex(32))
        nodes = tuple(
            host.node(
                segment(VNI, *(o.address for o in hosts if o is not host), announce=True),
                engine=engine_name,
                key_file=key,
            )
            for host in hosts
        )
        lab.start(*nodes)
        yield World(lab, hosts, c1, c2, nodes)


def flooded(sniffer: Sniffer) -> list[bytes]:
    """What came to this host that asks for a neighbour."""
    seen = (outer(one.data) for one in sniffer.packets())
    frames = [one.inner for one in seen if one is not None and one.vni == VNI]
    return [frame for frame in frames if question_in(frame)]


def test_a_station_is_told_found_and_withdrawn(world: World) -> None:
    a, b, c = world.nodes
    world.announce(b, world.c2)
    told = ("extern_learn", "announced", world.hosts[1].address)
    for node in (a, c):
        wait_until(lambda node=node: world.entry(node, world.c2) == told, WAIT, "the entry")
    world.announce(a, world.c1)
    wait_until(lambda: world.entry(b, world.c1) is not None, WAIT, "the entry of c1")
    third = world.hosts[2]
    with Sniffer(third, third.link) as sniffer:
        assert ping(world.c1, world.c2.address, count=3).received == 3
        assert ping(world.c1, world.c2.addresses[1], count=3).received == 3
        assert flooded(sniffer) == []
    assert a.call("show")["segments"][0]["counters"]["suppressed"] >= 1
    b.call("station.del", mac=mac_text(world.c2.mac))
    wait_until(lambda: not is_announced(world, a), WAIT, "the withdrawal")


def is_announced(world: World, node: Node) -> bool:
    found = world.entry(node, world.c2)
    return bool(found) and found[0] == "extern_learn"


def test_a_node_that_ends_takes_its_stations_along(world: World) -> None:
    a, b, _ = world.nodes
    world.announce(b, world.c2)
    wait_until(lambda: is_announced(world, a), WAIT, "the entry")
    b.stop()
    wait_until(lambda: not is_announced(world, a), WAIT, "the farewell")


def test_a_node_that_comes_is_told_at_once(world: World) -> None:
    a, b, _ = world.nodes
    world.announce(b, world.c2)
    wait_until(lambda: is_announced(world, a), WAIT, "the entry")
    a.kill()
    world.lab.start(a)
    wait_until(lambda: is_announced(world, a), WAIT, "the entry, asked for")


def test_the_addresses_of_the_host_itself_are_announced(engine_name: str) -> None:
    with Lab("announce", wire=True) as lab:
        a, b = (lab.host(name, f"192.0.2.{n}/24") for n, name in enumerate("ab", 1))
        a.up(segment(VNI, b.address, announce=True, address=["10.42.0.1/16"]), engine=engine_name)
        there = b.up(segment(VNI, a.address, announce=True), engine=engine_name)

        def told() -> list[list[str]]:
            stations = there.call("station.show")
            return [one["address"] for one in stations if one["remote"] == a.address]

        wait_until(lambda: told() == [["10.42.0.1"]], WAIT, "the host's own station")


def test_who_has_another_key_is_not_believed(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    key = key_file(folder, secrets.token_hex(32))
    a, b, _ = world.nodes
    b.stop()
    others = [host.address for host in world.hosts if host is not world.hosts[1]]
    stranger = world.hosts[1].up(segment(VNI, *others, announce=True), key_file=key)
    world.announce(stranger, world.c2)

    def refused() -> int:
        drops = a.call("show")["vtep"]["counters"]["drops"]
        return int(drops.get("ANNOUNCEMENT_REFUSED", 0))

    wait_until(lambda: refused() > 0, WAIT, "the refusal")
    assert not is_announced(world, a)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [("short", 0o600, "16 to 1024 bytes"), ("x" * 32, 0o644, "chmod 600"), (None, 0, "openssl")],
)
def test_a_key_that_cannot_be_used_is_refused_at_start(
    tmp_path: Path, content: str | None, mode: int, said: str
) -> None:
    from vxlan.node_stations import KeyProblem, read_key

    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(KeyProblem, match=said):
        read_key(str(path))
