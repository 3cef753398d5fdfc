"""Forwarding entries by command, why they are what they are, and counters that add up."""

from __future__ import annotations

import socket
from collections import Counter

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


def test_a_static_entry_steers_frames(shared_pair: Pair) -> None:
    shared_pair.node.call("fdb.add", vni=VNI, mac=MAC, dst=shared_pair.b.address)
    shared_pair.node.call("remote.del", vni=VNI, dst=shared_pair.b.address)
    frame = probe_frame(b"steered", MAC, shared_pair.c1.mac.hex(":"))
    with Sniffer(shared_pair.b, "eth0") as seen:
        send(shared_pair.c1, frame)
        seen.wait_for(lambda one: frame in one.data, what="the steered frame")


def test_adding_twice_is_fine_and_adding_another_is_a_conflict(shared_pair: Pair) -> None:
    for _ in range(2):
        shared_pair.node.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.8")
    with pytest.raises(api.ApiError, match="replace") as refused:
        shared_pair.node.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.9")
    assert refused.value.code == "conflict"
    assert destinations(shared_pair, MAC) == ["192.0.2.8"]
    shared_pair.node.call("fdb.replace", vni=VNI, mac=MAC, dst="192.0.2.9")
    assert destinations(shared_pair, MAC) == ["192.0.2.9"]


def test_the_zero_mac_edits_the_flood_list(shared_pair: Pair) -> None:
    shared_pair.node.call("fdb.add", vni=VNI, mac=ZERO, dst="192.0.2.9")
    assert destinations(shared_pair, ZERO) == [shared_pair.b.address, "192.0.2.9"]
    shared_pair.node.call("fdb.del", vni=VNI, mac=ZERO, dst="192.0.2.9")
    assert destinations(shared_pair, ZERO) == [shared_pair.b.address]


def test_flush_by_state_keeps_the_others(shared_pair: Pair) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    shared_pair.node.call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.8")
    assert shared_pair.node.call("fdb.flush", vni=VNI, state="dynamic")["flushed"] >= 1
    entries = shared_pair.node.fdb(VNI)
    assert MAC in entries
    assert shared_pair.c2.mac.hex(":") not in entries
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1


def test_deleting_what_is_not_there_says_so(shared_pair: Pair) -> None:
    with pytest.raises(api.ApiError) as refused:
        shared_pair.node.call("fdb.del", vni=VNI, mac="02:00:00:00:44:99")
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


def test_a_remote_that_goes_takes_what_it_taught(shared_pair: Pair) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    shared_pair.node.call("remote.del", vni=VNI, dst=shared_pair.b.address)
    assert shared_pair.node.fdb(VNI) == {}
    assert ping(shared_pair.c1, shared_pair.c2.address, timeout=0.2).received == 0
    assert drops(shared_pair.node, VNI)["NO_TX_TARGET"] >= 1
    shared_pair.node.call("remote.add", vni=VNI, dst=shared_pair.b.address)
    wait_until(
        lambda: ping(shared_pair.c1, shared_pair.c2.address, timeout=0.3).received, 5.0, "an answer"
    )


# -- sums --------------------------------------------------------------------------------


class Books:
    """What both ends counted, and what the kernel counted at their TAPs, since this was made."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._opening = wait_until(self._settled, 5.0, "nothing to be under way")

    def _settled(self) -> dict[str, Counter[str]] | None:
        books = self._read()
        return books if books == self._read() else None

    def _read(self) -> dict[str, Counter[str]]:
        near, far = self._pair.nodes
        into = netdev.link(f"vxlan{VNI}", self._pair.a.name).stats.tx_packets
        out = netdev.link(f"vxlan{VNI}", self._pair.b.name).stats.rx_packets
        return {
            "near": drops(near, VNI) + Counter(encap=count(near, VNI, "encap_packets")),
            "far": drops(far, VNI) + Counter(decap=count(far, VNI, "decap_packets")),
            "taps": Counter(into=into, out=out),
        }

    def entries(self) -> dict[str, Counter[str]]:
        return {name: now - self._opening[name] for name, now in self._read().items()}

    def balance(self) -> bool:
        """Whether every frame into a's TAP is accounted for, up to b's TAP."""
        books = self.entries()
        near, far, taps = books["near"], books["far"], books["taps"]
        return (
            taps["into"] == near.total()
            and near["encap"] == far.total()
            and (far["decap"] == taps["out"])
        )


def test_what_was_sent_is_what_was_delivered_and_what_was_dropped(pair: Pair) -> None:
    """At a: frames from the TAP = datagrams + discards; at b: datagrams = frames + discards."""
    assert ping(pair.c1, pair.c2.address).received == 1
    pair.nodes[1].call("fdb.add", vni=VNI, mac=MAC, dst="192.0.2.77")
    for link, namespace in (("br0", pair.a), ("c1", pair.a), ("eth0", pair.c1)):
        netdev.set_mtu(link, 1500, netns=namespace.name)
    books, source = Books(pair), pair.c1.mac.hex(":")
    # Each a flow of its own: neighbours of one flow are written to a TAP as one frame.
    good = [probe_frame(b"good %d" % n, BROADCAST, source, sport=7000 + n) for n in range(40)]
    long = [probe_frame(bytes(1455), BROADCAST, source) for _ in range(5)]
    fake = [probe_frame(b"fake %d" % n, BROADCAST, MAC) for n in range(7)]
    send(pair.c1, *good, *long, *fake)
    wait_until(lambda: books.entries()["far"]["VXLAN_ENTRY_EXISTS"] == 7, 5.0, "the last frame")
    wait_until(books.balance, 5.0, "the books to balance")
    entries = books.entries()
    assert entries["near"]["PKT_TOO_BIG"] == 5
    assert entries["near"]["encap"] >= 47
    assert set(entries["near"]) == {"PKT_TOO_BIG", "encap"}
    assert set(entries["far"]) == {"VXLAN_ENTRY_EXISTS", "decap"}


def test_counters_of_remotes_add_up_to_the_total(shared_pair: Pair) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address, 5, interval=0.02).lost == 0
    shown = shared_pair.node.segment(VNI)
    for name in ("encap_packets", "encap_bytes", "decap_packets", "decap_bytes"):
        parts = [one["counters"][name] for one in shown["remotes"]]
        assert sum(parts) == shown["counters"][name]


def test_the_counters_are_those_of_the_wire(shared_pair: Pair) -> None:
    """encap_packets of a remote = VXLAN datagrams that its link received."""
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    before = count(shared_pair.node, VNI, "encap_packets", shared_pair.b.address)
    with Sniffer(shared_pair.b, "eth0") as seen:
        assert ping(shared_pair.c1, shared_pair.c2.address, 10, interval=0.01).lost == 0
        sent = count(shared_pair.node, VNI, "encap_packets", shared_pair.b.address) - before
        came = [one for one in seen.packets() if one.direction == "in" and outer(one.data)]
    assert len(came) == sent >= 10
