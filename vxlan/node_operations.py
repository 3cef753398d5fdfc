"""What can be asked of a running node: the operations of the control socket.

Each takes the arguments of one request, checks all of them before it changes anything,
and returns what JSON can say.  ApiError refuses, with a code that says whose fault it
is: "usage" the request's, "not_found" and "conflict" the state's, "failed" the host's.
docs/control-socket.md describes them for those who write clients.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vxlan import config_values as values
from vxlan import netdev, node_ping, report
from vxlan.api import ApiError
from vxlan.api_server import Operation
from vxlan.arguments import Args, checked, only, optional
from vxlan.config_rules import family_problem, station_problem
from vxlan.fdb import FdbFull, Remote, State
from vxlan.node_explain import Explain
from vxlan.node_segment import NodeSegment
from vxlan.node_segments import Segments
from vxlan.node_stations import Stations
from vxlan.overlay_mtu import misfit, paths
from vxlan.wire import ZERO_MAC, mac_text

if TYPE_CHECKING:
    from vxlan.node import Node

SOURCE = "operator"
"""The source of entries that are written by command."""


class Operations:
    """The operations of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._segment_changes = Segments(node)
        self._stations = Stations(node)

    def table(self) -> Mapping[str, Operation]:
        """Name -> operation, for vxlan/api_server.py."""
        return {
            "show": self.show,
            "fdb.show": self.fdb_show,
            "fdb.add": self.fdb_add,
            "fdb.replace": self.fdb_replace,
            "fdb.del": self.fdb_del,
            "fdb.flush": self.fdb_flush,
            "fdb.why": self.fdb_why,
            "remote.show": self.remote_show,
            "remote.add": self.remote_add,
            "remote.del": self.remote_del,
            **self._stations.table(),
            "segment.add": self._segment_changes.add,
            "segment.del": self._segment_changes.delete,
            "ping": self.ping,
            "explain": Explain(self._node).explain,
            "reload": self.reload,
            "down": self.down,
            **self._node.attachments.table(),
        }

    # -- the node --------------------------------------------------------------------------

    async def show(self, args: Args) -> Any:
        """Everything but the entries."""
        only(args)
        taps = {vni: segment.config.tap for vni, segment in self._node.segments.items()}
        lost = await asyncio.to_thread(_lost_in_ring, taps)
        return report.node_json(self._node, lost)

    async def reload(self, args: Args) -> Any:
        """Read the configuration again; {"changed": [sentences]}."""
        only(args)
        return {"changed": await self._node.reloader.reload()}

    def down(self, args: Args) -> Any:
        """End; {"pid": whom to wait for}."""
        only(args)
        self._node.stop("asked to by command")
        return {"pid": os.getpid()}

    # -- entries ---------------------------------------------------------------------------

    def fdb_show(self, args: Args) -> Any:
        """The entries of one segment or of all."""
        only(args, "vni")
        chosen = self.segments(args)
        return [row for segment in chosen for row in report.fdb_json(segment)]

    async def fdb_add(self, args: Args) -> Any:
        """Write an entry, unless a static one says otherwise."""
        return await self._write(args, replace=False)

    async def fdb_replace(self, args: Args) -> Any:
        """Write an entry, whatever was there."""
        return await self._write(args, replace=True)

    async def _write(self, args: Args, *, replace: bool) -> Any:
        only(args, "vni", "mac", "dst", "port", "state")
        segment = self.segment(args)
        mac = _mac(args)
        remote = self._remote(args)
        state = _state(args) or State.STATIC
        await self._refuse_misfit(segment, remote)
        if mac == ZERO_MAC:
            self._write_flood_list(segment, remote, replace)
        else:
            self._write_entry(segment, mac, remote, state, replace)
        await segment.refit()
        return {}

    def _write_flood_list(self, segment: NodeSegment, remote: Remote, replace: bool) -> None:
        segment.add_remote(remote)
        if replace:
            for other in segment.engine.remotes(segment.config.vni):
                if other != remote:
                    segment.del_remote(other)

    def _write_entry(
        self, segment: NodeSegment, mac: bytes, remote: Remote, state: State, replace: bool
    ) -> None:
        there = segment.engine.fdb_get(segment.config.vni, mac)
        if there and not replace and there.state.rank >= max(state.rank, State.EXTERN_LEARN.rank):
            if there.remotes == (remote,):
                return
            where = ", ".join(map(str, there.remotes))
            raise ApiError(
                f"{mac_text(mac)} is bound to {where} by a {there.state} entry of "
                f"{there.source}: `pyvxlan fdb replace` overrules it",
                "conflict",
            )
        try:
            segment.set_entry(mac, (remote,), state, SOURCE)
        except FdbFull as full:
            text = f"the table is full: {full}: raise maxaddress or delete some"
            raise ApiError(text, "conflict") from None

    async def fdb_del(self, args: Args) -> Any:
        """Withdraw an entry, or one remote of it."""
        only(args, "vni", "mac", "dst", "port")
        segment = self.segment(args)
        mac = _mac(args)
        if mac == ZERO_MAC:
            self._del_from_flood_list(segment, self._remote(args))
        else:
            self._del_entry(segment, mac, self._remote(args) if "dst" in args else None)
        await segment.refit()
        return {}

    def _del_entry(self, segment: NodeSegment, mac: bytes, remote: Remote | None) -> None:
        there = segment.engine.fdb_get(segment.config.vni, mac)
        if there is None or (remote is not None and remote not in there.remotes):
            where = f" with {remote}" if remote else ""
            text = f"no entry {mac_text(mac)}{where}: `pyvxlan fdb show` lists what is there"
            raise ApiError(text, "not_found")
        rest = tuple(other for other in there.remotes if other != remote)
        if remote is None or not rest:
            segment.del_entry(mac)
        else:
            segment.set_entry(mac, rest, there.state, there.source)

    async def fdb_flush(self, args: Args) -> Any:
        """Withdraw all entries of a state and of a remote address; {"flushed": how many}."""
        only(args, "vni", "state", "dst")
        segment = self.segment(args)
        dst = checked(args, "dst", values.underlay_address) if "dst" in args else None
        flushed = segment.flush(_state(args), dst)
        await segment.refit()
        return {"flushed": flushed}

    def fdb_why(self, args: Args) -> Any:
        """Where an entry comes from, and its last moves."""
        only(args, "vni", "mac")
        segment = self.segment(args)
        mac, now = _mac(args), time.monotonic()
        entry = segment.engine.fdb_get(segment.config.vni, mac)
        events = self._node.chronicle.history.of(segment.config.vni, mac)
        return {
            "entry": None if entry is None else report.entry_json(entry, segment.config.vni, now),
            "history": [report.past_json(event, now) for event in events],
        }

    # -- remotes ---------------------------------------------------------------------------

    def remote_show(self, args: Args) -> Any:
        """The flood lists, with the state and the counters of each remote."""
        only(args, "vni")
        return [row for segment in self.segments(args) for row in report.remotes_json(segment)]

    async def remote_add(self, args: Args) -> Any:
        """Add to the flood list; `echo` is a station behind the remote (vxlan/echo.py)."""
        only(args, "vni", "dst", "port", "echo")
        segment = self.segment(args)
        remote = self._remote(args)
        station = optional(args, "echo", None, values.station_address)
        if station and (problem := station_problem(station, segment.config.address)):
            raise ApiError(f"echo: {problem}", "conflict")
        await self._refuse_misfit(segment, remote)
        segment.add_remote(remote)
        if station is not None:
            await segment.set_echo(remote.address, station)
        await segment.refit()
        return {}

    async def remote_del(self, args: Args) -> Any:
        """Take from the flood list."""
        only(args, "vni", "dst", "port")
        segment = self.segment(args)
        remote = self._remote(args)
        self._del_from_flood_list(segment, remote)
        if remote.address in segment.echo:
            await segment.set_echo(remote.address, None)
        await segment.refit()
        return {}

    async def ping(self, args: Args) -> Any:
        """Probe a remote; what was answered, and what is known of the path afterwards."""
        only(args, "dst", "port", "ports", "size")
        ports = optional(args, "ports", 4, lambda one: values.whole(one, 1, 64, "1 to 64 ports"))
        size = optional(args, "size", None, lambda one: values.whole(one, 100, 65535, "bytes"))
        remote, engine = self._remote(args), self._node.engine
        self._refuse_stranger(remote)
        answer = await node_ping.ping(
            engine, remote, ports=ports, size=size, port_of=self._node.underlay.source_port
        )
        return {
            **answer,
            "state": report.state_of(engine.peers_up(), remote.address),
            "path": report.path_json(engine.paths().get(remote.address)),
        }

    def _refuse_stranger(self, remote: Remote) -> None:
        """An acknowledgement from who is no remote would be discarded."""
        engine = self._node.engine
        there = {one.address for vni in self._node.segments for one in engine.remotes(vni)}
        if remote.address not in there | engine.paths().keys():
            text = f"{remote.address} is no remote of this node: `pyvxlan remote show` lists them"
            raise ApiError(text, "not_found")

    def _del_from_flood_list(self, segment: NodeSegment, remote: Remote) -> None:
        if not segment.del_remote(remote):
            vni = segment.config.vni
            text = f"{remote} is no remote of segment {vni}: `pyvxlan remote show` lists them"
            raise ApiError(text, "not_found")

    async def _refuse_misfit(self, segment: NodeSegment, remote: Remote) -> None:
        """A configured MTU that the new path cannot carry is refused, as at the start."""
        if segment.config.mtu is None:
            return
        ways = await asyncio.to_thread(paths, [remote.address], self._node.local)
        if problem := misfit(segment.config, ways):
            raise ApiError(problem, "conflict")

    # -- arguments -------------------------------------------------------------------------

    def segments(self, args: Args) -> list[NodeSegment]:
        """The segment that a request names, or all.  Raises ApiError."""
        return [self.segment(args)] if "vni" in args else list(self._node.segments.values())

    def segment(self, args: Args) -> NodeSegment:
        """The segment that a request names, or the only one.  Raises ApiError."""
        segments = self._node.segments
        there = ", ".join(map(str, segments)) or "none"
        if "vni" not in args:
            if len(segments) != 1:
                raise ApiError(f"which segment: give a vni (there are {there})", "usage")
            return next(iter(segments.values()))
        vni = checked(args, "vni", values.vni)
        if vni not in segments:
            raise ApiError(f"no segment {vni} here: there are {there}", "not_found")
        return segments[vni]

    def _remote(self, args: Args) -> Remote:
        default = self._node.config.vtep.dstport
        if args.get("port") is not None:
            default = checked(args, "port", values.port)
        remote = checked(args, "dst", lambda value: values.remote(value, default))
        if remote.address in self._node.local:
            raise ApiError(f"dst: {remote.address} is this VTEP itself: name another", "usage")
        if problem := family_problem(remote.address, self._node.local):
            raise ApiError(f"dst: {problem}", "usage")
        return remote


def _lost_in_ring(taps: Mapping[int, str]) -> dict[int, int]:
    """VNI -> frames that found the queue of its TAP full; the kernel counts them."""
    try:
        links = netdev.by_name()
    except netdev.NetdevError:
        return {}
    return {vni: links[name].stats.tx_dropped for vni, name in taps.items() if name in links}


def _mac(args: Args) -> bytes:
    """The MAC of a station, or the all-zero MAC for the flood list."""
    mac = checked(args, "mac", values.mac)
    return mac if mac == ZERO_MAC else checked(args, "mac", values.station)


def _state(args: Args) -> State | None:
    if "state" not in args:
        return None
    return State(checked(args, "state", values.one_of(*(state.value for state in State))))
