"""Who reaches whom: every station pings every other one that it should reach.

Containers ping the containers of their VNI, hosts the hosts of the underlay.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import NamedTuple

from vxlan.lab.probe import ping
from vxlan.lab.running import RunningLab
from vxlan.lab.topology import Station

_AT_ONCE = 16
_TRIES = 3


class Reach(NamedTuple):
    """One way; `rtt` in seconds, None if no answer came.

    `vni` None: in the underlay, or on one bridge.
    """

    source: str
    target: str
    address: str
    vni: int | None
    rtt: float | None


def pingall(lab: RunningLab, timeout: float = 1.0) -> list[Reach]:
    """Ping along every way there should be, each with up to three requests."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda way: _ping(*way, wait=timeout / _TRIES), _ways(lab)))


def _ways(lab: RunningLab) -> Iterator[tuple[Station, Station, str, int | None]]:
    for one, other in permutations(lab.hosts.values(), 2):
        for address in _common(one, other):
            yield one, other, address, None
    for source, target in permutations(lab.containers.values(), 2):
        alone = source.vni is None and source.host is not target.host
        if source.vni == target.vni and not alone:
            for address in _common(source, target):
                yield source, target, address, source.vni


def _common(one: Station, other: Station) -> list[str]:
    """Addresses of `other` of a family that `one` has, too."""
    mine = {":" in address for address in one.addresses}
    return [address for address in other.addresses if (":" in address) in mine]


def _ping(source: Station, target: Station, address: str, vni: int | None, *, wait: float) -> Reach:
    rtt = None
    for _ in range(_TRIES):
        rtt = ping(source, address, 1, timeout=wait).rtts[0]
        if rtt is not None:
            break
    return Reach(source.short, target.short, address, vni, rtt)
