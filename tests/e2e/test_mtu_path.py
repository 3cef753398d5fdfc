"""Paths that are narrower than their links: nothing too big disappears without a reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from counting import count, drops
from routed import (
    IP_PMTUDISC_DO,
    IP_PMTUDISC_DONT,
    NARROW,
    OVERHEAD,
    Routed,
    Udp,
    learned_mtu,
    narrow,
    networks,
    nothing_fragmented,
    with_nodes,
)
from worlds import VNI

from vxlan import netdev
from vxlan.lab import Lab, Transfer, tcp_transfer, wait_until

pytestmark = pytest.mark.namespaces

LENGTH = 10 << 20
UNTOLD = ("10.42.0.22", "2001:db8:42::22")
"""More addresses of c2, of whose path c1 has not been told anything yet."""


@pytest.fixture(scope="module", autouse=True)
def growing(engine_name: str) -> Iterator[Routed]:
    """A path that was narrow and has just grown; a node looks up after half a minute.

    So it is begun before the other tests of the module, and looked at after them.
    """
    with Lab("grow") as lab:
        world = networks(lab)
        world.router.carry(NARROW, world.a, world.b)
        world = with_nodes(world, engine_name)
        world.wait_path(NARROW)
        world.wait_overlay(NARROW - OVERHEAD[4])
        world.router.carry(1500, world.a, world.b)
        yield world


# -- two pyvxlan nodes ---------------------------------------------------------------------------


def test_a_path_as_wide_as_its_links_leaves_nothing_to_do(lab: Lab, engine_name: str) -> None:
    world = with_nodes(networks(lab, inner=1450), engine_name)
    with nothing_fragmented(world):
        assert tcp_transfer(world.c1, world.c2, world.c2.address, 1 << 20).intact
        world.wait_path(1500)
        assert Udp(world.c1, world.c2, world.c2.address, IP_PMTUDISC_DO).arrives(1450)
    assert world.path()["how"] == "probe"
    assert world.node.segment(VNI)["mtu"] == 1450
    assert drops(world.node, VNI) == {}
    for word in ("clamped", "fragmented", "too_big_answered"):
        assert count(world.node, VNI, word) == 0


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("silent", [False, True], ids=["icmp", "black hole"])
def test_a_narrow_router_costs_no_transfer(
    lab: Lab, engine_name: str, outer: int, silent: bool
) -> None:
    """10 MiB from the first second on, while nothing is known of the path yet."""
    world = with_nodes(narrow(lab, outer, silent=silent), engine_name)
    with nothing_fragmented(world):
        assert tcp_transfer(world.c1, world.c2, world.c2.address, LENGTH).intact
        assert tcp_transfer(world.c2, world.c1, world.c1.addresses[1], 1 << 20).intact
        world.wait_path(NARROW)
        world.wait_overlay(NARROW - OVERHEAD[outer])
        for address in UNTOLD:
            be_told(world, address, NARROW - OVERHEAD[outer])
        be_fragmented_inside(world)
    assert world.path()["how"] == "probe"


def be_told(world: Routed, address: str, fits: int) -> None:
    """A datagram of 1450 bytes, DF set: its sender's stack learns what fits, and that fits."""
    netdev.add_address("eth0", f"{address}/{64 if ':' in address else 16}", world.c2.name)
    before = count(world.node, VNI, "too_big_answered")
    udp = Udp(world.c1, world.c2, address, IP_PMTUDISC_DO)
    assert udp.mtu == 1500
    assert udp.send(1450)
    wait_until(lambda: udp.mtu == fits, 5.0, f"the path MTU {fits} in the container")
    assert learned_mtu(world.c1, address) == fits
    assert not udp.send(1450)
    assert udp.arrives(fits)
    assert not udp.send(fits + 1)
    assert count(world.node, VNI, "too_big_answered") == before + 1


def be_fragmented_inside(world: Routed) -> None:
    """A datagram of 1450 bytes without DF arrives."""
    address = "10.42.0.33"
    netdev.add_address("eth0", f"{address}/16", world.c2.name)
    before = count(world.node, VNI, "fragmented")
    assert Udp(world.c1, world.c2, address, IP_PMTUDISC_DONT).arrives(1450)
    assert count(world.node, VNI, "fragmented") == before + 1


def test_a_path_that_shrinks_during_a_transfer_only_slows_it(lab: Lab, engine_name: str) -> None:
    world = with_nodes(networks(lab), engine_name)
    world.router.be_silent()
    world.wait_path(1500)
    with nothing_fragmented(world), Transferring(world) as transferring:
        sent = LENGTH // 8
        wait_until(lambda: count(world.node, VNI, "encap_bytes") > sent, 10.0, "the first eighth")
        world.router.carry(NARROW, world.a, world.b)
        assert transferring.is_alive()
    assert transferring.result is not None
    assert transferring.result.intact
    assert world.path()["mtu"] <= NARROW


class Transferring(threading.Thread):
    """A transfer of two seconds or more while something else is done."""

    def __init__(self, world: Routed) -> None:
        super().__init__(daemon=True, name="transferring")
        self._world = world
        self.result: Transfer | None = None

    def run(self) -> None:
        world = self._world
        self.result = tcp_transfer(world.c1, world.c2, world.c2.address, LENGTH, pace=LENGTH // 2)

    def __enter__(self) -> Transferring:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()


def test_a_person_who_probes_a_wider_path_widens_it(lab: Lab, engine_name: str) -> None:
    world = with_nodes(narrow(lab, silent=False), engine_name)
    world.wait_path(NARROW)
    world.router.carry(1500, world.a, world.b)
    answer = world.node.call("ping", dst=world.b.address, size=1500, ports=1)
    assert all(one["rtt"] for one in answer["probes"])
    assert answer["path"]["mtu"] == 1500
    world.wait_overlay(1450)


# -- and at last --------------------------------------------------------------------------------


def test_a_path_that_grows_is_used_again(growing: Routed) -> None:
    growing.wait_path(1500, timeout=45.0)
    growing.wait_overlay(1450)
    udp = Udp(growing.c1, growing.c2, growing.c2.address, IP_PMTUDISC_DO)
    assert udp.arrives(1450)
