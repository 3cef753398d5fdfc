"""What is done to single packets: MSS clamp and checksum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from implementations import (
    SIZES,
    compiled,
    frame,
    scapy_clamp,
    struct_checksum,
    struct_clamp,
    syn,
)

from vxlan import wire
from vxlan.clamp import clamp_mss, may_be_syn

Measure = Callable[..., None]
MTU = 1450


def scapy_checksum(data: bytes) -> int:
    from scapy.utils import checksum

    return int(checksum(data))


CHECKSUMS: dict[str, Any] = {
    "python": wire.checksum,
    "struct": struct_checksum,
    "scapy": scapy_checksum,
}
if (extension := compiled()) is not None:
    CHECKSUMS["fastpath"] = extension.checksum


def python_clamp(data: bytes, mtu: int) -> bytes:
    """As the engine calls it."""
    return clamp_mss(data, mtu) if may_be_syn(data) else data


CLAMPS: dict[str, Any] = {"python": python_clamp, "struct": struct_clamp, "scapy": scapy_clamp}
if extension is not None:
    CLAMPS["fastpath"] = extension.clamp_mss


@pytest.mark.parametrize("by", CHECKSUMS)
@pytest.mark.parametrize("size", SIZES)
def test_checksum(per_packet: Measure, by: str, size: int) -> None:
    data = frame(size)
    assert CHECKSUMS[by](data) == wire.checksum(data)
    per_packet(1, CHECKSUMS[by], data)


@pytest.mark.parametrize("by", CLAMPS)
def test_mss_clamp_of_a_syn(per_packet: Measure, by: str) -> None:
    clamped = CLAMPS[by](syn(), MTU)
    assert clamped[-2:] == (MTU - 40).to_bytes(2, "big")
    assert by == "scapy" or clamped == python_clamp(syn(), MTU)
    per_packet(1, CLAMPS[by], syn(), MTU)


@pytest.mark.parametrize("by", [by for by in CLAMPS if by != "scapy"])
@pytest.mark.parametrize("size", SIZES)
def test_mss_clamp_of_data(per_packet: Measure, by: str, size: int) -> None:
    """Nearly every frame is no SYN: what it costs to see that."""
    assert CLAMPS[by](frame(size), MTU) == frame(size)
    per_packet(1, CLAMPS[by], frame(size), MTU)
