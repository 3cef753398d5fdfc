"""Lesson 09: everybody talks to everybody, and no host discards anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vxlan.lab.checks import all_hold, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import ping
from vxlan.lab.running import RunningLab

PAIRS = (("c1", "c2"), ("c2", "c1"), ("c1", "c3"), ("c3", "c2"), ("d3", "d2"))
PINGS = 8
HOSTS = ("a", "b", "c")


def check(lab: RunningLab) -> Iterator[Verdict]:
    """Pings come back, and the counters of discards stand still meanwhile."""
    if not (yield from all_hold(runs(lab, host) for host in HOSTS)):
        return
    before = {host: _drops(lab, host) for host in HOSTS}
    for source, target in PAIRS:
        yield _talks(lab, source, target)
    for host in HOSTS:
        yield _stands_still(host, _drops(lab, host) - before[host])


def _talks(lab: RunningLab, source: str, target: str) -> Verdict:
    """Every ping is answered; the first asks everybody who has the address."""
    for name in (source, target):
        lab.place(name).run(["ip", "neigh", "flush", "dev", "eth0"])
    there = lab.containers[target]
    seen = ping(lab.containers[source], there.address, PINGS, interval=0.05, timeout=1.5)
    return Verdict(
        seen.received == PINGS,
        f"{source} is answered by {target}, {there.address}, every time",
        f"{seen.received} of {PINGS} pings",
    )


def _drops(lab: RunningLab, host: str) -> Counter[str]:
    """All discards of a node, by reason."""
    shown = lab.hosts[host].node.show()
    return sum(
        (Counter(part["counters"]["drops"]) for part in (shown["vtep"], *shown["segments"])),
        Counter(),
    )


def _stands_still(host: str, more: Counter[str]) -> Verdict:
    grown = ", ".join(f"{reason} by {count}" for reason, count in sorted(more.items()))
    return Verdict(not more, f"{host} discards nothing meanwhile", f"its counters grew: {grown}")
