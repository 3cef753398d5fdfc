"""One packet, from octets that somebody captured to the decision of a VTEP about it.

Theory of operation
===================

    octets, link type -> Subject     a datagram to the VXLAN port, or a frame, or neither
    Subject -> alone()               judged without a node, by defaults

Without a node there are no tables.  Then a datagram is judged as the VTEP would that it
was sent to: one that serves the VNI of the datagram, knows its sender, and has the
defaults of every policy.  A frame is judged as coming from the TAP of a segment whose
flood list is given.  What had to be assumed is told as a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from vxlan.decision import decide_decap, decide_encap
from vxlan.engine import Policy
from vxlan.explanation import MEANINGS, NO_OUTER, VERSION, Surroundings, explain, received
from vxlan.fdb import Remote
from vxlan.inner import describe
from vxlan.mtu import family_of, overlay_mtu
from vxlan.outer_read import Outer, parse_outer
from vxlan.pcap_read import COOKED, COOKED_2, ETHERNET, RAW_IP, Packet, PcapError
from vxlan.sample import CHECKS, Sample, frame, protocol
from vxlan.stations import addresses, stand_in, station
from vxlan.vtep import Vtep
from vxlan.wire import DSTPORT, ETH_HLEN, VXLAN_HLEN, ethertype_at, parse_vxlan, source_port

ETHERNET_MTU = 1500
SRCPORT = (49152, 65535)
POOL = 256
"""How many source ports a node divides `SRCPORT` into (vxlan/underlay.py)."""

MAX_COMMENTS, MAX_COMMENT = 4, 200

ANY_VNI = 42
"""Where nothing is said about the segment of a packet in words."""

LOCAL = ("192.0.2.1", "2001:db8::1")
"""Where nothing is said about this host's addresses."""

_LINK_HLEN = {COOKED: 16, COOKED_2: 20, RAW_IP: 0, 12: 0, 228: 0, 229: 0, 0: 4}
"""Bytes before the IP packet, by link type; 12, 228 and 229 are raw IP too, 0 is BSD loopback."""

_JUDGED = VXLAN_HLEN + ETH_HLEN + 8 + 40 + 4
"""Of a datagram: both tags, the IP header and the ports of its frame."""


class Subject(NamedTuple):
    """What is to be explained: a datagram, with the IP packet it came in, or a frame."""

    frame: bytes | None
    outer: Outer | None = None
    packet: bytes = b""
    notes: tuple[str, ...] = ()

    @property
    def outer_json(self) -> dict[str, Any]:
        """The outer headers for an explanation."""
        return dict(NO_OUTER) if self.outer is None else received(self.outer, self.packet)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What stands for a node where there is none."""

    dstport: int = DSTPORT
    vni: int | None = None
    local: tuple[str, ...] = ()
    remotes: tuple[Remote, ...] = ()
    mtu: int | None = None
    notes: list[str] = field(default_factory=list)


# -- what it is ------------------------------------------------------------------------


def subject_of(octets: bytes, dstport: int = DSTPORT, linktype: int = ETHERNET) -> Subject:
    """A datagram to `dstport`, otherwise a frame.  Raises OuterError, or PcapError for a
    link type that carries neither."""
    packet = _packet(octets, linktype)
    outer = parse_outer(packet, dstport)
    if outer is not None:
        return Subject(None, outer, packet, _checksum_notes(outer))
    return Subject(octets if linktype == ETHERNET else None)


def captured(found: Packet, dstport: int = DSTPORT) -> Subject:
    """The same of a packet of a capture.  What the capture left out is taken for zeros."""
    missing = found.length - len(found.data)
    subject = subject_of(found.data + bytes(missing), dstport, found.interface.linktype)
    said = tuple(f"the capture says: {_printable(text)}" for text in found.comments[:MAX_COMMENTS])
    if not missing:
        return subject._replace(notes=subject.notes + said)
    whole = len(subject.outer.payload) if subject.outer else found.length
    if whole - missing < min(whole, _JUDGED):
        text = f"only {len(found.data)} of {found.length} bytes were captured: too few to judge"
        raise PcapError(f"packet {found.number}: {text}")
    note = f"{len(found.data)} of {found.length} bytes were captured: the rest is taken for zeros"
    return subject._replace(notes=(note, *said))


def _printable(text: str) -> str:
    """A comment of a stranger, fit for a terminal."""
    return "".join(one if one.isprintable() else " " for one in text[:MAX_COMMENT])


def _packet(octets: bytes, linktype: int) -> bytes:
    """The IP packet, without what the link put before it; other packets are no datagram."""
    if linktype == ETHERNET:
        return octets[ethertype_at(octets)[1] :] if len(octets) >= ETH_HLEN else b""
    if linktype not in _LINK_HLEN:
        raise PcapError(f"link type {linktype} is not understood: capture on an Ethernet device")
    return octets[_LINK_HLEN[linktype] :]


def _checksum_notes(outer: Outer) -> tuple[str, ...]:
    if outer.summed == "wrong":
        return ("the outer UDP checksum is wrong: a kernel that checks it discards the datagram",)
    if outer.summed == "unfinished":
        return ("the outer UDP checksum was left to the network card: captured before it left",)
    return ()


# -- without a node ----------------------------------------------------------------------


def alone(subject: Subject, defaults: Defaults) -> dict[str, Any]:
    """The explanation that needs no node."""
    if subject.outer is not None:
        return _datagram_alone(subject, subject.outer, defaults)
    if subject.frame is None or defaults.vni is None:
        return _no_vxlan(subject, defaults)
    told = replace(defaults, notes=[*subject.notes, *defaults.notes])
    return _frame_alone(subject.frame, defaults.vni, told)


def _datagram_alone(subject: Subject, outer: Outer, defaults: Defaults) -> dict[str, Any]:
    header = parse_vxlan(outer.payload)
    named = header.vni if header and header.valid else 0
    vni = named if defaults.vni is None else defaults.vni
    remotes = defaults.remotes or (Remote(outer.source.address, defaults.dstport),)
    local = defaults.local or (outer.target.address,)
    vtep = _vtep(vni, local, remotes, defaults)
    decision = decide_decap(vtep, outer.received, 0.0)
    notes = [*subject.notes, *defaults.notes]
    serves = f" that serves VNI {vni}" if header and header.valid else ""
    notes.append(f"no node was asked: judged by the defaults of a VTEP at {local[0]}{serves}")
    return explain(decision, _around(vtep, local, defaults, notes), subject.outer_json)


def _frame_alone(frame: bytes, vni: int, defaults: Defaults) -> dict[str, Any]:
    local = defaults.local or LOCAL
    vtep = _vtep(vni, local, defaults.remotes, defaults)
    decision = decide_encap(vtep, vni, frame, 0.0)
    notes = [*defaults.notes, f"no node was asked: judged as a frame from the TAP of VNI {vni}"]
    if not defaults.local and decision.sent:
        notes.append("the address of this host is made up: name it with --local")
    return explain(decision, _around(vtep, local, defaults, notes), {})


def frame_alone(words: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """The explanation of a packet in words that needs no node.  Raises ValueError."""
    source, target = station(words["from"]), station(words["to"])
    notes: list[str] = []
    here, there = addresses(source, target, notes)
    given = {key: words[key] for key in ("sport", "dport", "size") if words[key] is not None}
    sample = Sample(
        source.mac or stand_in(here, notes),
        target.mac or stand_in(there, notes),
        here,
        there,
        protocol(words["proto"] or "icmp"),
        df=bool(words["df"]),
        **{key: CHECKS[key](value) for key, value in given.items()},
    )
    vni = ANY_VNI if defaults.vni is None else defaults.vni
    return _frame_alone(frame(sample), vni, replace(defaults, notes=notes))


def _vtep(vni: int, local: Sequence[str], remotes: Sequence[Remote], defaults: Defaults) -> Vtep:
    families = {family_of(remote.address) for remote in remotes} or {4}
    mtu = defaults.mtu or min(overlay_mtu(ETHERNET_MTU, family) for family in families)
    vtep = Vtep(local, defaults.dstport)
    segment = vtep.add_segment(vni, Policy(mtu=mtu))
    for remote in remotes:
        segment.add_remote(remote, 0.0)
    return vtep


def _around(vtep: Vtep, local: Sequence[str], defaults: Defaults, notes: list[str]) -> Surroundings:
    (segment,) = vtep.segments.values()
    return Surroundings(
        node=None,
        local=tuple(local),
        dstport=defaults.dstport,
        sport=lambda datagram: source_port(_slot(datagram.flow), *SRCPORT),
        policy=segment.policy,
        notes=notes,
    )


def _slot(flow: int) -> int:
    """The first flow that leaves by the same socket: a node has one for each of `POOL` parts."""
    return (flow * POOL >> 32) * (1 << 32) // POOL


def _no_vxlan(subject: Subject, defaults: Defaults) -> dict[str, Any]:
    """Nothing is decided about it: no VTEP would be given it."""
    note = f"no UDP datagram to port {defaults.dstport}: name another port with --dstport"
    if subject.frame is not None:
        note += ", or the segment with --vni if it is a frame from a TAP"
    return {
        "version": VERSION,
        "node": None,
        "side": None,
        "vni": None,
        "verdict": "none",
        "reason": "not_vxlan",
        "meaning": MEANINGS["not_vxlan"],
        "remedy": None,
        "rules": [],
        "segment": None,
        "inner": describe(subject.frame or b""),
        "entry": None,
        "flooded": False,
        "remotes": [],
        "learning": None,
        "mtu": None,
        "outer": dict(NO_OUTER),
        "datagrams": [],
        "datagrams_total": 0,
        "payloads": [],
        "answer": None,
        "delivered": None,
        "notes": [*subject.notes, note],
    }
