"""The checks of the lessons, one module for each; and what several of them ask.

A sentence says what has to hold; `seen` says what is there instead, as the learner could
see it, and does not give the solution away.
"""

from __future__ import annotations

from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import ping
from vxlan.lab.running import RunningLab

_TRIES = 3


def runs(lab: RunningLab, host: str) -> Verdict:
    """The node of a host runs."""
    there = lab.hosts[host]
    return Verdict(
        there.node.pid is not None,
        f"the node of {host} runs",
        f"nobody listens on its control socket; {there.node.log_path} says why",
    )


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
