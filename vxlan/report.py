"""The state of a node as objects for the control socket (docs/control-socket.md)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vxlan.drop import Counters, Drop
from vxlan.event import Event
from vxlan.fdb import FdbEntry, State
from vxlan.history import remote_json, unix_time
from vxlan.node_faults import faults_json
from vxlan.wire import ZERO_MAC, mac_text

if TYPE_CHECKING:
    from vxlan.engine import Engine, PathState
    from vxlan.node import Node
    from vxlan.node_segment import NodeSegment

VERSION = 1
"""Raised when a field changes its meaning or goes away; not when one is added."""


def node_json(node: Node, ring: Mapping[int, int]) -> dict[str, Any]:
    """The answer to `show`; `ring` has what each VNI's TAP lost before it was read."""
    vtep, lost = node.config.vtep, node.engine.counters(None)
    return {
        "version": VERSION,
        "name": node.config.name,
        "pid": os.getpid(),
        "uptime": round(time.monotonic() - node.began, 3),
        "kept": node.kept.as_json(),
        "engine": engine_json(node.engine, node.segments.values()),
        "vtep": {
            "local": list(node.local),
            "dstport": vtep.dstport,
            "srcport": list(vtep.srcport),
            "counters": counters_json(total(lost.values())),
            "drops_by_remote": {
                address: drops
                for address, counters in lost.items()
                if (drops := counters.as_dict()["drops"])
            },
        },
        "faults": faults_json(node.engine.faults()),
        "segments": [
            segment_json(segment, ring.get(vni, 0)) for vni, segment in node.segments.items()
        ],
    }


def engine_json(engine: Engine, segments: Iterable[NodeSegment]) -> dict[str, Any]:
    """What runs, and what the kernel granted or refused to it and to its TAPs."""
    granted = dict(engine.info.granted)
    fallbacks = list(engine.info.fallbacks)
    for segment in segments:
        tap = segment.tap
        if tap is not None:
            for word, got in tap.granted.items():
                granted[f"tap_{word}"] = got and granted.get(f"tap_{word}", True)
            fallbacks += tap.fallbacks
    return {
        "name": engine.info.name,
        "why": engine.info.why,
        "granted": granted,
        "fallbacks": list(dict.fromkeys(fallbacks)),
    }


def segment_json(segment: NodeSegment, ring: int) -> dict[str, Any]:
    """One segment of `show`; `ring` frames were lost before the TAP was read."""
    config, engine = segment.config, segment.engine
    counters = total(engine.counters(config.vni).values())
    counters.drops[Drop.FULL_RING] += ring
    return {
        "vni": config.vni,
        "owner": segment.owner,
        "tap": config.tap,
        "bridge": config.bridge,
        "address": list(config.address),
        "mtu": segment.mtu,
        "mtu_auto": config.mtu is None,
        "mtu_limit": segment.limit.why if segment.limit else "no path is known now",
        "policy": asdict(segment.policy),
        "announce": config.announce,
        "stations": len(engine.stations(config.vni)),
        "fdb_entries": engine.fdb_count(config.vni),
        "remotes": remotes_json(segment),
        "counters": counters_json(counters),
    }


def remotes_json(segment: NodeSegment) -> list[dict[str, Any]]:
    """The flood list with what is known of each remote."""
    vni, engine = segment.config.vni, segment.engine
    counters, peers, paths = engine.counters(vni), engine.peers_up(), engine.paths()
    return [
        {
            "vni": vni,
            "address": remote.address,
            "port": remote.port,
            "state": state_of(peers, remote.address),
            "path": path_json(paths.get(remote.address)),
            "counters": counters_json(counters.get(remote.address, Counters())),
        }
        for remote in engine.remotes(vni)
    ]


def path_json(path: PathState | None) -> dict[str, Any] | None:
    """What is known of the path to a remote; `since` is seconds ago."""
    if path is None:
        return None
    since = round(time.monotonic() - path.when, 3) if path.when else None
    return {
        "mtu": path.mtu,
        "ceiling": path.ceiling,
        "how": path.how,
        "phase": path.phase,
        "answers": path.answers,
        "since": since,
    }


def state_of(peers: Mapping[str, bool], address: str) -> str:
    """Of a remote: "up", "down", or "unknown" while nothing was heard."""
    if address not in peers:
        return "unknown"
    return "up" if peers[address] else "down"


def total(parts: Iterable[Counters]) -> Counters:
    """The sum of counters."""
    whole = Counters()
    for part in parts:
        whole.add(part)
    return whole


def counters_json(counters: Counters) -> dict[str, Any]:
    """Counts by their names, and "drops" with those that are not zero."""
    both = counters.as_dict()
    return {**both["counts"], "drops": both["drops"]}


# -- forwarding entries ------------------------------------------------------------------


def fdb_json(segment: NodeSegment) -> list[dict[str, Any]]:
    """All entries; the flood list comes first, as the entry of the all-zero MAC."""
    vni, now = segment.config.vni, time.monotonic()
    flood = segment.engine.remotes(vni)
    began = segment.began
    rows = [FdbEntry(ZERO_MAC, flood, State.STATIC, "flood list", began, now, 0.0)] if flood else []
    return [entry_json(entry, vni, now) for entry in [*rows, *segment.engine.fdb_dump(vni)]]


def entry_json(entry: FdbEntry, vni: int, now: float) -> dict[str, Any]:
    """One entry; times are seconds ago."""
    below = entry.shadowed
    return {
        "vni": vni,
        "mac": mac_text(entry.mac),
        "dst": [remote_json(remote) for remote in entry.remotes],
        "state": entry.state.value,
        "source": entry.source,
        "age": round(now - entry.updated, 3),
        "used": round(now - entry.used, 3) if entry.used else None,
        "since": round(now - entry.since, 3),
        "shadowed": None if below is None else entry_json(below, vni, now),
    }


def past_json(event: Event, now: float) -> dict[str, Any]:
    """One event of a station's history."""
    return {
        "when": round(unix_time(event.when), 6),
        "age": round(now - event.when, 3),
        "event": event.kind.value,
        "remote": remote_json(event.remote),
        "was": remote_json(event.was),
        "detail": event.detail,
    }
