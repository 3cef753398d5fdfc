"""Lesson 04: VTEPs that send to a group, and one that sends a copy to each remote."""

from __future__ import annotations

from collections.abc import Iterator

from vxlan.lab.checks import all_hold, hears_once, reaches, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.running import RunningLab

_KERNEL = ("d1", "d2", "d3")


def check(lab: RunningLab) -> Iterator[Verdict]:
    """A broadcast of anybody arrives at everybody else, once."""
    if not (yield from all_hold([runs(lab, "a")])):
        return
    yield hears_once(lab, "d1", "d2")
    yield hears_once(lab, "d3", "d1")
    for name in _KERNEL:
        yield hears_once(lab, "c1", name)
        yield hears_once(lab, name, "c1")
        yield reaches(lab, name, "c1")
