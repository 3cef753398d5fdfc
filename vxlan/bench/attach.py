"""Ways in which a container can be joined to a node's TAP, beside the bridge and veth of the rest.

The container gets the TAP itself, or a macvlan on it.  Both leave out a bridge, a veth and
the wake-up of the veth's other end; what they cost is told in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vxlan import netdev
from vxlan.bench.world import OVERLAY, VNI, Site
from vxlan.lab import Host, Namespace, segment
from vxlan.lab.topology import LINK
from vxlan.netchild import create_child

DEVICE = f"vxlan{VNI}"


def _whole(host: Host, station: Namespace) -> None:
    netdev.move(DEVICE, station.name, netns=host.name)
    netdev.rename(DEVICE, LINK, netns=station.name)


def _macvlan(host: Host, station: Namespace) -> None:
    create_child("macvlan", LINK, DEVICE, host.name, station.name)


def _joined(join: Callable[[Host, Namespace], None], site: Site) -> None:
    """`pyvxlan up` on both hosts without a bridge, and a container joined to each TAP."""
    nodes = [host.node(segment(VNI, peer.address, bridge=None)) for host, peer in site.sides()]
    site.lab.start(*nodes)
    site.place([site.bare(number) for number in "12"], OVERLAY)
    for host, station, cidr in zip(site.hosts, site.stations, OVERLAY, strict=True):
        join(host, station)
        site.address(station, cidr)


tap = partial(_joined, _whole)
macvlan = partial(_joined, _macvlan)
