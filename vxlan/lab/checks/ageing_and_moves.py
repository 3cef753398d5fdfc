"""Lesson 03: a table that does not follow a station, and one that never forgets."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from vxlan.lab.checks import all_hold, reaches, runs, send
from vxlan.lab.lesson import Verdict
from vxlan.lab.running import RunningLab
from vxlan.lab.wait import LabTimeout, wait_until
from vxlan.wire import BROADCAST, mac_text

_LONGEST = 3600.0


def check(lab: RunningLab) -> Iterator[Verdict]:
    """c2 is found where it is now, moves are followed, and silence is forgotten."""
    if not (yield from all_hold(runs(lab, host) for host in lab.hosts)):
        return
    yield reaches(lab, "c1", "c3")
    yield reaches(lab, "c1", "c2")
    yield _behind(lab, "c2", "c")
    yield _follows(lab)
    ageing = lab.hosts["a"].node.segment(42)["policy"]["ageing"]
    yield Verdict(
        0 < ageing <= _LONGEST,
        "host a forgets a station that was silent for an hour, or earlier",
        f"its ageing is {ageing:g} s" + (", which means never" if not ageing else ""),
    )


def _behind(lab: RunningLab, container: str, host: str) -> Verdict:
    there = lab.containers[container]
    entry = lab.hosts["a"].node.fdb(42).get(mac_text(there.mac))
    where = [one["address"] for one in entry["dst"]] if entry else []
    return Verdict(
        where == [lab.hosts[host].address],
        f"host a has {container} behind host {host}, {lab.hosts[host].address}",
        f"its table says {', '.join(where) or 'nothing'}",
    )


def _follows(lab: RunningLab) -> Verdict:
    """A station that nobody knows speaks on b, then on c: a has it behind c."""
    mac = b"\x02\x99" + secrets.token_bytes(4)
    frame = BROADCAST + mac + bytes.fromhex("88b5") + bytes(46)
    seen = ""
    try:
        for name in ("c4", "c3"):
            send(lab.containers[name], frame)
            address = lab.containers[name].host.address
            wait_until(lambda want=address: _learned(lab, mac) == want, 2.0, "a move")  # type: ignore[misc]
    except LabTimeout:
        seen = f"it spoke on host {lab.containers[name].host.short}, and the table of a says "
        seen += _learned(lab, mac) or "nothing"
    return Verdict(not seen, "host a follows a station from b to c", seen)


def _learned(lab: RunningLab, mac: bytes) -> str:
    entry = lab.hosts["a"].node.fdb(42).get(mac_text(mac))
    return str(entry["dst"][0]["address"]) if entry else ""
