"""What a lab looks like: who is there, how they are joined, and where packets are seen.

Theory of operation
===================

    c1/eth0 --- br42 --- a/vxlan42 --- a/eth0 === network === b/eth0 --- b/vxlan42 --- ...
    station              tap           underlay               underlay

A `Stop` is an interface at which packets are seen as they pass.  Between two stops
lies what the page explains: a bridge, a VTEP, a network.  Names are short here: a host
is "a", and the stop at its link "a/eth0".  A kernel's vxlan device is a stop like a TAP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_interface
from typing import Any, Literal

from vxlan import netdev
from vxlan.lab.namespace import Namespace
from vxlan.lab.plan import FAR, NEAR
from vxlan.lab.router import FAR_LINK
from vxlan.lab.running import RunningContainer, RunningHost, RunningLab
from vxlan.lab.topology import LINK
from vxlan.wire import DSTPORT, mac_text

Kind = Literal["station", "tap", "underlay", "router"]


@dataclass(frozen=True)
class Stop:
    """An interface at which packets are seen; `owner` is the short name of its namespace."""

    owner: str
    interface: str
    kind: Kind
    namespace: Namespace = field(compare=False, repr=False)

    @property
    def key(self) -> str:
        """Its name on the page."""
        return f"{self.owner}/{self.interface}"


@dataclass(frozen=True)
class SegmentView:
    """One VNI on one host."""

    vni: int
    tap: str
    bridge: str | None


@dataclass(frozen=True)
class HostView:
    """A host.

    vtep      "pyvxlan", "kernel" or "none"
    node      what vxlan.api knows its pyvxlan node by, or None
    dstport   UDP port of its VTEP
    mtu       of its wire to the network, as the lab was made: bytes
    """

    name: str
    addresses: tuple[str, ...]
    network: str
    vtep: str
    node: str | None
    segments: tuple[SegmentView, ...]
    dstport: int = DSTPORT
    mtu: int = 1500


@dataclass(frozen=True)
class ContainerView:
    """A station of the overlay."""

    name: str
    host: str
    bridge: str
    addresses: tuple[str, ...]
    mac: str
    vni: int | None = None


@dataclass(frozen=True)
class RouterView:
    """A router: its networks by link, and its addresses there."""

    name: str
    links: dict[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Scene:
    """All of it."""

    name: str
    title: str
    networks: tuple[str, ...]
    hosts: tuple[HostView, ...]
    containers: tuple[ContainerView, ...]
    routers: tuple[RouterView, ...]
    places: Mapping[str, Namespace]
    """The namespaces of hosts, containers and routers."""
    switch: Namespace
    macs: Mapping[str, str]
    """Who has a MAC: a container, host or router."""

    @property
    def stops(self) -> tuple[Stop, ...]:
        """Where packets are seen."""
        return tuple(
            Stop(owner, interface, kind, self.places[owner])
            for owner, interface, kind in self._interfaces()
        )

    def _interfaces(self) -> Iterator[tuple[str, str, Kind]]:
        for container in self.containers:
            yield container.name, LINK, "station"
        for host in self.hosts:
            for segment in host.segments:
                yield host.name, segment.tap, "tap"
            yield host.name, LINK, "underlay"
        for router in self.routers:
            for link in router.links:
                yield router.name, link, "router"

    def with_host(self, changed: HostView) -> Scene:
        """The same lab, where one host has other segments or another port."""
        hosts = (changed if host.name == changed.name else host for host in self.hosts)
        return replace(self, hosts=tuple(hosts))

    @property
    def ports(self) -> frozenset[int]:
        """The UDP ports of all VTEPs."""
        return frozenset(host.dstport for host in self.hosts) or frozenset((DSTPORT,))

    def json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "name": self.name,
            "networks": self.networks,
            "title": self.title,
            "hosts": [asdict(host) for host in self.hosts],
            "containers": [asdict(container) for container in self.containers],
            "routers": [asdict(router) for router in self.routers],
            "macs": dict(self.macs),
            "stops": {stop.key: stop.kind for stop in self.stops},
        }


def scene_of(lab: RunningLab) -> Scene:
    """Look at a lab that is up.

    Of its nodes this is what they had at first; vxlan/lab/view/watch.py sees what they
    have now.
    """
    router = _router(lab)
    scene = Scene(
        lab.name,
        lab.title,
        (NEAR, FAR) if router else (NEAR,),
        tuple(_host(host) for host in lab.hosts.values()),
        tuple(_container(container) for container in lab.containers.values()),
        (router,) if router else (),
        lab.places,
        Namespace(lab.state["switch"], attach=True),
        {},
    )
    return replace(scene, macs={_mac(one): one.owner for one in scene.stops if one.kind != "tap"})


def _mac(stop: Stop) -> str:
    return mac_text(netdev.link(stop.interface, stop.namespace.name).mac)


def _host(host: RunningHost) -> HostView:
    return HostView(
        host.short,
        host.addresses,
        host.network,
        host.vtep,
        host.node.target if host.has_node else None,
        tuple(
            SegmentView(one["vni"], one["device"], one["bridge"]) for one in host.state["segments"]
        ),
        host.state["dstport"],
        host.state["link"]["mtu"],
    )


def _container(one: RunningContainer) -> ContainerView:
    return ContainerView(
        one.short, one.host.short, one.bridge, one.addresses, mac_text(one.mac), one.vni
    )


def _router(lab: RunningLab) -> RouterView | None:
    state = lab.state["router"]
    if state is None:
        return None
    sides = ((LINK, NEAR, state["near"]), (FAR_LINK, FAR, state["far"]))
    return RouterView(
        state["name"],
        {
            link: (network, tuple(str(ip_interface(cidr).ip) for cidr in cidrs))
            for link, network, cidrs in sides
        },
    )
