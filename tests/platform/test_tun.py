"""What the TAP code believes about TUN/TAP and bridges of this kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.hosts import STATION, lone_host, readable
from vxlan import netdev, netns, tap
from vxlan.tap import VNET_HDR_LEN, Tap

pytestmark = pytest.mark.namespaces

IPV4, EXPERIMENTAL = b"\x08\x00", b"\x88\xb5"
UDP_SEGMENT = 103
GSO_UDP_L4 = 5
NEIGHBOUR = bytes.fromhex("020000000002")


@pytest.fixture
def host() -> Iterator[str]:
    with lone_host() as name:
        yield name


def opened(host: str, name: str = "tap0", **options: bool) -> Tap:
    with netns.inside(host):
        return Tap.open(name, **options)


def frames_of(device: Tap, ethertype: bytes) -> list[bytes]:
    """All frames that wait and hold that protocol."""
    found = []
    while readable(device.fd, 0.05):
        frame = device.read()
        if frame is not None and frame[VNET_HDR_LEN + 12 : VNET_HDR_LEN + 14] == ethertype:
            found.append(frame)
    return found


def send_segmented(host: str, device: Tap) -> list[bytes]:
    """Ten datagrams of 100 bytes in one call, through the TAP; what one reads there."""
    netdev.add_address("tap0", "10.42.0.1/24", host)
    netdev.set_up("tap0", netns=host)
    netdev.add_neighbour("tap0", "10.42.0.2", NEIGHBOUR, host)
    with netns.inside(host), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
        sock.sendto(bytes(1000), ("10.42.0.2", 9))
    return frames_of(device, IPV4)


def test_without_offload_each_frame_is_one_packet(host: str) -> None:
    device = opened(host)
    frames = send_segmented(host, device)
    device.close()
    assert [len(frame) for frame in frames] == [VNET_HDR_LEN + 14 + 20 + 8 + 100] * 10
    assert {frame[:VNET_HDR_LEN] for frame in frames} == {bytes(VNET_HDR_LEN)}


def test_with_uso_one_read_gives_a_flow(host: str) -> None:
    device = opened(host, offload=True)
    granted = device.granted["uso4+uso6"]
    frames = send_segmented(host, device)
    device.close()
    if not granted:
        assert len(frames) == 10
        return
    (frame,) = frames
    _, gso_type, _, gso_size, _, _ = struct.unpack("=BBHHHH", frame[:VNET_HDR_LEN])
    assert (gso_type, gso_size, len(frame)) == (GSO_UDP_L4, 100, VNET_HDR_LEN + 42 + 1000)


@pytest.mark.parametrize("flags", [0x21, 0x41], ids=["USO4", "USO6"])
def test_uso_is_taken_for_both_families_only(host: str, flags: int) -> None:
    device = opened(host)
    with pytest.raises(OSError, match="Invalid") as caught:
        fcntl.ioctl(device.fd, tap._TUNSETOFFLOAD, flags)
    device.close()
    assert caught.value.errno == errno.EINVAL


def test_a_deleted_tap_answers_ebadfd_and_pollerr_for_ever(host: str) -> None:
    device = opened(host)
    netdev.set_up("tap0", netns=host)
    netdev.delete("tap0", host)
    poller = select.poll()
    poller.register(device.fd, select.POLLIN)
    for _ in range(2):
        with pytest.raises(OSError, match="bad state") as caught:
            os.read(device.fd, 100)
        assert caught.value.errno == errno.EBADFD
        with pytest.raises(OSError, match="bad state"):
            os.writev(device.fd, (bytes(VNET_HDR_LEN), bytes(60)))
        assert poller.poll(0) == [(device.fd, select.POLLERR)]
    device.close()


def test_a_tap_that_is_down_blocks_reads_and_fails_writes_without_pollerr(host: str) -> None:
    device = opened(host)
    poller = select.poll()
    poller.register(device.fd, select.POLLIN)
    with pytest.raises(BlockingIOError):
        os.read(device.fd, 100)
    with pytest.raises(OSError, match="error") as caught:
        os.writev(device.fd, (bytes(VNET_HDR_LEN), bytes(60)))
    assert caught.value.errno == errno.EIO
    assert poller.poll(0) == []
    device.close()


def test_a_bridge_drops_silently_what_exceeds_a_ports_mtu(host: str) -> None:
    """Why a bridged TAP keeps an MTU above anything that a container sends."""
    out, back = opened(host, "out"), opened(host, "back")
    netdev.create_bridge("br0", host)
    for name in ("out", "back"):
        netdev.set_master(name, "br0", host)
    for name in ("br0", "out", "back"):
        netdev.set_up(name, netns=host)
    frame = b"\xff" * 6 + STATION + EXPERIMENTAL + bytes(1500)
    seen = []
    for mtu in (1500, 1450):
        netdev.set_mtu("out", mtu, host)
        assert back.write(bytes(VNET_HDR_LEN), frame) is None
        seen.append(len(frames_of(out, EXPERIMENTAL)))
    out.close()
    back.close()
    assert seen == [1, 0]


def test_a_tap_takes_an_mtu_of_65521_and_no_more(host: str) -> None:
    device = opened(host)
    netdev.set_mtu("tap0", 65521, host)
    with pytest.raises(netdev.NetdevError, match="65522"):
        netdev.set_mtu("tap0", 65522, host)
    device.close()
