"""Datagrams that others made: scapy, a kernel vxlan device, and published captures.

Each is decapsulated by every engine and compared with what its maker, or
tshark, says is inside.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vxlan import wire
from vxlan.engine import Datagram, Engine, Policy
from vxlan.fdb import Remote

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "data" / "captures"
PEER = Remote("192.0.2.2", 4789)
ROOMY = Policy(accept="any", mtu=9000)
"""An overlay so wide that no TCP option needs to be lowered: what comes out is what went in."""


def decap(engine: Engine, payload: bytes, remote: Remote = PEER, tos: int = 0) -> list[bytes]:
    return [frame.data for frame in engine.decap([Datagram(remote, payload, tos=tos)], 1.0)]


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine with VNI 42 that accepts from anybody."""
    made = make_engine("192.0.2.1")
    made.add_segment(42, ROOMY)
    return made


# -- scapy ---------------------------------------------------------------------------


def scapy_frames() -> Iterator[tuple[str, bytes]]:
    """Inner frames as scapy builds them, checksums included."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
    from scapy.layers.l2 import ARP, Dot1Q, Ether

    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ip = IP(src="10.42.0.1", dst="10.42.0.2")
    v6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
    yield "arp", bytes(Ether(src=ether.src, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.42.0.1"))
    yield "icmp", bytes(ether / ip / ICMP() / b"0123456789")
    yield "tcp", bytes(ether / ip / TCP(sport=1234, dport=80) / b"GET /")
    yield "udp6", bytes(ether / v6 / UDP(sport=53, dport=53) / b"question")
    yield "nd", bytes(ether / v6 / ICMPv6ND_NS(tgt="2001:db8::2"))
    yield "tagged", bytes(ether / Dot1Q(vlan=7) / ip / UDP(sport=1, dport=2) / b"x")


@pytest.mark.parametrize("name", ["arp", "icmp", "tcp", "udp6", "nd", "tagged"])
def test_what_scapy_encapsulates_we_decapsulate(engine: Engine, name: str) -> None:
    layers = pytest.importorskip("scapy.layers.vxlan")
    frame = dict(scapy_frames())[name]
    payload = bytes(layers.VXLAN(vni=42, flags=8)) + frame
    assert decap(engine, payload) == [frame]


@pytest.mark.parametrize("name", ["arp", "icmp", "tcp", "udp6", "nd", "tagged"])
def test_what_we_encapsulate_scapy_reads(engine: Engine, name: str) -> None:
    layers = pytest.importorskip("scapy.layers.vxlan")
    frame = dict(scapy_frames())[name]
    engine.add_remote(42, PEER, 0.0)
    [datagram] = engine.encap(42, [frame], 1.0)
    read = layers.VXLAN(datagram.payload)
    assert (int(read.flags), read.vni) == (8, 42)
    assert datagram.remote == PEER
    assert bytes(read.payload) == frame


def test_the_header_is_scapys_header() -> None:
    layers = pytest.importorskip("scapy.layers.vxlan")
    for vni in (0, 1, 42, 0xABCDEF, wire.MAX_VNI):
        assert wire.vxlan_header(vni) == bytes(layers.VXLAN(vni=vni, flags=8))


def test_scapys_default_header_is_gpe_and_its_bits_are_reserved_ones() -> None:
    layers = pytest.importorskip("scapy.layers.vxlan")
    ether = pytest.importorskip("scapy.layers.l2").Ether()
    header = wire.parse_vxlan(bytes(layers.VXLAN(vni=42) / ether))
    assert header is not None
    assert header.flags == 0x0C
    assert header.reserved


# -- published captures -----------------------------------------------------------------


def captured() -> list[Any]:
    """One parameter for each capture in which tshark found VXLAN."""
    if not CAPTURES.is_dir():
        skip = pytest.mark.skip(reason="no shared captures beside the checkout")
        return [pytest.param("", marks=skip, id="captures")]
    return [
        pytest.param(path.stem, id=path.stem)
        for path in sorted((CAPTURES / "expected").glob("*.json"))
        if json.loads(path.read_text())["vxlan_frames"]
    ]


def pcap_frames(path: Path) -> list[bytes]:
    """Frames of a classic capture file, whichever byte order it has."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    frames, at = [], 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from(f"{order}8xI", data, at)
        frames.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return frames


def udp_payload(frame: bytes, found: dict[str, Any]) -> bytes:
    start = found["vxlan_pos"]
    (length,) = struct.unpack_from("!H", frame, start - 4)
    return frame[start : start - 8 + length]


@pytest.mark.parametrize("name", captured())
def test_captures_decapsulate_to_what_tshark_found(
    make_engine: Callable[..., Engine], name: str
) -> None:
    expected = json.loads((CAPTURES / "expected" / f"{name}.json").read_text())
    frames = pcap_frames(CAPTURES / f"{name}.pcap")
    engine = make_engine("192.0.2.1")
    for vni in {found["vni"] for frame in expected["frames"] for found in frame["vxlan"]}:
        engine.add_segment(vni, ROOMY)
    for entry in expected["frames"]:
        for found in entry["vxlan"]:
            payload = udp_payload(frames[entry["frame"] - 1], found)
            check_capture(engine, payload, found)


def check_capture(engine: Engine, payload: bytes, found: dict[str, Any]) -> None:
    header = wire.parse_vxlan(payload)
    assert header is not None
    assert header.vni == found["vni"]
    assert payload[:8].hex() == found["header_hex"]
    if found["next"] != "eth":  # GPE with no Ethernet inside; not ours to read
        return
    source = Remote(found["outer_src"], found["udp_srcport"])
    [inner] = decap(engine, payload, source, int(found["outer_tos"], 16))
    assert len(inner) == found["inner_len"]
    assert hashlib.sha256(inner).hexdigest() == found["inner_sha256"]
    assert wire.mac_text(inner[6:12]) == found["inner_src"]
    assert wire.ethertype_at(inner)[0] == int(found["inner_ethertype"], 16) or wire.is_tagged(inner)


# -- the kernel driver ------------------------------------------------------------------


@pytest.mark.namespaces
@pytest.mark.parametrize("underlay", ["192.0.2", "2001:db8::"])
def test_what_the_kernel_encapsulates_we_decapsulate(engine: Engine, underlay: str) -> None:
    """A kernel vxlan device sends a frame that we made; what it put on the wire is read."""
    from vxlan.lab import Lab, Sniffer

    here, there, plen = (
        (underlay + "7", underlay + "8", 64)
        if ":" in underlay
        else (underlay + ".7", underlay + ".8", 24)
    )
    frame = bytes.fromhex("ffffffffffff 020000000001 0806") + bytes(range(46))
    with Lab("golden") as lab:
        kernel, peer = lab.host("k", f"{here}/{plen}"), lab.host("p", f"{there}/{plen}")
        kernel.kernel_vxlan(42, [there], bridge=None)
        with Sniffer(peer, peer.link) as wire_tap:
            sender = kernel.socket(socket.AF_PACKET, socket.SOCK_RAW)
            sender.bind(("vxlan42", 0))
            sender.send(frame)
            packet = wire_tap.wait_for(lambda seen: seen.data.endswith(frame)).data
    payload = packet[-len(frame) - wire.VXLAN_HLEN :]
    assert payload[:8] == wire.vxlan_header(42)
    assert decap(engine, payload, Remote(here, 4789)) == [frame]
    assert engine.fdb_get(42, frame[6:12]) is not None
