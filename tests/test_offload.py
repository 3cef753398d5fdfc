"""The virtio_net_hdr for frames whose checksum the sender never finished."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import ether, ip_checksum, ipv4, ipv6, tagged, tcp, udp
from vxlan.offload import FINISHED, vnet_header


def pseudo_sum(packet: bytes, protocol: int) -> int:
    """The folded, uninverted sum of the pseudo-header: what an unfinished field holds."""
    six = packet[0] >> 4 == 6
    addresses = packet[8:40] if six else packet[12:20]
    length = len(packet) - (40 if six else 20)
    return ~ip_checksum(addresses + struct.pack("!IHH", 0, protocol, length)) & 0xFFFF


def unfinished(six: bool, protocol: int, size: int) -> bytes:
    transport = bytearray(tcp(b"d" * size) if protocol == 6 else udp(payload=b"d" * size))
    wrap = ipv6 if six else ipv4
    at = 16 if protocol == 6 else 6
    transport[at : at + 2] = pseudo_sum(
        wrap(bytes(transport), protocol=protocol), protocol
    ).to_bytes(2, "big")
    return ether(
        ethertype=0x86DD if six else 0x0800, payload=wrap(bytes(transport), protocol=protocol)
    )


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("protocol", "at"), [(6, 16), (17, 6)], ids=["tcp", "udp"])
def test_an_unfinished_checksum_is_handed_on(six: bool, protocol: int, at: int) -> None:
    frame = unfinished(six, protocol, 100)
    l4 = 54 if six else 34
    assert struct.unpack("=BBHHHH", vnet_header(frame, 1450)) == (1, 0, 0, 0, l4, at)
    l4 += 4
    assert struct.unpack("=BBHHHH", vnet_header(tagged(frame), 1450)) == (1, 0, 0, 0, l4, at)


@pytest.mark.parametrize(
    ("six", "gso_type", "headers"), [(False, 1, 54), (True, 4, 74)], ids=["ipv4", "ipv6"]
)
def test_a_tcp_packet_longer_than_the_mtu_is_to_be_segmented(
    six: bool, gso_type: int, headers: int
) -> None:
    frame = unfinished(six, 6, 20000)
    flags, kind, hdr_len, gso_size, l4, at = struct.unpack("=BBHHHH", vnet_header(frame, 1450))
    assert (flags, kind, hdr_len, l4, at) == (1, gso_type, headers, headers - 20, 16)
    assert gso_size == 1450 - (headers - 14)


def test_udp_longer_than_the_mtu_has_no_segment_size() -> None:
    assert vnet_header(unfinished(False, 17, 3000), 1450)[1] == 0


def test_finished_frames_need_nothing() -> None:
    packet = ipv4(tcp(b"data", check=0x1234), protocol=6)
    assert vnet_header(ether(ethertype=0x0800, payload=packet), 1450) == FINISHED
    assert vnet_header(ether(), 1450) == FINISHED
    assert vnet_header(ether(ethertype=0x0800, payload=ipv4(udp())), 1450) == FINISHED


@given(st.binary(min_size=14, max_size=200), st.integers(68, 1500))
def test_anything_gives_a_header_whose_offsets_lie_inside(frame: bytes, mtu: int) -> None:
    flags, kind, hdr_len, _, start, offset = struct.unpack("=BBHHHH", vnet_header(frame, mtu))
    assert flags in (0, 1)
    assert not flags or start + offset + 2 <= len(frame)
    assert not kind or hdr_len <= len(frame)


@given(st.booleans(), st.integers(0, 100), st.data())
def test_a_cut_or_bent_packet_never_points_outside(
    six: bool, size: int, data: st.DataObject
) -> None:
    frame = bytearray(unfinished(six, 6, size))
    for _ in range(data.draw(st.integers(0, 3))):
        frame[data.draw(st.integers(12, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(14, len(frame)))])
    flags, _, _, _, start, offset = struct.unpack("=BBHHHH", vnet_header(cut, 1450))
    assert not flags or start + offset + 2 <= len(cut)
