"""Packets written and read byte by byte, on purpose without vxlan.wire.

The end-to-end tests must not agree with the product by sharing its mistakes, so
this is a second, independent codec: small, and only as complete as the tests need.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

BROADCAST = "ff:ff:ff:ff:ff:ff"
VXLAN_PORT = 4789


def raw_mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def sum16(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


# -- inner frames ------------------------------------------------------------------


def ethernet(dst: str, src: str, ethertype: int, payload: bytes) -> bytes:
    return raw_mac(dst) + raw_mac(src) + struct.pack("!H", ethertype) + payload


def tagged(frame: bytes, vlan: int, tpid: int = 0x8100) -> bytes:
    return frame[:12] + struct.pack("!HH", tpid, vlan) + frame[12:]


def ipv4(src: str, dst: str, protocol: int, payload: bytes, tos: int = 0, ttl: int = 64) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), 1, 0x4000, ttl, protocol, 0)
    head += ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed
    return head[:10] + struct.pack("!H", 0xFFFF ^ sum16(head)) + head[12:] + payload


def udp4(src: str, dst: str, payload: bytes, sport: int = 7000, dport: int = 7001) -> bytes:
    """UDP header and payload with a correct checksum."""
    length = 8 + len(payload)
    pseudo = ipaddress.IPv4Address(src).packed + ipaddress.IPv4Address(dst).packed
    pseudo += struct.pack("!BBH", 0, 17, length)
    head = struct.pack("!HHHH", sport, dport, length, 0)
    check = 0xFFFF ^ sum16(pseudo + head + payload)
    return head[:6] + struct.pack("!H", check or 0xFFFF) + payload


def probe_frame(
    mark: bytes,
    dst: str = BROADCAST,
    src: str = "02:00:00:00:0b:01",
    *,
    tos: int = 0,
    ttl: int = 64,
    sport: int = 7000,
) -> bytes:
    """A UDP frame to nobody, recognised by its payload `mark`."""
    addresses = ("10.42.9.1", "10.42.255.254")
    packet = ipv4(*addresses, 17, udp4(*addresses, mark, sport=sport), tos, ttl)
    return ethernet(dst, src, 0x0800, packet)


# -- the outer packet -----------------------------------------------------------------


def vxlan(vni: int, frame: bytes, flags: int = 0x08, reserved: int = 0, last: int = 0) -> bytes:
    """UDP payload.  `reserved` is the 24-bit field, `last` the octet behind the VNI."""
    return struct.pack("!II", flags << 24 | reserved, vni << 8 | last) + frame


class Outer(NamedTuple):
    src: str
    dst: str
    tos: int
    ttl: int
    dont_fragment: bool
    sport: int
    dport: int
    udp_checksum: int
    flags: int
    vni: int
    reserved: int
    inner: bytes


def outer(packet: bytes, port: int = VXLAN_PORT) -> Outer | None:
    """Decode an Ethernet frame that carries VXLAN to `port`; None if it does not."""
    ethertype = int.from_bytes(packet[12:14])
    if ethertype == 0x0800 and packet[23] == 17:
        ip = _outer4(packet)
    elif ethertype == 0x86DD and packet[20] == 17:
        ip = _outer6(packet)
    else:
        return None
    src, dst, tos, ttl, df, l4 = ip
    sport, dport, _, check = struct.unpack_from("!HHHH", packet, l4)
    if dport != port or len(packet) < l4 + 16:
        return None
    first, second = struct.unpack_from("!II", packet, l4 + 8)
    if packet[l4 + 16 : l4 + 20] == b"PVXP" and first == 0:
        return None  # a probe of the path, which comes at its own times
    reserved = (first & 0xFFFFFF) << 8 | second & 0xFF
    return Outer(
        src,
        dst,
        tos,
        ttl,
        df,
        sport,
        dport,
        check,
        first >> 24,
        second >> 8,
        reserved,
        packet[l4 + 16 :],
    )


def _outer4(packet: bytes) -> tuple[str, str, int, int, bool, int]:
    head = packet[14:34]
    src, dst = (str(ipaddress.IPv4Address(head[at : at + 4])) for at in (12, 16))
    return src, dst, head[1], head[8], bool(head[6] & 0x40), 14 + (head[0] & 0x0F) * 4


def _outer6(packet: bytes) -> tuple[str, str, int, int, bool, int]:
    head = packet[14:54]
    src, dst = (str(ipaddress.IPv6Address(head[at : at + 16])) for at in (8, 24))
    tos = int.from_bytes(head[0:2]) >> 4 & 0xFF
    return src, dst, tos, head[7], True, 54
