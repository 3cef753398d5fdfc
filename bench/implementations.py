"""What is measured: one function for each job and each way to do it.

The engines do the whole job of a VTEP: forwarding table, flow hash, counters.  scapy
builds or parses every header, as a script around it would.  `struct` is the floor for
Python: it puts eight bytes in front of a frame, or takes them off, and decides nothing.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from vxlan.engine import Datagram, Engine, EngineUnavailable, Policy, choose_engine
from vxlan.fdb import Remote, State

VNI = 42
BATCH = 64
SPREAD = 16384
SIZES = (64, 512, 1400, 8900)
TABLES = (1, 1_000, 100_000, 1_000_000)
PEER = Remote("192.0.2.2", 4789)
HERE = bytes.fromhex("02000000000a")
THERE = bytes.fromhex("02000000000b")

_HEADER = struct.Struct("!II")
_FLAGS = 0x08000000


def compiled() -> ModuleType | None:
    """The extension, if it is built."""
    try:
        from vxlan import _fastpath
    except ImportError:
        return None
    return _fastpath


def engines() -> list[str]:
    """The engines that are built here."""
    try:
        choose_engine("fastpath", ("192.0.2.1",), 4789)
    except EngineUnavailable:
        return ["python"]
    return ["python", "fastpath"]


def new_engine(name: Any, entries: int = 0) -> Engine:
    """An engine with one segment, and `entries` stations behind its remote."""
    engine = choose_engine(name, ("192.0.2.1",), 4789)
    policy = Policy(mtu=9000, ageing=0, maxaddress=max(entries + 1_000_000, 65536))
    engine.add_segment(VNI, policy)
    engine.add_remote(VNI, PEER, 0.0)
    for index in range(entries):
        engine.fdb_set(VNI, station(index), (PEER,), State.EXTERN_LEARN, "bench", 0.0)
    engine.drain_events()
    return engine


def station(index: int) -> bytes:
    """The MAC of one of many stations."""
    return b"\x02\x01" + index.to_bytes(4, "big")


def some_stations(entries: int, count: int = BATCH) -> list[bytes]:
    """Stations all over a table, the same ones in every run."""
    chosen = random.Random(entries)
    return [station(chosen.randrange(entries)) for _ in range(count)]


# -- packets --------------------------------------------------------------------------------


def frame(size: int, dst: bytes = THERE, src: bytes = HERE) -> bytes:
    """An Ethernet frame of `size` bytes with a TCP segment in it."""
    payload = bytes(index * 7 & 0xFF for index in range(size - 54))
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, size - 14, 1, 0x4000, 64, 6, 0),
        *(bytes((10, 42, 0, 11)), bytes((10, 42, 0, 12))),
    )
    tcp = struct.pack("!HHIIBBHHH", 40000, 5201, 1, 1, 0x50, 0x10, 1000, 0, 0)
    return dst + src + b"\x08\x00" + ip + tcp + payload


def syn() -> bytes:
    """The first frame of a TCP connection, which offers an MSS of 8960."""
    tcp = struct.pack("!HHIIBBHHHBBH", 40000, 5201, 1, 0, 0x60, 0x02, 64000, 0, 0, 2, 4, 8960)
    return frame(54)[:16] + (44).to_bytes(2, "big") + frame(54)[18:34] + tcp


def datagram(inner: bytes) -> Datagram:
    """What a peer sends for a frame."""
    return Datagram(PEER, vxlan_payload(inner))


def vxlan_payload(inner: bytes) -> bytes:
    return _HEADER.pack(_FLAGS, VNI << 8) + inner


# -- the same jobs by other means ---------------------------------------------------------------


def struct_encap(frames: Sequence[bytes]) -> list[bytes]:
    pack = _HEADER.pack
    return [pack(_FLAGS, VNI << 8) + one for one in frames]


def struct_decap(payloads: Sequence[bytes]) -> list[tuple[int, bytes]]:
    unpack = _HEADER.unpack_from
    return [(unpack(one)[1] >> 8, one[8:]) for one in payloads]


def struct_checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def struct_clamp(data: bytes, mtu: int) -> bytes:
    """For a SYN over IPv4 whose only option is the MSS, and nothing else."""
    if data[23] != 6 or not data[47] & 2 or data[54] != 2:
        return data
    (check,), (mss,) = struct.unpack_from("!H", data, 50), struct.unpack_from("!H", data, 56)
    lower = min(mss, mtu - 40)
    check = (~check & 0xFFFF) + (~mss & 0xFFFF) + lower
    check = ~((check & 0xFFFF) + (check >> 16)) & 0xFFFF
    return data[:50] + struct.pack("!H", check) + data[52:56] + struct.pack("!H", lower)


def scapy_encap(frames: Sequence[bytes]) -> list[bytes]:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN

    outer = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=50000, dport=4789)
    return [bytes(outer / VXLAN(vni=VNI, flags=8) / Ether(one)) for one in frames]


def scapy_decap(payloads: Sequence[bytes]) -> list[tuple[int, bytes]]:
    from scapy.layers.vxlan import VXLAN

    parsed = (VXLAN(one) for one in payloads)
    return [(one.vni, bytes(one.payload)) for one in parsed]


def scapy_clamp(data: bytes, mtu: int) -> bytes:
    from scapy.layers.inet import TCP
    from scapy.layers.l2 import Ether

    packet = Ether(data)
    packet[TCP].options = [
        (word, min(value, mtu - 40) if word == "MSS" else value)
        for word, value in packet[TCP].options
    ]
    del packet[TCP].chksum
    return bytes(packet)
