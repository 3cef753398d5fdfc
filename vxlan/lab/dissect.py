"""Take a captured packet apart, header by header and field by field.

Theory of operation
===================

A header is a table of fields: name, length in octets, and what its value means.
`dissect` walks from the outer Ethernet header inwards; each header names the one
that follows it:

    Ethernet -> [802.1Q] IPv4 | IPv6 | ARP    by EtherType
    IPv4, IPv6 -> UDP | TCP | ICMP     by protocol
    UDP -> VXLAN                       by destination port
    VXLAN -> Ethernet                  the inner frame, and the walk begins anew

What no table knows is the payload.  A packet that ends within a header ends the
walk there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from vxlan import wire

Meaning = Callable[[bytes], str]


class Field(NamedTuple):
    """One field: its octets, and what they mean in words."""

    name: str
    raw: bytes
    meaning: str


class Header(NamedTuple):
    """One header of a packet; `depth` is 0 outside of VXLAN and 1 within."""

    name: str
    depth: int
    fields: tuple[Field, ...]

    @property
    def length(self) -> int:
        """Octets."""
        return sum(len(field.raw) for field in self.fields)


def dissect(
    packet: bytes, vxlan_port: int = wire.DSTPORT, first: str = "Ethernet", depth: int = 0
) -> list[Header]:
    """All headers of a packet that begins with `first`, outermost first, then the payload."""
    found: list[Header] = []
    kind, at = first, 0
    while kind in _LAYOUTS and len(packet) >= at + sum(size for _, size, _ in _LAYOUTS[kind]):
        header = Header(kind, depth, tuple(_fields(kind, packet[at:])))
        found.append(header)
        at += header.length
        kind = _following(kind, header, vxlan_port)
        depth += header.name == "VXLAN"
    if at < len(packet):
        found.append(Header("payload", depth, (Field("data", packet[at:], _text(packet[at:])),)))
    return found


def draw(packet: bytes, vxlan_port: int = wire.DSTPORT, widest: int = 16) -> Iterator[str]:
    """The packet as lines of text: field, octets in hexadecimal, meaning."""
    for header in dissect(packet, vxlan_port):
        indent = "  " * (1 + header.depth)
        where = "inner " if header.depth else "outer " if header.name != "VXLAN" else ""
        yield f"{indent}{where}{header.name}, {header.length} bytes"
        for name, raw, meaning in header.fields:
            octets = raw[:widest].hex(" ") + (" ..." if len(raw) > widest else "")
            yield f"{indent}  {name:<18} {octets:<23} {meaning}".rstrip()


def _fields(kind: str, data: bytes) -> Iterator[Field]:
    at = 0
    for name, size, meaning in _LAYOUTS[kind]:
        raw = data[at : at + size]
        yield Field(name, raw, meaning(raw))
        at += size


def _following(kind: str, header: Header, vxlan_port: int) -> str:
    values = {field.name: int.from_bytes(field.raw, "big") for field in header.fields}
    if kind in ("Ethernet", "802.1Q"):
        return _ETHERTYPES.get(values["type"], "")
    if kind in ("IPv4", "IPv6"):
        plain = kind == "IPv6" or (
            values["version, length"] == 0x45 and not values["flags, offset"] & _OFFSET
        )
        return _PROTOCOLS.get(values["protocol"], "") if plain else ""
    if kind == "UDP":
        return "VXLAN" if values["destination port"] == vxlan_port else ""
    return "Ethernet" if kind == "VXLAN" else ""


_OFFSET = 0x1FFF  # a later fragment has no header of the next protocol

# -- what values mean ----------------------------------------------------------------

_ETHERTYPES = {
    wire.ETH_P_IP: "IPv4",
    wire.ETH_P_IPV6: "IPv6",
    wire.ETH_P_ARP: "ARP",
    wire.ETH_P_8021Q: "802.1Q",
    wire.ETH_P_8021AD: "802.1Q",
}
_PROTOCOLS = {
    wire.IPPROTO_ICMP: "ICMP",
    wire.IPPROTO_TCP: "TCP",
    wire.IPPROTO_UDP: "UDP",
    wire.IPPROTO_ICMPV6: "ICMPv6",
}
_ECN = ("not ECN-capable", "ECT(1)", "ECT(0)", "congestion experienced")
_ICMP_TYPES = {
    0: "echo reply",
    3: "destination unreachable",
    8: "echo request",
    128: "echo request",
    129: "echo reply",
}


def _number(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big"))


def _nothing(_: bytes) -> str:
    return ""


def _address(raw: bytes) -> str:
    return str(ip_address(raw))


def _named(names: dict[int, str]) -> Meaning:
    return lambda raw: names.get(int.from_bytes(raw, "big"), "")


def _mac(raw: bytes) -> str:
    return wire.mac_text(raw) + (" (everybody)" if raw == wire.BROADCAST else "")


def _tos(raw: bytes) -> str:
    return f"DSCP {raw[0] >> 2}, {_ECN[raw[0] & wire.ECN_MASK]}"


def _fragment(raw: bytes) -> str:
    return "don't fragment" if raw[0] & 0x40 else "may be fragmented"


def _flags(raw: bytes) -> str:
    return "I: the VNI is valid" if raw[0] & wire.I_FLAG else "no I flag: not valid"


def _text(raw: bytes) -> str:
    return f"{len(raw)} bytes"


_Layout = tuple[tuple[str, int, Meaning], ...]

_PORTS: _Layout = (("source port", 2, _number), ("destination port", 2, _number))
_ICMP: _Layout = (
    ("type", 1, _named(_ICMP_TYPES)),
    ("code", 1, _number),
    ("checksum", 2, _nothing),
    ("identifier", 2, _number),
    ("sequence", 2, _number),
)

_LAYOUTS: dict[str, _Layout] = {
    "Ethernet": (
        ("destination", 6, _mac),
        ("source", 6, _mac),
        ("type", 2, _named(_ETHERTYPES)),
    ),
    "802.1Q": (
        ("tag", 2, lambda raw: f"VLAN {int.from_bytes(raw, 'big') & 0xFFF}"),
        ("type", 2, _named(_ETHERTYPES)),
    ),
    "IPv4": (
        ("version, length", 1, lambda raw: f"{raw[0] >> 4}, {(raw[0] & 0x0F) * 4} bytes"),
        ("tos", 1, _tos),
        ("total length", 2, _number),
        ("identification", 2, _number),
        ("flags, offset", 2, _fragment),
        ("ttl", 1, _number),
        ("protocol", 1, _named(_PROTOCOLS)),
        ("checksum", 2, _nothing),
        ("source", 4, _address),
        ("destination", 4, _address),
    ),
    "IPv6": (
        ("version, class", 4, lambda raw: _tos(bytes(((raw[0] << 4 | raw[1] >> 4) & 0xFF,)))),
        ("payload length", 2, _number),
        ("protocol", 1, _named(_PROTOCOLS)),
        ("hop limit", 1, _number),
        ("source", 16, _address),
        ("destination", 16, _address),
    ),
    "ARP": (
        ("hardware, protocol", 6, _nothing),
        ("operation", 2, _named({1: "who has?", 2: "is at"})),
        ("sender MAC", 6, _mac),
        ("sender address", 4, _address),
        ("target MAC", 6, _mac),
        ("target address", 4, _address),
    ),
    "UDP": (*_PORTS, ("length", 2, _number), ("checksum", 2, _nothing)),
    "TCP": (
        *_PORTS,
        ("sequence", 4, _number),
        ("acknowledgement", 4, _number),
        ("length, flags", 2, lambda raw: f"{(raw[0] >> 4) * 4} bytes"),
        ("window", 2, _number),
        ("checksum", 2, _nothing),
        ("urgent pointer", 2, _number),
    ),
    "ICMP": _ICMP,
    "ICMPv6": _ICMP,
    "VXLAN": (
        ("flags", 1, _flags),
        ("reserved", 3, _nothing),
        ("VNI", 3, _number),
        ("reserved", 1, _nothing),
    ),
}
