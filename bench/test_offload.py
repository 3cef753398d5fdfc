"""Coalescing: neighbouring TCP segments of one stream become one frame for the TAP."""

from __future__ import annotations

import struct
from collections.abc import Callable

from implementations import BATCH, HERE, THERE

from vxlan.merge import merge
from vxlan.wire import checksum

Measure = Callable[..., None]
MTU = 1450
PAYLOAD = bytes(index * 7 & 0xFF for index in range(MTU - 40))
ADDRESSES = bytes((10, 42, 0, 11, 10, 42, 0, 12))
SEGMENTS = 40  # what fits into 64 KiB, less a few


def segment(number: int) -> bytes:
    """One of many segments in a row, with checksums as they should be."""
    size = 20 + len(PAYLOAD)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, number, 0x4000, 64, 6, 0) + ADDRESSES
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    ports = (40000, 5201, 1 + number * len(PAYLOAD), 1)
    tcp = struct.pack("!HHIIBBHHH", *ports, 0x50, 0x10, 1000, 0, 0) + PAYLOAD
    check = checksum(ADDRESSES + struct.pack("!HH", 6, size) + tcp)
    return THERE + HERE + b"\x08\x00" + ip + tcp[:16] + check.to_bytes(2, "big") + tcp[18:]


def test_coalesce(per_packet: Measure) -> None:
    frames = [segment(number) for number in range(SEGMENTS)]

    def coalesce() -> int:
        return sum(1 for _ in merge(frames, MTU))

    assert coalesce() == 1
    per_packet(SEGMENTS, coalesce)


def test_coalesce_nothing(per_packet: Measure) -> None:
    """Segments that do not continue each other: what the attempt costs."""
    frames = [segment(2 * number) for number in range(BATCH)]

    def attempt() -> int:
        return sum(1 for _ in merge(frames, MTU))

    assert attempt() == BATCH
    per_packet(BATCH, attempt)
