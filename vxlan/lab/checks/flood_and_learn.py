"""Lesson 02: one VTEP does not flood to everybody, another floods everything."""

from __future__ import annotations

import time
from collections.abc import Iterator

from vxlan.lab import watch
from vxlan.lab.checks import all_hold, hears_once, reaches, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import ping
from vxlan.lab.running import RunningLab
from vxlan.lab.sniffer import Sniffer

_PINGS = 5


def check(lab: RunningLab) -> Iterator[Verdict]:
    """Broadcasts reach everybody once, and frames to a known station reach only that one."""
    if not (yield from all_hold(runs(lab, host) for host in lab.hosts)):
        return
    yield hears_once(lab, "c1", "c2")
    yield hears_once(lab, "c1", "c3")
    yield reaches(lab, "c3", "c1")
    yield reaches(lab, "c2", "c1")
    yield _alone(lab, "c2", "c1", "c")


def _alone(lab: RunningLab, source: str, target: str, bystander: str) -> Verdict:
    """What one station sends to another does not pass by a host that has neither."""
    one, other, third = lab.containers[source], lab.containers[target], lab.hosts[bystander]
    ping(one, other.address)  # both know each other from here on
    with Sniffer(third, third.link) as seen:
        ping(one, other.address, _PINGS, interval=0.05)
        time.sleep(0.1)
        strays = sum(_carries(packet.data, one.address) for packet in seen.packets())
    return Verdict(
        strays == 0,
        f"what {source} sends to {target} does not pass by host {bystander}",
        f"of {_PINGS} pings {strays} passed by",
    )


def _carries(data: bytes, address: str) -> bool:
    inner = [header for header in watch.headers_of(data) if header.depth]
    is_ping = any(header.name == "ICMP" for header in inner)
    return is_ping and f" {address} >" in f" {watch.summary(watch.headers_of(data))}"
