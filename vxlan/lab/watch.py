"""Packets on the wires of a running lab, as they pass: what, where, in which direction.

The wire of a host is its "eth0" in the underlay, that of a container its "eth0" in the
overlay.  A packet between two watched places is seen twice: it leaves one and enters the
other.  What a node decides about a packet is not on the wire; `pyvxlan capture` tells it.
"""

from __future__ import annotations

import select
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from vxlan import wire
from vxlan.lab.dissect import Header, dissect
from vxlan.lab.sniffer import RETRY, Captured, SteadySniffer
from vxlan.lab.topology import Station
from vxlan.lab.wait import LabError
from vxlan.netns import NetdevError


class Passed(NamedTuple):
    """One packet at one place."""

    place: str
    captured: Captured


def listen(places: Sequence[Station], seconds: float | None = None) -> Iterator[Passed]:
    """Packets at these places, for so many seconds, or until the caller has enough.

    Listening begins with the first `next`; packets of one place come in order.  A link
    that goes down is listened to again when it comes back.  Raises LabError where a
    namespace is gone.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    with ExitStack() as stack:
        sniffers = {
            stack.enter_context(SteadySniffer(place, place.link)): place for place in places
        }
        while deadline is None or time.monotonic() < deadline:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            _wait(list(sniffers), left)
            found = [
                Passed(place.short, each)
                for one, place in sniffers.items()
                for each in _packets(one, place)
            ]
            yield from sorted(found, key=lambda passed: passed.captured.when)


def _wait(sniffers: Sequence[SteadySniffer], left: float | None) -> None:
    """Until there is something to take out, or a link to look for again."""
    listening = [one for one in sniffers if one.listening]
    if len(listening) < len(sniffers):
        left = RETRY if left is None else min(left, RETRY)
    select.select(listening, [], [], left)


def _packets(sniffer: SteadySniffer, place: Station) -> list[Captured]:
    try:
        return sniffer.packets()
    except NetdevError as error:
        raise LabError(f"the lab was taken down: no namespace of {place.short} any more") from error


def headers_of(data: bytes, ports: Collection[int] = (wire.DSTPORT,)) -> list[Header]:
    """The headers of a packet; VXLAN is what goes to one of these UDP ports."""
    found = dissect(data, vxlan_port=0)
    port = port_of(found)
    return dissect(data, port) if port in ports else found


def port_of(headers: Sequence[Header]) -> int:
    """The outermost UDP destination port; 0 if there is none."""
    udp = next((header for header in headers if header.name == "UDP"), None)
    return int(_meanings(udp)["destination port"]) if udp else 0


def clock(when: float) -> str:
    """The time of day of a packet, to the microsecond."""
    of_day = time.strftime("%H:%M:%S", time.localtime(when))
    return f"{of_day}.{int(when * 1e6) % 10**6:06}"


def vni_of(headers: Sequence[Header]) -> int | None:
    """The VNI that a packet carries; None without VXLAN, or without the I flag."""
    vxlan = next((header for header in headers if header.name == "VXLAN"), None)
    if vxlan is None or not vxlan.fields[0].raw[0] & wire.I_FLAG:
        return None
    return int(_meanings(vxlan)["VNI"])


def summary(headers: Sequence[Header]) -> str:
    """What a packet is, from the outermost header to the innermost, in one line."""
    outer = [header for header in headers if not header.depth and header.name != "VXLAN"]
    vxlan = [header for header in headers if header.name == "VXLAN"]
    if not vxlan:
        return _one(outer)
    vni = vni_of(headers)
    tunnel = f"VNI {vni}" if vni is not None else "no I flag (a probe)"
    inner = [header for header in headers if header.depth]
    return f"{_one(outer)} | VXLAN {tunnel} | {_one(inner) if inner else 'nothing inside'}"


def _one(headers: Sequence[Header]) -> str:
    """The headers of one layer: from Ethernet to the transport."""
    by_name = {header.name: _meanings(header) for header in headers}
    if "ARP" in by_name:
        return _arp(by_name["ARP"])
    ip = by_name.get("IPv4") or by_name.get("IPv6")
    if ip is None:
        frame = by_name.get("Ethernet", {})
        return f"{frame.get('source', '?')} > {frame.get('destination', '?')}"
    words = [f"{ip['source']} > {ip['destination']}"]
    carried = [name for name in ("UDP", "TCP", "ICMP", "ICMPv6") if name in by_name]
    words += [_transport(name, by_name[name]) for name in carried]
    return " ".join(words)


def _arp(seen: dict[str, str]) -> str:
    if seen["operation"] == "is at":
        return f"ARP {seen['sender address']} is at {seen['sender MAC']}"
    return f"ARP who has {seen['target address']}? tell {seen['sender address']}"


def _transport(name: str, seen: dict[str, str]) -> str:
    if "destination port" in seen:
        return f"{name} {seen['source port']} > {seen['destination port']}"
    return f"{name} {seen['type']}".rstrip()


def _meanings(header: Header) -> dict[str, str]:
    return {field.name: field.meaning for field in header.fields}
