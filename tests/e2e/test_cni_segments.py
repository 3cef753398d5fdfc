"""CNI: segments that come with the first container and go with the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from runtime import Box, Refused, Runtime, attached, conf, ranges
from worlds import VNI

from vxlan import netdev
from vxlan.lab import Lab, Node, ping, segment, wait_until

pytestmark = pytest.mark.namespaces

OTHER = 77


def asking(node: Node, low: str, *remotes: str, **keys: object) -> dict[str, Any]:
    """A configuration that brings its own segment along."""
    ipam = ranges(f"{low}1", f"{low}9")
    return conf(node.name, ipam, vni=OTHER, segment={"remotes": list(remotes), **keys})


def vnis(node: Node) -> dict[int, str]:
    return {one["vni"]: one["owner"] for one in node.show()["segments"]}


def test_from_the_first_container_to_the_last(lab: Lab, box: Callable[[], Box]) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    nodes = a.node(segment(VNI, b.address)), b.node(segment(VNI, a.address))
    lab.start(*nodes)
    here = Runtime(a, asking(nodes[0], "10.42.1.", b.address))
    there = Runtime(b, asking(nodes[1], "10.42.2.", a.address))
    assert here.call("STATUS", conf={"cniVersion": "1.1.0"}) is None
    one, two, three = box(), box(), box()
    here.add(one)
    here.add(three)
    there.add(two)
    assert vnis(nodes[0]) == {VNI: "config", OTHER: "cni"}
    assert nodes[0].segment(OTHER)["bridge"] == "br77"
    assert ping(one, two.addresses()[0].partition("/")[0]).received == 1  # type: ignore[arg-type]
    here.delete(one)
    assert OTHER in vnis(nodes[0])
    here.delete(three)
    assert vnis(nodes[0]) == {VNI: "config"}
    assert not netdev.exists("br77", a.name)


def test_it_comes_again_with_the_node(lab: Lab, box: Callable[[], Box]) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    b.kernel_vxlan(OTHER, [a.address])
    far = b.container("far", "10.42.3.3/16")
    node = a.up(segment(VNI, b.address))
    runtime = Runtime(a, asking(node, "10.42.1.", b.address))
    one = box()
    runtime.add(one)
    for end in (node.kill, node.stop):
        end()
        lab.start(node)
        assert vnis(node)[OTHER] == "cni"
        runtime.check(one)
        assert ping(one, far.address).received == 1  # type: ignore[arg-type]
    one.vanish()
    wait_until(lambda: OTHER not in vnis(node), 10, "the segment to go with its last container")
    assert attached(runtime) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"remote": ["192.0.2.2"]}, "did you mean remotes"),
        ({"remotes": ["2001:db8::2"]}, "no IPv6"),
        ({"remotes": ["192.0.2.2"], "mtu": 1500}, "at most 1450"),
        ({"remotes": ["192.0.2.2"], "bridge": "br0"}, "already a device of segment"),
        ({"remotes": "x"}, "not an IP address"),
    ],
)
def test_a_segment_that_cannot_be_had_is_refused(
    runtimes: tuple[Runtime, Runtime], box: Callable[[], Box], keys: dict[str, object], said: str
) -> None:
    here = runtimes[0]
    with pytest.raises(Refused, match=said):
        here.add(box(), {"vni": OTHER, "segment": keys})
    assert attached(here) == []


def test_it_does_not_stay_when_the_container_could_not_be_attached(
    lab: Lab, box: Callable[[], Box]
) -> None:
    a = lab.host("a", "192.0.2.1/24")
    node = a.up(segment(VNI, "192.0.2.2"))
    runtime = Runtime(a, asking(node, "10.42.1.", "192.0.2.2"))
    for keys in ({"mtu": 1490}, {"ipam": {"subnet": "10.42.0.0/16", "routes": [{"dst": "x"}]}}):
        with pytest.raises(Refused):
            runtime.add(box(), keys)
        assert vnis(node) == {VNI: "config"}


def test_the_configuration_goes_first(lab: Lab, box: Callable[[], Box]) -> None:
    """A segment that the node has is used as it is, and stays."""
    a = lab.host("a", "192.0.2.1/24")
    node = a.up(segment(VNI, "192.0.2.2"))
    runtime = Runtime(a, asking(node, "10.42.1.", "192.0.2.9") | {"vni": VNI})
    one = box()
    runtime.add(one)
    runtime.delete(one)
    assert vnis(node) == {VNI: "config"}


def test_who_uses_what_another_asked_for_has_it_after_a_restart(
    lab: Lab, box: Callable[[], Box]
) -> None:
    a = lab.host("a", "192.0.2.1/24")
    node = a.up(segment(VNI, "192.0.2.2"))
    runtime = Runtime(a, asking(node, "10.42.1.", "192.0.2.2"))
    asker, user = box(), box()
    runtime.add(asker)
    runtime.add(user, {"segment": None})
    runtime.delete(asker)
    node.stop()
    lab.start(node)
    assert vnis(node)[OTHER] == "cni"
    runtime.check(user)
    runtime.delete(user)
    assert vnis(node) == {VNI: "config"}
