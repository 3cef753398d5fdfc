"""A decision as an object for JSON: what `pyvxlan explain` and the control socket answer.

Theory of operation
===================

    Decision        what the core decided (vxlan/decision.py)
    Surroundings    what a decision cannot know: names, ports, paths, the time
    explain()       both together, in the words of docs/explain.md

Nothing is decided here.  The node fills `Surroundings` from what runs; a capture that is
judged without a node gets defaults (vxlan/alone.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vxlan.decision import Decision
from vxlan.engine import Datagram, Policy
from vxlan.fdb import Remote
from vxlan.history import remote_json
from vxlan.inner import describe
from vxlan.mtu import family_of, max_frame
from vxlan.outer import datagram as in_ip
from vxlan.outer_read import Outer
from vxlan.report import entry_json
from vxlan.wire import ETH_HLEN, VXLAN_HLEN, ethertype_at

VERSION = 1
"""Raised when a field changes its meaning or goes away; not when one is added."""

MAX_DATAGRAMS = 64
"""How many of the datagrams that a frame becomes are shown one by one."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around a decision.

    node     the name of the node; None: judged without one
    local    its underlay addresses
    sport    the outer source port of a datagram; 0 if it cannot leave
    summed   whether UDP carries a checksum, by IP version
    segment  the segment's names and MTU, as in `show`; None: there is none
    remote   address -> "state" and "path", as in `show`
    full     whether the table has no place left
    now      monotonic seconds
    """

    node: str | None
    local: tuple[str, ...]
    dstport: int
    sport: Callable[[Datagram], int]
    summed: Callable[[int], bool] = lambda version: True
    policy: Policy | None = None
    segment: Mapping[str, Any] | None = None
    remote: Callable[[str], Mapping[str, Any]] = lambda address: {}
    full: bool = False
    now: float = 0.0
    notes: list[str] = field(default_factory=list)


def explain(decision: Decision, around: Surroundings, outer: Mapping[str, Any]) -> dict[str, Any]:
    """The whole answer; `outer` is that of a received datagram, see `received`."""
    drop = decision.drop
    shown = decision.sent[:MAX_DATAGRAMS]
    payloads = list(dict.fromkeys(datagram.payload for datagram in shown))
    sent = [
        {**_sent(datagram, around), "payload": payloads.index(datagram.payload)}
        for datagram in shown
    ]
    return {
        "version": VERSION,
        "node": around.node,
        "side": decision.side,
        "vni": decision.vni,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "meaning": drop.meaning if drop is not None else MEANINGS[decision.reason],
        "remedy": drop.remedy if drop is not None else None,
        "rules": list(_rules(decision)),
        "segment": around.segment,
        "inner": describe(decision.frame),
        "entry": _entry(decision, around),
        "flooded": decision.flooded,
        "remotes": [_remote(remote, around) for remote in decision.targets],
        "learning": _learning(decision, around),
        "mtu": _mtu(decision, around),
        "outer": outer if decision.side == "decap" else _first(sent),
        "datagrams": sent,
        "datagrams_total": len(decision.sent),
        "payloads": [payload.hex() for payload in payloads],
        "answer": None if decision.answer is None else decision.answer.hex(),
        "delivered": None if decision.delivered is None else decision.delivered.hex(),
        "notes": around.notes,
    }


MEANINGS = {
    "fdb_entry": "the destination has an entry in the FDB",
    "flood_list": "broadcast, multicast or an unknown station: a copy for each remote",
    "known_remote": "it came from a remote of the segment",
    "anybody": 'accept = "any": it may come from anybody',
    "neighbour": "another VTEP announced whom it asks for: answered here, it goes no further",
    "announcement": "another VTEP tells its stations, or asks for ours",
    "probe": "a probe of the path: it is acknowledged, and no station sees it",
    "probe_answer": "the acknowledgement of a probe: no station sees it",
    "echo_reply": "the answer to an echo by which the path is probed: no station sees it",
    "not_vxlan": "no UDP datagram to the VXLAN port",
}
"""What the reasons in small letters mean."""

NO_OUTER: Mapping[str, Any] = dict.fromkeys(
    ("src", "dst", "sport", "dport", "tos", "ttl", "length", "hex")
)


def _rules(decision: Decision) -> Iterator[dict[str, str]]:
    """Those before the one that refused held; those behind it were not asked."""
    end = ""
    for rule in () if decision.verdict in ("probe", "announcement") else decision.rules:
        if end:
            yield {"rule": rule.text, "result": "not asked"}
            continue
        if decision.drop in rule.reasons:
            end = "refused"
        elif decision.verdict == "suppress" and not rule.reasons:
            end = "answered"
        yield {"rule": rule.text, "result": end or "ok"}


def _entry(decision: Decision, around: Surroundings) -> dict[str, Any] | None:
    if decision.entry is None or decision.vni is None:
        return None
    return entry_json(decision.entry, decision.vni, around.now)


def _remote(remote: Remote, around: Surroundings) -> dict[str, Any]:
    return {**(remote_json(remote) or {}), **around.remote(remote.address)}


def _learning(decision: Decision, around: Surroundings) -> dict[str, Any] | None:
    if decision.learning is None:
        return None
    return {"what": decision.learning, "full": around.full and decision.learning == "learned"}


# -- MTU -----------------------------------------------------------------------------


def _mtu(decision: Decision, around: Surroundings) -> dict[str, Any] | None:
    if decision.fate is None or decision.limit is None:
        return None
    l3 = ethertype_at(decision.frame)[1]
    return {
        "packet": len(decision.frame) - l3,
        "limit": decision.limit,
        "bound": _bound(decision, around, l3),
        "fate": decision.fate,
        "fragments": len({one.payload for one in decision.sent})
        if decision.fate == "fragmented"
        else 0,
    }


def _bound(decision: Decision, around: Surroundings, l3: int) -> str:
    """What the limit comes from, in words."""
    if around.policy is None or decision.limit == around.policy.mtu:
        return "the overlay MTU"
    for remote in decision.targets:
        path = around.remote(remote.address).get("path")
        if path and max_frame(path["mtu"], family_of(remote.address)) - l3 == decision.limit:
            return f"the path to {remote.address} carries {path['mtu']} (known by {path['how']})"
    return "the tag takes its bytes from the packet" if l3 > ETH_HLEN else "what the paths carry"


# -- the outer headers ---------------------------------------------------------------


def _sent(datagram: Datagram, around: Surroundings) -> dict[str, Any]:
    """The headers of a datagram that leaves: IP, UDP and VXLAN in `hex`."""
    version, sport = family_of(datagram.remote.address), around.sport(datagram)
    source = next((one for one in around.local if family_of(one) == version), None)
    made = b""
    if source and sport:
        ends = (source, sport), datagram.remote
        made = in_ip(datagram.payload, *ends, tos=datagram.tos, ttl=datagram.ttl)
    headers = made[: len(made) - len(datagram.payload)]
    if not around.summed(version):
        headers = headers[:-2] + b"\0\0"[: len(headers)]
    return {
        "src": source,
        "dst": datagram.remote.address,
        "sport": sport or None,
        "dport": datagram.remote.port,
        "tos": datagram.tos,
        "ttl": datagram.ttl,
        "length": len(made),
        "hex": (headers + datagram.payload[:VXLAN_HLEN]).hex() if headers else "",
    }


def _first(sent: list[dict[str, Any]]) -> Mapping[str, Any]:
    return {key: sent[0][key] for key in NO_OUTER} if sent else NO_OUTER


def received(outer: Outer, packet: bytes) -> dict[str, Any]:
    """The same of a datagram that was captured in an IP packet."""
    return {
        "src": outer.source.address,
        "dst": outer.target.address,
        "sport": outer.source.port,
        "dport": outer.target.port,
        "tos": outer.tos,
        "ttl": outer.ttl,
        "length": outer.at + len(outer.payload),
        "hex": packet[: outer.at + VXLAN_HLEN].hex(),
    }


def given(datagram: Datagram, around: Surroundings) -> dict[str, Any]:
    """The same of a payload that was given without its headers."""
    version = family_of(datagram.remote.address)
    target = next((one for one in around.local if family_of(one) == version), None)
    return {
        **NO_OUTER,
        "src": datagram.remote.address,
        "dst": target,
        "dport": around.dstport,
        "tos": datagram.tos,
        "hex": datagram.payload[:VXLAN_HLEN].hex(),
    }
