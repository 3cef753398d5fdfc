"""Super-frames and the segments that they are made of, for segmentation and coalescing.

By hand: `struct` only cuts or joins payloads and leaves every checksum as it is; scapy
builds or parses each packet, checksums included.
"""

from __future__ import annotations

import struct
from typing import Any

from implementations import HERE, THERE, VNI, compiled

from vxlan.merge import merge
from vxlan.offload import GSO_TCPV4, NEEDS_CSUM, VNET_HDR
from vxlan.wire import checksum, ones_sum, vxlan_header

HEADERS = 54
ADDRESSES = bytes((10, 42, 0, 11, 10, 42, 0, 12))
MOST = 40
LARGEST = 60_000


def payload_of(size: int) -> int:
    """What a frame of `size` bytes carries."""
    return size - HEADERS


def count_of(size: int) -> int:
    """How many frames of `size` bytes are one super-frame here."""
    return min(MOST, LARGEST // payload_of(size))


def payload(length: int) -> bytes:
    return bytes(index * 7 & 0xFF for index in range(length))


def segment(number: int, data: bytes) -> bytes:
    """One of many segments in a row, with checksums as they should be."""
    size = 20 + len(data)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, number, 0x4000, 64, 6, 0) + ADDRESSES
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    tcp = tcp_header(1 + number * len(data)) + data
    check = checksum(ADDRESSES + struct.pack("!HH", 6, size) + tcp)
    return THERE + HERE + b"\x08\x00" + ip + tcp[:16] + check.to_bytes(2, "big") + tcp[18:]


def tcp_header(sequence: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, 5201, sequence, 1, 0x50, 0x10, 1000, 0, 0)


def segments(size: int, step: int = 1) -> list[bytes]:
    """Frames of `size` bytes that continue each other, if the step is 1."""
    data = payload(payload_of(size))
    return [segment(number * step, data) for number in range(count_of(size))]


def super_frame(size: int) -> tuple[bytes, bytes]:
    """virtio_net_hdr and frame, as a TAP gives what becomes frames of `size` bytes."""
    whole = segment(0, payload(payload_of(size)) * count_of(size))
    pseudo = ones_sum(ADDRESSES + struct.pack("!HH", 6, len(whole) - 34))
    header = VNET_HDR.pack(NEEDS_CSUM, GSO_TCPV4, HEADERS, payload_of(size), 34, 16)
    return header, whole[:50] + pseudo.to_bytes(2, "big") + whole[52:]


# -- segmentation ---------------------------------------------------------------------------


def fast_split(header: bytes, frame: bytes, size: int) -> list[bytes]:
    extension: Any = compiled()
    return list(extension.split(header, frame, VNI))


def struct_split(header: bytes, frame: bytes, size: int) -> list[bytes]:
    length, vxlan = payload_of(size), vxlan_header(VNI)
    made = []
    for at in range(HEADERS, len(frame), length):
        total, sequence = struct.pack("!H", size - 14), struct.pack("!I", 1 + at - HEADERS)
        head = frame[:16] + total + frame[18:38] + sequence + frame[42:HEADERS]
        made.append(vxlan + head + frame[at : at + length])
    return made


def scapy_split(header: bytes, frame: bytes, size: int) -> list[bytes]:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN

    length, made = payload_of(size), []
    for number, at in enumerate(range(HEADERS, len(frame), length)):
        ip = IP(src="10.42.0.11", dst="10.42.0.12", id=number, flags="DF")
        tcp = TCP(sport=40000, dport=5201, seq=1 + at - HEADERS, ack=1, flags="A", window=1000)
        inner = Ether(frame[:14]) / ip / tcp / frame[at : at + length]
        made.append(bytes(VXLAN(vni=VNI, flags=8) / inner))
    return made


# -- coalescing -------------------------------------------------------------------------------


def python_merge(frames: list[bytes], mtu: int) -> list[Any]:
    return list(merge(frames, mtu))


def fast_merge(frames: list[bytes], mtu: int) -> list[Any]:
    extension: Any = compiled()
    return list(extension.merge(frames, mtu))


def struct_merge(frames: list[bytes], mtu: int) -> list[bytes]:
    unpack = struct.Struct("!I").unpack_from
    (expected,) = unpack(frames[0], 38)
    for one in frames:
        if unpack(one, 38)[0] != expected:
            return frames
        expected += len(one) - HEADERS
    return [frames[0] + b"".join(one[HEADERS:] for one in frames[1:])]


def scapy_merge(frames: list[bytes], mtu: int) -> list[bytes]:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    parsed = [Ether(one) for one in frames]
    expected = parsed[0][TCP].seq
    for one in parsed:
        if one[TCP].seq != expected:
            return frames
        expected += len(one[TCP].payload)
    data = b"".join(bytes(one[TCP].payload) for one in parsed)
    whole = parsed[0]
    whole[TCP].remove_payload()
    del whole[IP].len, whole[IP].chksum, whole[TCP].chksum
    return [bytes(whole / data)]


SPLITS: dict[str, Any] = {"struct": struct_split, "scapy": scapy_split}
MERGES: dict[str, Any] = {"python": python_merge, "struct": struct_merge, "scapy": scapy_merge}
if compiled() is not None:
    SPLITS["fastpath"] = fast_split
    MERGES["fastpath"] = fast_merge
