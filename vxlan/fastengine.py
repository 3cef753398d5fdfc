"""The compiled engine: threads move packets, the event loop thinks.

Theory of operation
===================

    TAP  --> worker --> underlay     fastpath/worker_encap.pxi
    TAP  <-- worker <-- underlay     fastpath/worker_decap.pxi
              |          ^
      punts, events    tables
              v          |
           the event loop's thread           this file, fastpackets.py, fasttables.py

The workers run without the GIL and touch no Python object.  What they leave to
Python (a frame that is too big, a probe) and what they have to tell lies in two
bounded rings; an eventfd wakes the loop.  When a ring is full, a punt is counted as
discarded and an event as lost: a slow loop never slows a packet.

The event loop may send, too: probes, and what comes of punts.  It uses the same
sockets as the workers, and leaves them as it found them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vxlan import _fastpath
from vxlan.drop import Drop
from vxlan.engine import Datagram, OnEvents
from vxlan.event import Event, EventKind
from vxlan.fastpackets import FastPackets
from vxlan.fdb import Remote
from vxlan.offload import vnet_header
from vxlan.recorder import tell_sent
from vxlan.wire import VXLAN_HLEN

if TYPE_CHECKING:
    from vxlan.echo import Echoes
    from vxlan.patherror import PathError
    from vxlan.tap import Tap
    from vxlan.underlay import Underlay

TICK = 0.25
"""Seconds between two looks at what has aged and which probe is due."""

JOIN = 2.0
"""Seconds that a worker is given to end."""

PUNT_FRAME, PUNT_PROBE, PUNT_REPLY = 0, 1, 2
LOCAL_PEER = 0
DEFAULT_TTL = 64


class FastEngine(FastPackets):
    """The Engine contract (vxlan/engine.py) on compiled workers."""

    def __init__(
        self, local: Iterable[str], port: int, why: str = "asked for", queues: int = 1
    ) -> None:
        super().__init__(local, port, why, queues)
        self._workers: _fastpath.Workers | None = None
        self._taps: dict[int, Tap] = {}

    def start(self, underlay: Underlay, on_events: OnEvents) -> None:
        self._loop = asyncio.get_running_loop()
        self._underlay = underlay
        self._on_events = on_events
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._workers = self._new_workers(underlay)
        self._tell_granted()
        self._threads = [
            threading.Thread(target=carry, args=(number,), daemon=True)
            for number in range(self._workers.count)
            for carry in (self._workers.work, self._workers.relieve)
        ]
        for thread in self._threads:
            thread.start()
        self._loop.add_reader(self._wake, self._woken)
        self._loop.add_reader(underlay.error_fd, self._read_errors)
        self._ticking = self._loop.call_later(TICK, self._tick)

    def _new_workers(self, underlay: Underlay) -> _fastpath.Workers:
        workers = _fastpath.Workers(self.core, self._wake, self._stop, self.queues)
        for family, fds in underlay.pool_fds().items():
            workers.set_pool(6 if family == socket.AF_INET6 else 4, fds)
        workers.set_gso(underlay.gso)
        for at, receiver in enumerate(underlay.receivers):
            workers.add_receiver(at % self.queues, receiver.fileno())
        for vni, tap in self._taps.items():
            workers.attach(vni, list(tap.fds))
        return workers

    def _tell_granted(self) -> None:
        self.info.granted.update(self._underlay.granted)
        self.info.granted |= {
            "gso": self._underlay.gso,
            "queues": self.queues,
            "sums": _fastpath.SUM,
        }
        self.info.fallbacks.extend(self._underlay.fallbacks)

    def attach(self, vni: int, tap: Tap) -> None:
        self.detach(vni)
        self._taps[vni] = tap
        if self._workers is not None:
            self._workers.attach(vni, list(tap.fds))

    def detach(self, vni: int) -> None:
        if self._taps.pop(vni, None) is not None and self._workers is not None:
            self._workers.detach(vni)

    def remove_segment(self, vni: int) -> None:
        self.detach(vni)
        super().remove_segment(vni)

    def stop(self) -> None:
        if self._workers is None:
            return
        self._ticking.cancel()
        self._loop.remove_reader(self._wake)
        self._loop.remove_reader(self._underlay.error_fd)
        self._workers.stop()
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            thread.join(JOIN)
        self._workers = None
        os.close(self._wake)
        os.close(self._stop)

    # -- what the workers leave to us ---------------------------------------------------

    def _woken(self) -> None:
        os.eventfd_read(self._wake)
        assert self._workers is not None
        now = time.monotonic()
        for kind, who, tos, port, data in self._workers.take_punts():
            if kind == PUNT_FRAME:
                self._punted_frame(who, data, now)
            elif kind == PUNT_REPLY:
                self._punted_reply(who, port, data, now)
            else:
                source = Remote(self.names.address(who), port)
                self.take_probe(who, Datagram(source, data, tos=tos), now)
        self._flush()
        self._report()

    def _punted_frame(self, vni: int, frame: bytes, now: float) -> None:
        if vni in self._sides:
            self._send(vni, self.encap(vni, [frame], now))

    def _punted_reply(self, peer: int, port: int, payload: bytes, now: float) -> None:
        vni, frame = int.from_bytes(payload[4:7], "big"), payload[VXLAN_HLEN:]
        if vni in self._sides and not self.take_reply(peer, vni, frame, now):
            self._give_to_tap(vni, frame, Remote(self.names.address(peer), port))

    def _send(self, vni: int, datagrams: list[Datagram]) -> None:
        now = time.monotonic()
        for datagram, why in self._hand_over(datagrams):
            self.core.drop(vni, self.names.peer(datagram.remote.address), why, 1)
            if why is Drop.UNDERLAY_UNREACHABLE:
                self.unreachable(datagram.remote, now, "no route")
        if any(datagram.tos or datagram.ttl != DEFAULT_TTL for datagram in datagrams):
            self._underlay.unmark()

    def _flush(self) -> None:
        """Send what the VTEP sends on its own account."""
        if self._workers is None:
            return
        now = time.monotonic()
        datagrams, frames = self.take_output()
        for datagram, why in self._hand_over(datagrams):
            if why is Drop.PKT_TOO_BIG:
                self.probing.refused(datagram, now)
            else:
                self.core.drop(None, self.names.peer(datagram.remote.address), why, 1)
        for frame in frames:
            self._give_to_tap(frame.vni, frame.data)

    def _hand_over(self, datagrams: list[Datagram]) -> list[tuple[Datagram, Drop]]:
        """Give datagrams to the kernel; those that it refused, and why."""
        refused = self._underlay.send_all(datagrams)
        if self._recorder is not None:
            tell_sent(self._recorder, self._underlay.source_port, datagrams, refused)
        return refused

    def _give_to_tap(self, vni: int, frame: bytes, source: Remote | None = None) -> None:
        tap, side = self._taps.get(vni), self._sides[vni]
        why: Drop | None = Drop.TAP_DOWN
        if tap is not None:
            why = tap.write(vnet_header(frame, side.segment.policy.mtu), frame)
        if why is not None:
            self.core.drop(vni, LOCAL_PEER, why, 1)
        if self._recorder is not None:
            self._recorder.written(vni, frame, source, 1, why)

    def set_paths(self, ceilings: Mapping[Remote, int], now: float) -> None:
        super().set_paths(ceilings, now)
        self._flush()

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        super().set_echoes(vni, echoes, now)
        self._flush()

    def ping(self, remote: Remote, size: int, flow: int, now: float) -> bytes:
        nonce = super().ping(remote, size, flow, now)
        self._flush()
        return nonce

    # -- time and errors ------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        self.announcer.epoch = time.time() - now  # the wall clock may step
        self.tick(now)
        lost = self._underlay.take_rcvbuf_drops()
        if lost:
            self.core.drop(None, LOCAL_PEER, Drop.SOCKET_RCVBUFF, lost)
        self._notice_refused_gso()
        self._flush()
        self._report()
        self._ticking = self._loop.call_later(TICK, self._tick)

    def _notice_refused_gso(self) -> None:
        assert self._workers is not None
        code = self._workers.gso_refused()
        if code and self.info.granted.get("gso"):
            self.info.granted["gso"] = False
            sentence = (
                f"underlay: no UDP segmentation offload here ({os.strerror(code)}): "
                "one datagram for each call"
            )
            self.info.fallbacks.append(sentence)
            self.log.put(Event(EventKind.UNDERLAY_ERROR, time.monotonic(), detail=sentence))

    def _read_errors(self) -> None:
        now = time.monotonic()
        for error in self._underlay.errors():
            self._path_error(error, now)
        self._flush()
        self._report()

    def _path_error(self, error: PathError, now: float) -> None:
        if error.origin == "local":
            return  # our own link: whoever watches it tells by `set_paths`
        if error.errno == errno.EMSGSIZE:
            self.probing.claimed(error.address, error.mtu or 0, error.payload, now)
            self.follow_paths()
        else:
            self.unreachable(Remote(error.address, self.port), now, error.detail)

    def _report(self) -> None:
        events = self.drain_events()
        for event in events:
            if event.kind is EventKind.TAP_LOST and event.vni is not None:
                self._taps.pop(event.vni, None)
        if events:
            self._on_events(events)
