"""Container traffic between two hosts; the far end is pyvxlan, then the kernel's driver."""

from __future__ import annotations

import socket

import pytest
from packets import BROADCAST, probe_frame
from worlds import VNI, Pair, two_hosts

from vxlan import netdev
from vxlan.lab import Lab, Sniffer, ping, segment, tcp_transfer, udp_exchange

pytestmark = pytest.mark.namespaces

MEBI = 1 << 20


def test_ping_both_ways(any_pair: Pair) -> None:
    assert ping(any_pair.c1, any_pair.c2.address, 5, interval=0.02).lost == 0
    assert ping(any_pair.c2, any_pair.c1.address, 5, interval=0.02).lost == 0


def test_ping_with_the_longest_packet_that_fits(any_pair: Pair) -> None:
    """1450 bytes of overlay MTU less IPv4 and ICMP headers."""
    assert ping(any_pair.c1, any_pair.c2.address, 3, interval=0.02, size=1450 - 28).lost == 0


def test_arp_resolves_the_other_container(any_pair: Pair) -> None:
    assert ping(any_pair.c1, any_pair.c2.address).received == 1
    known = {one.address: one.mac for one in netdev.neighbours("eth0", any_pair.c1.name)}
    assert known[any_pair.c2.address] == any_pair.c2.mac


def test_ipv6_neighbour_discovery_and_ping(any_pair: Pair) -> None:
    v6 = any_pair.c2.addresses[1]
    assert ping(any_pair.c1, v6, 3, interval=0.02).lost == 0
    known = {one.address: one.mac for one in netdev.neighbours("eth0", any_pair.c1.name)}
    assert known[v6] == any_pair.c2.mac


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_tcp_both_ways(any_pair: Pair, family: int) -> None:
    c1, c2 = any_pair.c1, any_pair.c2
    for source, sink in ((c1, c2), (c2, c1)):
        done = tcp_transfer(source, sink, sink.addresses[family], 4 * MEBI)
        assert done.intact


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("size", [1, 1400])
def test_udp_there_and_back(any_pair: Pair, family: int, size: int) -> None:
    c1, c2 = any_pair.c1, any_pair.c2
    payload = bytes(index & 0xFF for index in range(size))
    for source, sink in ((c1, c2), (c2, c1)):
        assert udp_exchange(source, sink, sink.addresses[family], payload) == payload[::-1]


@pytest.mark.parametrize("direction", ["out", "in"])
def test_broadcast_arrives_once_and_unchanged(any_pair: Pair, direction: str) -> None:
    source, sink = (any_pair.c1, any_pair.c2) if direction == "out" else (any_pair.c2, any_pair.c1)
    frame = probe_frame(b"broadcast " + direction.encode(), BROADCAST, source.mac.hex(":"))
    with (
        Sniffer(sink, sink.link) as seen,
        source.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
    ):
        sender.bind((source.link, 0))
        sender.send(frame)
        seen.wait_for(lambda packet: packet.data == frame, what="the broadcast")
        assert ping(any_pair.c1, any_pair.c2.address, 3, interval=0.02).lost == 0
        assert frame not in [packet.data for packet in seen.packets()]


def test_both_ends_learned(any_pair: Pair) -> None:
    assert ping(any_pair.c1, any_pair.c2.address).received == 1
    entry = any_pair.node.fdb(VNI)[any_pair.c2.mac.hex(":")]
    assert entry["state"] == "dynamic"
    assert entry["dst"] == [{"address": any_pair.b.address, "port": 4789}]
    if len(any_pair.nodes) == 1:
        kernel = {one.mac: one.dst for one in netdev.fdb(f"vxlan{VNI}", any_pair.b.name)}
        assert kernel[any_pair.c1.mac] == any_pair.a.address


# -- other underlays -------------------------------------------------------------------


@pytest.mark.parametrize("far", ["pyvxlan", "kernel"])
def test_ipv6_underlay(lab: Lab, engine_name: str, far: str) -> None:
    """20 bytes less for the containers; `mtu = "auto"` finds that out."""
    a, b, c1, c2 = two_hosts(lab, ("2001:db8::1/64", "2001:db8::2/64"), mtu=1430)
    node = a.node(segment(VNI, b.address), engine=engine_name)
    if far == "kernel":
        b.kernel_vxlan(VNI, [a.address])
        lab.start(node)
    else:
        lab.start(node, b.node(segment(VNI, a.address), engine=engine_name))
    assert node.segment(VNI)["mtu"] == 1430
    assert ping(c1, c2.address, 3, interval=0.02).lost == 0
    assert ping(c1, c2.addresses[1], 3, interval=0.02).lost == 0
    assert tcp_transfer(c1, c2, c2.address, MEBI).intact
    assert tcp_transfer(c2, c1, c1.address, MEBI).intact


def test_mixed_remotes_in_one_vni(lab: Lab, engine_name: str) -> None:
    """One node on both families; a kernel peer on IPv4 and another one on IPv6."""
    a = lab.host("a", "192.0.2.1/24", "2001:db8::1/64")
    b, d = lab.host("b", "192.0.2.2/24"), lab.host("d", "2001:db8::4/64")
    c1 = a.container("c1", "10.42.0.11/16", mtu=1430)
    c2 = b.container("c2", "10.42.0.12/16", mtu=1430)
    c4 = d.container("c4", "10.42.0.14/16", mtu=1430)
    b.kernel_vxlan(VNI, [a.addresses[0]])
    d.kernel_vxlan(VNI, [a.addresses[1]])
    node = a.up(segment(VNI, b.address, d.address, mtu=1430), engine=engine_name)
    assert ping(c1, c2.address, 3, interval=0.02).lost == 0
    assert ping(c1, c4.address, 3, interval=0.02).lost == 0
    behind = {mac: entry["dst"][0]["address"] for mac, entry in node.fdb(VNI).items()}
    assert behind[c2.mac.hex(":")] == b.address
    assert behind[c4.mac.hex(":")] == d.address
    assert tcp_transfer(c1, c2, c2.address, MEBI).intact


def test_flags_alone_are_enough(lab: Lab, engine_name: str) -> None:
    """Both ends from the command line, with a bridge and an address of their own."""
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    common = ("--vni", "7", "--engine", engine_name, "--bridge", "br7", "--dstport", "8472")
    for here, there, address in ((a, b, "10.42.7.1/24"), (b, a, "10.42.7.2/24")):
        ends = ("--local", here.address, "--remote", there.address, "--address", address)
        here.up_with_flags(*common, *ends)
    assert ping(a, "10.42.7.2", 3, interval=0.02).lost == 0
