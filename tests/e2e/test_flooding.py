"""Three hosts, full mesh: who gets a copy, who does not, and what the third one sees."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from packets import BROADCAST, Outer, outer, probe_frame
from worlds import VNI

from vxlan.lab import Container, Host, Lab, Node, Sniffer, ping, segment, wait_until

pytestmark = pytest.mark.namespaces

STATION = "02:00:00:00:99:01"


@dataclass(frozen=True)
class Mesh:
    """Hosts a, b, c; one container and one node on each."""

    hosts: tuple[Host, Host, Host]
    containers: tuple[Container, Container, Container]
    nodes: tuple[Node, Node, Node]


@pytest.fixture(scope="module")
def mesh(engine_name: str) -> Iterator[Mesh]:
    with Lab("mesh", wire=True) as lab:
        a, b, c = (lab.host(name, f"192.0.2.{n}/24") for n, name in enumerate("abc", 1))
        hosts = (a, b, c)
        containers = tuple(
            host.container(f"c{n}", f"10.42.0.1{n}/16") for n, host in enumerate(hosts, 1)
        )
        nodes = tuple(
            host.node(
                segment(VNI, *(other.address for other in hosts if other is not host)),
                engine=engine_name,
            )
            for host in hosts
        )
        lab.start(*nodes)
        yield Mesh(hosts, containers, nodes)


def send(source: Container, frame: bytes) -> None:
    with source.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((source.link, 0))
        sender.send(frame)


def carried(sniffer: Sniffer, direction: str) -> list[Outer]:
    """VXLAN datagrams that passed in one direction."""
    decoded = (outer(one.data) for one in sniffer.packets() if one.direction == direction)
    return [one for one in decoded if one is not None]


def settle(mesh: Mesh) -> None:
    """Every node knows every container, and nothing is under way any more."""
    for source in mesh.containers:
        for sink in mesh.containers:
            if source is not sink:
                assert ping(source, sink.address).received == 1


def test_after_learning_the_third_host_sees_nothing(mesh: Mesh) -> None:
    settle(mesh)
    with Sniffer(mesh.hosts[2], "eth0") as third:
        assert ping(mesh.containers[0], mesh.containers[1].address, 20, interval=0.01).lost == 0
        # A bridge that comes up floods group frames of its own (IGMP to 224.0.0.106).
        assert [one for one in carried(third, "in") if not one.inner[0] & 1] == []


def test_a_broadcast_reaches_every_host_exactly_once(mesh: Mesh) -> None:
    settle(mesh)
    frame = probe_frame(b"one copy each", BROADCAST, mesh.containers[0].mac.hex(":"))
    with Sniffer(mesh.hosts[1], "eth0") as second, Sniffer(mesh.hosts[2], "eth0") as third:
        send(mesh.containers[0], frame)
        settle(mesh)
        for sniffer in (second, third):
            copies = [one for one in carried(sniffer, "in") if one.inner == frame]
            assert len(copies) == 1
            assert copies[0].src == mesh.hosts[0].address


def test_a_container_gets_a_broadcast_exactly_once(mesh: Mesh) -> None:
    settle(mesh)
    frame = probe_frame(b"once to the container", BROADCAST, mesh.containers[0].mac.hex(":"))
    with Sniffer(mesh.containers[2], "eth0") as listener:
        send(mesh.containers[0], frame)
        settle(mesh)
        assert [one.data for one in listener.packets()].count(frame) == 1


def test_a_broadcast_is_not_reflected_into_the_underlay(mesh: Mesh) -> None:
    settle(mesh)
    frame = probe_frame(b"no reflection", BROADCAST, mesh.containers[0].mac.hex(":"))
    with Sniffer(mesh.hosts[2], "eth0") as third, Sniffer(mesh.hosts[1], "eth0") as second:
        send(mesh.containers[0], frame)
        settle(mesh)
        for sniffer in (second, third):
            assert frame not in [one.inner for one in carried(sniffer, "out")]


def test_an_unknown_unicast_is_flooded_and_a_known_one_is_not(mesh: Mesh) -> None:
    settle(mesh)
    source = mesh.containers[0].mac.hex(":")
    unknown = probe_frame(b"to nobody known", "02:00:00:00:77:77", source)
    known = probe_frame(b"to c2", mesh.containers[1].mac.hex(":"), source)
    with Sniffer(mesh.hosts[2], "eth0") as third:
        send(mesh.containers[0], unknown)
        send(mesh.containers[0], known)
        settle(mesh)
        inner = [one.inner for one in carried(third, "in")]
    assert inner.count(unknown) == 1
    assert inner.count(known) == 0


def test_a_station_that_moves_is_followed(mesh: Mesh) -> None:
    """The same MAC speaks behind b, then behind c; frames for it follow."""
    settle(mesh)
    here = mesh.nodes[0]
    _, b, c = mesh.hosts
    for host, container in ((b, mesh.containers[1]), (c, mesh.containers[2])):
        send(container, probe_frame(b"I am here", BROADCAST, STATION))
        wait_until(
            lambda host=host: _is_behind(here, STATION, host.address),
            5.0,
            f"{STATION} behind {host.address}",
        )
    frame = probe_frame(b"to the moved", STATION, mesh.containers[0].mac.hex(":"))
    with Sniffer(b, "eth0") as second, Sniffer(c, "eth0") as third:
        send(mesh.containers[0], frame)
        third.wait_for(lambda one: frame in one.data, what="the frame for the moved station")
        assert frame not in [one.inner for one in carried(second, "in")]
    wait_until(lambda: moves_of(here, STATION), 5.0, "the move in the history")
    assert moves_of(here, STATION)[-1] == (b.address, c.address)
    assert here.segment(VNI)["counters"]["moved"] >= 1


def moves_of(node: Node, mac: str) -> list[tuple[str, str]]:
    """(from, to) of each move of a station, oldest first."""
    history = node.call("fdb.why", vni=VNI, mac=mac)["history"]
    moves = [event for event in history if event["event"] == "moved"]
    return [(move["was"]["address"], move["remote"]["address"]) for move in moves]


def _is_behind(node: Node, mac: str, address: str) -> bool:
    entry = node.fdb(VNI).get(mac)
    return entry is not None and entry["dst"][0]["address"] == address
