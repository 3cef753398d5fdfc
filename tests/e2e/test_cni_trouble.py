"""CNI: containers and nodes that vanish, bridges that are deleted, state that is damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from runtime import Box, Refused, Runtime, attached, conf
from worlds import VNI

from vxlan import api, netdev, statefile
from vxlan.lab import Lab, ping, segment, wait_until

pytestmark = pytest.mark.namespaces


def test_a_container_that_vanishes_gives_its_address_back(
    here: Runtime, box: Callable[[], Box]
) -> None:
    one = box()
    here.add(one)
    one.vanish()
    wait_until(lambda: not attached(here), 10, "the attachment to be struck out")


def test_containers_outlive_the_node(box: Callable[[], Box]) -> None:
    """Killed and started again: the links stay, the records too, addresses are not given twice."""
    with Lab("cni") as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        b.kernel_vxlan(VNI, [a.address])
        far = b.container("far", "10.42.3.3/16")
        node = a.up(segment(VNI, b.address))
        runtime = Runtime(a, conf(node.name))
        one, gone, two = box(), box(), box()
        runtime.add(one)
        runtime.add(gone)
        assert ping(one, far.address).received == 1  # type: ignore[arg-type]
        node.kill()
        gone.vanish()
        with pytest.raises(Refused, match="no node named") as refused:
            runtime.add(two)
        assert refused.value.code == 11
        lab.start(node)
        wait_until(lambda: len(attached(runtime)) == 1, 10, "the other one to be struck out")
        runtime.check(one)
        assert ping(one, far.address).received == 1  # type: ignore[arg-type]
        runtime.add(two)
        assert one.addresses() != two.addresses()
        node.stop()
        runtime.delete(one)
        assert not netdev.exists("eth0", one.name)
        lab.start(node)
        wait_until(lambda: len(attached(runtime)) == 1, 10, "the deleted one to be struck out")


def test_a_bridge_that_was_deleted_gets_its_containers_back(
    here: Runtime, runtimes: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    one, two = box(), box()
    for runtime, at in zip(runtimes, (one, two), strict=True):
        runtime.add(at)
    netdev.delete("br0", here.host.name)
    wait_until(lambda: attached(here)[0]["plugged"], 10, "the port to be plugged in again")
    assert ping(one, two.addresses()[0].partition("/")[0]).received == 1  # type: ignore[arg-type]


def test_a_state_file_that_is_damaged_is_kept_and_named(box: Callable[[], Box]) -> None:
    with Lab("cni") as lab:
        a = lab.host("a", "192.0.2.1/24")
        node = a.node(segment(VNI, "192.0.2.2"))
        path = statefile.state_dir() / node.name / "attached.json"
        path.parent.mkdir()
        path.write_text("{")
        lab.start(node)
        with pytest.raises(Refused, match=r"attached.json: cannot be read.*mend or remove it"):
            Runtime(a, conf(node.name)).add(box())
        assert path.read_text() == "{"


def test_state_of_another_boot_does_not_count(box: Callable[[], Box]) -> None:
    with Lab("cni") as lab:
        a = lab.host("a", "192.0.2.1/24")
        node = a.up(segment(VNI, "192.0.2.2"))
        runtime = Runtime(a, conf(node.name))
        runtime.add(box())
        path = statefile.state_dir() / node.name / "attached.json"
        assert path.stat().st_mode & 0o777 == 0o600
        node.stop()
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
        lab.start(node)
        assert attached(runtime) == []


def test_many_containers_leave_nothing(here: Runtime, box: Callable[[], Box]) -> None:
    """Neither descriptors of the node nor links nor lines in its book."""

    def left() -> tuple[int, int, int]:
        pid = api.call(here.conf["node"], "show")["pid"]
        links = netdev.links(here.host.name)
        return len(os.listdir(f"/proc/{pid}/fd")), len(links), len(attached(here))

    boxes = [box() for _ in range(5)]
    here.add(boxes[0])
    here.delete(boxes[0])
    before = left()
    for _ in range(6):
        for one in boxes:
            here.add(one)
        for one in boxes:
            here.delete(one)
    wait_until(lambda: left() == before, 10, "everything to be given back")


def test_containers_that_come_at_once_get_an_address_each(
    here: Runtime, box: Callable[[], Box]
) -> None:
    boxes = [box() for _ in range(6)]
    with ThreadPoolExecutor(len(boxes)) as pool:
        list(pool.map(here.add, boxes))
    assert len({one.addresses()[0] for one in boxes}) == len(boxes)
    with ThreadPoolExecutor(len(boxes)) as pool:
        list(pool.map(here.delete, boxes))
    assert attached(here) == []


def half_way(runtime: Runtime, box: Box) -> dict[str, Any]:
    """The node gave the link, and nobody moved it into the container."""
    key = {"network": runtime.conf["name"], "container": box.name, "ifname": "eth0"}
    ips = ["10.42.1.200/16"]
    told: dict[str, Any] = api.call(runtime.conf["node"], "attach", **key, vni=VNI, ips=ips)
    return told


def test_a_plugin_that_died_half_way_is_tidied_up_by_del(
    here: Runtime, box: Callable[[], Box]
) -> None:
    one = box()
    told = half_way(here, one)
    assert netdev.exists(told["inner"], here.host.name)
    here.delete(one)
    assert not netdev.exists(told["inner"], here.host.name)
    here.add(one)
    here.check(one)


def test_a_plugin_that_died_half_way_is_tidied_up_by_the_next_add(
    here: Runtime, box: Callable[[], Box]
) -> None:
    one = box()
    told = half_way(here, one)
    here.add(one)
    assert not netdev.exists(told["inner"], here.host.name)
    here.check(one)
    (left,) = attached(here)
    assert left["addresses"] == one.addresses() != ["10.42.1.200/16"]


def test_a_plugin_that_died_half_way_is_tidied_up_while_no_node_runs(
    box: Callable[[], Box],
) -> None:
    """A failed ADD has no result that DEL could go by."""
    with Lab("cni") as lab:
        a = lab.host("a", "192.0.2.1/24")
        node = a.up(segment(VNI, "192.0.2.2"))
        runtime, one = Runtime(a, conf(node.name)), box()
        told = half_way(runtime, one)
        node.kill()
        assert netdev.exists(told["inner"], a.name)
        runtime.delete(one)
        assert not netdev.exists(told["inner"], a.name)
        lab.start(node)
        wait_until(lambda: not attached(runtime), 10, "it to be struck out")


def test_check_and_del_ask_every_node_where_none_is_named(
    here: Runtime, box: Callable[[], Box]
) -> None:
    """A second node came after the container; ADD says what it wants, DEL has to succeed."""
    one = box()
    here.add(one)
    assert len(api.running()) > 1
    with pytest.raises(Refused, match="several nodes run here") as refused:
        here.call("ADD", box(), {"node": None})
    assert refused.value.code == 7
    assert here.call("CHECK", one, {"node": None, "prevResult": here.results[one.name]}) is None
    for _ in range(2):
        assert here.call("DEL", one, {"node": None}) is None
        assert attached(here) == []
    assert not netdev.exists("eth0", one.name)


def test_del_where_no_node_is_named_and_none_runs(
    here: Runtime, box: Callable[[], Box], tmp_path: Path
) -> None:
    one = box()
    here.add(one)
    nobody = {"PYVXLAN_RUNTIME_DIR": str(tmp_path)}
    assert here.call("DEL", one, {"node": None}, **nobody) is None
    assert not netdev.exists("eth0", one.name)
    wait_until(lambda: not attached(here), 10, "the node to strike it out")


def test_gc_asks_every_node_where_none_is_named(
    runtimes: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    for runtime in runtimes:
        runtime.add(box())
    none = {"node": None, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    assert runtimes[0].call("GC", conf=none) is None
    assert [attached(runtime) for runtime in runtimes] == [[], []]
