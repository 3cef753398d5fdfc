"""Lesson 07: each tenant is whole, and none sees anything of the other."""

from __future__ import annotations

import time
from collections.abc import Iterator

from vxlan import netdev
from vxlan.lab.checks import all_hold, reaches, runs
from vxlan.lab.lesson import Verdict
from vxlan.lab.probe import ping
from vxlan.lab.running import RunningContainer, RunningLab
from vxlan.lab.sniffer import Sniffer

RED, BLUE = ("red1", "red2"), ("blue1", "blue2")
ENDS = ("patch0", "patch1")
SETTLE = 0.3
"""Seconds that a frame is given to arrive where it should not."""


def prepare(lab: RunningLab) -> None:
    """Somebody has laid a cable between the bridges of host a."""
    host = lab.hosts["a"].name
    netdev.create_veth(*ENDS, host, host)
    for end, bridge in zip(ENDS, ("br42", "br43"), strict=True):
        netdev.set_master(end, bridge, netns=host)
        netdev.set_up(end, netns=host)


def check(lab: RunningLab) -> Iterator[Verdict]:
    """The red ones reach each other, the blue ones too, and nobody hears the others."""
    if not (yield from all_hold([runs(lab, "a"), runs(lab, "b")])):
        return
    yield reaches(lab, *RED)
    yield reaches(lab, *BLUE)
    for source in (*RED, *BLUE):
        yield _is_not_heard(lab, source, BLUE if source in RED else RED)


def _is_not_heard(lab: RunningLab, source: str, others: tuple[str, str]) -> Verdict:
    """What a station sends to everybody does not come to the other tenant."""
    speaker = lab.containers[source]
    heard = [other for other in others if _hears(lab.containers[other], speaker)]
    tenant = "blue" if source in RED else "red"
    return Verdict(
        not heard,
        f"nothing that {source} sends comes to the {tenant} ones",
        f"{' and '.join(heard)} received frames of {source}",
    )


def _hears(listener: RunningContainer, speaker: RunningContainer) -> bool:
    """Whether frames of the speaker, who looks for the listener, come to it."""
    speaker.run(["ip", "neigh", "flush", "dev", "eth0"])
    mac = speaker.mac
    with Sniffer(listener, "eth0") as sniffer:
        ping(speaker, listener.address, timeout=SETTLE)
        time.sleep(SETTLE / 3)
        return any(one.data[6:12] == mac for one in sniffer.packets())
