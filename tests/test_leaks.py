"""Packets leave no memory behind, whatever becomes of them."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

from tests.frames import BROADCAST, A, B, ether, ipv4, tcp, udp, vxlan
from tests.test_clamp import mss, syn
from vxlan.engine import Datagram, Policy
from vxlan.fdb import Remote

fastengine = pytest.importorskip("vxlan.fastengine", reason="the extension is not built here")

PACKETS = int(os.environ.get("PYVXLAN_PACKETS", "400000"))
"""`make soak` sends ten million."""
VNI = 42
PEER = Remote("192.0.2.2", 4789)
GROWTH = 2 << 20
"""Bytes that the allocator may take for its own ends: a leak of six bytes a packet shows."""

FRAMES = [
    ether(B, A, 0x0800, ipv4(udp(payload=bytes(1000)))),
    ether(BROADCAST, A),
    ether(B, A, 0x0800, ipv4(tcp(bytes(3000)), protocol=6)),
    ether(B, A, 0x0800, ipv4(udp(payload=bytes(3000)), flags=0)),
    B + A + syn(mss(1460))[12:],
    ether(B, A)[:10],
]
DATAGRAMS = [
    Datagram(PEER, vxlan(VNI, FRAMES[0])),
    Datagram(PEER, vxlan(VNI, FRAMES[4])),
    Datagram(PEER, vxlan(VNI, b"short")),
    Datagram(PEER, vxlan(VNI + 1, FRAMES[0])),
    Datagram(Remote("198.51.100.1", 4789), vxlan(VNI, FRAMES[0])),
    Datagram(PEER, b"\0" * 5),
]


def resident() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stations(number: int) -> list[Datagram]:
    """Frames of 64 stations that move in, and push others out."""
    macs = [b"\x02" + (number * 64 + at).to_bytes(5, "big") for at in range(64)]
    return [Datagram(PEER, vxlan(VNI, ether(B, mac))) for mac in macs]


def test_packets_leave_nothing_behind() -> None:
    engine = fastengine.FastEngine(("192.0.2.1",), 4789)
    engine.add_segment(VNI, Policy(maxaddress=1000, ageing=5.0))
    engine.add_remote(VNI, PEER, 0.0)
    some, others = FRAMES * 12, DATAGRAMS * 12
    a_round = len(some) + len(others) + 64
    before = 0
    for number in range(PACKETS // a_round):
        now = number / 1000
        engine.encap(VNI, some, now)
        engine.decap(others, now)
        engine.decap(stations(number), now)
        engine.take_output()
        engine.drain_events()
        engine.tick(now)
        if number == 100:
            before = resident()
    assert before
    assert resident() - before < GROWTH


def test_segments_leave_nothing_behind() -> None:
    engine = fastengine.FastEngine(("192.0.2.1",), 4789)
    engine.add_segment(VNI, Policy())
    sizes = [(come_and_go(engine, float(now)), resident())[1] for now in range(3)]
    assert sizes[2] - sizes[1] < GROWTH


def come_and_go(engine: Any, now: float) -> None:
    for vni in range(100, 300):
        engine.add_segment(vni, Policy())
    for vni in range(100, 300):
        engine.remove_segment(vni)
    engine.tick(now)
