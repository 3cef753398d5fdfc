"""The devices of Docker's networks: what is kept, and what may be gone already."""

from __future__ import annotations

import errno
import logging
import os
import resource
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from vxlan import netdev, netns, tap_handing
from vxlan.lab.wait import wait_until
from vxlan.netdev import NetdevError
from vxlan.plugins import docker_devices, docker_sandbox
from vxlan.plugins.docker_devices import Devices
from vxlan.plugins.docker_taps import Taps, TapServer
from vxlan.tap import Tap, TapError
from vxlan.tap_handing import Wish

pytestmark = pytest.mark.namespaces

ONE, TWO = "1" * 64, "2" * 64
MAC = "02:42:0a:2a:00:02"


@pytest.fixture
def taps(tmp_path: Path) -> Iterator[Taps]:
    made = Taps(f"dock-{secrets.token_hex(4)}", tmp_path / "x.taps")
    Devices(made).prepare()
    yield made
    with suppress(NetdevError):
        netns.delete(made.netns)


@pytest.fixture
def devices(taps: Taps) -> Devices:
    return Devices(taps)


@pytest.fixture
def container() -> Iterator[str]:
    """A namespace, as a container has one."""
    name = f"dockc-{secrets.token_hex(4)}"
    netns.create(name)
    yield name
    netns.delete(name)


@pytest.fixture
def server(taps: Taps) -> Iterator[TapServer]:
    made = TapServer(taps)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.close()


def fetch(taps: Taps, **wish: int) -> Tap:
    """What a node gets."""
    return tap_handing.fetch(str(taps.path), "vxlan42", Wish(**{"vni": 42, **wish}))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened: EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_out_of_descriptors_deletes_no_bridge(devices: Devices) -> None:
    devices.build(42, "bridge")
    with no_descriptors(), pytest.raises(NetdevError, match="Too many open files"):
        devices.prepare()
    devices.prepare()
    assert netdev.exists("br42", devices.netns)


def test_a_namespace_of_which_only_the_name_is_left_is_made_anew(devices: Devices) -> None:
    devices.build(42, "macvlan")
    netns.delete(devices.netns)
    Path(netns.RUN_DIR, devices.netns).touch()
    assert devices.prepare()
    assert not devices.prepare()
    assert devices.build(42, "macvlan")
    assert netdev.exists("vxlan42", devices.netns)


def test_what_is_gone_already_is_removed(devices: Devices) -> None:
    devices.remove(42)
    devices.disconnect("e" * 64)
    devices.build(42, "bridge")
    devices.remove(42)
    devices.remove(42)


def test_what_cannot_be_removed_is_told(devices: Devices) -> None:
    netns.delete(devices.netns)
    with pytest.raises(NetdevError, match="there is none of that name"):
        devices.remove(42)


# -- a container's link --------------------------------------------------------------------


@pytest.mark.parametrize("way", ["macvlan", "bridge"])
def test_a_container_s_link_is_there_for_docker_and_goes(devices: Devices, way: str) -> None:
    assert devices.build(42, way)
    assert not devices.build(42, way)
    devices.plug(42, way)
    name = devices.connect(ONE, 42, way, MAC, 1400)
    link = netdev.link(name)
    assert (link.mtu, link.up) == (1400, False)
    if way == "macvlan":
        assert (link.kind, link.mac.hex(":"), link.alias) == ("macvlan", MAC, devices.netns)
    devices.disconnect(ONE)
    assert not netdev.exists(name)
    devices.remove(42)
    assert [link.name for link in netdev.links(devices.netns)] == ["lo"]


def test_a_mac_that_is_taken_is_told_before_docker_has_the_link(
    devices: Devices, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_devices, "PATIENCE", 0.2)
    devices.build(42, "macvlan")
    first = devices.connect(ONE, 42, "macvlan", MAC, 1400)
    netdev.move(first, container)
    netdev.set_up(first, netns=container)
    with pytest.raises(NetdevError, match=f"has the MAC {MAC}: stop it, or give"):
        devices.connect(TWO, 42, "macvlan", MAC, 1400)
    assert not netdev.exists(docker_devices.inner_of(TWO), devices.netns)
    netdev.delete(first, container)
    netdev.delete(devices.connect(TWO, 42, "macvlan", MAC, 1400))


def test_a_link_that_nobody_knows_is_swept_wherever_a_crash_left_it(
    devices: Devices, container: str
) -> None:
    for vni, way in ((42, "macvlan"), (43, "bridge"), (44, "macvlan")):
        devices.build(vni, way)
    used = devices.connect("3" * 64, 42, "macvlan", "02:00:00:00:00:03", 1400)
    netdev.move(used, container)
    left = devices.connect(ONE, 42, "macvlan", MAC, 1400)
    kept = devices.connect(TWO, 42, "macvlan", "02:00:00:00:00:02", 1400)
    devices.connect("4" * 64, 43, "bridge", "02:00:00:00:00:04", 1400)
    gone = set(devices.sweep([42], [TWO]))
    assert gone == {left, "br43", "p444444444444", "vxlan43", "vxlan44"}
    assert netdev.exists(kept)
    assert netdev.exists(used, container)
    devices.disconnect(TWO)


def test_a_kernel_without_macvlan_gets_a_bridge_unless_macvlan_is_asked_for(
    devices: Devices, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert [devices.choose(42, wanted) for wanted in ("", "macvlan", "bridge")] == [
        "macvlan", "macvlan", "bridge",
    ]  # fmt: skip

    def without(*_args: object) -> None:
        raise NetdevError("macvlan: create: no support", errno.EOPNOTSUPP)

    monkeypatch.setattr(docker_devices, "create_child", without)
    with caplog.at_level(logging.WARNING):
        assert devices.choose(42, "") == "bridge"
    assert "VNI 42: this kernel has no macvlan" in caplog.text
    with pytest.raises(NetdevError, match="`modprobe macvlan`, or take -o attach=bridge"):
        devices.choose(42, "macvlan")


# -- the TAP, and who reads it -------------------------------------------------------------


def test_a_node_gets_the_queues_it_asks_for_again_and_again(
    devices: Devices, taps: Taps, server: TapServer
) -> None:
    devices.build(42, "macvlan")
    for queues, offload in ((1, False), (3, True), (1, True)):
        tap = fetch(taps, queues=queues, offload=offload)
        assert len(set(tap.fds)) == queues
        assert tap.granted["vnet_hdr"]
        assert bool(tap.granted.get("csum")) == offload
        assert not any(map(tap_fd_blocks, tap.fds))
        tap.close()
    assert netdev.link("vxlan42", devices.netns).up


def tap_fd_blocks(fd: int) -> bool:
    return os.get_blocking(fd) or os.get_inheritable(fd)


def test_frames_go_to_the_node_alone(devices: Devices, taps: Taps, server: TapServer) -> None:
    """Not to the queue that rests, though it came first."""
    devices.build(42, "macvlan")
    tap = fetch(taps)
    for number in range(64):
        send_raw(devices.netns, number)
    seen = set()
    while (frame := tap.read()) is not None:
        seen.add(frame[-1])
    assert seen == set(range(64))
    tap.close()


def send_raw(namespace: str, number: int) -> None:
    with netns.inside(namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("vxlan42", 0))
        address = bytes([10, 0, 0, number])
        sock.send(b"\xff" * 6 + bytes(6) + b"\x88\xb5" + address * 11 + bytes([0, 0, 0, number]))


def carrier(devices: Devices) -> bool:
    return netdev.link("vxlan42", devices.netns).carrier


def test_the_carrier_stays_when_the_node_goes_and_comes_back_with_a_plugin(
    devices: Devices, taps: Taps, server: TapServer
) -> None:
    devices.build(42, "macvlan")
    tap = fetch(taps)
    tap.close()
    assert carrier(devices)
    for kept in taps._kept.values():  # the plugin is killed
        assert kept is not None
        kept.close()
    wait_until(lambda: not carrier(devices), 5, "the last descriptor to be closed")
    again = Taps(taps.netns, taps.path)
    assert not again.make(42)
    assert carrier(devices)


def test_a_plugin_that_starts_takes_no_frame_of_a_node_that_reads(
    devices: Devices, taps: Taps, server: TapServer
) -> None:
    devices.build(42, "macvlan")
    tap = fetch(taps)
    again = Taps(taps.netns, taps.path)
    again.make(42)
    assert again._kept == {42: None}
    tap.close()
    for kept in taps._kept.values():
        assert kept is not None
        kept.close()
    wait_until(lambda: not carrier(devices), 5, "the last descriptor to be closed")
    again.keep_carrier()
    assert carrier(devices)


def test_a_tap_that_somebody_deleted_is_made_anew_when_the_node_asks(
    devices: Devices, taps: Taps, server: TapServer, caplog: pytest.LogCaptureFixture
) -> None:
    devices.build(42, "macvlan")
    tap = fetch(taps)
    netdev.delete("vxlan42", devices.netns)
    assert not tap.there
    tap.close()
    again = fetch(taps)
    assert again.there
    assert "vxlan42: deleted by somebody: made anew" in caplog.text
    assert devices.build(42, "macvlan"), "its links were lost with it"
    assert not devices.build(42, "macvlan")
    again.close()


def test_what_is_no_network_is_not_handed_over(taps: Taps, server: TapServer) -> None:
    with pytest.raises(TapError, match="tap vxlan42: VNI 42 is no network of this plugin, or not"):
        fetch(taps)


def test_a_tap_of_another_kind_is_refused_with_the_remedy(devices: Devices, taps: Taps) -> None:
    with netns.inside(devices.netns):
        netdev.create_bridge("vxlan42")
    with pytest.raises(NetdevError, match=r"is no TAP: remove it with `ip -n dock-\w+ link del"):
        devices.build(42, "macvlan")


def test_many_networks_take_little_memory(devices: Devices) -> None:
    """A TAP for several queues would have 256 qdiscs: 24 MiB of the kernel's memory each."""
    devices.build(42, "macvlan")
    before = slab()
    for vni in range(43, 51):
        devices.build(vni, "macvlan")
    assert slab() - before < 24 << 10


def slab() -> int:
    """KiB of the kernel's slabs."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:"))


# -- whether a container is there ----------------------------------------------------------


def test_a_sandbox_is_gone_when_it_is_no_namespace_any_more(tmp_path: Path) -> None:
    name = f"docks-{secrets.token_hex(4)}"
    path = str(Path(netns.RUN_DIR, name))
    netns.create(name)
    assert docker_sandbox.is_there(path) is True
    netns.delete(name)
    assert docker_sandbox.is_there(path) is False
    plain = tmp_path / "plain"  # what Docker leaves behind
    plain.touch()
    assert docker_sandbox.is_there(str(plain)) is False


@pytest.mark.parametrize("path", ["unknown", "", "/nowhere/netns/1"])
def test_of_a_sandbox_that_cannot_be_seen_nothing_is_concluded(path: str) -> None:
    assert docker_sandbox.is_there(path) is None
