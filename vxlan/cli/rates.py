"""What happened between two answers to `show`: so much a second.

Pure: two answers in, one object out, which `pyvxlan show --watch --json` prints as it
is.  Counters only grow while a node runs; where they fell (a segment or a remote was
made anew) the second answer counts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RATES = {
    "encap_packets": "encap_pps",
    "decap_packets": "decap_pps",
    "encap_bytes": "encap_bps",
    "decap_bytes": "decap_bps",
}
"""Counter -> rate; bytes become bits."""

Shown = Mapping[str, Any]


def between(before: Shown, after: Shown, when: float) -> dict[str, Any]:
    """Rates of everything in `after`; `when` is seconds since 1970."""
    interval = after["uptime"] - before["uptime"]
    if after["pid"] != before["pid"] or interval <= 0:
        before, interval = after, 0.0
    old = {segment["vni"]: segment for segment in before["segments"]}
    return {
        "time": round(when, 3),
        "name": after["name"],
        "interval": round(interval, 3),
        "drops": _drops(before["vtep"]["counters"], after["vtep"]["counters"], interval),
        "segments": [
            _segment(old.get(segment["vni"]), segment, interval) for segment in after["segments"]
        ],
    }


def _segment(before: Shown | None, after: Shown, interval: float) -> dict[str, Any]:
    old = {_key(remote): remote["counters"] for remote in (before or {}).get("remotes", ())}
    counters = before["counters"] if before else {}
    return {
        "vni": after["vni"],
        "tap": after["tap"],
        **_rates(counters, after["counters"], interval),
        "remotes": [
            {
                "address": remote["address"],
                "port": remote["port"],
                "state": remote["state"],
                **_rates(old.get(_key(remote), {}), remote["counters"], interval),
            }
            for remote in after["remotes"]
        ],
    }


def _key(remote: Shown) -> tuple[str, int]:
    return remote["address"], remote["port"]


def _rates(before: Shown, after: Shown, interval: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for counter, name in _RATES.items():
        amount = _rate(before.get(counter, 0), after[counter], interval)
        found[name] = round(amount * 8 if name.endswith("_bps") else amount, 1)
    return {**found, "drops": _drops(before, after, interval)}


def _drops(before: Shown, after: Shown, interval: float) -> dict[str, dict[str, float]]:
    """Reason -> packets a second, and all that there were."""
    old = before.get("drops", {})
    return {
        reason: {"pps": round(_rate(old.get(reason, 0), total, interval), 1), "total": total}
        for reason, total in after["drops"].items()
    }


def _rate(before: int, after: int, interval: float) -> float:
    grown = after - before if after >= before else after
    return grown / interval if interval else 0.0
