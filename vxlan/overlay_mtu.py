"""How large a packet a segment can carry: the smallest of the paths to its remotes.

Theory of operation
===================

The MTU of a path is that of the interface it leaves by, or less where its route says
so.  A route may say so because somebody configured it, or because the kernel heard an
ICMP message; and ICMP can be forged, so what the kernel learned is passed over here.
What lies behind the first link is found by probing (vxlan/pathmtu.py), and that is
where ICMP is weighed.

    paths     -> [Path(address, dev, mtu)]    asks the kernel; not in an event loop
    as_probed -> Path                         what probing made of it
    smallest  -> Limit(mtu, max_frame, why)   arithmetic, and the sentence for people
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vxlan import netdev
from vxlan.config import SegmentConfig
from vxlan.engine import PathState
from vxlan.mtu import (
    MAX_MTU,
    MIN_MTU,
    OVERHEAD,
    family_of,
    max_frame,
    overlay_mtu,
)
from vxlan.netdev import Link, NetdevError, Route


@dataclass(frozen=True, slots=True)
class Path:
    """The way to one underlay address: by which interface, and what it carries."""

    address: str
    dev: str
    mtu: int
    own: bool = False
    how: str = ""

    @property
    def words(self) -> str:
        """The path and its sum, for people."""
        family = family_of(self.address)
        path = f"the path to {self.address} through {self.dev}"
        way = f"{self.dev} with {self.address}" if self.own else path
        found = f" (found by {self.how})" if self.how else ""
        return f"{way} carries {self.mtu}{found}, VXLAN over IPv{family} takes {OVERHEAD[family]}"


@dataclass(frozen=True, slots=True)
class Limit:
    """What fits into a segment, in bytes, and what bounds it, in words."""

    mtu: int
    max_frame: int
    why: str


def paths(remotes: Iterable[str], local: Iterable[str]) -> list[Path]:
    """The ways to all remotes; without any, our own interfaces.  Blocks."""
    own = tuple(local)
    found = ways_to(address for address in remotes if address not in own)
    return [path for path in found.values() if path is not None] or own_ways(own)


def ways_to(addresses: Iterable[str]) -> dict[str, Path | None]:
    """The way to each remote; None where there is none now.  Blocks: 0.5 ms for each."""
    try:
        routes = netdev.routes_to(dict.fromkeys(addresses))
        links = {at: netdev.link_at(at) for at in {one.index for one in routes.values() if one}}
    except NetdevError:
        return {}
    return {
        address: _path(address, links[route.index], route) if route is not None else None
        for address, route in routes.items()
    }


def path_to(address: str) -> Path | None:
    """The way to one remote; None where there is none now.  Blocks."""
    return ways_to((address,)).get(address)


def _path(address: str, link: Link, route: Route) -> Path:
    configured = route.mtu if route.mtu and not route.learned else link.mtu
    return Path(address, link.name, min(link.mtu, configured))


def as_probed(path: Path, found: PathState | None) -> Path:
    """The path with what probing found out about it, where that is less."""
    if found is None or found.mtu >= path.mtu:
        return path
    return replace(path, mtu=found.mtu, how=found.how)


def own_ways(local: Iterable[str]) -> list[Path]:
    """The interfaces that have our own addresses.  Blocks."""
    try:
        links = {address: netdev.link_at(at) for address, at in netdev.carriers(local).items()}
    except NetdevError:
        return []
    return [Path(address, link.name, link.mtu, own=True) for address, link in links.items()]


def smallest(ways: Iterable[Path]) -> Limit | None:
    """What fits through all of them; None where there is no way at all."""
    bounded = [(_fits(path), path) for path in ways]
    if not bounded:
        return None
    mtu, path = min(bounded, key=lambda pair: pair[0])
    frames = min(max_frame(path.mtu, family_of(path.address)) for _, path in bounded)
    return Limit(mtu, frames, path.words)


def _fits(path: Path) -> int:
    return min(overlay_mtu(path.mtu, family_of(path.address)), MAX_MTU)


def misfit(config: SegmentConfig, ways: Iterable[Path]) -> str | None:
    """Why the segment's MTU cannot be had over these paths; None if it can."""
    limit = smallest(ways)
    if limit is None:
        return None
    if limit.mtu < MIN_MTU:
        return f"segment {config.vni}: no overlay MTU fits: {limit.why}: raise the underlay's MTU"
    if config.mtu is not None and config.mtu > limit.mtu:
        return (
            f"segment {config.vni}: mtu {config.mtu} does not fit: {limit.why}: "
            f'at most {limit.mtu} (or mtu = "auto")'
        )
    return None
