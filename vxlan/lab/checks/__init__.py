"""The checks of the lessons, one module for each; and what several of them ask.

A sentence says what has to hold; `seen` says what is there instead, as the learner could
see it, and does not give the solution away.
"""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Generator, Iterable

from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import ping
from vxlan.lab.running import RunningLab
from vxlan.lab.sniffer import Sniffer
from vxlan.lab.topology import Station
from vxlan.wire import BROADCAST

_TRIES = 3
_EXPERIMENTAL = bytes.fromhex("88b5")
_AFTER_THE_FIRST = 0.2


def runs(lab: RunningLab, host: str) -> Verdict:
    """The node of a host runs."""
    there = lab.hosts[host]
    return Verdict(
        there.node.pid is not None,
        f"the node of {host} runs",
        f"nobody listens on its control socket; {there.node.log_path} says why",
    )


def all_hold(verdicts: Iterable[Verdict]) -> Generator[Verdict, None, bool]:
    """Tell each, and return whether all of them hold: without these the rest means nothing."""
    told = list(verdicts)
    yield from told
    return all(verdict.holds for verdict in told)


def reaches(lab: RunningLab, source: str, target: str, size: int = 56) -> Verdict:
    """A container is answered by another, by echo requests with `size` bytes of data."""
    one, other = lab.containers[source], lab.containers[target]
    answered = any(
        ping(one, other.address, 1, timeout=0.7, size=size).received for _ in range(_TRIES)
    )
    of = "" if size == 56 else f" packets of {size + 28} bytes"
    return Verdict(
        answered,
        f"{source} is answered by {target}, {other.address}{of}",
        f"{_TRIES} pings, no answer",
    )


def copies(lab: RunningLab, source: str, target: str, patience: float = 1.0) -> int:
    """How often a broadcast frame of one container arrives at another.

    The frame has a type that nobody else uses (IEEE 802: local experiments), so nothing
    answers it and no table but those of bridges and VTEPs notices it.
    """
    one, other = lab.containers[source], lab.containers[target]
    frame = BROADCAST + one.mac + _EXPERIMENTAL + secrets.token_bytes(46)
    with Sniffer(other, other.link) as seen:
        send(one, frame)
        deadline, found = time.monotonic() + patience, 0
        while (left := deadline - time.monotonic()) > 0:
            if select.select([seen], [], [], left)[0]:
                found += sum(packet.data == frame for packet in seen.packets())
                deadline = min(deadline, time.monotonic() + _AFTER_THE_FIRST)
    return found


def send(source: Station, *frames: bytes) -> None:
    """Send frames as they are on the wire of a station."""
    with source.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((source.link, 0))
        for frame in frames:
            sender.send(frame)


def hears_once(lab: RunningLab, source: str, target: str) -> Verdict:
    """A broadcast of one container arrives at another, and only once."""
    for _ in range(_TRIES):
        found = copies(lab, source, target)
        if found:
            break
    return Verdict(
        found == 1,
        f"a broadcast of {source} arrives at {target}, once",
        f"it arrived {found} times" if found else "it did not arrive",
    )
