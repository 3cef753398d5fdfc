"""What a lab looks like: who is there, how they are joined, and where packets are seen.

Theory of operation
===================

    c1/eth0 --- br0 --- a/vxlan42 --- a/eth0 === network === b/eth0 --- b/vxlan42 --- ...
    station             tap           underlay               underlay

A `Stop` is an interface at which packets are seen as they pass.  Between two stops
lies what the page explains: a bridge, a VTEP, a network.  Names are short here: a host
is "a", and the stop at its link "a/eth0".  The lab knows hosts and containers; bridges,
TAPs and who is a port of what are read from the kernel, so a kernel's vxlan device is
seen like a TAP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vxlan import netdev
from vxlan.lab.namespace import Namespace
from vxlan.lab.router import FAR, FAR_LINK, Router
from vxlan.lab.topology import LINK, NETWORK, Container, Host, Lab
from vxlan.wire import mac_text

Kind = Literal["station", "tap", "underlay", "router"]
_VNI = re.compile(r"\d+$")


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
    """A host; `node` is the name of its pyvxlan node, or None: the kernel's driver."""

    name: str
    addresses: tuple[str, ...]
    network: str
    node: str | None
    segments: tuple[SegmentView, ...]


@dataclass(frozen=True)
class ContainerView:
    """A station of the overlay."""

    name: str
    host: str
    bridge: str
    addresses: tuple[str, ...]
    mac: str


@dataclass(frozen=True)
class RouterView:
    """A router: its networks by link, and its addresses there."""

    name: str
    links: dict[str, tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Scene:
    """All of it."""

    name: str
    networks: tuple[str, ...]
    hosts: tuple[HostView, ...]
    containers: tuple[ContainerView, ...]
    routers: tuple[RouterView, ...]
    stops: tuple[Stop, ...]
    switch: Namespace

    def namespace(self, owner: str) -> Namespace:
        """The namespace of a host, container or router.  Raises KeyError."""
        return {stop.owner: stop.namespace for stop in self.stops}[owner]

    def json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "name": self.name,
            "networks": self.networks,
            "hosts": [asdict(host) for host in self.hosts],
            "containers": [asdict(container) for container in self.containers],
            "routers": [asdict(router) for router in self.routers],
            "stops": {stop.key: stop.kind for stop in self.stops},
        }


def scene_of(lab: Lab) -> Scene:
    """Look at a lab; what is added to it later is not seen."""
    hosts = [one for one in lab.namespaces if isinstance(one, Host)]
    containers = [one for one in lab.namespaces if isinstance(one, Container)]
    routers = [one for one in lab.namespaces if isinstance(one, Router)]
    views = {host.short: _host(lab, host) for host in hosts}
    networks = {NETWORK: None, **{host.network: None for host in hosts}}
    return Scene(
        lab.prefix,
        tuple(networks | ({FAR: None} if routers else {})),
        tuple(views.values()),
        tuple(_container(container) for container in containers),
        tuple(_router(router) for router in routers),
        (
            *(Stop(one.short, LINK, "station", one) for one in containers),
            *(stop for host in hosts for stop in _host_stops(host, views[host.short])),
            *(Stop(one.short, link, "router", one) for one in routers for link in one.gateways),
        ),
        lab.switch,
    )


def _host_stops(host: Host, view: HostView) -> Iterator[Stop]:
    for segment in view.segments:
        yield Stop(host.short, segment.tap, "tap", host)
    yield Stop(host.short, LINK, "underlay", host)


def _host(lab: Lab, host: Host) -> HostView:
    node = next((node for node in lab.nodes if node.namespace is host), None)
    segments = _kernel_segments(host) if node is None else _segments(node.show())
    name = node.name if node else None
    return HostView(host.short, host.addresses, host.network, name, tuple(segments))


def _segments(shown: dict[str, Any]) -> Iterator[SegmentView]:
    for segment in shown["segments"]:
        yield SegmentView(segment["vni"], segment["tap"], segment["bridge"])


def _kernel_segments(host: Host) -> Iterator[SegmentView]:
    """Devices of the kernel's driver; `Host.kernel_vxlan` names them after their VNI."""
    links = netdev.links(host.name)
    names = {link.index: link.name for link in links}
    for link in links:
        if link.kind == "vxlan" and (vni := _VNI.search(link.name)):
            bridge = names.get(link.master) if link.master else None
            yield SegmentView(int(vni[0]), link.name, bridge)


def _container(container: Container) -> ContainerView:
    """The port of its bridge has the name of the container."""
    links = netdev.links(container.host.name)
    names = {link.index: link.name for link in links}
    port = next(link for link in links if link.name == container.short)
    bridge = names.get(port.master or 0, "")
    mac = mac_text(container.mac)
    return ContainerView(container.short, container.host.short, bridge, container.addresses, mac)


def _router(router: Router) -> RouterView:
    networks = {LINK: NETWORK, FAR_LINK: FAR}
    links = {link: (networks[link], tuple(cidrs)) for link, cidrs in router.gateways.items()}
    return RouterView(router.short, links)
