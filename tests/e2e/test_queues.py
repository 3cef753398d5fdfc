"""Several queues: workers that share the load by flows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from worlds import VNI, Pair, python_pair, two_hosts

from vxlan import netdev
from vxlan.lab import Lab, Node, ping, segment, tcp_transfer

MEBI = 1 << 20
QUEUES = 3
STREAMS = 8

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module")
def queued() -> Iterator[Pair]:
    pytest.importorskip("vxlan._fastpath")
    with Lab("e2e") as lab:
        yield python_pair(lab, "fastpath", {"queues": QUEUES})


def times(node: Node) -> dict[str, int]:
    """Thread -> clock ticks of processor time it has used."""
    found = {}
    for task in Path(f"/proc/{node.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            found[name] = int(rest.split()[11]) + int(rest.split()[12])
    return found


def test_each_queue_has_its_worker(queued: Pair) -> None:
    assert queued.node.call("show")["engine"]["granted"]["queues"] == QUEUES
    threads = {f"vxlan-{kind}-{at}" for kind in ("work", "help") for at in range(QUEUES)}
    assert threads <= set(times(queued.node))


def test_streams_are_spread_and_intact(queued: Pair) -> None:
    before = times(queued.node)
    with ThreadPoolExecutor(2 * STREAMS) as pool:
        there = [
            pool.submit(tcp_transfer, queued.c1, queued.c2, queued.c2.address, 8 * MEBI)
            for _ in range(STREAMS)
        ]
        back = [
            pool.submit(tcp_transfer, queued.c2, queued.c1, queued.c1.addresses[1], 8 * MEBI)
            for _ in range(STREAMS)
        ]
        assert all(one.result().intact for one in there + back)
    after = times(queued.node)
    worked = {name[-1] for name in after if "vxlan-" in name and after[name] > before[name]}
    assert len(worked) > 1, f"one worker did everything: {before} {after}"


def test_a_segment_that_goes_leaves_the_others_running(queued: Pair) -> None:
    node = queued.node
    kept = segment(VNI, queued.b.address)
    other = {"vni": VNI + 1, "remotes": [queued.b.address]}
    vtep = {"local": list(queued.a.addresses), "engine": "fastpath", "queues": QUEUES}
    for segments in ([kept, other], [kept]) * 3:
        node.configure(segments, vtep)
        node.call("reload")
        assert ping(queued.c1, queued.c2.address, 3, interval=0.02).lost == 0


def test_a_deleted_tap_comes_back_with_all_its_queues(queued: Pair) -> None:
    netdev.delete(f"vxlan{VNI}", queued.a.name)
    assert ping(queued.c1, queued.c2.address, 20, interval=0.2).received
    assert ping(queued.c1, queued.c2.address, 3, interval=0.02).lost == 0
    test_streams_are_spread_and_intact(queued)


def test_it_ends_at_once(queued: Pair) -> None:
    assert queued.nodes[1].stop(timeout=2.0) == 0


def test_the_python_engine_says_that_it_has_one(lab: Lab) -> None:
    a, b, _, _ = two_hosts(lab)
    node = a.up(segment(VNI, b.address), engine="python", queues=2)
    assert "queues 2: the python engine has one" in node.call("show")["engine"]["fallbacks"]
