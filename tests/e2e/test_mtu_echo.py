"""A VTEP that answers no probe: the path to it is found through a station behind it."""

from __future__ import annotations

import pytest
from counting import count
from routed import (
    IP_PMTUDISC_DO,
    NARROW,
    OVERHEAD,
    UNDERLAY,
    Routed,
    Udp,
    learned_mtu,
    narrow,
    nothing_fragmented,
)
from worlds import VNI

from vxlan.lab import Lab, segment, tcp_transfer, wait_until

pytestmark = pytest.mark.namespaces

OWN = ["10.42.0.1/16", "2001:db8:42::1/64"]


@pytest.mark.parametrize(("outer", "inner"), [(4, 4), (6, 6)])
def test_a_kernel_peer_behind_a_silent_router_is_no_black_hole(
    lab: Lab, engine_name: str, outer: int, inner: int
) -> None:
    """10 MiB and an honest packet-too-big, where nobody but the station answers."""
    world = narrow(lab, outer)
    world.b.kernel_vxlan(VNI, [world.a.address], df=1)
    station = world.c2.addresses[0 if inner == 4 else 1]
    echo = {world.b.address: station}
    world.a.allow_ipv6("br0")
    node = world.a.up(segment(VNI, world.b.address, address=OWN, echo=echo), engine=engine_name)
    world = Routed(lab, world.a, world.b, world.c1, world.c2, (node,), world.router)
    fits = NARROW - OVERHEAD[outer]
    with nothing_fragmented(world):
        world.wait_path(NARROW)
        world.wait_overlay(fits)
        assert tcp_transfer(world.c1, world.c2, station, 10 << 20).intact
        udp = Udp(world.c1, world.c2, station, IP_PMTUDISC_DO)
        assert udp.send(1450)
        wait_until(lambda: udp.mtu == fits, 5.0, f"the path MTU {fits} in the container")
        assert udp.arrives(fits)
    assert world.path()["how"] == "echo"
    assert learned_mtu(world.c1, station) == fits
    assert count(node, VNI, "too_big_answered") >= 1


def test_a_station_can_be_named_later_and_taken_back(lab: Lab, engine_name: str) -> None:
    world = narrow(lab)
    remote = UNDERLAY[4][1][1].split("/")[0]
    world.b.kernel_vxlan(VNI, [world.a.address])
    node = world.a.up(segment(VNI, address=OWN[:1]), engine=engine_name)
    world = Routed(lab, world.a, world.b, world.c1, world.c2, (node,), world.router)
    node.call("remote.add", vni=VNI, dst=remote, echo=world.c2.address)
    world.wait_path(NARROW)
    node.call("remote.del", vni=VNI, dst=remote)
    node.call("remote.add", vni=VNI, dst=remote)
    assert world.path()["how"] != "echo"
