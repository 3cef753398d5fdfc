"""Lesson 08: what the intruder says reaches no table, though it goes on saying it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from vxlan.lab.checks import all_hold, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import ping
from vxlan.lab.running import RunningLab
from vxlan.wire import mac_text

VNI = 42
PINGS = 12
LOOKS = 12
PAUSE = 0.1
"""Seconds; twelve of them see each of the intruder's claims three times."""


def check(lab: RunningLab) -> Iterator[Verdict]:
    """c1 reaches c2 and c3 all the time, and the intruder has not been switched off."""
    if not (yield from all_hold([runs(lab, "a"), runs(lab, "x")])):
        return
    yield _goes_on(lab)
    for station, host in (("c2", "b"), ("c3", "c")):
        yield _is_answered(lab, station)
        yield _stays(lab, station, host)


def _goes_on(lab: RunningLab) -> Verdict:
    claims = lab.hosts["x"].node.call("fault.list")
    return Verdict(
        len(claims) >= 2,
        "the intruder on x still tries: it is not yours to switch off",
        "it was stopped: `pyvxlan lab down 08` and `up 08` begin anew",
    )


def _is_answered(lab: RunningLab, station: str) -> Verdict:
    there = lab.containers[station]
    seen = ping(lab.containers["c1"], there.address, PINGS, interval=PAUSE, timeout=1.5)
    return Verdict(
        seen.received == PINGS,
        f"c1 is answered by {station}, {there.address}, every time",
        f"{seen.received} of {PINGS} pings",
    )


def _stays(lab: RunningLab, station: str, host: str) -> Verdict:
    """Frames for a station leave host a for its own host, whenever one looks."""
    home, mac = lab.hosts[host].address, mac_text(lab.containers[station].mac)
    strangers: dict[str, None] = {}
    for _ in range(LOOKS):
        entry = lab.hosts["a"].node.fdb(VNI).get(mac)
        strangers |= dict.fromkeys(
            one["address"] for one in (entry["dst"] if entry else ()) if one["address"] != home
        )
        time.sleep(PAUSE)
    return Verdict(
        not strangers,
        f"a sends what is for {station} to {host}, {home}, and to nobody else",
        f"meanwhile it was sent to {', '.join(strangers)}",
    )
