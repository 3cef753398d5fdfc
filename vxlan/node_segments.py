"""Segments that come and go by command, while the node runs.

Theory of operation
===================

A segment has one owner.  Those of the configuration file belong to the file: they come
and go with it, by a reload.  All others belong to whoever asked for them by command,
and a reload leaves them alone.  Neither may touch the other's.

Nothing of this is kept when the node ends: an owner (a container engine's plugin, say)
asks again when it finds the node anew.  So asking for what is there is no error.  Only a
node that was killed, and whose descriptors somebody kept, goes on with what there was.

A request is checked whole, and what cannot be had leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vxlan import config_values as values
from vxlan import report, sdnotify
from vxlan.api import ApiError
from vxlan.config import ConfigError, SegmentConfig, segment_of
from vxlan.config_rules import family_problem
from vxlan.netdev import NetdevError
from vxlan.node_segment import FILE, NodeSegment
from vxlan.reload import differences
from vxlan.tap import TapError

if TYPE_CHECKING:
    from vxlan.node import Node

Args = dict[str, Any]

OPERATOR = "operator"
"""The owner of segments that are added by hand."""

MAX_OWNER = 100
MAX_PATH = 107
"""Bytes of the path of a unix socket (struct sockaddr_un)."""

MAX_SEGMENTS = 4096


class Segments:
    """The operations `segment.add` and `segment.del` of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def add(self, args: Args) -> Any:
        """Serve one more segment; the keys are those of a [[segment]], `owner` and `tap_from`."""
        asked = {key: value for key, value in args.items() if value is not None}
        async with self._node.changing:
            segment, added = await self.serve_asked(asked)
        return {"added": added, "segment": report.segment_json(segment, 0)}

    async def serve_asked(self, asked: Mapping[str, Any]) -> tuple[NodeSegment, bool]:
        """The segment that was asked for, and whether it is new.  The caller holds `changing`.

        Its owner need not ask again after the node was killed (vxlan/node_kept.py).
        """
        given = dict(asked)
        owner, tap_from = _owner(given), _tap_from(given)
        segment, added = await self.serve(given, owner, tap_from)
        segment.asked = dict(asked)
        self._node.kept.changed()
        return segment, added

    async def serve(
        self, given: Mapping[str, Any], owner: str, tap_from: str | None = None
    ) -> tuple[NodeSegment, bool]:
        """The segment of these keys, and whether it is new.  The caller holds `changing`."""
        config = self._config(given)
        there = self._node.segments.get(config.vni)
        if there is None:
            await self._check(config)
            await self._start(config, owner, tap_from)
            await self._node.names.follow()
        else:
            _refuse_another(there, config, owner, tap_from)
        return self._node.segments[config.vni], there is None

    async def delete(self, args: Args) -> Any:
        """Serve a segment no more that came by command."""
        given = {key: value for key, value in args.items() if value is not None}
        owner = _owner(given)
        vni = _vni(given)
        async with self._node.changing:
            there = self._node.segments.get(vni)
            if there is None:
                text = f"no segment {vni} here: `pyvxlan show` lists what there is"
                raise ApiError(text, "not_found")
            _refuse_foreign(there, owner)
            await self._node.stop_segment(vni)
        sdnotify.notify(f"STATUS={self._node.status()}")
        return {}

    def _config(self, given: Mapping[str, Any]) -> SegmentConfig:
        try:
            return segment_of(given, self._node.config.vtep)
        except ConfigError as error:
            raise ApiError(str(error), "usage") from None

    async def _check(self, config: SegmentConfig) -> None:
        """Refuse what this node or this host cannot have."""
        if self._node.ending:
            raise ApiError("the node is ending: ask again when it runs")
        if len(self._node.segments) >= MAX_SEGMENTS:
            raise ApiError(f"{MAX_SEGMENTS} segments are served already: delete one", "conflict")
        self._refuse_shared_devices(config)
        for remote in config.all_remotes():
            if problem := family_problem(remote.address, self._node.local):
                raise ApiError(problem, "conflict")
        if problem := await self._node.misfits([config]):
            raise ApiError(problem, "conflict")

    def _refuse_shared_devices(self, config: SegmentConfig) -> None:
        wanted = {name for name in (config.tap, config.bridge) if name}
        for vni, other in self._node.segments.items():
            for name in wanted & {other.config.tap, other.config.bridge}:
                raise ApiError(
                    f"{name} is already a device of segment {vni}: choose another name", "conflict"
                )

    async def _start(self, config: SegmentConfig, owner: str, tap_from: str | None) -> None:
        try:
            await self._node.start_segment(config, owner, tap_from)
        except (TapError, NetdevError) as error:
            raise ApiError(str(error)) from error
        sdnotify.notify(f"STATUS={self._node.status()}")


def _owner(given: Args) -> str:
    """Take the owner out of the arguments."""
    try:
        owner = values.text(given.pop("owner", OPERATOR))
    except ValueError as error:
        raise ApiError(f"owner: {error}", "usage") from None
    if owner == FILE or len(owner) > MAX_OWNER or not owner.isprintable():
        text = f"owner: choose up to {MAX_OWNER} printable characters, and not {FILE!r}"
        raise ApiError(text, "usage")
    return owner


def _tap_from(given: Args) -> str | None:
    """Take out of the arguments where the TAP is handed over; who owns it plugs it in."""
    if "tap_from" not in given:
        return None
    try:
        path = values.text(given.pop("tap_from"))
    except ValueError as error:
        raise ApiError(f"tap_from: {error}", "usage") from None
    if not path.startswith("/") or len(path.encode()) > MAX_PATH:
        text = (
            f"tap_from: {path[:200]!r}: give the path of a socket, from /, up to {MAX_PATH} bytes"
        )
        raise ApiError(text, "usage")
    for key in ("bridge", "address", "mac"):
        if key in given:
            text = f"{key}: whoever owns the TAP sees to it: leave it out, or tap_from"
            raise ApiError(text, "usage")
    return path


def _vni(given: Args) -> int:
    unknown = [key for key in given if key != "vni"]
    if unknown:
        raise ApiError(f"no such argument: {unknown[0]} (this takes vni, owner)", "usage")
    try:
        return values.vni(given.get("vni"))
    except ValueError as error:
        raise ApiError(f"vni: {error}", "usage") from None


def _refuse_another(
    there: NodeSegment, config: SegmentConfig, owner: str, tap_from: str | None
) -> None:
    """A VNI that is taken is refused, unless it is the very same that is asked for again."""
    if there.owner != owner:
        text = f"VNI {config.vni} is taken by {_whose(there)}: choose another"
        raise ApiError(text, "conflict")
    if there.config != config or there.tap_from != tap_from:
        what = [*differences(there.config, config), f"segment {config.vni}: tap_from"][0]
        text = f"{what}: it is served already and differs: delete it first"
        raise ApiError(text, "conflict")


def _refuse_foreign(there: NodeSegment, owner: str) -> None:
    if there.owner != owner:
        remedy = (
            "take it out there and `pyvxlan reload`"
            if there.owner == FILE
            else f"give owner {there.owner!r}, if that is you"
        )
        vni = there.config.vni
        raise ApiError(f"segment {vni} belongs to {_whose(there)}: {remedy}", "conflict")


def _whose(segment: NodeSegment) -> str:
    return "the configuration" if segment.owner == FILE else segment.owner
