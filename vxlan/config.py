"""The configuration of a node: what it may say, and reading it from a file or from flags.

The keys of the TOML file are the fields of the dataclasses below, and the words are
those of `ip link add ... type vxlan` where it has one.  A configuration is checked
whole before anything is done with it: `load` and `from_flags` return one that is
consistent in itself, or raise ConfigError.  Whether it fits this host (addresses,
routes, MTU) is for the node to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vxlan.config_lines import KeyPath, Wrong, show
from vxlan.config_reading import (
    ConfigError as ConfigError,
)
from vxlan.config_reading import (
    array,
    checked,
    located,
    tables_of,
    text_of,
    values,
)
from vxlan.config_rules import check, check_segments, each_once, family_problem
from vxlan.config_tables import FLAGS, NODE, SEGMENT, STATIC, VTEP
from vxlan.config_values import Endpoint, node_name, remote, station
from vxlan.echo import Behind
from vxlan.engine import Policy
from vxlan.fdb import Remote

DIRECTORY = Path("/etc/pyvxlan")
"""Where `pyvxlan up NAME` looks for NAME.toml."""


@dataclass(frozen=True, slots=True)
class VtepConfig:
    """This host's end of all tunnels.

    local    underlay addresses, at most one of each family; empty: those of `dev`,
             and without `dev` what the routing table picks
    srcport  the range of outer UDP source ports
    rcvbuf   bytes of the underlay socket's receive buffer; 0 = as much as allowed
    queues   workers of the fastpath, each with a queue of every TAP; 0 = by the cores
    metrics  where Prometheus may ask for the counters; None: nowhere
    key_file  holds the key that signs announcements (vxlan/announce.py); None: no key
    faults   whether faults may be injected by command (vxlan/fault.py)
    """

    local: tuple[str, ...] = ()
    dev: str | None = None
    dstport: int = 4789
    srcport: tuple[int, int] = (49152, 65535)
    engine: Literal["auto", "python", "fastpath"] = "auto"
    udpcsum: bool = True
    udp6zerocsumtx: bool = False
    udp6zerocsumrx: bool = False
    rcvbuf: int = 0
    queues: int = 0
    metrics: Endpoint | None = None
    key_file: str | None = None
    faults: bool = False


@dataclass(frozen=True, slots=True)
class StaticEntry:
    """A station that is always behind the same remotes."""

    mac: bytes
    remotes: tuple[Remote, ...]


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """One VNI on this host.

    bridge   where the TAP is plugged in; made when missing; None: nowhere
    address  overlay addresses of this host, put on the bridge, else on the TAP
    mtu      overlay MTU in bytes; None = as large as the paths to the remotes allow
    echo     stations behind remotes that answer no probe, to find what the path carries
    announce  whether to tell the remotes our stations, and to believe what they tell
    names     answer containers that ask for each other's names
    """

    vni: int
    tap: str
    bridge: str | None = None
    address: tuple[str, ...] = ()
    mtu: int | None = None
    remotes: tuple[Remote, ...] = ()
    fdb: tuple[StaticEntry, ...] = ()
    learning: bool = True
    ageing: float = 300.0
    maxaddress: int = 65536
    accept: Literal["known", "any"] = "known"
    vlan: Literal["carry", "drop"] = "carry"
    reserved_bits: Literal["ignore", "strict"] = "ignore"
    ttl: int | None = 64
    tos: int | None = 0
    mss: Literal["clamp", "off"] | int = "clamp"
    mac: str | None = None
    echo: tuple[Behind, ...] = ()
    announce: bool = False
    names: bool = False

    def policy(self, mtu: int, max_frame: int = 0) -> Policy:
        """What the engine is told, with the overlay MTU that is in force."""
        return Policy(
            mtu=mtu,
            max_frame=max_frame,
            learning=self.learning,
            ageing=self.ageing,
            maxaddress=self.maxaddress,
            accept=self.accept,
            vlan=self.vlan,
            reserved_bits=self.reserved_bits,
            ttl=self.ttl,
            tos=self.tos,
            mss=self.mss,
        )

    def all_remotes(self) -> tuple[Remote, ...]:
        """The flood list and the remotes of the static entries, each once."""
        static = [remote for entry in self.fdb for remote in entry.remotes]
        return tuple(dict.fromkeys([*self.remotes, *static]))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One process: a VTEP and its segments.

    group  the group that may use the control socket; None: its owner alone
    path   the file that it was read from; None: flags
    """

    name: str
    vtep: VtepConfig
    segments: tuple[SegmentConfig, ...]
    group: str | None = None
    path: Path | None = None


def find(name_or_path: str) -> Path:
    """The file that `pyvxlan up NAME_OR_PATH` means."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(name_or_path)
    return DIRECTORY / f"{name_or_path}.toml"


def load(path: Path | str, name: str | None = None) -> NodeConfig:
    """Read a file.  `name` overrules the file's stem as the node's name.

    Raises ConfigError, also where the file cannot be read.
    """
    path = Path(path)
    content = text_of(path)
    tables = tables_of(path, content)
    with located(path, content):
        return of_tables(tables, name or path.stem, path.resolve())


def from_flags(name: str | None = None, **flags: Any) -> NodeConfig:
    """A configuration of one segment from the flags of `pyvxlan up`.

    The names are those of the flags without their dashes (`remote` holds a list); a
    flag that is None was not given.  Numbers may come as text.  Raises ConfigError.
    """
    tables: dict[str, Any] = {"vtep": {}, "segment": [{}]}
    for flag, value in flags.items():
        table, key = FLAGS[flag]
        if value is not None and value != () and value != []:
            target = tables["vtep"] if table == "vtep" else tables["segment"][0]
            target[key] = _number(value)
    try:
        return of_tables(tables, name or f"vxlan{flags.get('vni')}", None)
    except Wrong as wrong:
        raise ConfigError(f"{_flag_of(wrong.path)}: {wrong}") from None


def segment_of(table: Mapping[str, Any], vtep: VtepConfig) -> SegmentConfig:
    """One segment from the keys of a [[segment]], as a running node is asked for it.

    Raises ConfigError.
    """
    try:
        segment = _segment(table, (), vtep)
        check_segments((segment,))
    except Wrong as wrong:
        path = wrong.path[2:] if wrong.path[:1] == ("segment",) else wrong.path
        raise ConfigError(f"{show(path)}: {wrong}".removeprefix(": ")) from None
    return segment


def _number(value: object) -> object:
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            return value
    return value


def _flag_of(path: KeyPath) -> str:
    keys = [part for part in path if isinstance(part, str)]
    key = keys[1] if len(keys) > 1 else None
    for flag, (_, meant) in FLAGS.items():
        if meant == key:
            return f"--{flag}"
    return "--name" if keys == ["name"] else "flags"


def of_tables(tables: Mapping[str, Any], name: str, path: Path | None = None) -> NodeConfig:
    """A configuration from the tables of a file.  Raises Wrong, with the path of the key."""
    found = values(tables, NODE, ())
    checked_name = checked(node_name, name, ("name",))
    vtep = VtepConfig(**values(tables.get("vtep", {}), VTEP, ("vtep",)))
    segments = tuple(
        _segment(table, ("segment", index), vtep)
        for index, table in enumerate(array(tables, "segment", ()))
    )
    config = NodeConfig(checked_name, vtep, segments, found.get("group"), path)
    check(config)
    return config


def _segment(table: Mapping[str, Any], path: KeyPath, vtep: VtepConfig) -> SegmentConfig:
    found = values(table, SEGMENT, path)
    if "vni" not in found:
        raise Wrong(path, "it has no vni: add the VXLAN Network Identifier")
    found.setdefault("tap", f"vxlan{found['vni']}")
    found["remotes"] = _remotes(found.get("remotes", ()), (*path, "remotes"), vtep, vtep.dstport)
    found["fdb"] = tuple(
        _static(entry, (*path, "fdb", index), vtep)
        for index, entry in enumerate(array(table, "fdb", path))
    )
    each_once([entry.mac for entry in found["fdb"]], (*path, "fdb"), "mac", "the MAC")
    segment = SegmentConfig(**found)
    if segment.bridge == segment.tap:
        raise Wrong((*path, "bridge"), f"{segment.tap} is the TAP's name: choose another")
    return segment


def _static(table: Mapping[str, Any], path: KeyPath, vtep: VtepConfig) -> StaticEntry:
    found = values(table, STATIC, path)
    for key in ("mac", "dst"):
        if key not in found:
            raise Wrong(path, f"it has no {key}: an entry has a mac and a dst")
    remotes = _remotes(found["dst"], (*path, "dst"), vtep, found.get("port", vtep.dstport))
    if not remotes:
        raise Wrong((*path, "dst"), "it names no remote")
    return StaticEntry(checked(station, found["mac"], (*path, "mac")), remotes)


def _remotes(
    values: tuple[object, ...], path: KeyPath, vtep: VtepConfig, default_port: int
) -> tuple[Remote, ...]:
    remotes: dict[Remote, None] = {}
    for index, value in enumerate(values):
        here = (*path, index)
        one = checked(lambda value: remote(value, default_port), value, here)
        if one in remotes:
            raise Wrong(here, f"{one} is there twice: take one out")
        _reachable(one, here, vtep)
        remotes[one] = None
    return tuple(remotes)


def _reachable(one: Remote, path: KeyPath, vtep: VtepConfig) -> None:
    if problem := family_problem(one.address, vtep.local):
        raise Wrong(path, problem)
