"""A packet in one line: when, where, what it is, and what was decided.

12:00:01.123456 in  vxlan42  02:..:01 > 02:..:02 10.42.0.1 > 10.42.0.2 ICMP 98: encap ...
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from vxlan.sight import Seen, addresses_of, frame_of
from vxlan.sight_words import say
from vxlan.wire import ETH_HLEN, ethertype_at, mac_text

_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}
_FLAGS = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x10, "."))
_ETHERTYPES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x88CC: "LLDP"}


def line(seen: Seen, taps: Mapping[int, str], dstport: int) -> str:
    """One packet for a person; `taps` has the TAP of each VNI."""
    if seen.is_loss:
        return f"{_clock(seen.when)} {say(seen)}"
    side = "in " if seen.where.incoming else "out"
    where = taps.get(seen.vni or 0, "tap") if seen.where.inner else "underlay"
    what = " ".join(summary(frame_of(seen.where, seen.data)))
    return f"{_clock(seen.when)} {side} {where:<8} {what} {seen.length}: {say(seen, dstport)}"


def _clock(when: int) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(when // 10**9))
    return f"{clock}.{when // 1000 % 10**6:06}"


def summary(frame: bytes) -> list[str]:
    """What is in a frame, in words; of one that is cut, as much as is there."""
    if len(frame) < ETH_HLEN:
        return ["no frame"]
    words = [mac_text(frame[6:12]), ">", mac_text(frame[0:6])]
    ethertype, at = ethertype_at(frame)
    if at > ETH_HLEN:
        words.append(f"vlan {int.from_bytes(frame[14:16], 'big') & 0xFFF}")
    found = addresses_of(frame)
    if not found:
        return [*words, _ETHERTYPES.get(ethertype, f"type 0x{ethertype:04x}")]
    if ethertype == 0x0806:
        return [*words, *_arp(frame, at)]
    return [*words, *_ip(frame, at, *(str(ip_address(one)) for one in found))]


def _arp(frame: bytes, at: int) -> list[str]:
    sender, target = (str(ip_address(one)) for one in addresses_of(frame))
    if frame[at + 7] == 1:
        return ["ARP", "who-has", target, "tell", sender]
    return ["ARP", sender, "is-at", mac_text(frame[at + 8 : at + 14])]


def _ip(frame: bytes, at: int, source: str, destination: str) -> list[str]:
    if frame[at] >> 4 == 4:
        protocol, l4 = frame[at + 9], at + (frame[at] & 0x0F) * 4
        first = not (frame[at + 6] & 0x1F or frame[at + 7])
    else:
        protocol, l4, first = frame[at + 6], at + 40, True
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if not first:
        return [source, ">", destination, name, "fragment"]
    if protocol not in (6, 17) or len(frame) < l4 + 4:
        return [source, ">", destination, name]
    ports = (int.from_bytes(frame[l4 + n : l4 + n + 2], "big") for n in (0, 2))
    ends = [_end(address, port) for address, port in zip((source, destination), ports, strict=True)]
    return [ends[0], ">", ends[1], name, *(_tcp(frame, l4) if protocol == 6 else ())]


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _tcp(frame: bytes, l4: int) -> list[str]:
    if len(frame) < l4 + 14:
        return []
    flags = "".join(letter for bit, letter in _FLAGS if frame[l4 + 13] & bit)
    return [f"[{flags}]"]


def as_json(seen: Seen, dstport: int) -> dict[str, Any]:
    """One packet as an object, without its bytes."""
    frame = frame_of(seen.where, seen.data)
    whole = len(frame) >= ETH_HLEN
    addresses = [str(ip_address(one)) for one in addresses_of(frame)] if whole else []
    return {
        "time": seen.when / 10**9,
        "interface": "inner" if seen.where.inner else "outer",
        "direction": "in" if seen.where.incoming else "out",
        "vni": seen.vni,
        "verdict": "dropped" if seen.reason is not None else "passed",
        "reason": seen.reason.name if seen.reason is not None else None,
        "comment": say(seen, dstport),
        "remote": {"address": seen.remote.address, "port": seen.remote.port}
        if seen.remote
        else None,
        "targets": seen.targets,
        "length": seen.length,
        "inner": {
            "src": mac_text(frame[6:12]),
            "dst": mac_text(frame[0:6]),
            "addresses": addresses,
        }
        if whole
        else None,
    }
