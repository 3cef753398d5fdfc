"""A node that is killed and goes on with descriptors that somebody kept: no packet is lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from keeping import Holder, Manager, Pinging, descriptors
from worlds import VNI, Pair, python_pair

from vxlan import netdev
from vxlan.lab import Lab, ping, segment, wait_until
from vxlan.lab.probe import tcp_transfer

pytestmark = pytest.mark.namespaces

TAP = f"vxlan{VNI}"
KILLS = int(os.environ.get("PYVXLAN_KILLS", "8"))
"""Restarts in which a descriptor may leak; `make soak` takes 50."""

IN_HAND = 1
"""Pings that a node may have read and not yet sent when it is killed: nobody else has those."""


@pytest.fixture
def holder(lab: Lab, engine_name: str) -> Iterator[Holder]:
    """A pair whose first node has a holder."""
    pair = python_pair(lab, engine_name)
    pair.node.stop()
    made = Holder(pair)
    made.start()
    assert ping(pair.c1, pair.c2.address).received == 1
    yield made
    made.end()


@pytest.fixture
def manager(lab: Lab, engine_name: str, tmp_path: Path) -> Iterator[Manager]:
    """The same with a manager that the test plays."""
    pair = python_pair(lab, engine_name)
    pair.node.stop()
    made = Manager(pair, tmp_path)
    made.start_node()
    assert ping(pair.c1, pair.c2.address).received == 1
    yield made
    made.close()


def reached(pair: Pair) -> bool:
    return ping(pair.c1, pair.c2.address, 5, interval=0.05).lost == 0


def links(pair: Pair) -> dict[str, netdev.Link]:
    """The links of host a by their name."""
    return {link.name: link for link in netdev.links(pair.a.name)}


def configure(pair: Pair, engine: str, *segments: dict[str, object], **vtep: object) -> None:
    local = {"local": [pair.a.address], "engine": engine}
    pair.node.configure(segments or [segment(VNI, pair.b.address)], {**local, **vtep})


# -- the holder ----------------------------------------------------------------------------


def test_packets_wait_for_a_node_that_is_killed(holder: Holder) -> None:
    with Pinging(holder.pair) as pinging:
        time.sleep(0.3)
        holder.kill()
    print(f"worst round trip {pinging.worst:.3f} s")
    assert pinging.result.lost <= IN_HAND
    kept = holder.kept()
    assert kept["by"] == f"pyvxlan up --restart (pid {holder.process.pid})"
    assert (kept["restarts"], kept["fallbacks"]) == (1, [])


def test_tcp_goes_on_through_five_kills(holder: Holder) -> None:
    pair = holder.pair
    result = []
    sending = threading.Thread(
        target=lambda: result.append(
            tcp_transfer(pair.c1, pair.c2, pair.c2.address, 16 << 20, 120, pace=1 << 20)
        )
    )
    sending.start()
    for _ in range(5):
        time.sleep(1.2)
        holder.kill()
    assert sending.is_alive(), "it was over before"
    sending.join()
    assert result[0].intact
    assert holder.kept()["restarts"] == 5


def test_what_came_by_command_survives_a_kill(holder: Holder) -> None:
    node, keys = holder.node, {"remotes": ["192.0.2.2"], "tap": "t7", "mtu": 1300}
    node.call("segment.add", vni=7, owner="docker", **keys)
    node.call("remote.add", vni=VNI, dst="192.0.2.77")
    node.call("remote.del", vni=VNI, dst="192.0.2.2")
    before = netdev.link("t7", holder.pair.a.name)
    holder.kill()
    assert (node.segment(7)["owner"], node.segment(7)["mtu"]) == ("docker", 1300)
    assert netdev.link("t7", holder.pair.a.name).index == before.index
    remotes = [one["address"] for one in node.call("remote.show", vni=VNI)]
    assert remotes == ["192.0.2.77"]
    again = node.call("segment.add", vni=7, owner="docker", **keys)
    assert again["added"] is False
    node.call("segment.del", vni=7, owner="docker")
    holder.kill()
    assert [one["vni"] for one in node.show()["segments"]] == [VNI]
    assert "t7" not in links(holder.pair)


def test_no_packet_is_lost_for_a_segment_by_command(holder: Holder) -> None:
    pair = holder.pair
    for node, host, other in zip(pair.nodes, (pair.a, pair.b), (pair.b, pair.a), strict=True):
        node.call("segment.add", vni=7, tap="t7", remotes=[other.address])
        netdev.add_address("t7", f"10.7.0.{host.address[-1]}/24", host.name)
    assert ping(pair.a, "10.7.0.2").received == 1
    result = []
    pinging = threading.Thread(
        target=lambda: result.append(ping(pair.a, "10.7.0.2", 600, interval=0.005, timeout=5))
    )
    pinging.start()
    holder.kill()
    pinging.join()
    assert result[0].lost <= IN_HAND


def test_a_tap_in_another_namespace_is_left_as_it_is(holder: Holder) -> None:
    pair, node = holder.pair, holder.node
    for each, other in zip(pair.nodes, (pair.b, pair.a), strict=True):
        each.call("segment.add", vni=7, tap="t7", remotes=[other.address])
    netdev.add_address("t7", "10.7.0.2/24", pair.b.name)
    netdev.move("t7", pair.c1.name, netns=pair.a.name)
    netdev.add_address("t7", "10.7.0.1/24", pair.c1.name)
    netdev.set_up("t7", netns=pair.c1.name)
    assert ping(pair.c1, "10.7.0.2").received == 1
    before = netdev.link("t7", pair.c1.name)
    holder.kill()
    assert ping(pair.c1, "10.7.0.2", 5, interval=0.05).lost == 0
    after = netdev.link("t7", pair.c1.name)
    assert (after.index, after.mtu, after.mac) == (before.index, before.mtu, before.mac)
    assert node.segment(7)["tap"] == "t7"


def test_an_orderly_end_leaves_nothing_held(holder: Holder, runtime_dir: Path) -> None:
    holder.kill()
    holder.node.call("down")
    assert holder.process.wait(20) == 0
    assert TAP not in links(holder.pair)
    assert not list(runtime_dir.glob("holder-*"))


def test_a_signal_to_the_holder_is_the_nodes(holder: Holder, engine_name: str) -> None:
    pair = holder.pair
    configure(pair, engine_name, segment(VNI, pair.b.address, ageing=77))
    holder.process.send_signal(signal.SIGHUP)
    wait_until(lambda: pair.node.segment(VNI)["policy"]["ageing"] == 77, 10, "the reload")
    assert holder.end() == 0
    assert TAP not in links(pair)


def test_the_node_ends_with_its_holder(holder: Holder) -> None:
    holder.process.kill()
    holder.process.wait()
    wait_until(lambda: holder.pid() == 0, 10, "the end of the node")
    wait_until(lambda: TAP not in links(holder.pair), 10, "its TAP to go")


def test_no_descriptor_leaks(holder: Holder) -> None:
    holder.kill()
    before = descriptors(holder.process.pid), descriptors(holder.pid())
    for _ in range(KILLS):
        time.sleep(1.1)  # one that dies young is started after a pause
        holder.kill()
    wait_until(
        lambda: (descriptors(holder.process.pid), descriptors(holder.pid())) == before,
        10, f"{before} descriptors again",
    )  # fmt: skip
    assert reached(holder.pair)


# -- the protocol, played ------------------------------------------------------------------


def test_the_store_holds_what_the_protocol_says(manager: Manager, engine_name: str) -> None:
    queues = sum(name.startswith("udp.") for name in manager.names)
    expected = [*(f"tap.{VNI}.{n}" for n in range(queues)), *(f"udp.{n}" for n in range(queues))]
    assert manager.names == sorted([*expected, "state"])
    with Pinging(manager.pair) as pinging:
        manager.kill()
        manager.start_node()
    assert pinging.result.lost <= IN_HAND
    assert manager.kept()["by"] == "the service manager"
    assert manager.end() == 0
    wait_until(lambda: manager.names == [], 5, "the store to be empty")


def closed(manager: Manager, word: str) -> list[str]:
    """Lines of the log about kept descriptors that were refused."""
    lines = manager.node.log().splitlines()
    return [line for line in lines if "kept descriptors" in line and word in line]


@pytest.mark.parametrize("what", ["tap", "bridge", "mac", "address"])
def test_a_tap_of_another_configuration_is_made_anew(
    manager: Manager, engine_name: str, what: str
) -> None:
    pair = manager.pair
    keys = {
        "tap": {"tap": "other"},
        "bridge": {"bridge": "br9"},
        "mac": {"mac": "02:00:00:00:00:99"},
        "address": {"address": ["10.42.9.9/16"]},
    }[what]
    before = netdev.link(TAP, pair.a.name).index
    manager.kill()
    configure(pair, engine_name, segment(VNI, pair.b.address, **keys))
    manager.start_node()
    now = links(pair)
    assert before not in [link.index for link in now.values()]
    assert len(closed(manager, f"tap.{VNI}.0")) == 1
    if what == "tap":
        assert TAP not in now
        assert "other" in now
        assert reached(pair)
    name = str(keys.get("tap", TAP))
    manager.kill()
    manager.start_node()
    assert links(pair)[name].index == now[name].index


def test_a_reload_that_changes_the_mac_finds_the_name_free(
    manager: Manager, engine_name: str
) -> None:
    pair = manager.pair
    for last in ("98", "99"):
        configure(pair, engine_name, segment(VNI, pair.b.address, mac=f"02:00:00:00:00:{last}"))
        assert pair.node.call("reload")["changed"]
        assert netdev.link(TAP, pair.a.name).mac.hex(":").endswith(last)
    with Pinging(pair) as pinging:
        manager.kill()
        manager.start_node()
    assert pinging.result.lost <= IN_HAND


def test_a_vni_that_took_the_name_of_another_gets_a_new_tap(
    manager: Manager, engine_name: str
) -> None:
    pair = manager.pair
    manager.kill()
    configure(pair, engine_name, segment(77, pair.b.address, tap=TAP))
    manager.start_node()
    assert [one["vni"] for one in pair.node.show()["segments"]] == [77]
    assert not [name for name in manager.names if name.startswith(f"tap.{VNI}.")]


def test_another_port_is_followed(manager: Manager, engine_name: str) -> None:
    pair = manager.pair
    manager.kill()
    configure(pair, engine_name, dstport=8472)
    manager.start_node()
    assert pair.node.show()["vtep"]["dstport"] == 8472
    assert len(closed(manager, "udp.0")) == 1
    assert "4789" not in pair.a.run(["cat", "/proc/thread-self/net/udp"])
    manager.kill()
    configure(pair, engine_name)
    manager.start_node()
    assert reached(pair)


def test_another_number_of_queues_is_followed(manager: Manager, engine_name: str) -> None:
    if engine_name == "python":
        pytest.skip("the python engine has one queue")
    pair = manager.pair
    for queues in (1, 3, 2):
        manager.kill()
        configure(pair, engine_name, queues=queues)
        manager.start_node()
        taps = [name for name in manager.names if name.startswith("tap.")]
        assert len(taps) == queues
        assert sum(name.startswith("udp.") for name in manager.names) == queues
        assert reached(pair)


def garbage(kind: str, pair: Pair) -> int:
    if kind == "pipe":
        end, other = os.pipe()
        os.close(other)
        return end
    if kind == "memory":
        fd = os.memfd_create("rubbish")
        os.write(fd, b"pyvxlan 1 2 rubbish\n{}" + os.urandom(5000))
        return fd
    sock = pair.a.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    if kind == "port":
        sock.bind((pair.a.address, 4790))
    if kind == "connected":
        sock.connect((pair.b.address, 4789))
    return sock.detach()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"tap.{VNI}.0", "pipe"),
        (f"tap.{VNI}.0", "port"),
        (f"tap.{VNI}.x", "pipe"),
        ("tap.99.0", "memory"),
        ("udp.0", "port"),
        ("udp.0", "pipe"),
        ("udp.77", "connected"),
        ("state", "memory"),
        ("state", "pipe"),
        ("something", "pipe"),
    ],
)
def test_garbage_is_refused_and_breaks_nothing(manager: Manager, name: str, kind: str) -> None:
    pair = manager.pair
    manager.kill()
    manager.put(name, garbage(kind, pair))
    manager.start_node()
    assert len(closed(manager, name)) == 1, manager.node.log()
    assert reached(pair)
    manager.kill()
    manager.start_node()
    assert len(closed(manager, name)) == 1
    assert reached(pair)


def test_a_device_that_was_deleted_meanwhile_is_made_anew(manager: Manager) -> None:
    manager.kill()
    netdev.delete(TAP, manager.pair.a.name)
    manager.start_node()
    assert len(closed(manager, "deleted")) == 1
    assert reached(manager.pair)


def test_a_tap_that_is_lost_and_made_anew_is_the_one_that_is_kept(manager: Manager) -> None:
    pair = manager.pair
    netdev.delete(TAP, pair.a.name)
    wait_until(lambda: TAP in links(pair), 10, "the TAP to be back")
    netdev.set_master(TAP, "br0", pair.a.name)
    wait_until(lambda: reached(pair), 10, "frames to go")
    with Pinging(pair) as pinging:
        manager.kill()
        manager.start_node()
    assert pinging.result.lost <= IN_HAND


def test_a_store_that_is_full_is_told_once(manager: Manager) -> None:
    manager.kill()
    limit = manager.limit = len(manager.held)
    manager.start_node()
    for vni in (100, 101):
        manager.node.call("segment.add", vni=vni, remotes=["192.0.2.2"])
    (fallback,) = manager.node.show()["kept"]["fallbacks"]
    assert f"{limit} descriptors is all it keeps" in fallback
    assert manager.node.log().count("descriptors is all") == 1
    assert len(manager.names) == limit
    assert reached(manager.pair)
