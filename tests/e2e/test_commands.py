"""Forwarding entries by command, why they are what they are, and counters that add up."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from counting import count, drops
from packets import BROADCAST, outer, probe_frame
from worlds import VNI, Pair

from vxlan import api, netdev
from vxlan.lab import Container, Sniffer, ping, wait_until

pytestmark = pytest.mark.namespaces

MAC = "02:00:00:00:44:01"
ZERO = "00:00:00:00:00:00"


def send(source: Container, *frames: bytes) -> None:
    with source.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((source.link, 0))
        for frame in frames:
            sender.send(frame)


def destinations(pair: Pair, mac: str) -> list[str]:
    entries = pair.node.call("fdb.show", vni=VNI)
    return [one["address"] for entry in entries if entry["mac"] == mac for one in entry["dst"]]


# -- fdb --------------------------------------------------------------------------------


def test_a_static_entry_steers_frames(pair: Pair) -> None:
    pair.node.call("fdb.add", vni=VNI, mac=MAC, dst=pair.b.address)
    pair.node.call("remote.del", vni=VNI, dst=pair.b.address)
    frame = probe_frame(b"steered", MAC, pair.c1.mac.hex(":"))
    with Sniffer(pair.b, "eth0") as seen:
        send(pair.c1, frame)
        seen.wait_for(lambda one: frame in one.data, what="the steered frame")


def test_adding_twice_is_fine_and_adding_another_is_a_conflict(pair: Pair) -> None:
    for _ in range(2):
        pair.node.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.8")
    with pytest.raises(api.ApiError, match="replace") as refused:
        pair.node.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.9")
    assert refused.value.code == "conflict"
    assert destinations(pair, MAC) == ["192.0.2.8"]
    pair.node.call("fdb.replace", vni=VNI, mac=MAC, dst="192.0.2.9")
    assert destinations(pair, MAC) == ["192.0.2.9"]


def test_the_zero_mac_edits_the_flood_list(pair: Pair) -> None:
    pair.node.call("fdb.add", vni=VNI, mac=ZERO, dst="192.0.2.9")
    assert destinations(pair, ZERO) == [pair.b.address, "192.0.2.9"]
    pair.node.call("fdb.del", vni=VNI, mac=ZERO, dst="192.0.2.9")
    assert destinations(pair, ZERO) == [pair.b.address]


def test_flush_by_state_keeps_the_others(pair: Pair) -> None:
    assert ping(pair.c1, pair.c2.address).received == 1
    pair.node.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.8")
    assert pair.node.call("fdb.flush", vni=VNI, state="dynamic") == {"flushed": 1}
    assert set(pair.node.fdb(VNI)) == {MAC}
    assert ping(pair.c1, pair.c2.address).received == 1


def test_deleting_what_is_not_there_says_so(pair: Pair) -> None:
    with pytest.raises(api.ApiError) as refused:
        pair.node.call("fdb.del", vni=VNI, mac="02:00:00:00:44:99")
    assert refused.value.code == "not_found"


def test_why_tells_the_whole_story(pair: Pair) -> None:
    """Learned from b, overruled by an operator, given back to the data path."""
    assert ping(pair.c1, pair.c2.address).received == 1
    mac = pair.c2.mac.hex(":")
    assert pair.node.call("fdb.why", vni=VNI, mac=mac)["entry"]["state"] == "dynamic"
    pair.node.call("fdb.replace", vni=VNI, mac=mac, dst="192.0.2.9")
    overruled = pair.node.call("fdb.why", vni=VNI, mac=mac)
    assert overruled["entry"]["state"] == "static"
    assert overruled["entry"]["dst"] == [{"address": "192.0.2.9", "port": 4789}]
    pair.node.call("fdb.del", vni=VNI, mac=mac)
    story = ["learned", "fdb_set", "fdb_deleted"]
    wait_until(lambda: kinds_of_history(pair, mac) == story, 5.0, f"the history {story}")
    assert ping(pair.c1, pair.c2.address).received == 1


def kinds_of_history(pair: Pair, mac: str) -> list[str]:
    history = pair.node.call("fdb.why", vni=VNI, mac=mac)["history"]
    return [event["event"] for event in history]


def test_a_remote_that_goes_takes_what_it_taught(pair: Pair) -> None:
    assert ping(pair.c1, pair.c2.address).received == 1
    pair.node.call("remote.del", vni=VNI, dst=pair.b.address)
    assert pair.node.fdb(VNI) == {}
    assert ping(pair.c1, pair.c2.address, timeout=0.2).received == 0
    assert drops(pair.node, VNI)["NO_TX_TARGET"] >= 1
    pair.node.call("remote.add", vni=VNI, dst=pair.b.address)
    wait_until(lambda: ping(pair.c1, pair.c2.address, timeout=0.3).received, 5.0, "an answer")


# -- sums --------------------------------------------------------------------------------


def settled(read: Callable[[], int]) -> int:
    """A counter once it stands still."""
    last = -1

    def stands() -> bool:
        nonlocal last
        before, last = last, read()
        return before == last

    wait_until(stands, 5.0, "counters to settle", interval=0.1)
    return last


def test_what_was_sent_is_what_was_delivered_and_what_was_dropped(pair: Pair) -> None:
    """Frames into a's TAP = datagrams + discards at a = frames out of b's TAP + discards at b."""
    near, far = pair.nodes
    assert ping(pair.c1, pair.c2.address).received == 1
    far.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.77")
    pair.c1.sysctl("net/ipv4/conf/all/arp_announce", "0")
    netdev.set_mtu("br0", 1500, netns=pair.a.name)
    netdev.set_mtu("c1", 1500, netns=pair.a.name)
    netdev.set_mtu("eth0", 1500, netns=pair.c1.name)
    good = [probe_frame(b"good %d" % n, BROADCAST, pair.c1.mac.hex(":")) for n in range(40)]
    long = [probe_frame(bytes(1455), BROADCAST, pair.c1.mac.hex(":")) for _ in range(5)]
    fake = [probe_frame(b"fake %d" % n, BROADCAST, MAC) for n in range(7)]
    send(pair.c1, *good, *long, *fake)
    settled(lambda: count(far, VNI, "decap_packets") + drops(far, VNI).total())
    into = netdev.link(f"vxlan{VNI}", pair.a.name).stats.tx_packets
    assert drops(near, VNI) == {"PKT_TOO_BIG": 5}
    assert into == count(near, VNI, "encap_packets") + 5
    assert drops(far, VNI) == {"VXLAN_ENTRY_EXISTS": 7}
    assert count(near, VNI, "encap_packets") == count(far, VNI, "decap_packets") + 7
    out = netdev.link(f"vxlan{VNI}", pair.b.name).stats.rx_packets
    assert out == count(far, VNI, "decap_packets")


def test_counters_of_remotes_add_up_to_the_total(pair: Pair) -> None:
    assert ping(pair.c1, pair.c2.address, 5, interval=0.02).lost == 0
    shown = pair.node.segment(VNI)
    for name in ("encap_packets", "encap_bytes", "decap_packets", "decap_bytes"):
        parts = [one["counters"][name] for one in shown["remotes"]]
        assert sum(parts) == shown["counters"][name]


def test_the_counters_are_those_of_the_wire(wire_pair: Pair) -> None:
    """encap_packets of a remote = VXLAN datagrams that its link received."""
    pair = wire_pair
    assert ping(pair.c1, pair.c2.address).received == 1
    before = count(pair.node, VNI, "encap_packets", pair.b.address)
    with Sniffer(pair.b, "eth0") as seen:
        assert ping(pair.c1, pair.c2.address, 10, interval=0.01).lost == 0
        sent = count(pair.node, VNI, "encap_packets", pair.b.address) - before
        came = [one for one in seen.packets() if one.direction == "in" and outer(one.data)]
    assert len(came) == sent >= 10
