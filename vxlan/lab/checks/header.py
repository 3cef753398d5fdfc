"""Lesson 01: two fields of the headers that one VTEP writes and the other does not take."""

from __future__ import annotations

from collections.abc import Iterator

from vxlan.lab.checks import all_hold, reaches, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.running import RunningLab


def check(lab: RunningLab) -> Iterator[Verdict]:
    """Both ends use one UDP port and one VNI, and frames pass."""
    if (yield from all_hold([runs(lab, "a"), runs(lab, "b")])):
        a, b = lab.hosts["a"].node.show(), lab.hosts["b"].node.show()
        yield _same("UDP port", a["vtep"]["dstport"], b["vtep"]["dstport"])
        yield _same("VNI", *([one["vni"] for one in shown["segments"]] for shown in (a, b)))
    yield reaches(lab, "c1", "c2")


def _same(what: str, one: object, other: object) -> Verdict:
    return Verdict(
        one == other,
        f"what a sends has the {what} that b takes",
        f"a datagram of a carries one {what}, b waits for another",
    )
