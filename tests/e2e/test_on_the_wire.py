"""What the outer packet looks like to whoever listens between the hosts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from packets import BROADCAST, Outer, outer, probe_frame, tagged
from worlds import VNI

from vxlan.lab import Container, Host, Lab, LabTimeout, Node, Sniffer, segment, wait_until

pytestmark = pytest.mark.namespaces

FIXED, INHERIT, UNTAGGED = VNI, 43, 44


@dataclass(frozen=True)
class World:
    """One node; "b" only listens.  Segments differ in ttl, tos and vlan."""

    a: Host
    b: Host
    by_vni: dict[int, Container]
    node: Node


@pytest.fixture(scope="module", params=["ipv4", "ipv6"])
def world(request: pytest.FixtureRequest, engine_name: str) -> Iterator[World]:
    v6 = request.param == "ipv6"
    underlay = "2001:db8::{}/64" if v6 else "192.0.2.{}/24"
    with Lab("wire", wire=True) as lab:
        a, b = lab.host("a", underlay.format(1)), lab.host("b", underlay.format(2))
        by_vni = {
            vni: a.container(f"c{vni}", "10.42.9.1/16", bridge=f"br{vni}")
            for vni in (FIXED, INHERIT, UNTAGGED)
        }
        node = a.up(
            segment(FIXED, b.address, bridge="br42", ttl=17, tos=0xB8),
            segment(INHERIT, b.address, bridge="br43", ttl="inherit", tos="inherit"),
            segment(UNTAGGED, b.address, bridge="br44", vlan="drop"),
            engine=engine_name,
        )
        yield World(a, b, by_vni, node)


def carry(world: World, vni: int, frames: list[bytes]) -> list[Outer]:
    """Send frames into a segment; what b's link receives of them, in any order."""
    found: list[Outer] = []

    def all_there() -> bool:
        decoded = (outer(one.data) for one in listener.packets())
        found.extend(one for one in decoded if one is not None and one.inner in frames)
        return len(found) >= len(frames)

    container = world.by_vni[vni]
    with (
        Sniffer(world.b, "eth0") as listener,
        container.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
    ):
        sender.bind((container.link, 0))
        for frame in frames:
            sender.send(frame)
        try:
            wait_until(all_there, 5.0, f"{len(frames)} frames on the wire")
        except LabTimeout as error:
            raise AssertionError(f"{error}; {len(found)} came") from error
    return found


def test_header_is_that_of_rfc_7348(world: World) -> None:
    [seen] = carry(world, FIXED, [probe_frame(b"plain")])
    assert (seen.flags, seen.vni, seen.reserved, seen.dport) == (0x08, FIXED, 0, 4789)
    assert (seen.src, seen.dst) == (world.a.address, world.b.address)
    assert 49152 <= seen.sport <= 65535
    assert seen.udp_checksum != 0


def test_the_outer_packet_may_not_be_fragmented(world: World) -> None:
    [seen] = carry(world, FIXED, [probe_frame(b"do not fragment")])
    assert seen.dont_fragment


def test_fixed_ttl_and_dscp(world: World) -> None:
    [seen] = carry(world, FIXED, [probe_frame(b"fixed", tos=0x28, ttl=200)])
    assert (seen.ttl, seen.tos) == (17, 0xB8)


def test_inherited_ttl_and_dscp(world: World) -> None:
    [seen] = carry(world, INHERIT, [probe_frame(b"inherited", tos=0x28, ttl=200)])
    assert (seen.ttl, seen.tos) == (200, 0x28)


@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
@pytest.mark.parametrize("vni", [FIXED, INHERIT])
def test_ecn_is_copied_into_the_outer_header(world: World, vni: int, ecn: int) -> None:
    """RFC 6040, section 4.1, normal mode; DSCP is the policy's affair."""
    [seen] = carry(world, vni, [probe_frame(b"ecn", tos=0x28 | ecn)])
    assert seen.tos & 0x03 == ecn


def test_many_flows_spread_over_many_source_ports(world: World) -> None:
    frames = [probe_frame(b"flow", sport=10_000 + flow) for flow in range(300)]
    assert len({one.sport for one in carry(world, FIXED, frames)}) >= 100


def test_one_flow_keeps_one_source_port(world: World) -> None:
    frames = [probe_frame(b"%d of one flow" % number) for number in range(50)]
    assert len({one.sport for one in carry(world, FIXED, frames)}) == 1


@pytest.mark.parametrize("tpid", [0x8100, 0x88A8])
def test_tags_are_carried_as_they_are(world: World, tpid: int) -> None:
    frame = tagged(probe_frame(b"tagged"), 100, tpid)
    [seen] = carry(world, FIXED, [frame])
    assert seen.inner == frame


def test_tags_are_discarded_where_the_segment_says_so(world: World) -> None:
    after = probe_frame(b"untagged, sent after")
    with Sniffer(world.b, "eth0") as listener:
        container = world.by_vni[UNTAGGED]
        with container.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((container.link, 0))
            sender.send(tagged(probe_frame(b"tagged"), 100))
            sender.send(after)
        first = listener.wait_for(lambda one: outer(one.data) is not None, what="a datagram")
    decoded = outer(first.data)
    assert decoded is not None
    assert decoded.inner == after
    assert world.node.segment(UNTAGGED)["counters"]["drops"] == {"VLAN_POLICY": 1}


def test_a_broadcast_destination_is_no_flow_of_its_own(world: World) -> None:
    """What is behind the Ethernet header decides; ARP has no ports and still gets one."""
    arp = bytes.fromhex(BROADCAST.replace(":", "")) + bytes.fromhex("020000000b01 0806")
    frame = arp + bytes.fromhex("0001080006040001 020000000b01 0a2a0901 000000000000 0a2a0902")
    ports = {one.sport for one in carry(world, FIXED, [frame, frame])}
    assert len(ports) == 1
