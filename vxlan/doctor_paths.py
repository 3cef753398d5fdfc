"""Checks of the paths to the remotes of a node that runs.  See vxlan/doctor.py.

Theory of operation
===================

    remote of `show`        what the node knows: state, path MTU, how it was found
    answer to `ping`        what comes back just now, by source port and size

    state down              nobody is there                                  warn
    acknowledges nothing    no pyvxlan; a black hole would not be noticed     note
    nothing comes back      it was there, and is not now                      warn
    small pass, large not   a black hole, on all ways or on some              warn
    some ports do not       one of several ways is broken                     warn
    narrower than the link  a router on the way: told, since it costs room    note
    all the rest                                                              ok

`where_it_stops` is the part that `pyvxlan ping` says too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vxlan.finding import Finding, Level

MOST = 16
"""Of how many remotes the paths are probed: each takes two seconds if it is silent."""

Ping = Callable[[str], dict[str, Any]]
"""The answer to `ping` for an address."""


def paths(shown: Mapping[str, Any], ping: Ping) -> list[Finding]:
    """What is found about each remote of a node; `shown` is what it answers to `show`."""
    remotes = {one["address"]: one for segment in shown["segments"] for one in segment["remotes"]}
    asked = [address for address, one in remotes.items() if _may_answer(one)][:MOST]
    answers = {address: ping(address) for address in asked}
    return [
        finding
        for address, remote in remotes.items()
        for finding in _path(remote, answers.get(address))
    ]


def _may_answer(remote: Mapping[str, Any]) -> bool:
    path = remote["path"]
    if path is None or remote["state"] == "down":
        return False
    return path["answers"] is not False and path["how"] != "echo"


def _path(remote: Mapping[str, Any], answer: Mapping[str, Any] | None) -> Iterator[Finding]:
    address, path = remote["address"], remote["path"]
    if path is None:
        yield Finding(Level.WARN, f"{address}: there is no route to it", "`ip route add`")
    elif remote["state"] == "down":
        yield Finding(
            Level.WARN, f"{address}: the underlay says that it cannot be reached",
            "start the VTEP there; `pyvxlan monitor` tells what the underlay says",
        )  # fmt: skip
    elif path["answers"] is False:
        yield _no_pyvxlan(address, path)
    elif answer is None:
        carries = f"carries {path['mtu']} (found by {path['how']})"
        yield Finding(Level.OK, f"the path to {address} {carries}; not asked now")
        yield from _narrow(address, path)
    else:
        yield _probed(address, answer)
        yield from _narrow(address, answer["path"])


def _no_pyvxlan(address: str, path: Mapping[str, Any]) -> Finding:
    return Finding(
        Level.NOTE,
        f"{address} acknowledges no probes, so it is no pyvxlan; "
        f"{path['mtu']} bytes are believed to pass (by {path['how']})",
        "if small packets pass and large ones hang, a router on the way is narrower: "
        "name a station behind it in `echo`, or set the segment's mtu",
        "everything; a path that shrinks is noticed by ICMP only",
    )


def _probed(address: str, answer: Mapping[str, Any]) -> Finding:
    stops = where_it_stops(answer)
    if stops:
        return Finding(Level.WARN, f"{address}: {stops[0]}", stops[1])
    times = [one["rtt"] for one in answer["probes"]]
    path = answer["path"]
    carries = f"carries {path['mtu']} (found by {path['how']})" if path else "carries what was sent"
    return Finding(
        Level.OK,
        f"the path to {address} {carries}; round trip {statistics.median(times) * 1000:.2f} ms, "
        f"{len(times)} of {len(times)} probes",
    )


def _narrow(address: str, path: Mapping[str, Any] | None) -> Iterator[Finding]:
    if path is not None and path["mtu"] < path["ceiling"]:
        yield Finding(
            Level.NOTE,
            f"the link towards {address} carries {path['ceiling']}, the path {path['mtu']}",
            "the overlay MTU follows; for larger packets find the narrow router (tracepath)",
        )


def where_it_stops(answer: Mapping[str, Any]) -> tuple[str, str] | None:
    """What an answer to `ping` shows to be broken, and what to do; None if nothing is."""
    lost = [one for one in answer["probes"] if one["rtt"] is None]
    if not lost:
        return None
    if len(lost) == len(answer["probes"]):
        return _silence(answer)
    largest = max(one["size"] for one in answer["probes"])
    ports = ", ".join(str(port) for port in sorted({one["srcport"] for one in lost}))
    if all(one["size"] == largest for one in lost):
        return _hole(answer, largest, ports)
    what = f"some ways are broken: nothing comes back for source port {ports}"
    return what, "look for a broken link among those that the underlay shares its load over"


def _hole(answer: Mapping[str, Any], largest: int, ports: str) -> tuple[str, str]:
    whole = {one["srcport"] for one in answer["probes"] if one["size"] == largest and one["rtt"]}
    where = f"from source port {ports}" if whole else "from any source port"
    path = answer["path"]
    remedy = "the node finds it out within seconds: ask again"
    if path is not None and path["phase"] == "complete" and path["mtu"] < largest:
        remedy = f"nothing to do: {path['mtu']} pass, and the node sends no more than that"
    elif whole:
        remedy = "look at the MTU of the links that the underlay shares its load over"
    return f"small probes pass, {largest} bytes do not {where}", remedy


def _silence(answer: Mapping[str, Any]) -> tuple[str, str]:
    path = answer["path"]
    if answer["state"] == "down":
        what = "nothing comes back, and the underlay says that it cannot be reached"
        return what, "start the VTEP there; `pyvxlan monitor` tells what the underlay says"
    if path is not None and path["how"] == "echo":
        what = "it acknowledges no probe; its path is known from echoes of a station behind it"
        return what, f"nothing to do: {path['mtu']} pass; to ask the station itself, ping it"
    if path is not None and path["answers"]:
        return "nothing comes back any more", "is pyvxlan up there, and the way to it whole?"
    if answer["state"] == "up":
        what = "frames came from there, but no probe is acknowledged"
        return what, "it is no pyvxlan (a kernel device never answers): try an address inside"
    return "nothing comes back", "is pyvxlan up there, with this host among its remotes?"
