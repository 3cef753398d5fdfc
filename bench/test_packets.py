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
    syn,
)

from vxlan import wire
from vxlan.clamp import clamp_mss

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

CLAMPS: dict[str, Any] = {"python": clamp_mss, "scapy": scapy_clamp}
if hasattr(extension, "clamp_mss"):
    CLAMPS["fastpath"] = extension.clamp_mss


@pytest.mark.parametrize("by", CHECKSUMS)
@pytest.mark.parametrize("size", SIZES)
def test_checksum(per_packet: Measure, by: str, size: int) -> None:
    data = frame(size)
    assert CHECKSUMS[by](data) == wire.checksum(data)
    per_packet(1, CHECKSUMS[by], data)


@pytest.mark.parametrize("by", CLAMPS)
def test_mss_clamp_of_a_syn(per_packet: Measure, by: str) -> None:
    assert CLAMPS[by](syn(), MTU)[-2:] == (MTU - 40).to_bytes(2, "big")
    per_packet(1, CLAMPS[by], syn(), MTU)


@pytest.mark.parametrize("by", [by for by in CLAMPS if by != "scapy"])
def test_mss_clamp_of_data(per_packet: Measure, by: str) -> None:
    """Nearly every frame is no SYN: what it costs to see that."""
    assert CLAMPS[by](frame(1400), MTU) == frame(1400)
    per_packet(1, CLAMPS[by], frame(1400), MTU)
