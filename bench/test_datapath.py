"""encap and decap: a whole VTEP's work for one frame, in batches as a busy node has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from implementations import (
    BATCH,
    SIZES,
    THERE,
    VNI,
    datagram,
    engines,
    frame,
    new_engine,
    scapy_decap,
    scapy_encap,
    struct_decap,
    struct_encap,
    vxlan_payload,
)

Measure = Callable[..., None]
PARSED = 8  # scapy takes half a millisecond for each
ENCAP: dict[str, Any] = {"struct": (struct_encap, BATCH), "scapy": (scapy_encap, PARSED)}
DECAP: dict[str, Any] = {"struct": (struct_decap, BATCH), "scapy": (scapy_decap, PARSED)}


def compiled_core() -> Any:
    """The compiled tables, with one station behind the remote; skips where there are none."""
    if "fastpath" not in engines():
        pytest.skip("the extension is not built here")
    engine: Any = new_engine("fastpath")
    engine.decap([datagram(frame(64, src=THERE))], 0.0)
    return engine.core


sizes = pytest.mark.parametrize("size", SIZES)


@sizes
def test_encap(per_packet: Measure, engine_name: str, size: int) -> None:
    engine = new_engine(engine_name)
    engine.decap([datagram(frame(64, src=THERE))], 0.0)
    frames = [frame(size)] * BATCH
    assert [one.payload for one in engine.encap(VNI, frames, 1.0)] == struct_encap(frames)
    per_packet(BATCH, engine.encap, VNI, frames, 1.0)


@sizes
def test_encap_in_c(per_packet: Measure, size: int) -> None:
    """What a worker does for each frame: the engine's rules without Python objects around them."""
    core = compiled_core()
    frames = [bytes(bytearray(frame(size))) for _ in range(BATCH)]  # no two in one place
    room = bytearray(len(vxlan_payload(frames[0])) * BATCH)
    assert core.encap_into(VNI, frames, room, 1.0) == len(room)
    assert room == b"".join(struct_encap(frames))
    per_packet(BATCH, core.encap_into, VNI, frames, room, 1.0)


@sizes
@pytest.mark.parametrize("by", ENCAP)
def test_encap_by_hand(per_packet: Measure, by: str, size: int) -> None:
    encap, count = ENCAP[by]
    frames = [frame(size)] * count
    assert all(one.endswith(vxlan_payload(frames[0])) for one in encap(frames))
    per_packet(count, encap, frames)


@sizes
def test_decap(per_packet: Measure, engine_name: str, size: int) -> None:
    engine = new_engine(engine_name)
    datagrams = [datagram(frame(size, src=THERE))] * BATCH
    assert [one.data for one in engine.decap(datagrams, 0.0)] == [frame(size, src=THERE)] * BATCH
    per_packet(BATCH, engine.decap, datagrams, 1.0)


@sizes
@pytest.mark.parametrize("by", DECAP)
def test_decap_by_hand(per_packet: Measure, by: str, size: int) -> None:
    decap, count = DECAP[by]
    payloads = [vxlan_payload(frame(size))] * count
    assert [vni for vni, _ in decap(payloads)] == [VNI] * count
    per_packet(count, decap, payloads)
