"""What goes wrong around a node: it is counted or reported, and the node recovers."""

from __future__ import annotations

import pytest
from counting import DropsOf
from watching import Watcher
from worlds import VNI, Pair

from vxlan import netdev
from vxlan.lab import ping, wait_until

pytestmark = pytest.mark.namespaces

TAP = f"vxlan{VNI}"


def answered(pair: Pair) -> bool:
    return ping(pair.c1, pair.c2.address, timeout=0.3).received == 1


def until_answered(pair: Pair) -> None:
    wait_until(lambda: answered(pair), 10.0, "an answer")


def test_a_deleted_tap_comes_back(shared_pair: Pair) -> None:
    until_answered(shared_pair)
    watcher = Watcher(shared_pair.node, VNI)
    netdev.delete(TAP, shared_pair.a.name)
    watcher.wait("tap_lost", vni=VNI)
    watcher.wait("tap_back", vni=VNI)
    assert (
        netdev.link(TAP, shared_pair.a.name).master == netdev.link("br0", shared_pair.a.name).index
    )
    until_answered(shared_pair)


def test_a_tap_that_is_down_is_counted(pair: Pair) -> None:
    """Host a keeps sending; host b's TAP is down, and b counts each frame under a."""
    until_answered(pair)
    netdev.set_up(TAP, up=False, netns=pair.b.name)
    seen = DropsOf(pair.nodes[1], VNI, pair.a.address)
    assert ping(pair.c1, pair.c2.address, 3, interval=0.02, timeout=0.2).received == 0
    seen.be_only("TAP_DOWN", 3)
    netdev.set_up(TAP, netns=pair.b.name)
    until_answered(pair)


def test_an_underlay_link_that_was_down_recovers(shared_pair: Pair) -> None:
    until_answered(shared_pair)
    shared_pair.a.set_link(up=False)
    seen = DropsOf(shared_pair.node, VNI, shared_pair.b.address)
    assert ping(shared_pair.c1, shared_pair.c2.address, 3, interval=0.02, timeout=0.2).received == 0
    seen.be_only("UNDERLAY_UNREACHABLE", 3)
    assert shared_pair.node.returncode is None
    shared_pair.a.set_link(up=True)
    until_answered(shared_pair)


def test_a_remote_link_that_was_down_recovers(shared_pair: Pair) -> None:
    until_answered(shared_pair)
    shared_pair.b.set_link(up=False)
    assert not answered(shared_pair)
    shared_pair.b.set_link(up=True)
    until_answered(shared_pair)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("prohibit", "UNDERLAY_REFUSED"),
        ("blackhole", "UNDERLAY_REFUSED"),
        ("unreachable", "UNDERLAY_UNREACHABLE"),
    ],
)
def test_a_route_that_refuses_is_counted(shared_pair: Pair, kind: str, reason: str) -> None:
    """prohibit: EACCES, as a firewall's EPERM; blackhole: EINVAL; unreachable: EHOSTUNREACH."""
    until_answered(shared_pair)
    shared_pair.a.run(["ip", "route", "add", kind, f"{shared_pair.b.address}/32"])
    seen = DropsOf(shared_pair.node, VNI, shared_pair.b.address)
    assert ping(shared_pair.c1, shared_pair.c2.address, 3, interval=0.02, timeout=0.2).received == 0
    seen.be_only(reason, 3)
    shared_pair.a.run(["ip", "route", "del", kind, f"{shared_pair.b.address}/32"])
    until_answered(shared_pair)


def test_a_firewall_that_drops_is_counted(shared_pair: Pair) -> None:
    """An nftables drop on output answers EPERM."""
    until_answered(shared_pair)
    try:
        shared_pair.a.run(["nft", "--version"])
    except FileNotFoundError:
        pytest.skip("needs nft; the same reason is tested by a prohibit route")
    shared_pair.a.run(["nft", "add table inet t"])
    shared_pair.a.run(["nft", "add chain inet t out { type filter hook output priority 0 ; }"])
    shared_pair.a.run(["nft", "add rule inet t out udp dport 4789 drop"])
    seen = DropsOf(shared_pair.node, VNI, shared_pair.b.address)
    assert ping(shared_pair.c1, shared_pair.c2.address, 3, interval=0.02, timeout=0.2).received == 0
    seen.be_only("UNDERLAY_REFUSED", 3)
    shared_pair.a.run(["nft", "delete table inet t"])
    until_answered(shared_pair)


def test_a_dead_peer_is_reported_and_comes_back(pair: Pair) -> None:
    """Nobody listens at b any more: its kernel answers with ICMP port unreachable."""
    until_answered(pair)
    watcher = Watcher(pair.node, VNI)
    assert pair.nodes[1].stop() == 0
    assert not answered(pair)
    down = watcher.wait("remote_down")
    assert down["remote"]["address"] == pair.b.address
    assert state_of(pair, pair.b.address) == "down"
    pair.lab.start(pair.nodes[1])
    until_answered(pair)
    assert watcher.wait("remote_up")["remote"]["address"] == pair.b.address
    assert state_of(pair, pair.b.address) == "up"


def state_of(pair: Pair, address: str) -> str:
    remotes = pair.node.segment(VNI)["remotes"]
    return str(next(one["state"] for one in remotes if one["address"] == address))
