"""The readable engine: a loop that carries frames between TAPs and the underlay.

Theory of operation
===================

    TAP ---read--> Vtep.encap --send--> underlay        _drain_tap
    TAP <--write-- Vtep.decap <--recv-- underlay        _drain_receiver

All rules are in `Vtep`; this file moves bytes.  One thread, one event loop, and
three kinds of descriptor to watch: TAPs, receive sockets, and the error queues
of the sockets that send.

When a descriptor is readable it is drained until it would block, but at most
`BATCH` times, so that a flood on one side cannot starve the other; what is left
is still readable and comes next time round.  Nothing is queued here: a frame is
either taken by the kernel at once or counted as discarded.  A dataplane that
queues adds latency and hides overload; the sender's TCP reads the loss and slows
down.

The descriptors are watched through an epoll of our own, and the event loop
watches that one.  libuv, which is under uvloop, gives up a descriptor for good at
its first POLLERR, and POLLERR is how a deleted TAP and an ICMP error announce
themselves.  An epoll descriptor merely becomes readable.

No error ends the loop.  What the kernel refuses is counted under the reason that
`Tap.write` and `Underlay.send` return; a TAP that was deleted is let go and
reported, and the node makes a new one; a remote that the underlay calls
unreachable is reported, and traffic to it is still tried.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import select
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from socket import socket
from typing import TYPE_CHECKING

from vxlan.announce import Announcer, Change
from vxlan.announcing import Announcing
from vxlan.drop import Counters, Drop
from vxlan.engine import Datagram, EngineInfo, Frame, OnEvents, PathState, Policy
from vxlan.event import Event, EventKind
from vxlan.fdb import FdbEntry, Remote, State
from vxlan.merge import merge
from vxlan.offload import VNET_HLEN
from vxlan.pyengine_faults import Injecting
from vxlan.recorder import NOTHING, Batch, Recorder
from vxlan.tap import Tap, TapLost
from vxlan.twin import Part, twin
from vxlan.vtep import Vtep
from vxlan.watched import WatchedVtep

if TYPE_CHECKING:
    from vxlan.echo import Echoes
    from vxlan.sight import Sight
    from vxlan.underlay import PathError, Underlay

BATCH = 64
"""How many reads of one descriptor in a row."""

TICK = 0.25
"""Seconds between two looks at what has aged and which probe is due."""

_vni_of = attrgetter("vni")


class PythonEngine(Announcing, Injecting):
    """The Engine contract (vxlan/engine.py) on `Vtep` and an event loop."""

    def __init__(self, local: Iterable[str], port: int, why: str = "asked for") -> None:
        super().__init__()
        self.vtep = Vtep(local, port)
        self.info = EngineInfo("python", why)
        self.queues = 1
        self._taps: dict[int, Tap] = {}
        self._drains: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        self._encap, self._decap = self.vtep.encap, self.vtep.decap
        self._recorder: Recorder | None = None

    @property
    def announcer(self) -> Announcer:  # type: ignore[override]  # it is the VTEP's
        return self.vtep.announcer

    def follow(self, changes: Iterable[Change], now: float) -> None:
        self.vtep.follow(changes, now)

    # -- tables ------------------------------------------------------------------------

    def add_segment(self, vni: int, policy: Policy) -> None:
        self.vtep.add_segment(vni, policy)

    def set_policy(self, vni: int, policy: Policy, now: float) -> None:
        self.vtep.segments[vni].set_policy(policy, now)

    def remove_segment(self, vni: int) -> None:
        self.detach(vni)
        self.vtep.remove_segment(vni)

    def set_own_macs(self, vni: int, macs: Iterable[bytes]) -> None:
        self.vtep.segments[vni].own_macs = frozenset(macs)

    def add_remote(self, vni: int, remote: Remote, now: float) -> bool:
        return self.vtep.add_remote(vni, remote, now)

    def del_remote(self, vni: int, remote: Remote, now: float) -> bool:
        return self.vtep.segments[vni].del_remote(remote, now)

    def remotes(self, vni: int) -> tuple[Remote, ...]:
        return self.vtep.segments[vni].flood_list

    def fdb_set(
        self,
        vni: int,
        mac: bytes,
        remotes: tuple[Remote, ...],
        state: State,
        source: str,
        now: float,
    ) -> FdbEntry:
        return copy.copy(self.vtep.segments[vni].fdb.set(mac, remotes, state, source, now))

    def fdb_remove(
        self, vni: int, mac: bytes, now: float, state: State | None = None
    ) -> FdbEntry | None:
        return self.vtep.segments[vni].fdb.remove(mac, now, state=state)

    def fdb_flush(
        self, vni: int, now: float, *, state: State | None = None, address: str | None = None
    ) -> int:
        return self.vtep.segments[vni].flush(now, state=state, address=address)

    def fdb_get(self, vni: int, mac: bytes) -> FdbEntry | None:
        return copy.copy(self.vtep.segments[vni].fdb.get(mac))

    def fdb_count(self, vni: int) -> int:
        return len(self.vtep.segments[vni].fdb)

    def fdb_dump(self, vni: int) -> list[FdbEntry]:
        return [copy.copy(entry) for entry in self.vtep.segments[vni].fdb]

    def counters(self, vni: int | None) -> Mapping[str, Counters]:
        tally = self.vtep.tally if vni is None else self.vtep.segments[vni].tally
        return {**tally.by_remote, "local": tally.local, "other": tally.other}

    def set_paths(self, ceilings: Mapping[Remote, int], now: float) -> None:
        self.vtep.paths.set(ceilings, now)
        self._flush()

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        self.vtep.set_echoes(vni, echoes, now)
        self._flush()

    def paths(self) -> Mapping[str, PathState]:
        return self.vtep.paths.states()

    def ping(self, remote: Remote, size: int, flow: int, now: float) -> bytes:
        nonce = self.vtep.paths.ping(remote, size, flow, now)
        self._flush()
        return nonce

    def echo(self, nonce: bytes) -> float | None:
        return self.vtep.paths.echo(nonce)

    def peers_up(self) -> Mapping[str, bool]:
        return dict(self.vtep.peers)

    def twin(self, macs: Collection[bytes], source: str = "") -> Vtep:
        parts = (
            Part(one, filter(None, map(one.fdb.get, macs)), one.fdb.configured, one.fdb.closed)
            for one in self.vtep.segments.values()
        )
        return twin(self.vtep.local, self.vtep.port, parts, self.vtep.paths, self.announcer, source)

    # -- the data path without input and output ----------------------------------------

    def encap(self, vni: int, frames: Sequence[bytes], now: float) -> list[Datagram]:
        return [made for frame in frames for made in self._encap(vni, frame, now)]

    def decap(self, datagrams: Sequence[Datagram], now: float) -> list[Frame]:
        frames = (self._decap(datagram, now) for datagram in datagrams)
        return [frame for frame in frames if frame is not None]

    def tick(self, now: float) -> None:
        self.vtep.tick(now)

    def take_output(self) -> tuple[list[Datagram], list[Frame]]:
        datagrams, self.vtep.paths.output = self.vtep.paths.output, []
        datagrams += self.announcer.take_output()
        frames, self.vtep.answers = self.vtep.answers, []
        return datagrams, frames

    def drain_events(self) -> list[Event]:
        return self.vtep.log.drain()

    # -- what is seen -------------------------------------------------------------------

    def capture(self, wanted: Sight | None) -> None:
        self._recorder = None if wanted is None else Recorder(wanted, time.time_ns)
        watched = WatchedVtep(self.vtep, self._recorder) if self._recorder else self.vtep
        self._encap, self._decap = watched.encap, watched.decap

    def take_captured(self, held: float = 0.0) -> Batch:
        return self._recorder.take() if self._recorder else NOTHING

    # -- input and output --------------------------------------------------------------

    def start(self, underlay: Underlay, on_events: OnEvents) -> None:
        self._loop = asyncio.get_running_loop()
        self._start_faults(underlay)
        self._source_port = underlay.source_port
        self._on_events = on_events
        self.info.granted.update(underlay.granted)
        self.info.fallbacks.extend(underlay.fallbacks)
        self._epoll = select.epoll()
        for receiver in underlay.receivers:
            self._watch(receiver.fileno(), partial(self._drain_receiver, receiver))
        self._watch(underlay.error_fd, self._read_errors)
        for vni, tap in self._taps.items():
            self._watch_tap(vni, tap)
        self._loop.add_reader(self._epoll.fileno(), self._pump)
        self._ticking = self._loop.call_later(TICK, self._tick)

    def attach(self, vni: int, tap: Tap) -> None:
        self.detach(vni)
        self._taps[vni] = tap
        if self._epoll is not None:
            self._watch_tap(vni, tap)

    def detach(self, vni: int) -> None:
        tap = self._taps.pop(vni, None)
        if tap is not None and self._epoll is not None:
            self._unwatch(tap.fd)

    def stop(self) -> None:
        if self._epoll is None:
            return
        self._ticking.cancel()
        self._stop_faults()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._epoll = None
        self._drains.clear()

    def _watch_tap(self, vni: int, tap: Tap) -> None:
        self._watch(tap.fd, partial(self._drain_tap, vni, tap))

    def _watch(self, fd: int, drain: Callable[[], None]) -> None:
        assert self._epoll is not None
        self._drains[fd] = drain
        self._epoll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        assert self._epoll is not None
        del self._drains[fd]
        self._epoll.unregister(fd)

    # -- the loop ----------------------------------------------------------------------

    def _pump(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            drain = self._drains.get(fd)
            if drain is not None:
                drain()
        self._flush()
        self._report()

    def _drain_tap(self, vni: int, tap: Tap) -> None:
        encap, now = self._encap, time.monotonic()
        datagrams: list[Datagram] = []
        try:
            for _ in range(BATCH):
                frame = tap.read()
                if frame is None:
                    break
                datagrams += encap(vni, frame[VNET_HLEN:], now)
        except TapLost as lost:
            self._lose_tap(vni, str(lost), now)
        for datagram, why in self._send(datagrams):
            self._refused(vni, datagram.remote, why, now)

    def _drain_receiver(self, receiver: socket) -> None:
        now = time.monotonic()
        for _ in range(BATCH):
            datagrams = self._underlay.receive(receiver)
            if not datagrams:
                return
            self._take(datagrams, now)

    def _take(self, datagrams: Sequence[Datagram], now: float) -> None:
        """Deliver datagrams of one source."""
        frames = [frame for one in datagrams if (frame := self._decap(one, now)) is not None]
        for vni, group in groupby(frames, key=_vni_of):
            self._deliver(vni, [frame.data for frame in group], datagrams[0].remote)

    def _flush(self) -> None:
        """Send what the VTEP sends on its own account."""
        if self._epoll is None:
            return
        now = time.monotonic()
        datagrams, frames = self.take_output()
        for datagram, why in self._send(datagrams):
            if why is Drop.PKT_TOO_BIG:
                self.vtep.paths.refused(datagram, now)
            else:
                self.vtep.tally.drop(why, datagram.remote.address)
        for frame in frames:
            self._deliver(frame.vni, [frame.data], None)

    def _send(self, datagrams: list[Datagram]) -> list[tuple[Datagram, Drop]]:
        """Give datagrams to the kernel; those that it refused, and why."""
        refused = self._underlay.send_all(datagrams)
        if self._recorder is not None:
            self._tell_sent(datagrams, refused)
        return refused

    def _deliver(self, vni: int, frames: list[bytes], source: Remote | None) -> None:
        """Write frames of one source to a TAP; what is not taken is counted for it."""
        segment, tap = self.vtep.segments[vni], self._taps.get(vni)
        address = source.address if source else None
        for piece in merge(frames, segment.policy.mtu):
            refused = tap.write(piece.header, piece.frame) if tap else Drop.TAP_DOWN
            if refused is not None:
                segment.tally.drop(refused, address, piece.segments)
            if self._recorder is not None:
                self._recorder.written(vni, piece.frame, source, piece.segments, refused)

    # -- what goes wrong ---------------------------------------------------------------

    def _refused(self, vni: int, remote: Remote, why: Drop, now: float) -> None:
        self.vtep.segments[vni].tally.drop(why, remote.address)
        if why is Drop.UNDERLAY_UNREACHABLE:
            self.vtep.unreachable(remote, now, "no route")

    def _lose_tap(self, vni: int, why: str, now: float) -> None:
        self.detach(vni)
        self.vtep.log.put(Event(EventKind.TAP_LOST, now, vni, detail=why))

    def _read_errors(self) -> None:
        now = time.monotonic()
        for error in self._underlay.errors():
            self._path_error(error, now)

    def _path_error(self, error: PathError, now: float) -> None:
        if error.origin == "local":
            return  # our own link: whoever watches it tells by `set_paths`
        if error.errno == errno.EMSGSIZE:
            self.vtep.paths.claimed(error.address, error.mtu or 0, error.payload, now)
        else:
            self.vtep.unreachable(Remote(error.address, self.vtep.port), now, error.detail)

    def _tick(self) -> None:
        now = time.monotonic()
        self.announcer.epoch = time.time() - now  # the wall clock may step
        self.vtep.tick(now)
        self._count_lost_in_socket()
        self._flush()
        self._report()
        self._ticking = self._loop.call_later(TICK, self._tick)

    def _count_lost_in_socket(self) -> None:
        lost = self._underlay.take_rcvbuf_drops()
        if lost:
            self.vtep.tally.drop(Drop.SOCKET_RCVBUFF, packets=lost)

    def _report(self) -> None:
        events = self.vtep.log.drain()
        if events:
            self._on_events(events)
