"""An inner frame in words: stations, tags, addresses, ports.  For people; decides nothing.

`describe` names what `pyvxlan explain` shows of a frame, as an object for JSON.  A field
that the frame is too short for is None; nothing here fails on any octets.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from vxlan.transport import find_ipv6_upper
from vxlan.wire import (
    ETH_HLEN,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    VLAN_HLEN,
    ethertype_at,
    inspect,
    mac_text,
)

PROTOCOLS = {
    IPPROTO_ICMP: "ICMP",
    IPPROTO_TCP: "TCP",
    IPPROTO_UDP: "UDP",
    IPPROTO_ICMPV6: "ICMPv6",
}
_TYPES = {ETH_P_IP: "IPv4", ETH_P_IPV6: "IPv6", ETH_P_ARP: "ARP"}
_PORTED = (IPPROTO_TCP, IPPROTO_UDP)
_ARP_HLEN = 28


def describe(frame: bytes) -> dict[str, Any]:
    """The object `inner` of an explanation (docs/explain.md)."""
    if len(frame) < ETH_HLEN:
        return {"src": None, "dst": None, "length": len(frame), "hex": frame.hex()}
    ethertype, l3 = ethertype_at(frame)
    return {
        "src": mac_text(frame[6:12]),
        "dst": mac_text(frame[0:6]),
        "type": _TYPES.get(ethertype, f"0x{ethertype:04x}"),
        "vlan": [
            int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF
            for at in range(12, l3 - 2, VLAN_HLEN)
        ],
        "length": len(frame),
        "packet": len(frame) - l3,
        "ip": _ip(frame),
        "arp": _arp(frame[l3:]) if ethertype == ETH_P_ARP else None,
        "hex": frame.hex(),
    }


def _ip(frame: bytes) -> dict[str, Any] | None:
    inner = inspect(frame)
    if not inner.version:
        return None
    packet = frame[inner.l3 :]
    if inner.version == 4:
        source, target, protocol, at = packet[12:16], packet[16:20], packet[9], packet[0] & 0x0F
        at, first = at * 4, not int.from_bytes(packet[6:8], "big") & 0x1FFF
    else:
        protocol, at, later = find_ipv6_upper(packet)
        source, target, first = packet[8:24], packet[24:40], not later
    ported = first and protocol in _PORTED and len(packet) >= at + 4
    return {
        "src": str(ip_address(source)),
        "dst": str(ip_address(target)),
        "protocol": PROTOCOLS.get(protocol, str(protocol)),
        "sport": int.from_bytes(packet[at : at + 2], "big") if ported else None,
        "dport": int.from_bytes(packet[at + 2 : at + 4], "big") if ported else None,
        "tos": inner.tos,
        "ttl": inner.ttl,
        "df": inner.version == 6 or bool(packet[6] & 0x40),
    }


def _arp(packet: bytes) -> dict[str, Any] | None:
    """Of Ethernet and IPv4 (RFC 826)."""
    if len(packet) < _ARP_HLEN or packet[:6] != bytes.fromhex("000108000604"):
        return None
    return {
        "operation": {1: "request", 2: "reply"}.get(packet[7], str(packet[7])),
        "sender": str(ip_address(packet[14:18])),
        "target": str(ip_address(packet[24:28])),
    }


def sentence(inner: dict[str, Any]) -> str:
    """What `describe` found, in one line."""
    if inner["src"] is None:
        return f"{inner['length']} bytes, too short for an Ethernet header"
    tags = "".join(f", VLAN {vid}" for vid in inner["vlan"])
    return f"{inner['src']} -> {inner['dst']}{tags}, {_payload(inner)}, {inner['length']} bytes"


def _payload(inner: dict[str, Any]) -> str:
    ip, arp = inner["ip"], inner["arp"]
    if arp:
        asks = f"ARP: {arp['sender']} asks for {arp['target']}"
        tells = f"ARP {arp['operation']}: {arp['sender']} to {arp['target']}"
        return asks if arp["operation"] == "request" else tells
    if ip is None:
        return f"type {inner['type']}"
    ports = "" if ip["sport"] is None else f" {ip['sport']} -> {ip['dport']}"
    df = ", DF" if ip["df"] and inner["type"] == "IPv4" else ""
    return f"{inner['type']} {ip['src']} -> {ip['dst']}, {ip['protocol']}{ports}{df}"
