"""CNI in a segment that announces: the other host knows each container before it speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from runtime import Box, Refused, Runtime, conf, ranges
from worlds import VNI

from vxlan import netdev
from vxlan.lab import Lab, ping, segment, wait_until

pytestmark = pytest.mark.namespaces


@pytest.fixture
def telling(engine_name: str) -> Iterator[tuple[Runtime, Runtime]]:
    """Two hosts that announce, and whose ranges are the same by mistake."""
    with Lab("tell") as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        nodes = [
            here.node(segment(VNI, there.address, announce=True), engine=engine_name)
            for here, there in ((a, b), (b, a))
        ]
        lab.start(*nodes)
        first, second = (
            Runtime(host, conf(node.name, ranges("10.42.1.1", "10.42.1.9")))
            for host, node in zip((a, b), nodes, strict=True)
        )
        yield first, second


def told(runtime: Runtime) -> dict[str, list[str]]:
    """What other nodes announced: MAC -> addresses."""
    from vxlan import api

    found = api.call(runtime.conf["node"], "station.show", vni=VNI)
    return {one["mac"]: one["address"] for one in found if one["remote"]}


def plain(box: Box) -> str:
    return box.addresses()[0].partition("/")[0]


def mac(box: Box) -> str:
    return netdev.link("eth0", box.name).mac.hex(":")


def test_a_container_is_told_and_withdrawn(
    telling: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    here, there = telling
    one, two = box(), box()
    here.add(one)
    wait_until(lambda: told(there) == {mac(one): [plain(one)]}, 5, "the station to be told")
    there.add(two)
    assert plain(one) != plain(two), "the second host gave out an address that it was told of"
    wait_until(lambda: mac(two) in told(here), 5, "the other station to be told")
    assert ping(two, plain(one)).received == 1  # type: ignore[arg-type]
    here.delete(one)
    wait_until(lambda: told(there) == {}, 5, "the station to be withdrawn")


def test_an_address_by_wish_moves_to_another_host(
    telling: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    """The host it was on may have died a moment ago, and cannot withdraw it."""
    here, there = telling
    one, two = box(), box()
    wish = {"runtimeConfig": {"ips": ["10.42.7.7"]}}
    here.add(one, wish)
    wait_until(lambda: mac(one) in told(there), 5, "the station to be told")
    there.add(two, wish)
    assert plain(two) == "10.42.7.7"
    with pytest.raises(Refused, match="choose another"):
        here.add(box(), wish)


def test_containers_that_outlived_the_node_are_told_again(lab: Lab, box: Callable[[], Box]) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    nodes = [
        here.node(segment(VNI, there.address, announce=True)) for here, there in ((a, b), (b, a))
    ]
    lab.start(*nodes)
    here, there = (Runtime(host, conf(node.name)) for host, node in zip((a, b), nodes, strict=True))
    one = box()
    here.add(one)
    wait_until(lambda: mac(one) in told(there), 5, "the station to be told")
    nodes[0].stop()
    wait_until(lambda: told(there) == {}, 5, "the node's farewell")
    lab.start(nodes[0])
    wait_until(lambda: mac(one) in told(there), 5, "the station to be told again")
