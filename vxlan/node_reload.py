"""Make a running node follow its configuration file.

Theory of operation
===================

    read      a file that is wrong is refused whole                   ConfigError
    compare   what only a restart can change is refused whole         vxlan/reload.py
    check     what this host cannot do is refused whole               families, MTU, names
    apply     removed, changed, added: only these segments are touched
    restore   where applying fails all the same: back to the old one

The old configuration is in force until the last step has succeeded.  Entries that
were learned, and what was added by command (segments, too), stay: the comparison is
between files.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from vxlan import sdnotify
from vxlan.api import ApiError
from vxlan.config import ConfigError, NodeConfig, load
from vxlan.config_rules import family_problem
from vxlan.netdev import NetdevError, exists
from vxlan.node_segment import FILE
from vxlan.reload import Plan, compare, needs_restart
from vxlan.tap import TapError

if TYPE_CHECKING:
    from vxlan.node import Node

log = logging.getLogger(__name__)


class Reloader:
    """Reloads one node.  A refusal is logged, whoever asked."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._running: set[asyncio.Task[list[str]]] = set()

    async def reload(self) -> list[str]:
        """Follow the file; one sentence for each change.

        Raises ApiError, and then nothing changed.  It goes on if whoever asked goes away.
        """
        return await asyncio.shield(self._spawn())

    def begin(self) -> None:
        """The same for a signal: nobody waits for the answer."""
        self._spawn().add_done_callback(_heard)

    def _spawn(self) -> asyncio.Task[list[str]]:
        task = asyncio.create_task(self._reload())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _reload(self) -> list[str]:
        sdnotify.reloading()
        try:
            async with self._node.changing:
                if self._node.ending:
                    raise ApiError("the node is ending")
                changed = await self._follow_file()
        except ApiError as error:
            log.error("reload refused, the old configuration stays: %s", error)
            raise
        finally:
            sdnotify.notify("READY=1")
        for sentence in changed or ["nothing changed"]:
            log.info("reload: %s", sentence)
        return changed

    async def _follow_file(self) -> list[str]:
        new = await self._read()
        plan = compare(self._node.config, new)
        await self._check(plan)
        try:
            await self._apply(plan)
        except (TapError, NetdevError) as error:
            await self._restore()
            raise ApiError(f"{error}: the old configuration is in force again") from error
        self._node.config = new
        await self._node.look_after()
        return plan.sentences()

    async def _read(self) -> NodeConfig:
        old = self._node.config
        if old.path is None:
            raise ApiError(
                f"node {old.name} was started with flags, there is no file to read again: "
                "write one, or use `pyvxlan remote` and `pyvxlan fdb`"
            )
        try:
            new = await asyncio.to_thread(load, old.path, old.name)
        except ConfigError as error:
            raise ApiError(str(error)) from None
        if problem := needs_restart(old, new):
            raise ApiError(problem, "conflict")
        return new

    async def _check(self, plan: Plan) -> None:
        wanted = [*plan.added, *(new for _, new in plan.changed)]
        for segment in wanted:
            for remote in segment.all_remotes():
                if problem := family_problem(remote.address, self._node.local):
                    raise ApiError(f"segment {segment.vni}: {problem}", "conflict")
        if problem := await self._node.misfits(wanted):
            raise ApiError(problem, "conflict")
        for segment in plan.added:
            if there := self._node.segments.get(segment.vni):
                text = f"VNI {segment.vni} is taken by {there.owner}, who added it by command"
                raise ApiError(f"{text}: choose another", "conflict")
        ours = {segment.config.tap for segment in self._node.segments.values()}
        for tap in {segment.tap for segment in wanted} - ours:
            if await asyncio.to_thread(exists, tap):
                raise ApiError(f"tap {tap}: an interface of that name exists", "conflict")

    async def _apply(self, plan: Plan) -> None:
        segments = self._node.segments
        for segment in plan.removed:
            await self._node.stop_segment(segment.vni)
        for _, new in plan.changed:
            await segments[new.vni].update(new)
        for segment in plan.added:
            await self._node.start_segment(segment)

    async def _restore(self) -> None:
        """Come back from wherever `_apply` stopped to the configuration in force."""
        config = self._node.config
        segments = self._node.segments.values()
        there = tuple(segment.config for segment in segments if segment.owner == FILE)
        half_way = NodeConfig(config.name, config.vtep, there)
        try:
            await self._apply(compare(half_way, config))
        except (TapError, NetdevError) as error:
            log.error("the old configuration could not be restored: %s: restart the node", error)


def _heard(task: asyncio.Task[list[str]]) -> None:
    with suppress(ApiError, asyncio.CancelledError):  # it is in the log
        task.result()
