"""A journey in words and layers, as the page tells it.

For each step one sentence says what happened since the step before.  It says what was
seen, and no more: that a frame went to every remote is seen by its copies.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from vxlan import wire
from vxlan.lab.dissect import Header, dissect
from vxlan.lab.view.journey import Journey, Step
from vxlan.lab.view.scene import Scene

MOST_OCTETS = 64
"""Octets of one field that are sent to the page."""


class Names:
    """Who is meant by an address: "c1" by its MAC, "a" by 192.0.2.1."""

    def __init__(self, scene: Scene) -> None:
        self._by_mac = dict(scene.macs)
        self._by_address = {at: host.name for host in scene.hosts for at in host.addresses}
        self._stations = {one.name: one for one in scene.containers}

    def mac(self, mac: bytes) -> str:
        """The name of a station, or its MAC."""
        if mac == wire.BROADCAST:
            return "everybody"
        text = wire.mac_text(mac)
        return self._by_mac.get(text, f"a group ({text})" if mac[0] & 1 else text)

    def host(self, address: bytes) -> str:
        """The name of a host with its address."""
        text = str(ip_address(address))
        name = self._by_address.get(text)
        return f"{name} ({text})" if name else text

    def meant(self, station: str, frame: bytes) -> bool:
        """Whether a frame that a station received is for it; a question for one is for one."""
        known = self._stations.get(station)
        if known is None or not frame[0] & 1:
            return known is not None and wire.mac_text(frame[:6]) == known.mac
        if wire.ethertype_at(frame)[0] != wire.ETH_P_ARP or len(frame) < 42:
            return True
        sender, target = frame[28:32], frame[38:42]
        return sender == target or str(ip_address(target)) in known.addresses


def layers(frame: bytes, names: Names, port: int = wire.DSTPORT) -> list[dict[str, Any]]:
    """The headers of a frame, outermost first."""
    return [
        {
            "name": header.name,
            "depth": header.depth,
            "length": header.length,
            "brief": _brief(header, names),
            "fields": [
                [field.name, field.raw[:MOST_OCTETS].hex(" "), field.meaning]
                for field in header.fields
            ],
        }
        for header in dissect(frame, port)
    ]


def _brief(header: Header, names: Names) -> str:
    """The same, with names instead of MACs, which its fields show."""
    if header.name != "Ethernet":
        return brief(header)
    to, source, _ = (field.raw for field in header.fields)
    return f"{names.mac(source)} → {names.mac(to)}"


def brief(header: Header) -> str:
    """What matters most of a header, on one line."""
    said = {field.name: field.meaning for field in header.fields}
    match header.name:
        case "Ethernet" | "IPv4" | "IPv6":
            return f"{said['source']} → {said['destination']}"
        case "UDP" | "TCP":
            return f"port {said['source port']} → {said['destination port']}"
        case "VXLAN":
            return f"VNI {said['VNI']}" if said["flags"].startswith("I") else "no VNI"
        case "ARP":
            return _arp(said)
        case "ICMP" | "ICMPv6":
            return _icmp(header, said)
    return said.get("data", "")


# Fragmentation needed (RFC 1191, section 4), packet too big (RFC 4443, section 3.2).
_TOO_BIG = {("ICMP", 3, 4), ("ICMPv6", 2, 0)}
_ERRORS = {
    ("ICMP", 3, 0): "network unreachable",
    ("ICMP", 3, 1): "host unreachable",
    ("ICMP", 3, 3): "port unreachable: nobody listens there",
    ("ICMP", 11, 0): "time exceeded",
    ("ICMPv6", 1, 3): "address unreachable",
    ("ICMPv6", 1, 4): "port unreachable: nobody listens there",
    ("ICMPv6", 3, 0): "time exceeded",
}


def _icmp(header: Header, said: dict[str, str]) -> str:
    if said["type"].startswith("echo"):
        return f"{said['type']}, number {said['sequence']}"
    if _kind(header) in _TOO_BIG:
        return f"too big: {said['sequence']} bytes fit"
    return _ERRORS.get(_kind(header), "a message about the network")


def _kind(header: Header) -> tuple[str, int, int]:
    kind, code, *_ = (field.raw for field in header.fields)
    return header.name, kind[0], code[0]


def _arp(said: dict[str, str]) -> str:
    if said["operation"] == "who has?":
        return f"who has {said['target address']}? tell {said['sender address']}"
    return f"{said['sender address']} is at {said['sender MAC']}"


_WORDS = {"echo request": "ping", "echo reply": "answer"}


QUIET = frozenset(("probe", "ARP?", "ARP!"))
"""What the underlay says all the time; the page shows it if asked."""


def title(journey: Journey) -> tuple[str, str]:
    """A word for the packet's label, and what it says on one line."""
    first = journey.steps[0]
    headers = dissect(first.frame, first.port)
    if not journey.overlay and first.outer is not None:
        return "probe", "a path probe: between VTEPs, for no station"
    inner = [header for header in headers if header.name != "payload"][-1]
    word = inner.name
    if inner.name == "ARP":
        word = "ARP?" if inner.fields[1].meaning == "who has?" else "ARP!"
    elif inner.name in ("ICMP", "ICMPv6"):
        word = (
            "too big" if _kind(inner) in _TOO_BIG else _WORDS.get(inner.fields[0].meaning, "ICMP")
        )
    elif inner.name.startswith("IP"):
        word = "fragment" if _is_later_fragment(inner) else "IP"
    between = next((one for one in reversed(headers) if one.name in ("IPv4", "IPv6")), None)
    return word, brief(inner) + (f", {brief(between)}" if between and between is not inner else "")


def _is_later_fragment(header: Header) -> bool:
    return any(
        field.name == "flags, offset" and int.from_bytes(field.raw, "big") & 0x1FFF
        for field in header.fields
    )


def say(journey: Journey, number: int, names: Names) -> str:
    """What happened between the step before and this one."""
    step = journey.steps[number]
    before = journey.steps[step.before] if step.before is not None else None
    owner = step.stop.owner
    match step.stop.kind, step.direction:
        case "station", "out":
            return f"{owner} sends {len(step.frame)} bytes to {names.mac(step.frame[:6])}."
        case "tap", "out":
            how = "copies it to every port, also" if step.frame[0] & 1 else "hands it"
            return f"The bridge of {owner} {how} to {step.stop.interface}, where the VTEP takes it."
        case "underlay", "out":
            return _leaves(journey, step, names)
        case "underlay", "in":
            return f"{owner} receives it at its link, {len(step.frame)} bytes."
        case "tap", "in":
            return _comes_out(step, before, names)
        case "station", "in":
            return _arrives(step, names)
    return f"The router {owner} {'receives' if step.direction == 'in' else 'forwards'} it."


def _comes_out(step: Step, before: Step | None, names: Names) -> str:
    owner = step.stop.owner
    if before is None:  # as too-big messages and answers to questions that it knows
        return f"The VTEP of {owner} says this itself, to {names.mac(step.frame[:6])}."
    less = len(before.frame) - len(step.frame)
    return f"The VTEP of {owner} takes {less} bytes of outer headers off."


def _leaves(journey: Journey, step: Step, names: Names) -> str:
    owner, outer = step.stop.owner, step.outer
    if outer is None:
        return f"{owner} sends it to {names.mac(step.frame[:6])}."
    header = outer.header
    if outer.inner is None or header is None:
        return f"{owner} probes the path to {names.host(outer.destination)}."
    more = len(step.frame) - len(outer.inner)
    wrapped = f"The VTEP of {owner} wraps it: VNI {header.vni}, {more} bytes more"
    copies = [one for one in journey.steps if (one.before, one.rank) == (step.before, step.rank)]
    if len(copies) == 1:
        return f"{wrapped}, to {names.host(outer.destination)}."
    return f"{wrapped}. {_why_copies(outer.inner, names)}, so each remote gets a copy."


def _why_copies(frame: bytes, names: Names) -> str:
    to = names.mac(frame[:6])
    return f"It is for {to}" if frame[0] & 1 else f"Its FDB does not know {to}"


def _arrives(step: Step, names: Names) -> str:
    owner = step.stop.owner
    if names.meant(owner, step.frame):
        return f"{owner} receives it."
    if step.frame[0] & 1:
        return f"{owner} receives it, too; it is asked for another address, and stays silent."
    return f"{owner} receives it, too, and ignores it: it is for {names.mac(step.frame[:6])}."


def told(journey: Journey, since: int, frames: dict[bytes, int], names: Names) -> dict[str, Any]:
    """A journey as a message: all about it, and its steps from number `since` on.

    `frames` are the different frames that were sent so far; new ones are added.
    """
    known, fresh = len(frames), []
    for step in journey.steps[since:]:
        if step.frame not in frames:
            frames[step.frame] = len(frames)
            fresh.append(layers(step.frame, names, step.port))
    word, line = title(journey)
    return {
        "id": journey.number,
        "word": word,
        "line": line,
        "overlay": journey.overlay,
        "quiet": not journey.overlay and word in QUIET,
        "when": journey.steps[0].when,
        "first": since,
        "steps": [
            _step(journey, number, frames, names) for number in range(since, len(journey.steps))
        ],
        "frames": fresh,
        "firstFrame": known,
        "done": journey.done,
    }


def _step(journey: Journey, number: int, frames: dict[bytes, int], names: Names) -> dict[str, Any]:
    step = journey.steps[number]
    return {
        "stop": step.stop.key,
        "dir": step.direction,
        "when": step.when,
        "rank": step.rank,
        "from": step.before,
        "frame": frames[step.frame],
        "size": len(step.frame),
        "to": names.host(step.outer.destination) if step.outer else None,
        "vni": _vni(step),
        "mine": step.rank == 7 and names.meant(step.stop.owner, step.frame),
        "say": say(journey, number, names),
    }


def _vni(step: Step) -> int | None:
    """The VNI on the wire, where the packet is wrapped."""
    header = step.outer.header if step.outer and step.outer.inner is not None else None
    return header.vni if header else None
