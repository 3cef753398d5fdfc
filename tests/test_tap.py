from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import STATION, lone_host, readable
from vxlan import netdev, netns, tap
from vxlan.drop import Drop
from vxlan.tap import VNET_HDR_LEN, Tap, TapError, TapLost

PLAIN = bytes(VNET_HDR_LEN)
BROADCAST = b"\xff" * 6
FRAME = BROADCAST + STATION + b"\x88\xb5" + bytes(46)


@pytest.fixture
def host() -> Iterator[str]:
    with lone_host() as name:
        yield name


@pytest.fixture
def device(host: str) -> Iterator[Tap]:
    with netns.inside(host):
        opened = Tap.open("tap0", mac=STATION, txqueuelen=16)
    yield opened
    opened.close()


def send_raw(host: str, frame: bytes, count: int = 1) -> None:
    """Let the kernel send frames out of the TAP."""
    with netns.inside(host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("tap0", 0))
        for _ in range(count):
            sock.send(frame)


def frames_of_ours(device: Tap) -> list[bytes]:
    """All frames that wait, without those the kernel sends by itself (IPv6)."""
    found = []
    while (frame := device.read()) is not None:
        if frame[VNET_HDR_LEN + 12 :][:2] == FRAME[12:14]:
            found.append(frame)
    return found


@pytest.mark.namespaces
def test_a_new_tap_is_down_has_its_mac_and_is_not_inherited(host: str, device: Tap) -> None:
    link = netdev.link("tap0", host)
    assert (link.kind, link.mac, link.up) == ("tun", STATION, False)
    assert not os.get_inheritable(device.fd)
    assert not os.get_blocking(device.fd)
    assert device.granted == {"vnet_hdr": True}
    assert device.fallbacks == []


@pytest.mark.namespaces
def test_a_frame_comes_with_its_header(host: str, device: Tap) -> None:
    netdev.set_up("tap0", netns=host)
    send_raw(host, FRAME)
    assert readable(device.fd)
    assert frames_of_ours(device) == [PLAIN + FRAME]
    assert device.read() is None


@pytest.mark.namespaces
def test_a_written_frame_is_received(host: str, device: Tap) -> None:
    netdev.set_up("tap0", netns=host)
    before = netdev.link("tap0", host).stats.rx_packets
    assert device.write(PLAIN, FRAME) is None
    assert netdev.link("tap0", host).stats.rx_packets == before + 1


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("header", "frame"),
    [
        pytest.param(PLAIN, b"runt", id="runt"),
        pytest.param(b"\0\x77" + bytes(8), FRAME, id="unknown gso_type"),
        pytest.param(b"\x01" + bytes(5) + b"\xff\xff" + bytes(2), FRAME, id="csum outside"),
        pytest.param(PLAIN[:4], b"", id="no header"),
    ],
)
def test_what_the_kernel_calls_invalid_is_a_drop(
    host: str, device: Tap, header: bytes, frame: bytes
) -> None:
    netdev.set_up("tap0", netns=host)
    assert device.write(header, frame) is Drop.TAP_INVALID


@pytest.mark.namespaces
def test_a_tap_that_is_down_has_nothing_to_read_and_takes_nothing(device: Tap) -> None:
    assert device.read() is None
    assert device.write(PLAIN, FRAME) is Drop.TAP_DOWN


@pytest.mark.namespaces
def test_a_deleted_tap_is_lost(host: str, device: Tap) -> None:
    netdev.set_up("tap0", netns=host)
    netdev.delete("tap0", host)
    with pytest.raises(TapLost, match="tap0"):
        device.read()
    assert device.write(PLAIN, FRAME) is Drop.TAP_DOWN


@pytest.mark.namespaces
def test_frames_beyond_txqueuelen_are_counted_by_the_kernel(host: str, device: Tap) -> None:
    netdev.set_up("tap0", netns=host)
    before = netdev.link("tap0", host).stats.tx_dropped
    send_raw(host, FRAME, 64)
    assert netdev.link("tap0", host).stats.tx_dropped - before >= 64 - 16
    assert len(frames_of_ours(device)) <= 16


@pytest.mark.namespaces
def test_close_removes_the_device_and_may_be_repeated(host: str, device: Tap) -> None:
    device.close()
    device.close()
    assert device.fds == ()
    assert not netdev.exists("tap0", host)


@pytest.mark.namespaces
def test_a_persistent_tap_stays(host: str) -> None:
    with netns.inside(host):
        Tap.open("tap1", persist=True).close()
    assert netdev.exists("tap1", host)


@pytest.mark.namespaces
def test_queues_share_one_device(host: str) -> None:
    with netns.inside(host):
        device = Tap.open("tap1", queues=3)
    assert len(set(device.fds)) == 3
    assert [link.name for link in netdev.links(host) if link.kind == "tun"] == ["tap1"]
    device.close()
    assert not netdev.exists("tap1", host)


@pytest.mark.namespaces
def test_offload_is_granted_piece_by_piece(host: str) -> None:
    with netns.inside(host):
        device = Tap.open("tap1", offload=True)
    assert device.granted["csum"]
    assert device.granted["tso4"]
    missing = [word for word, granted in device.granted.items() if not granted]
    assert all(word in " ".join(device.fallbacks) for word in missing)
    device.close()


@pytest.mark.namespaces
def test_an_offload_that_is_refused_is_told(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ioctl = tap.fcntl.ioctl

    def without_uso(fd: int, request: int, argument: Any) -> Any:
        if request == tap._TUNSETOFFLOAD:
            asked.append(argument)
            if argument & 0x60:
                raise OSError(errno.EINVAL, "Invalid argument")
        return ioctl(fd, request, argument)

    monkeypatch.setattr(tap.fcntl, "ioctl", without_uso)
    with netns.inside(host):
        device = Tap.open("tap1", offload=True)
    assert asked[-1] == 0x0F, "what was granted must be in force at the end"
    assert device.granted["tso6"]
    assert not device.granted["uso4+uso6"]
    assert "uso4+uso6" in device.fallbacks[0]
    device.close()


@pytest.mark.namespaces
@pytest.mark.parametrize("kind", ["persistent tap", "bridge"])
def test_an_interface_that_exists_is_not_taken_over(host: str, kind: str) -> None:
    with netns.inside(host):
        if kind == "bridge":
            netdev.create_bridge("taken")
        else:
            Tap.open("taken", persist=True).close()
        with pytest.raises(TapError, match="exists: choose another name"):
            Tap.open("taken")
    assert netdev.exists("taken", host)


@pytest.mark.namespaces
def test_a_refused_mac_leaves_no_device(host: str) -> None:
    with netns.inside(host), pytest.raises(TapError, match="not a group address"):
        Tap.open("tap1", mac=BROADCAST)
    assert not netdev.exists("tap1", host)


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a/b", "a b", "tap%d", "..", "t\u00e4p"])
def test_a_bad_name_is_refused_before_the_kernel_sees_it(name: str) -> None:
    with pytest.raises(TapError) as caught:
        Tap.open(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("queues", [0, 257])
def test_a_bad_number_of_queues_is_refused(queues: int) -> None:
    with pytest.raises(TapError, match="1 to 256"):
        Tap.open("tap1", queues=queues)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.EPERM, "CAP_NET_ADMIN"),
        (errno.EACCES, "/dev/net/tun"),
        (errno.EBUSY, "ip link del tap1"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_refusal_names_its_remedy(
    code: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tap.pytun, "TunTapDevice", refuse)
    with pytest.raises(TapError, match="tap tap1: ") as caught:
        Tap.open("tap1")
    assert remedy in str(caught.value)


@pytest.mark.namespaces
def test_no_descriptor_leaks(host: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with netns.inside(host):
        Tap.open("tap1", queues=2).close()
        with pytest.raises(TapError):
            Tap.open("lo")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.namespaces
def test_a_deleted_tap_is_lost_for_a_poller_too(host: str, device: Tap) -> None:
    netdev.delete("tap0", host)
    with select.epoll() as poller:
        poller.register(device.fd, select.EPOLLIN)
        assert poller.poll(0) == [(device.fd, select.EPOLLERR)]
