"""The devices of a node in real namespaces: made, followed, adopted, and taken away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hosts import lone_host
from vxlan import local_address, netdev, netns
from vxlan.attachment import PORT_MTU, Attachment, stable_mac
from vxlan.capabilities import CAP_NET_ADMIN
from vxlan.config import NodeConfig, SegmentConfig, VtepConfig
from vxlan.fdb import Remote
from vxlan.lab import Host, Lab, LabError, ping, segment, wait_until
from vxlan.netdev import NetdevError
from vxlan.overlay_mtu import paths
from vxlan.tap import TapError

pytestmark = pytest.mark.namespaces

LOCAL = "192.0.2.1"
BRIDGED = SegmentConfig(42, "tap42", bridge="br42", address=("10.42.0.1/24",))
PLAIN = SegmentConfig(42, "tap42", address=("10.42.0.1/24",))


@pytest.fixture
def inside() -> Iterator[None]:
    """This thread in a namespace of its own."""
    with lone_host() as name, netns.inside(name):
        yield


def attached(config: SegmentConfig, mtu: int = 1450) -> Attachment:
    made = Attachment(config, LOCAL, offload=False)
    made.open(mtu)
    return made


def names() -> set[str]:
    return {link.name for link in netdev.links()}


# -- an attachment ------------------------------------------------------------------------


@pytest.mark.usefixtures("inside")
def test_without_a_bridge_the_tap_carries_address_and_overlay_mtu() -> None:
    made = attached(PLAIN)
    link = netdev.link("tap42")
    assert (link.mtu, link.up, link.master) == (1450, True, None)
    assert link.mac == stable_mac(LOCAL, "tap42")
    assert "10.42.0.1/24" in netdev.addresses("tap42")
    made.close()
    assert names() == {"lo"}


@pytest.mark.usefixtures("inside")
def test_a_bridge_is_made_carries_the_overlay_mtu_and_goes_with_us() -> None:
    made = attached(BRIDGED)
    bridge, tap = netdev.link("br42"), netdev.link("tap42")
    assert (bridge.mtu, bridge.up, bridge.mac) == (1450, True, stable_mac(LOCAL, "br42"))
    assert (tap.mtu, tap.master) == (PORT_MTU, bridge.index)
    assert "10.42.0.1/24" in netdev.addresses("br42")
    assert made.follow() == {tap.mac, bridge.mac}
    made.close()
    assert names() == {"lo"}


@pytest.mark.usefixtures("inside")
def test_a_bridge_of_ours_stays_while_others_are_in_it() -> None:
    made = attached(BRIDGED)
    netdev.create_veth("c1", "c1peer")
    netdev.set_master("c1", "br42")
    made.close()
    assert names() == {"lo", "br42", "c1", "c1peer"}
    assert "10.42.0.1/24" not in netdev.addresses("br42")


@pytest.mark.usefixtures("inside")
def test_a_bridge_left_by_a_killed_node_is_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    killed = attached(BRIDGED)
    killed.close_tap()
    assert names() == {"lo", "br42"}
    made = attached(BRIDGED, 1400)
    assert "br42: made by this node before, taken over" in caplog.text
    assert netdev.link("br42").mtu == 1400
    made.close()
    assert names() == {"lo"}


@pytest.mark.usefixtures("inside")
def test_a_bridge_of_somebody_else_is_used_and_left_as_it_was() -> None:
    netdev.create_bridge("br42")
    netdev.add_address("br42", "10.42.0.9/24")
    netdev.add_address("br42", "10.42.0.1/24")
    netdev.create_veth("c1", "c1peer")
    netdev.set_master("c1", "br42")
    before = netdev.link("br42")
    made = attached(replace(BRIDGED, address=("10.42.0.1/24", "10.42.1.1/24")))
    assert "10.42.1.1/24" in netdev.addresses("br42")
    assert netdev.link("tap42").master == before.index
    made.close()
    after = netdev.link("br42")
    assert (after.mac, after.mtu, after.up) == (before.mac, before.mtu, before.up)
    assert netdev.addresses("br42") == ["10.42.0.9/24", "10.42.0.1/24"]


@pytest.mark.usefixtures("inside")
def test_what_is_no_bridge_is_refused_and_nothing_is_left() -> None:
    netdev.create_veth("br42", "other")
    with pytest.raises(NetdevError, match="bridge br42: it is no bridge but veth"):
        attached(BRIDGED)
    assert names() == {"lo", "br42", "other"}


@pytest.mark.usefixtures("inside")
def test_a_taken_name_is_refused_and_the_other_device_stays() -> None:
    netdev.create_bridge("tap42")
    with pytest.raises(TapError, match="an interface of that name exists"):
        attached(BRIDGED)
    assert names() == {"lo", "tap42"}


@pytest.mark.usefixtures("inside")
def test_an_operator_plugs_the_tap_in_and_out() -> None:
    made = attached(SegmentConfig(42, "tap42"))
    netdev.create_bridge("br0")
    netdev.set_master("tap42", "br0")
    made.set_mtu(1400)
    bridge = netdev.link("br0")
    assert netdev.link("tap42").mtu == PORT_MTU
    assert bridge.mac in made.follow()
    netdev.set_master("tap42", None)
    assert made.follow() == {stable_mac(LOCAL, "tap42")}
    assert netdev.link("tap42").mtu == 1400
    made.close()
    assert names() == {"lo", "br0"}


@pytest.mark.usefixtures("inside")
def test_a_bridge_that_somebody_deletes_is_made_anew() -> None:
    made = attached(BRIDGED)
    netdev.delete("br42")
    made.follow()
    assert netdev.link("tap42").master == netdev.link("br42").index
    assert netdev.addresses("br42")[0] == "10.42.0.1/24"
    made.close()
    assert names() == {"lo"}


@pytest.mark.usefixtures("inside")
def test_addresses_and_bridge_change_under_the_same_tap() -> None:
    made = attached(BRIDGED)
    tap = netdev.link("tap42").index
    made.change(replace(BRIDGED, address=("10.42.0.2/24", "2001:db8:42::1/64")))
    assert {"10.42.0.2/24", "2001:db8:42::1/64"} <= set(netdev.addresses("br42"))
    assert "10.42.0.1/24" not in netdev.addresses("br42")
    made.change(replace(BRIDGED, bridge="other"))
    assert names() == {"lo", "tap42", "other"}
    made.change(PLAIN)
    assert names() == {"lo", "tap42"}
    assert netdev.link("tap42").index == tap
    assert netdev.link("tap42").mtu == 1450
    assert "10.42.0.1/24" in netdev.addresses("tap42")
    made.close()


def test_macs_are_stable_and_differ_by_host_and_device() -> None:
    macs = {stable_mac(local, name) for local in ("192.0.2.1", "192.0.2.2") for name in "ab"}
    assert len(macs) == 4
    assert all(mac[0] & 3 == 2 for mac in macs)
    assert stable_mac(LOCAL, "a") in macs


# -- paths and addresses ------------------------------------------------------------------


@pytest.mark.usefixtures("inside")
def test_what_a_path_carries() -> None:
    underlay()
    netdev.add_route("198.51.100.0/24", via="192.0.2.2", mtu=1400)
    netdev.add_route("203.0.113.0/24", via="192.0.2.2", mtu=600)
    found = paths(["192.0.2.2", "198.51.100.1", "203.0.113.1", "10.9.9.9", LOCAL], [LOCAL])
    assert [(path.address, path.mtu) for path in found] == [
        ("192.0.2.2", 1500), ("198.51.100.1", 1400), ("203.0.113.1", 600),
    ]  # fmt: skip
    (own,) = paths([], [LOCAL])
    assert (own.dev, own.mtu, own.own) == ("eth0", 1500, True)
    assert paths(["10.9.9.9"], ["10.1.1.1"]) == []


def underlay() -> None:
    netdev.create_veth("eth0", "far")
    netdev.add_address("eth0", f"{LOCAL}/24")
    netdev.add_address("eth0", "2001:db8::1/64")
    for name in ("eth0", "far"):
        netdev.set_up(name)


def wanted(*remotes: str, **vtep: str) -> NodeConfig:
    far = tuple(Remote(address, 4789) for address in remotes)
    return NodeConfig("n", VtepConfig(**vtep), (SegmentConfig(1, "t", remotes=far),))


@pytest.mark.usefixtures("inside")
def test_the_address_to_send_from() -> None:
    underlay()
    assert local_address.choose(wanted("192.0.2.2", dev="eth0")) == (LOCAL, "2001:db8::1")
    assert local_address.choose(wanted("192.0.2.2", "192.0.2.3")) == (LOCAL,)
    assert local_address.choose(wanted("2001:db8::2", "192.0.2.3")) == ("2001:db8::1", LOCAL)
    netdev.create_bridge("lonely")
    with pytest.raises(local_address.NoAddress, match=r"vtep\.dev: lonely has no address"):
        local_address.choose(wanted(dev="lonely"))
    with pytest.raises(local_address.NoAddress, match=r"or set vtep\.local"):
        local_address.choose(wanted("203.0.113.1"))
    netdev.add_address("lonely", "10.9.9.9/24")
    with pytest.raises(local_address.NoAddress, match="segment 1: 2001:db8::2 is IPv6"):
        local_address.choose(wanted("2001:db8::2", dev="lonely"))


# -- a whole node --------------------------------------------------------------------------


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("node") as made:
        yield made


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("a", "192.0.2.1/24")


def mtu_of(host: Host, name: str) -> int:
    return netdev.link(name, host.name).mtu


def test_a_node_keeps_one_capability(host: Host) -> None:
    node = host.up(segment(42, "192.0.2.2", bridge=None), engine="python")
    status = Path(f"/proc/{node.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    only = f"{1 << CAP_NET_ADMIN:016x}"
    assert [fields[f"Cap{which}"] for which in ("Prm", "Eff", "Bnd")] == [only] * 3
    assert (fields["CapInh"], fields["CapAmb"]) == ("0" * 16, "0" * 16)
    assert fields["NoNewPrivs"] == "1"


def test_the_overlay_mtu_follows_the_underlay_link(host: Host) -> None:
    node = host.up(
        segment(42, "192.0.2.2", bridge="br42"),
        segment(43, "192.0.2.2", bridge=None),
        segment(44, "192.0.2.2", bridge="br44", mtu=1300),
        engine="python",
    )
    for underlay_mtu in (1400, 1500):
        netdev.set_mtu("eth0", underlay_mtu, host.name)
        wait_until(
            lambda mtu=underlay_mtu: node.segment(42)["mtu"] == mtu - 50, 10.0, "the new MTU"
        )
        wait_until(
            lambda mtu=underlay_mtu: mtu_of(host, "vxlan43") == mtu - 50, 10.0, "the TAP's MTU"
        )
        assert mtu_of(host, "br42") == underlay_mtu - 50
        assert mtu_of(host, "br44") == 1300
        assert mtu_of(host, "vxlan42") == PORT_MTU


def test_an_operator_plugs_the_tap_of_a_running_node_in(host: Host) -> None:
    host.up(segment(42, "192.0.2.2", bridge=None), engine="python")
    assert mtu_of(host, "vxlan42") == 1450
    netdev.set_master("vxlan42", host.bridge("br0"), host.name)
    wait_until(lambda: mtu_of(host, "vxlan42") == PORT_MTU, 10.0, "the MTU of a port")


def test_a_bridge_deleted_under_a_running_node_comes_back(host: Host) -> None:
    host.up(segment(42, "192.0.2.2", bridge="br42", address=["10.42.0.1/24"]), engine="python")
    netdev.delete("br42", host.name)
    wait_until(
        lambda: (
            netdev.exists("br42", host.name)
            and "10.42.0.1/24" in netdev.addresses("br42", host.name)
        ),
        10.0,
        "the bridge",
    )


def test_a_start_that_fails_half_way_leaves_nothing(host: Host, runtime_dir: Path) -> None:
    netdev.create_bridge("taken", host.name)
    before = {link.name for link in netdev.links(host.name)}
    with pytest.raises(LabError, match="tap taken: an interface of that name exists"):
        host.up(
            segment(42, "192.0.2.2", bridge="br42", address=["10.42.0.1/24"]),
            segment(43, "192.0.2.2", bridge="br43", tap="taken"),
            engine="python",
        )
    assert {link.name for link in netdev.links(host.name)} == before
    assert not list(runtime_dir.glob(f"{host.name}*"))


def test_a_killed_node_finds_its_bridge_again_and_removes_it(lab: Lab, host: Host) -> None:
    node = host.up(
        segment(42, "192.0.2.2", bridge="br42", address=["10.42.0.1/24"]), engine="python"
    )
    mac = netdev.link("br42", host.name).mac
    node.kill()
    assert netdev.exists("br42", host.name)
    lab.start(node)
    assert netdev.link("br42", host.name).mac == mac
    assert "made by this node before, taken over" in node.log()
    assert "replaced the control socket of a node that was killed" in node.log()
    assert node.stop() == 0
    assert {link.name for link in netdev.links(host.name)} == {"lo", "eth0"}


def test_reload_under_traffic_loses_nothing_on_an_untouched_segment(lab: Lab) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    c1, c2 = a.container("c1", "10.42.0.11/16"), b.container("c2", "10.42.0.12/16")
    node = a.up(segment(42, b.address), engine="python")
    b.up(segment(42, a.address), engine="python")
    assert ping(c1, c2.address).received == 1
    program = (
        "import sys; from vxlan import api\nfor _ in range(5): api.call(sys.argv[1], 'reload')"
    )
    table = {"local": ["192.0.2.1"], "engine": "python"}
    node.configure([segment(42, b.address), segment(43, b.address, bridge="br43")], table)
    with subprocess.Popen([sys.executable, "-c", program, node.name]) as reloading:
        assert ping(c1, c2.address, 100, interval=0.01).lost == 0
        assert reloading.wait(30) == 0
    assert [one["vni"] for one in node.show()["segments"]] == [42, 43]
