"""Datagrams that must not pass, each sent by a plain socket: the exact reason is counted.

One node with four segments.  "b" is a known remote without any VTEP, "s" is a host
that nobody named.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from counting import NODE_WIDE, DropsOf, count
from packets import VXLAN_PORT, probe_frame, tagged, vxlan

from vxlan.lab import Host, Lab, Node, Sniffer, segment

pytestmark = pytest.mark.namespaces

KNOWN, STRICT, ANY, UNTAGGED = 42, 43, 44, 45
UNUSED = 46
COPIES = 3


@dataclass(frozen=True)
class World:
    a: Host
    b: Host
    stranger: Host
    node: Node


@pytest.fixture(scope="module", params=["192.0.2.{}/24", "2001:db8::{}/64"], ids=["ipv4", "ipv6"])
def world(request: pytest.FixtureRequest, engine_name: str) -> Iterator[World]:
    with Lab("bad") as lab:
        a, b, s = (lab.host(name, request.param.format(n)) for n, name in enumerate("abs", 1))
        node = a.up(
            segment(KNOWN, b.address, bridge=None),
            segment(STRICT, b.address, bridge=None, reserved_bits="strict"),
            segment(ANY, b.address, bridge=None, accept="any"),
            segment(UNTAGGED, b.address, bridge=None, vlan="drop"),
            engine=engine_name,
        )
        yield World(a, b, s, node)


@pytest.fixture
def tap(world: World) -> Iterator[Sniffer]:
    """What the TAP of the first segment delivers to its host."""
    with Sniffer(world.a, f"vxlan{KNOWN}") as sniffer:
        yield sniffer


def send(source: Host, payload: bytes, tos: int = 0, copies: int = 1) -> None:
    """Datagrams from a plain socket of `source` to the node."""
    to = "2001:db8::1" if ":" in source.address else "192.0.2.1"
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with source.socket(family, socket.SOCK_DGRAM) as sender:
        if family == socket.AF_INET6:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
        else:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        for _ in range(copies):
            sender.sendto(payload, (to, VXLAN_PORT))


def send_copies(source: Host, payload: bytes, tos: int = 0) -> None:
    send(source, payload, tos, COPIES)


def passes(world: World, tap: Sniffer, mark: bytes, **header: int) -> None:
    """A good frame from the known remote comes out of the TAP: the node still works."""
    frame = probe_frame(mark)
    send(world.b, vxlan(KNOWN, frame, **header))
    tap.wait_for(lambda one: one.data == frame, what=f"frame {mark!r}")


# -- node-wide: no segment was reached ---------------------------------------------------


@pytest.mark.parametrize("length", range(8))
def test_truncated_header(world: World, tap: Sniffer, length: int) -> None:
    seen = DropsOf(world.node, NODE_WIDE)
    send_copies(world.b, vxlan(KNOWN, b"")[:length])
    seen.become({"HDR_TRUNC": COPIES})
    passes(world, tap, b"after truncated")


@pytest.mark.parametrize("flags", [0x00, 0xF7])
def test_i_flag_clear(world: World, tap: Sniffer, flags: int) -> None:
    seen = DropsOf(world.node, NODE_WIDE)
    send_copies(world.b, vxlan(KNOWN, probe_frame(b"no I flag"), flags))
    seen.become({"VXLAN_INVALID_HDR": COPIES})
    passes(world, tap, b"after no I flag")


def test_wrong_vni(world: World, tap: Sniffer) -> None:
    seen = DropsOf(world.node, NODE_WIDE)
    send_copies(world.b, vxlan(UNUSED, probe_frame(b"wrong VNI")))
    seen.become({"VXLAN_VNI_NOT_FOUND": COPIES})
    passes(world, tap, b"after wrong VNI")


# -- counted in the segment and under the remote -------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 13])
def test_runt_frame(world: World, tap: Sniffer, length: int) -> None:
    seen = DropsOf(world.node, KNOWN, world.b.address)
    send_copies(world.b, vxlan(KNOWN, probe_frame(b"runt")[:length]))
    seen.become({"PKT_TOO_SMALL": COPIES})
    passes(world, tap, b"after runt")


def test_stranger(world: World, tap: Sniffer) -> None:
    total, known = DropsOf(world.node, KNOWN), DropsOf(world.node, KNOWN, world.b.address)
    frame = probe_frame(b"from a stranger", src="02:00:00:00:66:66")
    send_copies(world.stranger, vxlan(KNOWN, frame))
    total.become({"UNKNOWN_REMOTE": COPIES})
    assert known.now() == {}
    assert "02:00:00:00:66:66" not in world.node.fdb(KNOWN)
    assert frame not in [one.data for one in tap.packets()]


def test_a_stranger_is_welcome_where_any_is_accepted(world: World) -> None:
    frame = probe_frame(b"welcome stranger", src="02:00:00:00:66:67")
    with Sniffer(world.a, f"vxlan{ANY}") as tap:
        send(world.stranger, vxlan(ANY, frame))
        tap.wait_for(lambda one: one.data == frame, what="the stranger's frame")
    learned = world.node.fdb(ANY)["02:00:00:00:66:67"]
    assert learned["dst"] == [{"address": world.stranger.address, "port": VXLAN_PORT}]


def test_own_address(world: World, tap: Sniffer) -> None:
    seen = DropsOf(world.node, KNOWN)
    send_copies(world.a, vxlan(KNOWN, probe_frame(b"from myself")))
    seen.become({"OWN_ADDRESS": COPIES})
    passes(world, tap, b"after own address")


def test_reserved_bits_are_ignored_and_counted(world: World, tap: Sniffer) -> None:
    where = (world.node, KNOWN, "reserved_bits", world.b.address)
    before, dropped = count(*where), DropsOf(world.node, KNOWN)
    passes(world, tap, b"reserved flags", flags=0xFF)
    passes(world, tap, b"reserved word", reserved=0xABCDEF)
    passes(world, tap, b"reserved octet", last=0x01)
    assert count(*where) - before == 3
    assert dropped.now() == {}


@pytest.mark.parametrize("bits", [{"flags": 0x88}, {"reserved": 1}, {"last": 0x80}])
def test_reserved_bits_where_the_segment_is_strict(world: World, bits: dict[str, int]) -> None:
    seen = DropsOf(world.node, STRICT, world.b.address)
    send_copies(world.b, vxlan(STRICT, probe_frame(b"strict"), **bits))
    seen.become({"VXLAN_RESERVED_BITS": COPIES})


@pytest.mark.parametrize("source", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])
def test_source_mac_of_no_station(world: World, tap: Sniffer, source: str) -> None:
    seen = DropsOf(world.node, KNOWN, world.b.address)
    send_copies(world.b, vxlan(KNOWN, probe_frame(b"bad source", src=source)))
    seen.become({"MAC_INVALID_SOURCE": COPIES})
    assert source not in world.node.fdb(KNOWN)


def test_source_mac_of_our_own(world: World) -> None:
    from vxlan import netdev

    own = netdev.link(f"vxlan{KNOWN}", world.a.name).mac.hex(":")
    seen = DropsOf(world.node, KNOWN, world.b.address)
    send_copies(world.b, vxlan(KNOWN, probe_frame(b"loop", src=own)))
    seen.become({"LOCAL_MAC": COPIES})


def test_source_mac_that_an_operator_put_elsewhere(world: World) -> None:
    mac = "02:00:00:00:55:55"
    elsewhere = "2001:db8::77" if ":" in world.a.address else "192.0.2.77"
    world.node.call("fdb.add", vni=KNOWN, mac=mac, dst=elsewhere)
    seen = DropsOf(world.node, KNOWN, world.b.address)
    send_copies(world.b, vxlan(KNOWN, probe_frame(b"conflict", src=mac)))
    seen.become({"VXLAN_ENTRY_EXISTS": COPIES})
    assert world.node.fdb(KNOWN)[mac]["dst"][0]["address"] == elsewhere
    world.node.call("fdb.del", vni=KNOWN, mac=mac)


def test_congestion_that_cannot_be_passed_on(world: World, tap: Sniffer) -> None:
    """RFC 6040: CE outside, Not-ECT inside."""
    seen = DropsOf(world.node, KNOWN, world.b.address)
    send_copies(world.b, vxlan(KNOWN, probe_frame(b"not ECN-capable")), tos=3)
    seen.become({"IP_TUNNEL_ECN": COPIES})


def test_congestion_is_passed_on(world: World, tap: Sniffer) -> None:
    """RFC 6040: CE outside, ECT(0) inside gives CE inside, with a good checksum."""
    marked = probe_frame(b"ECN-capable", tos=3)
    send(world.b, vxlan(KNOWN, probe_frame(b"ECN-capable", tos=2)), tos=3)
    tap.wait_for(lambda one: one.data == marked, what="the frame with its CE mark")


# -- 802.1Q ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tpid", [0x8100, 0x88A8])
def test_tags_are_carried_as_they_are(world: World, tap: Sniffer, tpid: int) -> None:
    frame = tagged(probe_frame(b"tagged"), 100, tpid)
    send(world.b, vxlan(KNOWN, frame))
    tap.wait_for(lambda one: one.data == frame, what="the tagged frame")


@pytest.mark.parametrize("tpid", [0x8100, 0x88A8])
def test_tags_are_discarded_where_the_segment_says_so(world: World, tpid: int) -> None:
    seen = DropsOf(world.node, UNTAGGED, world.b.address)
    send_copies(world.b, vxlan(UNTAGGED, tagged(probe_frame(b"tagged"), 100, tpid)))
    seen.become({"VLAN_POLICY": COPIES})
