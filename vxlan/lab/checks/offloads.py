"""Lesson 06: large pieces where packets are only handed over, full packets on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vxlan.lab.checks import all_hold, reaches, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import tcp_transfer
from vxlan.lab.running import RunningLab
from vxlan.lab.sniffer import Sniffer
from vxlan.lab.topology import LINK
from vxlan.wire import ETH_HLEN, ETH_P_IP

LENGTH = 400_000
"""Bytes of the transfer that is looked at."""

ON_THE_WIRE = 1500
LARGE = 2 * ON_THE_WIRE
"""Bytes of a packet that no link here could carry as it is."""


class _Seen(NamedTuple):
    """IPv4 packets that left a link: how many, and the longest, in bytes."""

    packets: int
    longest: int


def prepare(lab: RunningLab) -> None:
    """c1 hands over one segment at a time."""
    lab.containers["c1"].run(["ip", "link", "set", "dev", LINK, "gso_max_segs", "1"])


def check(lab: RunningLab) -> Iterator[Verdict]:
    """A transfer from c1 to c2, seen at c1 and on the wire of a."""
    if not (yield from all_hold([runs(lab, "a"), runs(lab, "b"), reaches(lab, "c1", "c2")])):
        return
    c1, c2 = lab.containers["c1"], lab.containers["c2"]
    with Sniffer(c1, LINK) as inner, Sniffer(lab.hosts["a"], LINK) as outer:
        transfer = tcp_transfer(c1, c2, c2.address, LENGTH)
        handed, sent = _seen(inner), _seen(outer)
    yield Verdict(transfer.intact, f"{LENGTH} bytes arrive as they were sent", "they do not")
    yield Verdict(
        handed.longest > LARGE,
        f"c1 hands over several segments at once, more than {LARGE} bytes",
        f"{handed.packets} packets, the longest has {handed.longest} bytes",
    )
    yield Verdict(
        sent.longest == ON_THE_WIRE,
        f"the packets on the wire of a are full: the longest has {ON_THE_WIRE} bytes",
        f"{sent.packets} packets, the longest has {sent.longest} bytes",
    )


def _seen(sniffer: Sniffer) -> _Seen:
    lengths = [
        len(one.data) - ETH_HLEN
        for one in sniffer.packets()
        if one.direction == "out" and int.from_bytes(one.data[12:14], "big") == ETH_P_IP
    ]
    return _Seen(len(lengths), max(lengths, default=0))
