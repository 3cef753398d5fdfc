"""Small frames and datagrams for tests, written out by hand so that nothing is shared
with the code under test."""

from __future__ import annotations

import struct

A = bytes.fromhex("02000000000a")
B = bytes.fromhex("02000000000b")
C = bytes.fromhex("02000000000c")
BROADCAST = b"\xff" * 6


def ether(
    dst: bytes = B, src: bytes = A, ethertype: int = 0x88B5, payload: bytes = b"x" * 46
) -> bytes:
    return dst + src + struct.pack("!H", ethertype) + payload


def tagged(frame: bytes, vid: int = 7, tpid: int = 0x8100) -> bytes:
    return frame[:12] + struct.pack("!HH", tpid, vid) + frame[12:]


def ip_checksum(header: bytes) -> int:
    total = 0
    for high, low in zip(header[::2], header[1::2], strict=True):
        total += high << 8 | low
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    payload: bytes = b"",
    *,
    src: str = "10.42.0.1",
    dst: str = "10.42.0.2",
    protocol: int = 17,
    tos: int = 0,
    ttl: int = 64,
    flags: int = 0x4000,
    options: bytes = b"",
) -> bytes:
    def address(text: str) -> bytes:
        return bytes(int(part) for part in text.split("."))

    ihl = 5 + len(options) // 4
    header = bytearray(
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | ihl,
            tos,
            ihl * 4 + len(payload),
            1,
            flags,
            ttl,
            protocol,
            0,
            address(src),
            address(dst),
        )
        + options
    )
    header[10:12] = ip_checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + payload


def ipv6(payload: bytes = b"", *, protocol: int = 17, tos: int = 0, ttl: int = 64) -> bytes:
    word = 6 << 28 | tos << 20
    addresses = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02")
    return struct.pack("!IHBB", word, len(payload), protocol, ttl) + addresses + payload


def udp(sport: int = 1000, dport: int = 2000, payload: bytes = b"hello") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(payload: bytes = b"", *, sport: int = 1000, dport: int = 80, check: int = 0) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, 0x10, 1000, check, 0) + payload


def vxlan(
    vni: int, inner: bytes, *, flags: int = 0x08, reserved: bytes = b"\0\0\0", last: int = 0
) -> bytes:
    return bytes((flags,)) + reserved + vni.to_bytes(3, "big") + bytes((last,)) + inner
