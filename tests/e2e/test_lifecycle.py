"""Start, reload, end: orderly and otherwise."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from watching import Watcher
from worlds import VNI, Pair, two_hosts

from vxlan import api, netdev
from vxlan.lab import Lab, Ping, Sniffer, ping, segment, wait_until

pytestmark = pytest.mark.namespaces

TAP = f"vxlan{VNI}"


class Pinging(threading.Thread):
    """Echo requests every 5 ms while something else is done."""

    def __init__(self, pair: Pair, count: int) -> None:
        super().__init__(daemon=True, name="pinging")
        self._pair, self._count = pair, count
        self.result = Ping(())

    def run(self) -> None:
        pair = self._pair
        self.result = ping(pair.c1, pair.c2.address, self._count, interval=0.005)

    def __enter__(self) -> Pinging:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()


def vtep(pair: Pair, engine: str) -> dict[str, object]:
    return {"local": [pair.a.address], "engine": engine}


def links_of(namespace: str) -> set[str]:
    return {link.name for link in netdev.links(namespace)}


# -- reload --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["command", "SIGHUP"])
def test_reload_loses_no_packet_of_an_untouched_segment(
    shared_pair: Pair, engine_name: str, how: str
) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    with Pinging(shared_pair, 200) as pinging:
        for number in range(3):
            others = [segment(100 + number, shared_pair.b.address, bridge=None)]
            shared_pair.node.configure(
                [segment(VNI, shared_pair.b.address), *others], vtep(shared_pair, engine_name)
            )
            if how == "command":
                shared_pair.node.call("reload")
            else:
                shared_pair.node.signal(signal.SIGHUP)
            wait_until(lambda vni=100 + number: has_vni(shared_pair, vni), 5.0, "the new segment")
    assert pinging.result.lost == 0
    assert shared_pair.c2.mac.hex(":") in shared_pair.node.fdb(VNI)
    assert links_of(shared_pair.a.name) & {"vxlan100", "vxlan101", "vxlan102"} == {"vxlan102"}


def has_vni(pair: Pair, vni: int) -> bool:
    return vni in [one["vni"] for one in pair.node.show()["segments"]]


def test_reload_changes_policy_and_keeps_what_was_learned(
    shared_pair: Pair, engine_name: str
) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    learned = shared_pair.node.fdb(VNI)
    shared_pair.node.configure(
        [segment(VNI, shared_pair.b.address, ageing=77, vlan="drop")],
        vtep(shared_pair, engine_name),
    )
    changed = shared_pair.node.call("reload")["changed"]
    assert changed
    policy = shared_pair.node.segment(VNI)["policy"]
    assert (policy["ageing"], policy["vlan"]) == (77, "drop")
    assert shared_pair.node.fdb(VNI).keys() == learned.keys()


def test_reload_of_the_same_file_changes_nothing(shared_pair: Pair) -> None:
    assert shared_pair.node.call("reload") == {"changed": []}


def test_reload_adds_and_removes_remotes(shared_pair: Pair, engine_name: str) -> None:
    shared_pair.node.configure([segment(VNI, "192.0.2.9")], vtep(shared_pair, engine_name))
    shared_pair.node.call("reload")
    remotes = [
        one["dst"]
        for one in shared_pair.node.call("fdb.show", vni=VNI)
        if set(one["mac"]) == {"0", ":"}
    ]
    assert [one["address"] for entry in remotes for one in entry] == ["192.0.2.9"]


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ([segment(1 << 24)], "segment[0].vni"),
        ([segment(VNI), segment(VNI, tap="other")], str(VNI)),
        ([segment(VNI, colour="red")], "colour"),
    ],
    ids=["no VNI", "VNI twice", "unknown key"],
)
def test_a_bad_reload_is_refused_whole(
    shared_pair: Pair, engine_name: str, segments: list[dict[str, object]], says: str
) -> None:
    before = shared_pair.node.show()["segments"][0]["policy"]
    shared_pair.node.configure(
        [*segments, segment(200, bridge=None)], vtep(shared_pair, engine_name)
    )
    with pytest.raises(api.ApiError) as refused:
        shared_pair.node.call("reload")
    assert says in str(refused.value)
    assert shared_pair.node.config_path.name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [one["vni"] for one in shared_pair.node.show()["segments"]] == [VNI]
    assert shared_pair.node.show()["segments"][0]["policy"] == before
    assert ping(shared_pair.c1, shared_pair.c2.address, 3, interval=0.02).lost == 0


def test_what_cannot_change_live_needs_a_restart(shared_pair: Pair, engine_name: str) -> None:
    shared_pair.node.configure(
        [segment(VNI, shared_pair.b.address)], {**vtep(shared_pair, engine_name), "dstport": 8472}
    )
    with pytest.raises(api.ApiError, match="restart"):
        shared_pair.node.call("reload")
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1


def test_reload_is_seen_by_who_watches(shared_pair: Pair, engine_name: str) -> None:
    """Remotes that join and leave are events."""
    watcher = Watcher(shared_pair.node, VNI)
    shared_pair.node.configure(
        [segment(VNI, shared_pair.b.address, "192.0.2.9")], vtep(shared_pair, engine_name)
    )
    shared_pair.node.call("reload")
    watcher.wait("remote_added", remote={"address": "192.0.2.9", "port": 4789})


# -- the end ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "down"])
def test_an_orderly_end_leaves_nothing(
    lab: Lab, engine_name: str, how: signal.Signals | str, runtime_dir: Path
) -> None:
    a = lab.host("a", "192.0.2.1/24")
    before = links_of(a.name)
    node = a.up(
        segment(VNI, "192.0.2.2", bridge="br42", address=["10.42.0.1/16"]), engine=engine_name
    )
    assert {TAP, "br42"} <= links_of(a.name)
    if isinstance(how, signal.Signals):
        node.signal(how)
    else:
        node.call("down")
    wait_until(lambda: node.returncode is not None, 10.0, "the end of the node")
    assert node.returncode == 0
    assert links_of(a.name) == before
    assert not (runtime_dir / f"{node.name}.sock").exists()


def test_a_bridge_of_somebody_else_stays(pair: Pair) -> None:
    pair.node.stop()
    left = links_of(pair.a.name)
    assert "br0" in left
    assert TAP not in left


def test_a_node_that_was_killed_is_simply_started_again(pair: Pair) -> None:
    assert ping(pair.c1, pair.c2.address).received == 1
    assert pair.node.kill() == -signal.SIGKILL
    assert TAP not in links_of(pair.a.name)
    assert ping(pair.c1, pair.c2.address, timeout=0.2).received == 0
    pair.lab.start(pair.node)
    assert ping(pair.c1, pair.c2.address, 5, interval=0.02).lost == 0
    assert pair.node.stop() == 0
    assert TAP not in links_of(pair.a.name)


def test_a_second_node_of_the_same_name_is_refused(pair: Pair) -> None:
    up = [sys.executable, "-m", "vxlan", "up", str(pair.node.config_path)]
    with pytest.raises(subprocess.CalledProcessError) as refused:
        pair.a.run([*up, "--name", pair.node.name])
    assert f"node {pair.node.name} runs already" in refused.value.stderr
    assert refused.value.returncode == 1
    assert ping(pair.c1, pair.c2.address).received == 1


# -- several segments ----------------------------------------------------------------------


def test_two_segments_in_one_process_do_not_mix(lab: Lab, engine_name: str) -> None:
    """The same inner addresses on both sides of the partition."""
    a, b, c1, c2 = two_hosts(lab)
    d1 = a.container("d1", "10.42.0.11/16", bridge="br1")
    d2 = b.container("d2", "10.42.0.12/16", bridge="br1")
    for host, other in ((a, b), (b, a)):
        lab.start(
            host.node(
                segment(VNI, other.address),
                segment(43, other.address, bridge="br1"),
                engine=engine_name,
            )
        )
    with Sniffer(c2, "eth0") as green, Sniffer(d2, "eth0") as blue:
        assert ping(c1, c2.address, 3, interval=0.02).lost == 0
        assert blue.packets() == []
        green.clear()
        assert ping(d1, d2.address, 3, interval=0.02).lost == 0
        assert green.packets() == []
    node = lab.nodes[0]
    green_mac, blue_mac = c2.mac.hex(":"), d2.mac.hex(":")
    assert {green_mac, blue_mac} & node.fdb(VNI).keys() == {green_mac}
    assert {green_mac, blue_mac} & node.fdb(43).keys() == {blue_mac}
