"""What Prometheus reads: the answer to `show` in its text format.

Theory of operation
===================

    # HELP pyvxlan_drops_total Packets of a segment that were discarded, by reason.
    # TYPE pyvxlan_drops_total counter
    pyvxlan_drops_total{vni="42",reason="UNKNOWN_REMOTE"} 7

Every number of `show` is here under one name, by the conventions of Prometheus: a
counter ends in _total, the unit stands in the name, and no series is the sum of others
of its name.  A segment has all reasons for discards, also those that never occurred:
what begins at 0 can be alerted on.  Remotes are those that are configured; a forger of
source addresses makes no series.

Pure: numbers in, text out.  vxlan/metrics_server.py answers with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from vxlan import __version__
from vxlan.drop import Drop

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, object]
Shown = Mapping[str, Any]


class Family(NamedTuple):
    """One metric: its name, what it means, and its samples."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    samples: Iterable[tuple[Labels, float]]


_SEGMENT = {
    "encap_packets": "Datagrams made of frames, a copy for each remote.",
    "encap_bytes": "Bytes of the inner frames that were encapsulated.",
    "decap_packets": "Frames taken out of datagrams.",
    "decap_bytes": "Bytes of the inner frames that were decapsulated.",
    "flooded": "Frames that were sent to the whole flood list.",
    "reserved_bits": "Datagrams that had reserved header bits set.",
    "learned": "Stations that were learned.",
    "moved": "Learned stations that moved behind another remote.",
    "conflict": "Claims that contradicted an entry of a higher rank.",
    "aged": "Learned stations that were silent too long.",
    "evicted": "Learned stations that a full table threw out.",
    "clamped": "TCP segments whose MSS was lowered.",
    "fragmented": "Packets that were fragmented inside.",
    "too_big_answered": "Packets that were answered with packet-too-big.",
    "suppressed": "Questions for neighbours that were answered here.",
}
_VTEP = {
    "probes": "Probes of paths and their acknowledgements that were received.",
    "announcements": "Announcements of stations that were believed.",
}
_REMOTE = ("encap_packets", "encap_bytes", "decap_packets", "decap_bytes")


def render(shown: Shown, now: float | None = None) -> str:
    """The answer to `show` as metrics; `now` is seconds since 1970."""
    moment = time.time() if now is None else now
    return "".join(line for family in _families(shown, moment) for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"
    for labels, value in family.samples:
        inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        yield f"{family.name}{'{' + inside + '}' if inside else ''} {value:.16g}\n"


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(shown: Shown, now: float) -> Iterator[Family]:
    yield from _node(shown, now)
    yield from _segments(shown["segments"])
    yield from _remotes([one for segment in shown["segments"] for one in segment["remotes"]])


def _node(shown: Shown, now: float) -> Iterator[Family]:
    about = {"node": shown["name"], "version": __version__, "engine": shown["engine"]["name"]}
    counters = shown["vtep"]["counters"]
    yield Family("pyvxlan_info", "gauge", "What runs; the value is always 1.", [(about, 1)])
    yield Family(
        "pyvxlan_start_time_seconds",
        "gauge",
        "When the node began, in seconds since 1970.",
        [({}, round(now - shown["uptime"], 3))],
    )
    for key, text in _VTEP.items():
        yield Family(f"pyvxlan_{key}_total", "counter", text, [({}, counters[key])])
    yield Family(
        "pyvxlan_vtep_drops_total",
        "counter",
        "Packets that were discarded before a segment was found, by reason.",
        _drops({}, counters["drops"]),
    )


def _segments(segments: list[Shown]) -> Iterator[Family]:
    each = [({"vni": segment["vni"]}, segment) for segment in segments]
    for key, text in _SEGMENT.items():
        samples = [(labels, segment["counters"][key]) for labels, segment in each]
        yield Family(f"pyvxlan_{key}_total", "counter", text, samples)
    yield Family(
        "pyvxlan_drops_total",
        "counter",
        "Packets of a segment that were discarded, by reason.",
        (one for labels, segment in each for one in _drops(labels, segment["counters"]["drops"])),
    )
    yield Family(
        "pyvxlan_fdb_entries",
        "gauge",
        "Entries of the forwarding database.",
        [(labels, segment["fdb_entries"]) for labels, segment in each],
    )
    yield Family(
        "pyvxlan_mtu_bytes",
        "gauge",
        "Overlay MTU in force.",
        [(labels, segment["mtu"]) for labels, segment in each],
    )


def _remotes(remotes: list[Shown]) -> Iterator[Family]:
    each = [
        ({"vni": one["vni"], "remote": one["address"], "port": one["port"]}, one) for one in remotes
    ]
    for key in _REMOTE:
        samples = [(labels, one["counters"][key]) for labels, one in each]
        yield Family(
            f"pyvxlan_remote_{key}_total", "counter", f"By remote. {_SEGMENT[key]}", samples
        )
    yield Family(
        "pyvxlan_remote_drops_total",
        "counter",
        "Packets from or to a remote that were discarded, by reason; only those that occurred.",
        (
            ({**labels, "reason": reason}, count)
            for labels, one in each
            for reason, count in one["counters"]["drops"].items()
        ),
    )
    yield Family(
        "pyvxlan_remote_up",
        "gauge",
        "1: heard since the last error that named it; 0: an error, or nothing heard yet.",
        [(labels, one["state"] == "up") for labels, one in each],
    )
    yield Family(
        "pyvxlan_remote_path_mtu_bytes",
        "gauge",
        "What the path to a remote carries, bytes of an outer IP packet.",
        [(labels, one["path"]["mtu"]) for labels, one in each if one["path"]],
    )


def _drops(labels: Labels, drops: Mapping[str, int]) -> Iterator[tuple[Labels, float]]:
    """All reasons that this version knows, and others that there are."""
    for reason in dict.fromkeys([*(why.name for why in Drop), *drops]):
        yield {**labels, "reason": reason}, drops.get(reason, 0)
