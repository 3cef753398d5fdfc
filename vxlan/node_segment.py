"""One segment of a running node: tables in the engine, devices on the host, and the MTU.

Theory of operation
===================

Three things have to agree, and this is where they are kept together:

    engine      policy, flood list, static entries     changed at once, in the event loop
    attachment  TAP, bridge, addresses                 blocks: changed in a thread
    limit       what the paths carry                   blocks: asked in a thread

Whatever touches the devices holds `_devices`, so that a reload, a change of a link and
a TAP that is made anew come one after another.  Nothing here is on the way of a packet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from vxlan import overlay_mtu
from vxlan.announcement import Station, first_of_each
from vxlan.attachment import Attachment
from vxlan.attachment_handed import HandedAttachment
from vxlan.config import SegmentConfig
from vxlan.echo import Echoes
from vxlan.engine import Engine, Policy
from vxlan.event import Event, EventKind
from vxlan.fdb import Remote, State
from vxlan.mtu import MIN_MTU
from vxlan.netdev import Link, NetdevError
from vxlan.overlay_mtu import Limit, Path, smallest
from vxlan.reload import static
from vxlan.tap import Tap, TapError

if TYPE_CHECKING:
    from vxlan.node_kept import Kept

FILE = "config"
"""The owner of the segments that the configuration file names."""

FALLBACK_MTU = 1430
"""Where no path is known: what fits over IPv4 and IPv6 on Ethernet."""

FIRST_RETRY, LAST_RETRY = 0.1, 10.0
"""Seconds between tries to make a TAP anew; doubled each time."""

log = logging.getLogger(__name__)


class NodeSegment:
    """A segment that is served; `start`, then whatever else, then `stop`.

    asked  the keys by which it was asked for by command; None: nobody has to ask again
    """

    def __init__(
        self,
        config: SegmentConfig,
        engine: Engine,
        local: tuple[str, ...],
        emit: Callable[[Event], None],
        on_ways: Callable[[], None],
        kept: Kept,
        owner: str = FILE,
        tap_from: str | None = None,
    ) -> None:
        self.config = config
        self.owner = owner
        self.tap_from = tap_from
        self.asked: dict[str, Any] | None = None
        self._kept = kept
        self.engine = engine
        self.local = local
        self.began = time.monotonic()
        self.limit: Limit | None = None
        self.mtu = 0
        self.policy = Policy()
        self._emit = emit
        self._on_ways = on_ways
        self._attachment = self._new_attachment(config)
        self._devices = asyncio.Lock()
        self._static: set[bytes] = set()
        self._ways: dict[str, Path | None] = {}
        self.ceilings: dict[Remote, int] = {}
        self.echo = dict(config.echo)
        self._host: Station | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def tap(self) -> Tap | None:
        """The TAP, while there is one."""
        return self._attachment.tap

    def _new_attachment(self, config: SegmentConfig) -> Attachment | HandedAttachment:
        offload, queues = self.engine.info.name == "fastpath", self.engine.queues
        if self.tap_from is not None:
            return HandedAttachment(config, self.tap_from, offload=offload, queues=queues)
        return Attachment(config, self.local[0], offload=offload, queues=queues)

    # -- start and stop --------------------------------------------------------------------

    async def start(self) -> None:
        """Serve.  Raises TapError or NetdevError, and then leaves nothing behind."""
        vni = self.config.vni
        self._fit(await self._ask_limit(self.config.all_remotes()))
        self.engine.add_segment(vni, self.policy)
        try:
            self.engine.set_announcing(vni, self.config.announce, time.monotonic())
            self._add_remotes(self.config.remotes)
            self._set_static(static(self.config))
            async with self._devices:
                await self._open()
        except BaseException:
            await self._kept.drop_tap(vni)
            self._leave_engine()
            raise
        log.info("%s", self._summary())

    async def _open(self) -> None:
        vni = self.config.vni
        tap = await self._kept.open(vni, self.config.tap, self._attachment, self.mtu)
        self.engine.attach(vni, tap)
        await self._look()

    async def stop(self) -> None:
        """Serve no more and take away what is ours."""
        self._stopping.set()
        if self._recovery is not None:
            await self._recovery
        async with self._devices:
            self._leave_engine()
            await self._kept.drop_tap(self.config.vni)
            await asyncio.to_thread(self._attachment.close)

    def _leave_engine(self) -> None:
        """Say what is announced no more while there is a clock to say it by, and go."""
        self.engine.set_announcing(self.config.vni, False, time.monotonic())
        self.engine.remove_segment(self.config.vni)

    def _summary(self) -> str:
        where = f"tap {self.config.tap}"
        if self.config.bridge:
            where += f" in bridge {self.config.bridge}"
        if self.tap_from:
            where += f" handed over at {self.tap_from}"
        count = len(self.engine.remotes(self.config.vni))
        why = self.limit.why if self.limit else "no path is known yet"
        return f"segment {self.config.vni}: {where}, {count} remotes, mtu {self.mtu} ({why})"

    # -- tables ----------------------------------------------------------------------------

    def add_remote(self, remote: Remote) -> bool:
        """Add to the flood list; False if it is there already."""
        added = self.engine.add_remote(self.config.vni, remote, time.monotonic())
        self._kept.changed()
        self._report()
        return added

    def del_remote(self, remote: Remote) -> bool:
        """Take from the flood list; False if it is not there."""
        found = self.engine.del_remote(self.config.vni, remote, time.monotonic())
        self._kept.changed()
        self._report()
        return found

    def set_entry(self, mac: bytes, remotes: tuple[Remote, ...], state: State, source: str) -> None:
        """Write an entry.  Raises FdbFull."""
        self.engine.fdb_set(self.config.vni, mac, remotes, state, source, time.monotonic())
        if state is not State.DYNAMIC:
            self._static.add(mac)
        self._report()

    def del_entry(self, mac: bytes, state: State | None = None) -> bool:
        """Withdraw a claim; False if there is none."""
        found = self.engine.fdb_remove(self.config.vni, mac, time.monotonic(), state)
        self._report()
        return found is not None

    def flush(self, state: State | None, address: str | None) -> int:
        """Withdraw all claims of a state and of a remote (None: of all); how many."""
        now = time.monotonic()
        count = self.engine.fdb_flush(self.config.vni, now, state=state, address=address)
        self._report()
        return count

    def _report(self) -> None:
        """Tell what a change of the tables did, before the engine would by itself."""
        for event in self.engine.drain_events():
            self._emit(event)

    def _add_remotes(self, remotes: Iterable[Remote]) -> None:
        for remote in remotes:
            if remote.address in self.local:
                log.warning("segment %d: remote %s is ourselves: ignored", self.config.vni, remote)
            else:
                self.add_remote(remote)

    def _set_static(self, entries: dict[bytes, tuple[Remote, ...]]) -> None:
        for mac, remotes in entries.items():
            others = tuple(remote for remote in remotes if remote.address not in self.local)
            if others:
                self.set_entry(mac, others, State.STATIC, "config")

    # -- reload ----------------------------------------------------------------------------

    async def update(self, new: SegmentConfig) -> None:
        """Follow another configuration; what it leaves alone is not touched.

        The devices come first, since only they can fail: then they are put back, and
        TapError or NetdevError says why.
        """
        async with self._devices:
            await self._update_devices(self.config, new)
        old, self.config = self.config, new
        await self._update_echoes(old, new)
        if old.announce != new.announce:
            self.engine.set_announcing(new.vni, new.announce, time.monotonic())
            self._host = None
            await self.follow()
        gone = [remote for remote in old.remotes if remote not in new.remotes]
        self._add_remotes(remote for remote in new.remotes if remote not in old.remotes)
        for remote in gone:
            self.del_remote(remote)
        self._update_static(static(old), static(new))
        await self.refit(anyway=True)

    async def _update_echoes(self, old: SegmentConfig, new: SegmentConfig) -> None:
        if (old.echo, old.address) != (new.echo, new.address):
            self.echo = dict(new.echo)
            async with self._devices:
                with suppress(NetdevError):  # a TAP that is gone comes back, and tells
                    await self._tell_echoes()

    def _update_static(
        self, before: dict[bytes, tuple[Remote, ...]], after: dict[bytes, tuple[Remote, ...]]
    ) -> None:
        for mac in before.keys() - after.keys():
            self.del_entry(mac, State.STATIC)
        changed = {mac: to for mac, to in after.items() if before.get(mac) != to}
        self._set_static(changed)

    async def _update_devices(self, old: SegmentConfig, new: SegmentConfig) -> None:
        try:
            if (old.tap, old.mac) != (new.tap, new.mac):
                await self._replace_attachment(new)
            elif (old.bridge, old.address) != (new.bridge, new.address):
                await asyncio.to_thread(self._attachment.change, new)
                self._kept.made_for(new.vni, self._attachment)
                await self._look()
        except (TapError, NetdevError):
            await self._put_back(old)
            raise

    async def _put_back(self, old: SegmentConfig) -> None:
        try:
            await self._replace_attachment(old)
        except (TapError, NetdevError) as error:
            log.error("segment %d: %s: trying on", old.vni, error)
            self.tap_lost()

    async def _replace_attachment(self, config: SegmentConfig) -> None:
        self.engine.detach(config.vni)
        await self._kept.drop_tap(config.vni)
        await asyncio.to_thread(self._attachment.close)
        self._attachment = self._new_attachment(config)
        await self._open()

    # -- MTU -------------------------------------------------------------------------------

    async def refit(
        self, *, ways: Mapping[str, Path | None] | None = None, anyway: bool = False
    ) -> None:
        """Put the MTU in force that fits all paths.

        `ways` are those to remotes, as somebody has just asked; without them the paths
        that are known are taken as they are.  `anyway` tells the engine the policy even
        if the MTU is the same.
        """
        async with self._devices:
            if self._stopping.is_set():
                return
            if ways is not None:
                self._ways = dict(ways)
            before = self.mtu, self.policy
            self._fit(await self._ask_limit(self.destinations()))
            if (self.mtu, self.policy) != before or anyway:
                self.engine.set_policy(self.config.vni, self.policy, time.monotonic())
                self._report()
            if self.mtu != before[0]:
                await self._tell_devices()
                self._say_mtu(before[0])

    async def _ask_limit(self, remotes: Iterable[Remote]) -> Limit | None:
        others = {remote.address: remote for remote in remotes if remote.address not in self.local}
        ways = {address: way for address, way in self._ways.items() if address in others}
        unknown = [address for address in others if address not in ways]
        if unknown:
            ways.update(await asyncio.to_thread(overlay_mtu.ways_to, unknown))
        self._ways = ways
        self.ceilings = {others[address]: way.mtu for address, way in ways.items() if way}
        self._on_ways()
        probed = self.engine.paths()
        found = [
            overlay_mtu.as_probed(way, probed.get(way.address)) for way in ways.values() if way
        ]
        if not found:
            found = await asyncio.to_thread(overlay_mtu.own_ways, self.local)
        return smallest(found)

    def destinations(self) -> list[Remote]:
        """Where frames of this segment go by configuration or command."""
        found = list(self.engine.remotes(self.config.vni))
        for mac in list(self._static):
            entry = self.engine.fdb_get(self.config.vni, mac)
            if entry is None or entry.state is State.DYNAMIC:
                self._static.discard(mac)
            else:
                found += entry.remotes
        return found

    def _fit(self, limit: Limit | None) -> None:
        """Without any path now, what was in force stays."""
        if limit is not None and limit.mtu >= MIN_MTU:
            self.limit = limit
        fits = self.limit.mtu if self.limit else FALLBACK_MTU
        frame = self.limit.max_frame if self.limit else 0
        self.mtu = fits if self.config.mtu is None else min(self.config.mtu, fits)
        self.policy = self.config.policy(self.mtu, frame)

    async def _tell_devices(self) -> None:
        try:
            await asyncio.to_thread(self._attachment.set_mtu, self.mtu)
        except NetdevError as error:
            log.warning("segment %d: %s", self.config.vni, error)

    def _say_mtu(self, before: int) -> None:
        why = self.limit.why if self.limit else "no path is known"
        if self.config.mtu is not None and self.mtu < self.config.mtu:
            why += f"; configured is {self.config.mtu}"
        self._tell(EventKind.MTU_CHANGED, f"{before} -> {self.mtu}: {why}")

    # -- devices that change under us --------------------------------------------------------

    async def follow(self, link: Link | None = None) -> None:
        """Look where the TAP is now: another bridge, none, or a bridge that was deleted.

        `link`: the TAP as somebody has just seen it.
        """
        async with self._devices:
            if self._stopping.is_set():
                return
            try:
                await self._look(link)
            except NetdevError as error:
                log.warning("segment %d: %s", self.config.vni, error)

    async def _look(self, link: Link | None = None) -> None:
        """Where the TAP is, and who we are there.  Raises NetdevError."""
        macs = await asyncio.to_thread(self._attachment.follow, link)
        if macs:
            self.engine.set_own_macs(self.config.vni, macs)
            if self.echo:
                await self._tell_echoes()
            if self.config.announce:
                await self._announce_this_host()

    async def _announce_this_host(self) -> None:
        """This host is a station, too, where it has an address.  Raises NetdevError."""
        mac = await asyncio.to_thread(self._attachment.own_mac)
        addresses = [ip_interface(cidr).ip.packed for cidr in self.config.address]
        host = Station(mac, first_of_each(addresses)) if mac else None
        before, self._host = self._host, host
        if before == host:
            return
        now, vni = time.monotonic(), self.config.vni
        if before is not None and (host is None or before.mac != host.mac):
            self.engine.del_station(vni, before.mac, now)
        if host is not None:
            try:
                self.engine.add_station(vni, *host, now)
            except ValueError as error:
                log.warning("segment %d: this host is not announced: %s", vni, error)

    async def _tell_echoes(self) -> None:
        """Which stations are asked in the place of their VTEPs.  Raises NetdevError."""
        mac = await asyncio.to_thread(self._attachment.own_mac) if self.echo else None
        echoes = Echoes(mac, self.config.address, dict(self.echo)) if mac else None
        self.engine.set_echoes(self.config.vni, echoes, time.monotonic())

    async def set_echo(self, vtep: str, station: str | None) -> None:
        """Ask this station in the place of a VTEP from now on; None: the VTEP itself."""
        async with self._devices:
            self.echo.pop(vtep, None)
            if station is not None:
                self.echo[vtep] = station
            self._kept.changed()
            await self._tell_echoes()

    def tap_lost(self) -> None:
        """Begin to make the TAP anew."""
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        delay, said = FIRST_RETRY, ""
        while not self._stopping.is_set():
            problem = await self._reopen()
            if problem is None:
                self._tell(EventKind.TAP_BACK, f"tap {self.config.tap}")
                return
            if problem != said:
                log.warning("segment %d: %s: trying on", self.config.vni, problem)
            said = problem
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(2 * delay, LAST_RETRY)

    async def _reopen(self) -> str | None:
        """Make the TAP anew; what stands in the way, or None."""
        async with self._devices:
            try:
                await self._kept.drop_tap(self.config.vni)
                await asyncio.to_thread(self._attachment.close_tap)
                await self._open()
            except (TapError, NetdevError) as error:
                return str(error)
        return None

    def _tell(self, kind: EventKind, detail: str) -> None:
        self._emit(Event(kind, time.monotonic(), self.config.vni, detail=detail))
