"""Lesson 05: a path that is narrower than it looks, and nobody who says so."""

from __future__ import annotations

from collections.abc import Iterator

from vxlan.lab.checks import all_hold, reaches, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import tcp_transfer
from vxlan.lab.running import RunningLab

_DATA = 1394
_TRANSFER = 1 << 18


def check(lab: RunningLab) -> Iterator[Verdict]:
    """Packets of every size arrive, and TCP gets through both ways."""
    if not (yield from all_hold([runs(lab, "a")])):
        return
    yield reaches(lab, "c1", "c2")
    yield reaches(lab, "c1", "c2", size=_DATA)
    yield _transfer(lab, "c1", "c2")
    yield _transfer(lab, "c2", "c1")


def _transfer(lab: RunningLab, source: str, target: str) -> Verdict:
    one, other = lab.containers[source], lab.containers[target]
    seen = ""
    try:
        done = tcp_transfer(one, other, other.address, _TRANSFER, timeout=6.0)
        seen = "" if done.intact else "what arrived is not what was sent"
    except OSError as error:
        seen = f"the connection stalls: {error}"
    return Verdict(not seen, f"{source} sends 256 KiB to {target} by TCP", seen)
