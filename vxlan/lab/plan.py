"""The plan of a lab: what a topology file says, checked whole before anything is made.

Theory of operation
===================

    title  = "Two hosts, one segment"
    engine = "python"                  # what carries packets; each host may say its own

    [[segment]]                        # a VNI that several hosts have
    vni = 42                           # all hosts, unless `hosts` names them

    [[host]]
    name    = "a"
    address = "192.0.2.1/24"           # in the underlay

    [[host.container]]
    name    = "c1"
    address = "10.42.0.11/16"          # in the overlay

A `Plan` is these tables as dataclasses: names are resolved (the remotes of a segment
are addresses), what is left out is filled in, and what every host's node will read is
held against the rules of a node's own configuration (vxlan/config.py).  `load` reads a
file and makes nothing; vxlan/lab/build.py makes it.

The keys and their checks stand in plan_tables.py, what no single key can say in
plan_rules.py; docs/lab/topology.md explains all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Literal

from vxlan.config_lines import KeyPath, Wrong
from vxlan.config_reading import array, located, tables_of, text_of, values
from vxlan.lab import plan_faults
from vxlan.lab import plan_rules as rules
from vxlan.lab import plan_tables as known
from vxlan.mtu import OVERHEAD

NEAR, FAR = "switch", "far"
"""The networks of the underlay: where hosts are, and what is behind the router."""

Driver = Literal["pyvxlan", "kernel", "none"]


@dataclass(frozen=True, slots=True)
class Link:
    """A wire: the largest packet in bytes, the delay in ms and the loss in percent each way."""

    mtu: int = 1500
    delay: float = 0.0
    loss: float = 0.0

    @property
    def disturbed(self) -> bool:
        """Whether it needs netem."""
        return bool(self.delay or self.loss)


@dataclass(frozen=True, slots=True)
class Container:
    """A station of the overlay.  `vni` None: on a bridge of its host that has no segment."""

    name: str
    address: tuple[str, ...]
    vni: int | None
    mtu: int
    mac: bytes | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One VNI of one host: `keys` as a node's [[segment]] has them, remotes as text."""

    vni: int
    remotes: tuple[str, ...]
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bridge(self) -> str:
        """The bridge that joins the containers to the VTEP."""
        return f"br{self.vni}"

    @property
    def device(self) -> str:
        """The TAP, or the kernel's device."""
        return f"vxlan{self.vni}"


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the underlay; `vtep` is what carries frames to the others.

    faults   what its node is told after its start, as in vxlan/config_fault.py
    """

    name: str
    address: tuple[str, ...]
    network: str = NEAR
    vtep: Driver = "pyvxlan"
    engine: str = "python"
    dstport: int = 4789
    link: Link = Link()
    segments: tuple[Segment, ...] = ()
    containers: tuple[Container, ...] = ()
    faults: tuple[Mapping[str, Any], ...] = ()

    @property
    def ips(self) -> tuple[str, ...]:
        """Its addresses without prefix lengths."""
        return tuple(str(ip_interface(cidr).ip) for cidr in self.address)

    @property
    def overhead(self) -> int:
        """Bytes that VXLAN takes from its link, at the most."""
        return OVERHEAD[6 if any(":" in one for one in self.address) else 4]


@dataclass(frozen=True, slots=True)
class Router:
    """Joins the networks NEAR and FAR.

    carry    host -> the longest packet in bytes that is forwarded to it
    silent   ICMP is filtered: what is too big is lost without a word
    """

    name: str
    near: tuple[str, ...]
    far: tuple[str, ...]
    mtu: int = 1500
    carry: Mapping[str, int] = field(default_factory=dict)
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole lab.  `wire`: every datagram is a packet of its own, as on a cable."""

    title: str
    hosts: tuple[Host, ...]
    router: Router | None = None
    wire: bool = True

    @property
    def vnis(self) -> list[int]:
        """Every VNI of it."""
        return sorted({segment.vni for host in self.hosts for segment in host.segments})

    @property
    def containers(self) -> list[Container]:
        """Every container of it."""
        return [container for host in self.hosts for container in host.containers]


def load(path: Path) -> Plan:
    """Read a topology.  Raises vxlan.config_reading.ConfigError: one line with the place."""
    content = text_of(path)
    tables = tables_of(path, content)
    with located(path, content):
        return _plan(tables, path.stem)


def _plan(tables: Mapping[str, Any], name: str) -> Plan:
    lab = values(tables, known.LAB, ())
    given = [(("host", index), table) for index, table in enumerate(array(tables, "host", ()))]
    engine = lab.get("engine", "python")
    bare = [_bare_host(table, path, engine) for path, table in given]
    router = _router(tables["router"]) if "router" in tables else None
    rules.check_hosts(bare, router)
    shared = _shared(tables, [host.name for host in bare])
    hosts = tuple(
        _with_segments(host, table, path, bare, shared)
        for host, (path, table) in zip(bare, given, strict=True)
    )
    rules.check_nodes(hosts)
    hosts = tuple(_with_faults(host, *one, hosts) for host, one in zip(hosts, given, strict=True))
    return Plan(lab.get("title", name), hosts, router, lab.get("wire", True))


def _bare_host(table: Mapping[str, Any], path: KeyPath, engine: str) -> Host:
    """A host without its segments and containers."""
    found = values(table, known.HOST, path)
    rules.need(found, ("name", "address"), path, "a host has a name and an address")
    link = Link(**values(table.get("link", {}), known.LINK, (*path, "link")))
    return Host(**{"engine": engine, **found, "link": link})


def _router(table: Any) -> Router:
    found = values(table, known.ROUTER, ("router",))
    rules.need(found, ("name", "near", "far"), ("router",), "a router has a name, near and far")
    found["silent"] = found.pop("icmp", "sent") == "filtered"
    return Router(**found)


# -- segments and containers ---------------------------------------------------------------


def _shared(
    tables: Mapping[str, Any], hosts: Sequence[str]
) -> list[tuple[dict[str, Any], list[str]]]:
    """The tables [[segment]] of the lab, each with the hosts that have it."""
    found = []
    for index, table in enumerate(array(tables, "segment", ())):
        path = ("segment", index)
        keys = values(table, known.SHARED, path)
        rules.need(keys, ("vni",), path, "a segment has a vni")
        members = keys.pop("hosts", tuple(hosts))
        rules.check_names(members, hosts, (*path, "hosts"), "host")
        found.append((_as_written(table, keys), list(members)))
    rules.each_once([keys["vni"] for keys, _ in found], ("segment",), "vni", "VNI")
    return found


def _as_written(table: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as the file has them: a node reads the same words again."""
    written = {key: table[key] for key in keys}
    return written | ({"fdb": table["fdb"]} if "fdb" in table else {})


def _with_segments(
    host: Host,
    table: Mapping[str, Any],
    path: KeyPath,
    hosts: Sequence[Host],
    shared: Sequence[tuple[dict[str, Any], list[str]]],
) -> Host:
    merged: dict[int, dict[str, Any]] = {}
    if host.vtep != "none":
        merged = {keys["vni"]: dict(keys) for keys, members in shared if host.name in members}
    for index, own in enumerate(array(table, "segment", path)):
        here = (*path, "segment", index)
        keys = values(own, known.of_driver(host.vtep), here)
        rules.need(keys, ("vni",), here, "a segment has a vni")
        merged.setdefault(keys["vni"], {}).update(_as_written(own, keys))
    peers = {vni: [one for keys, names in shared if keys["vni"] == vni for one in names]
             for vni in merged}  # fmt: skip
    segments = tuple(
        _segment(host, vni, keys, hosts, peers[vni], path) for vni, keys in merged.items()
    )
    containers = tuple(
        _container(one, (*path, "container", index), host, segments)
        for index, one in enumerate(array(table, "container", path))
    )
    return replace(host, segments=segments, containers=containers)


def _segment(
    host: Host,
    vni: int,
    keys: dict[str, Any],
    hosts: Sequence[Host],
    peers: Sequence[str],
    path: KeyPath,
) -> Segment:
    by_name = {one.name: one for one in hosts}
    others = [name for name in peers if name != host.name and by_name[name].vtep != "none"]
    default = [] if "group" in keys else others
    remotes = tuple(
        rules.remote_of(host, word, by_name, path)
        for word in keys.get("remotes", default)
        if word != host.name
    )
    foreign = known.foreign_to(host.vtep)
    rest = {key: one for key, one in keys.items() if key not in {"vni", "remotes", *foreign}}
    return Segment(vni, remotes, rest)


def _with_faults(
    host: Host, path: KeyPath, table: Mapping[str, Any], hosts: Sequence[Host]
) -> Host:
    found = array(table, "fault", path)
    return replace(host, faults=plan_faults.read(found, path, host, hosts)) if found else host


def _container(
    table: Mapping[str, Any], path: KeyPath, host: Host, segments: Sequence[Segment]
) -> Container:
    found = values(table, known.CONTAINER, path)
    rules.need(found, ("name", "address"), path, "a container has a name and an address")
    vnis = [segment.vni for segment in segments]
    if "vni" not in found and len(vnis) > 1:
        raise Wrong(path, f"it has no vni: host {host.name} has {', '.join(map(str, vnis))}")
    found.setdefault("vni", vnis[0] if vnis else None)
    if found["vni"] is not None and found["vni"] not in vnis:
        have = ", ".join(map(str, vnis)) or "none"
        raise Wrong((*path, "vni"), f"host {host.name} has no VNI {found['vni']}: it has {have}")
    found.setdefault("mtu", host.link.mtu - host.overhead)
    found.setdefault("mac", _readable_mac(found["address"]))
    return Container(**found)


def _readable_mac(cidrs: Sequence[str]) -> bytes | None:
    """02:42 and the IPv4 address, so that people find a station again in a table."""
    four = [ip_interface(cidr).ip.packed for cidr in cidrs if ":" not in cidr]
    return b"\x02\x42" + four[0] if four else None
