"""A node: one process that serves a VTEP and its segments, from start to end.

Theory of operation
===================

The node owns everything and moves no packet.  It opens what the engine needs, hands it
over, and then only reacts:

    SIGTERM, SIGINT, `down`          end
    SIGHUP, `reload`                 compare the configuration with the one in force
    the kernel's news (netlink)      ask the paths again, look where the TAPs are
    the engine's events              chronicle; make a lost TAP anew

What is made is undone in the reverse order, also when the start fails half-way: each
step puts its own undoing on a stack before the next one begins.  The control socket
comes first, because its name is what keeps two nodes of one name apart.  A node that is
killed undoes nothing; vxlan/node_kept.py says how the next one goes on.

Nothing that blocks is done in the event loop while packets move: questions to the
kernel go through threads.  Changes of the configuration hold `changing`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress

from vxlan import capabilities, local_address, netdev, overlay_mtu, sdnotify
from vxlan.api import ApiError, socket_path
from vxlan.api_server import Server
from vxlan.config import NodeConfig, SegmentConfig
from vxlan.engine import Engine, EngineUnavailable, choose_engine, queues_for
from vxlan.event import Event, EventKind
from vxlan.fdb import Remote
from vxlan.fdstore import FdStore
from vxlan.history import Chronicle
from vxlan.local_address import NoAddress
from vxlan.metrics import render
from vxlan.metrics_server import MetricsError, MetricsServer
from vxlan.netdev import Link, NetdevError
from vxlan.netwatch import Watch
from vxlan.node_attach import Attachments
from vxlan.node_capture import Captures
from vxlan.node_faults import FaultOperations
from vxlan.node_kept import Kept
from vxlan.node_names import Names
from vxlan.node_operations import Operations
from vxlan.node_reload import Reloader
from vxlan.node_segment import FILE, NodeSegment
from vxlan.node_stations import KeyProblem, read_key
from vxlan.overlay_mtu import Path, misfit, paths
from vxlan.tap import TapError
from vxlan.underlay import Underlay, UnderlayError

SETTLE = 0.1
"""Seconds to wait after a change in the kernel for those that follow it."""

REVIEW_GAP = 0.5
"""Seconds at least between two looks at paths and devices."""

log = logging.getLogger(__name__)

_REFUSALS = (
    ApiError, EngineUnavailable, KeyProblem, MetricsError, NetdevError, NoAddress, TapError,
    UnderlayError,
)  # fmt: skip


class NodeError(Exception):
    """The node cannot start; one line with the remedy."""


class Node:
    """One node.  `run` returns when it has ended."""

    engine: Engine
    underlay: Underlay

    def __init__(self, config: NodeConfig, store: FdStore | None = None) -> None:
        """`store` offers what an earlier node of this name left (vxlan/fdstore.py)."""
        self.config = config
        self.kept = Kept(store or FdStore())
        self.local: tuple[str, ...] = ()
        self.segments: dict[int, NodeSegment] = {}
        self.began = time.monotonic()
        self.attachments = Attachments(self)
        self.operations = Operations(self)
        self.names = Names(self)
        self._server = Server(
            socket_path(config.name),
            {**self.operations.table(), **FaultOperations(self).table()},
            group=config.group,
            streams={"capture": Captures(self).open},
        )
        self.chronicle = Chronicle(self._server.publish)
        self._stopped = asyncio.Event()
        self._changed = asyncio.Event()
        self._changed.set()
        self.changing = asyncio.Lock()
        self.reloader = Reloader(self)

    async def run(self) -> None:
        """Start, serve until something says stop, undo everything.  Raises NodeError."""
        async with AsyncExitStack() as stack:
            self._handle_signals(stack)
            try:
                async with self.changing:
                    await self._start(stack)
            except BaseException as error:
                self._stopped.set()
                if isinstance(error, _REFUSALS):
                    raise NodeError(str(error)) from error
                raise
            sdnotify.notify("READY=1", f"STATUS={self.status()}")
            log.info("node %s: %s", self.config.name, self.status())
            await self._stopped.wait()
            self.kept.forget()
            sdnotify.notify("STOPPING=1")
        log.info("node %s: ended", self.config.name)

    def stop(self, why: str) -> None:
        """Begin to end."""
        if not self._stopped.is_set():
            log.info("node %s: ends (%s)", self.config.name, why)
            self._stopped.set()

    @property
    def ending(self) -> bool:
        """Whether the end has begun."""
        return self._stopped.is_set()

    def status(self) -> str:
        """In one line, for the log and the service manager."""
        vnis = ", ".join(map(str, self.segments)) or "none"
        where = ", ".join(self.local)
        return f"{where} port {self.config.vtep.dstport}, {self.engine.info.name}, VNI {vnis}"

    # -- start -------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> None:
        self._server.bind()
        stack.push_async_callback(self._server.close)
        self._drop_privileges()
        self.local = await asyncio.to_thread(local_address.choose, self.config)
        if not self.config.vtep.local:
            log.info("local is not configured: sending from %s", ", ".join(self.local))
        if problem := await self.misfits(self.config.segments):
            raise NodeError(problem)
        self.underlay = underlay = self._open_underlay(stack)
        self._set_key()
        stack.push_async_callback(self._stop_segments)
        for segment in self.config.segments:
            await self.start_segment(segment)
        await self.attachments.restore()
        await self.kept.restore(self)
        self.kept.begin(self)
        stack.callback(self.names.close)
        await self.names.follow()
        self._start_engine(underlay, stack)
        self._start_watching(stack)
        await self._start_metrics(stack)
        await self._server.serve()
        stack.callback(self._server.refuse_from_now, "the node is ending")

    def _drop_privileges(self) -> None:
        keep, vtep = {capabilities.CAP_NET_ADMIN}, self.config.vtep
        ports = [vtep.dstport, vtep.srcport[0], *([vtep.metrics.port] if vtep.metrics else ())]
        if min(ports) < 1024 or any(segment.names for segment in self.config.segments):
            keep.add(capabilities.CAP_NET_BIND_SERVICE)
        for problem in capabilities.keep_only(keep):
            log.debug("privileges: %s", problem)

    def _open_underlay(self, stack: AsyncExitStack) -> Underlay:
        """What arrives before the engine starts waits in the sockets."""
        vtep = self.config.vtep
        queues = vtep.queues or queues_for(len(os.sched_getaffinity(0)))
        self.engine = choose_engine(
            vtep.engine, self.local, vtep.dstport, queues, faults=vtep.faults
        )
        if vtep.queues > self.engine.queues:
            self.engine.info.fallbacks.append(
                f"queues {vtep.queues}: the {self.engine.info.name} engine has one"
            )
        held = self.kept.receivers(self.local, vtep.dstport, self.engine.queues)
        stack.callback(self.kept.drop_receivers)
        underlay = Underlay(
            self.local,
            vtep.dstport,
            srcport=vtep.srcport,
            udpcsum=vtep.udpcsum,
            udp6zerocsumtx=vtep.udp6zerocsumtx,
            udp6zerocsumrx=vtep.udp6zerocsumrx,
            rcvbuf=vtep.rcvbuf,
            gro=True,
            queues=self.engine.queues,
            held=held,
        )
        stack.callback(underlay.close)
        self.kept.keep_receivers(underlay.receivers, held)
        return underlay

    def _set_key(self) -> None:
        path = self.config.vtep.key_file
        key = read_key(path) if path else None
        self.engine.announce_with(key, time.time() - time.monotonic())

    def _start_engine(self, underlay: Underlay, stack: AsyncExitStack) -> None:
        """Last, when every segment has its TAP: nothing has to be dropped for want of one."""
        self.engine.start(underlay, self._on_events)
        stack.callback(self.engine.stop)
        stack.callback(lambda: self.engine.leave(time.monotonic()))
        log.info("engine %s (%s)", self.engine.info.name, self.engine.info.why)
        for sentence in self.engine.info.fallbacks:
            log.warning("%s", sentence)

    async def _start_metrics(self, stack: AsyncExitStack) -> None:
        where = self.config.vtep.metrics
        if where is None:
            return
        server = MetricsServer(where.address, where.port, self._metrics)
        await server.start()
        stack.push_async_callback(server.close)
        log.info("metrics: http://%s/metrics", where)

    async def _metrics(self) -> str:
        return render(await self.operations.show({}))

    async def misfits(self, segments: Sequence[SegmentConfig]) -> str | None:
        """The first segment whose MTU cannot be had, in words."""
        for segment in segments:
            addresses = [remote.address for remote in segment.all_remotes()]
            ways = await asyncio.to_thread(paths, addresses, self.local)
            if problem := misfit(segment, ways):
                return problem
        return None

    async def start_segment(
        self, config: SegmentConfig, owner: str = FILE, tap_from: str | None = None
    ) -> None:
        """Serve one more segment.  Raises TapError or NetdevError."""
        segment = NodeSegment(
            config,
            self.engine,
            self.local,
            self._emit,
            self._probe_paths,
            self.kept,
            owner,
            tap_from,
        )
        await segment.start()
        self.segments[config.vni] = segment
        self._probe_paths()
        for sentence in segment.tap.fallbacks if segment.tap else ():
            log.warning("%s", sentence)

    async def _stop_segments(self) -> None:
        """After whatever is changing now."""
        async with self.changing:
            for vni in reversed(list(self.segments)):
                await self.stop_segment(vni)

    async def stop_segment(self, vni: int) -> None:
        """Serve a segment no more."""
        await self.segments.pop(vni).stop()
        self.kept.changed()
        self._probe_paths()
        self.chronicle.history.forget(vni)

    def _probe_paths(self) -> None:
        """Let the engine probe the paths of all segments."""
        ceilings: dict[Remote, int] = {}
        for segment in self.segments.values():
            ceilings |= segment.ceilings
        self.engine.set_paths(ceilings, time.monotonic())

    # -- signals and tasks ---------------------------------------------------------------------

    def _handle_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGTERM: lambda: self.stop("SIGTERM"),
            signal.SIGINT: lambda: self.stop("SIGINT"),
            signal.SIGHUP: lambda: self.reloader.begin(),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            stack.callback(loop.remove_signal_handler, number)

    def _start_watching(self, stack: AsyncExitStack) -> None:
        watch = Watch()
        work = [self._listen(watch), self._review()]
        interval = sdnotify.watchdog_interval()
        if interval is not None:
            work.append(self._feed_watchdog(interval))
        tasks = [asyncio.create_task(one) for one in work]
        for task in tasks:
            task.add_done_callback(_report_crash)
        stack.push_async_callback(_finish, tasks)
        stack.callback(watch.close)

    async def _feed_watchdog(self, interval: float) -> None:
        while not await self._stops_within(interval):
            sdnotify.notify("WATCHDOG=1")

    async def _stops_within(self, seconds: float) -> bool:
        """Wait so long, or until the end begins; whether it did."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
        return self._stopped.is_set()

    # -- what happens -----------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        self._on_events((event,))

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            self.chronicle.take(event)
            if event.kind is EventKind.TAP_LOST and event.vni in self.segments:
                self.segments[event.vni].tap_lost()
            elif event.kind is EventKind.PATH_MTU:
                self._changed.set()

    async def _listen(self, watch: Watch) -> None:
        async for _ in watch:
            self._changed.set()

    async def _review(self) -> None:
        """After each change in the kernel: does everything still fit, and where are the TAPs?

        It ends between two looks, never in the midst of one: a thread that is at work on
        the devices cannot be cancelled.
        """
        while not self._stopped.is_set():
            if self._changed.is_set():
                await asyncio.sleep(SETTLE)
                self._changed.clear()
                await self._look()
            await self._stops_within(REVIEW_GAP)

    async def _look(self) -> None:
        """Links and ways are asked for once, not by each of many segments."""
        async with self.changing:
            segments = list(self.segments.values())
            remotes = {remote.address for one in segments for remote in one.destinations()}
            links, ways = await asyncio.to_thread(_seen, remotes.difference(self.local))
            for segment in segments:
                await segment.follow(links.get(segment.config.tap))
                await segment.refit(ways=ways)
            await self.look_after()

    async def look_after(self) -> None:
        """Containers and names follow what segments there are.  The caller holds `changing`."""
        await self.attachments.follow()
        await self.names.follow()


def _seen(remotes: Iterable[str]) -> tuple[dict[str, Link], dict[str, Path | None]]:
    """All links by name, and the ways to remotes.  Blocks."""
    links: dict[str, Link] = {}
    with suppress(NetdevError):  # whoever needs one asks again, and tells
        links = netdev.by_name()
    return links, overlay_mtu.ways_to(remotes)


def _report_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a part of the node died: please report", exc_info=error)


async def _finish(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def run_node(config: NodeConfig, store: FdStore | None = None) -> int:
    """Run a node until it ends; the exit status.  Blocks; what is wrong goes to the log."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(config, store))
    except NodeError as error:
        log.error("%s", error)
        return 1
    return 0


async def _run(config: NodeConfig, store: FdStore | None) -> None:
    await Node(config, store).run()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        log.warning("uvloop is not installed: asyncio's own loop takes more time for each packet")
        return None
    return uvloop.new_event_loop
