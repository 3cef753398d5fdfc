"""Faults in real nodes: traffic meets what was asked for, and `show` says that it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_capture import capturing, comments
from watching import Watcher
from worlds import VNI, Pair, python_pair, two_hosts

from vxlan import api
from vxlan.lab import Lab, Node, Sniffer, ping, segment, wait_until
from vxlan.pcap_read import packets
from vxlan.wire import I_FLAG, VXLAN_HLEN, mac_text

pytestmark = pytest.mark.namespaces

STRANGER = "192.0.2.66"
STATION = "02:42:0a:2a:00:99"


@pytest.fixture(scope="module")
def module_faulty() -> Iterator[Pair]:
    with Lab("faults", wire=True) as made:
        yield python_pair(made, "python", {"faults": True})


@pytest.fixture
def faulty(module_faulty: Pair) -> Iterator[Pair]:
    """Two hosts whose nodes take faults; all are cleared after the test."""
    wait_until(lambda: answered(module_faulty), 10.0, "an answer")
    yield module_faulty
    for node in module_faulty.nodes:
        node.call("fault.clear")


def answered(pair: Pair) -> bool:
    return ping(pair.c1, pair.c2.address, timeout=0.3).received == 1


def add(node: Node, kind: str, **keys: Any) -> int:
    number: int = node.call("fault.add", kind=kind, **keys)["id"]
    return number


def hits(node: Node) -> int:
    (one,) = node.call("fault.list")
    return int(one["hits"])


def drops(node: Node, reason: str, vni: int | None = VNI) -> int:
    part = node.show()["vtep"] if vni is None else node.segment(vni)
    return int(part["counters"]["drops"].get(reason, 0))


def test_a_dropping_fault_is_counted_as_what_it_is(faulty: Pair) -> None:
    before = drops(faulty.node, "FAULT_INJECTED")
    add(faulty.node, "drop", vni=VNI, proto="icmp", side="encap")
    assert ping(faulty.c1, faulty.c2.address, 3, interval=0.02, timeout=0.2).received == 0
    assert drops(faulty.node, "FAULT_INJECTED") - before == hits(faulty.node) == 3
    (shown,) = faulty.node.show()["faults"]
    assert shown["text"] == "drop vni 42 proto icmp encap side"
    assert faulty.node.call("fault.clear") == {"cleared": 1}
    assert answered(faulty)


def test_a_share_with_a_seed_takes_the_same_packets_again(faulty: Pair) -> None:
    lost = []
    for _ in range(2):
        add(faulty.node, "drop", proto="icmp", side="decap", share="50%", seed=7)
        answers = ping(faulty.c1, faulty.c2.address, 12, interval=0.01, timeout=0.3)
        lost.append([rtt is None for rtt in answers.rtts])
        faulty.node.call("fault.clear")
    assert lost[0] == lost[1]
    assert 0 < sum(lost[0]) < 12


def test_a_delay_is_seen_by_ping(faulty: Pair) -> None:
    add(faulty.node, "delay", delay="80ms", proto="icmp", side="encap")
    (rtt,) = ping(faulty.c1, faulty.c2.address, timeout=2.0).rtts
    assert rtt is not None
    assert rtt >= 0.08


def test_what_is_held_back_still_comes_when_the_fault_is_cleared(faulty: Pair) -> None:
    with Sniffer(faulty.c2, "eth0") as sniffer:
        add(faulty.node, "delay", delay="300ms", proto="icmp", side="encap")
        ping(faulty.c1, faulty.c2.address, timeout=0.05)
        faulty.node.call("fault.clear")
        sniffer.wait_for(lambda packet: _is_request(packet.data), what="the request")


def test_a_duplicate_comes_twice(faulty: Pair) -> None:
    add(faulty.nodes[1], "duplicate", proto="icmp", side="encap")
    with Sniffer(faulty.c1, "eth0") as sniffer:
        assert answered(faulty)
        replies: list[bytes] = []

        def both() -> bool:
            replies.extend(one.data for one in sniffer.packets() if _is_reply(one.data))
            return len(replies) >= 2

        wait_until(both, 5.0, "two replies")
    assert replies[0] == replies[1]


def _is_request(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 8


def _is_reply(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 0


def test_a_clear_i_flag_is_told_by_the_receiver(faulty: Pair) -> None:
    before = drops(faulty.nodes[1], "VXLAN_INVALID_HDR", None)
    add(faulty.node, "clear-i", vni=VNI, proto="icmp")
    assert not answered(faulty)
    assert drops(faulty.nodes[1], "VXLAN_INVALID_HDR", None) == before + 1


def test_reserved_bits_are_counted_by_the_receiver(faulty: Pair) -> None:
    before = faulty.nodes[1].segment(VNI)["counters"]["reserved_bits"]
    add(faulty.node, "reserved", bits="8000000000000000", proto="icmp")
    with Sniffer(faulty.b, "eth0") as sniffer:
        assert answered(faulty)
        seen = sniffer.wait_for(lambda packet: _vxlan(packet.data)[0] & 0x80 != 0)
    assert _vxlan(seen.data)[0] == 0x80 | I_FLAG
    assert faulty.nodes[1].segment(VNI)["counters"]["reserved_bits"] == before + 1


def _vxlan(frame: bytes) -> bytes:
    return frame[42 : 42 + VXLAN_HLEN] if frame[23:24] == b"\x11" else bytes(VXLAN_HLEN)


def test_a_forged_source_is_on_the_wire_and_refused(faulty: Pair) -> None:
    """Host a sends as somebody who is no remote of b."""
    add(faulty.node, "forge-source", source=STRANGER, proto="icmp")
    assert not answered(faulty)
    drops_of = faulty.nodes[1].segment(VNI)["counters"]["drops"]
    assert drops_of["UNKNOWN_REMOTE"] >= 1


def test_a_forged_mac_is_learned(faulty: Pair) -> None:
    add(faulty.node, "forge-mac", **{"as": STATION}, proto="icmp")
    answered(faulty)
    entry = faulty.nodes[1].fdb(VNI)[STATION]
    assert [one["address"] for one in entry["dst"]] == [faulty.a.address]


def test_a_flapping_mac_moves_to_and_fro(lab: Lab) -> None:
    """c2 lives behind b; c, which has nothing to do with it, says that it is there."""
    a, b, c1, c2 = two_hosts(lab)
    c = lab.host("c", "192.0.2.3/24")
    hosts = (a, b, c)
    nodes = [
        host.node(
            segment(VNI, *(other.address for other in hosts if other is not host)),
            engine="python",
            faults=True,
        )
        for host in hosts
    ]
    lab.start(*nodes)
    wait_until(lambda: ping(c1, c2.address, timeout=0.3).received == 1, 10.0, "an answer")
    watcher = Watcher(nodes[0], VNI)
    add(nodes[2], "flap", vni=VNI, period="200ms", **{"as": mac_text(c2.mac)})
    moved = watcher.wait("moved", mac=mac_text(c2.mac))
    assert moved["remote"]["address"] == c.address
    ping(c2, c1.address, timeout=0.3)
    wait_until(lambda: nodes[0].call("fault.list") == [], 1.0, "no fault on host a")
    back = watcher.wait("moved", mac=mac_text(c2.mac))
    assert back["remote"]["address"] in {b.address, c.address}


@pytest.mark.parametrize("icmp", [False, True])
def test_a_shrunk_path_is_found(faulty: Pair, icmp: bool) -> None:
    """By probing or by ICMP; and it is found again when it is whole."""
    add(faulty.node, "shrink", mtu=1400, icmp=icmp, side="encap")
    faulty.node.call("ping", dst=faulty.b.address, size=1500)
    if icmp:
        ping(faulty.c1, faulty.c2.address, size=1400, timeout=0.2)
    wait_until(lambda: path_of(faulty) == 1400 or retry(faulty), 15.0, "the path to be found")
    assert faulty.node.returncode is None


def retry(pair: Pair) -> bool:
    ping(pair.c1, pair.c2.address, size=1400, timeout=0.2)
    return False


def path_of(pair: Pair) -> int:
    (one,) = pair.node.call("remote.show", vni=VNI)
    return int(one["path"]["mtu"])


def test_filtered_icmp_is_not_heard(faulty: Pair) -> None:
    """b's VTEP is gone, and a does not learn it."""
    add(faulty.node, "filter-icmp", remote=faulty.b.address)
    faulty.nodes[1].stop()
    try:
        assert not answered(faulty)
        wait_until(lambda: hits(faulty.node) > 0, 5.0, "ICMP to be filtered")
        (one,) = faulty.node.call("remote.show", vni=VNI)
        assert one["state"] == "up"
    finally:
        faulty.lab.start(faulty.nodes[1])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "drop", "share": 2}, "share"),
        ({"kind": "drop", "vni": 43}, "no segment 43"),
        ({"kind": "shrink"}, "needs mtu"),
        ({"kind": "drop", "shares": 0.2}, "did you mean share?"),
        ({"kind": "dorp"}, "not one of"),
        ({}, "no kind"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    faulty: Pair, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(api.ApiError, match=words):
        faulty.node.call("fault.add", **keys)
    assert faulty.node.call("fault.list") == []


def test_a_node_takes_no_faults_unless_told(lab: Lab, engine_name: str) -> None:
    host = lab.host("a", "192.0.2.1/24")
    node = host.up(segment(VNI), engine=engine_name)
    with pytest.raises(api.ApiError, match="set faults = true"):
        node.call("fault.add", kind="drop")


def test_the_fastpath_refuses(lab: Lab, engine_name: str) -> None:
    host = lab.host("a", "192.0.2.1/24")
    node = host.up(segment(VNI), engine=engine_name, faults=True)
    if engine_name == "python":
        assert node.call("fault.add", kind="drop") == {"id": 1}
        return
    with pytest.raises(api.ApiError, match='faults need engine = "python"'):
        node.call("fault.add", kind="drop")


def test_auto_takes_the_engine_that_can(lab: Lab) -> None:
    node = lab.host("a", "192.0.2.1/24").up(segment(VNI), faults=True)
    assert node.show()["engine"]["name"] == "python"


def test_a_capture_shows_what_faults_did(faulty: Pair, tmp_path: Path) -> None:
    """What is lost is a drop with its reason, on either side; what is changed, as it left."""
    path, b = tmp_path / "seen.pcapng", faulty.b.address
    add(faulty.node, "reserved", bits="8000000000000000", proto="icmp")
    add(faulty.node, "drop", proto="icmp", side="decap")
    with capturing(faulty.node, path, "--vni", str(VNI), "--side", "outer"):
        assert not answered(faulty)
        faulty.node.call("fault.clear")
        add(faulty.node, "drop", proto="icmp", side="encap")
        assert not answered(faulty)
        wait_until(lambda: len(reasons(path)) == 2, 10, "both are written")
    assert sorted(reasons(path)) == [
        f"dropped FAULT_INJECTED (vni {VNI} -> {b})",
        f"dropped FAULT_INJECTED (vni {VNI} <- {b})",
    ]
    with path.open("rb") as stream:
        flags = {one.data[28] for one in packets(stream) if one.direction == "out"}
    assert flags == {I_FLAG, 0x80 | I_FLAG}


def reasons(path: Path) -> list[str]:
    """What the capture says of each discarded packet, without the explanation."""
    return [one.partition(": ")[0] for one in comments(path) if one.startswith("dropped")]
