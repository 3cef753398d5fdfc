"""What becomes of an event: an object on the control socket, a line in the log, a memory.

Theory of operation
===================

The engine's events come in the event loop, in batches.  Each is handed to whoever
monitors; those about a station are kept for `fdb why`; those that matter to an
operator are logged.  All three are bounded, since anybody who can send us a datagram
can cause events:

    history   the last `PER_STATION` events of the last `STATIONS` stations
    log       `BURST` lines of a kind in `PERIOD` seconds; then one line with the number
              of those that were not written
    stream    bounded by vxlan/api_server.py
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from vxlan.event import Event, EventKind
from vxlan.fdb import Remote
from vxlan.wire import mac_text

PER_STATION = 16
STATIONS = 4096
BURST = 5
PERIOD = 10.0

log = logging.getLogger(__name__)

_LEVELS = {
    EventKind.LEARNED: logging.DEBUG,
    EventKind.AGED: logging.DEBUG,
    EventKind.MOVED: logging.INFO,
    EventKind.EVICTED: logging.WARNING,
    EventKind.CONFLICT: logging.WARNING,
    EventKind.FDB_SET: logging.DEBUG,
    EventKind.FDB_DELETED: logging.DEBUG,
    EventKind.REMOTE_ADDED: logging.INFO,
    EventKind.REMOTE_REMOVED: logging.INFO,
    EventKind.REMOTE_UP: logging.INFO,
    EventKind.REMOTE_DOWN: logging.WARNING,
    EventKind.MTU_CHANGED: logging.INFO,
    EventKind.PATH_MTU: logging.INFO,
    EventKind.TOO_BIG: logging.INFO,
    EventKind.TAP_LOST: logging.WARNING,
    EventKind.TAP_BACK: logging.INFO,
    EventKind.FAULT: logging.WARNING,
    EventKind.UNDERLAY_ERROR: logging.WARNING,
}


def unix_time(when: float) -> float:
    """Monotonic seconds -> seconds since 1970."""
    return time.time() - time.monotonic() + when


def as_json(event: Event) -> dict[str, Any]:
    """The object of the event stream."""
    return {
        "event": event.kind.value,
        "time": round(unix_time(event.when), 6),
        "vni": event.vni,
        "mac": None if event.mac is None else mac_text(event.mac),
        "remote": remote_json(event.remote),
        "was": remote_json(event.was),
        "detail": event.detail,
    }


def remote_json(remote: Remote | None) -> dict[str, Any] | None:
    """{"address", "port"}"""
    return None if remote is None else {"address": remote.address, "port": remote.port}


def sentence(event: Event) -> str:
    """The line in the log."""
    parts = [f"segment {event.vni}:"] if event.vni is not None else []
    parts.append(event.kind.value.replace("_", " "))
    if event.mac is not None:
        parts.append(mac_text(event.mac))
    if event.remote is not None:
        parts.append(str(event.remote))
    if event.was is not None:
        parts.append(f"(was {event.was})")
    if event.detail:
        parts.append(f"({event.detail})")
    return " ".join(parts)


class History:
    """The last events of each station; bounded in stations and in events."""

    def __init__(self) -> None:
        self._stations: OrderedDict[tuple[int, bytes], deque[Event]] = OrderedDict()

    def record(self, event: Event) -> None:
        """Remember an event about a station; the station silent for longest makes room."""
        if event.vni is None or event.mac is None:
            return
        key = (event.vni, event.mac)
        events = self._stations.get(key)
        if events is None:
            if len(self._stations) >= STATIONS:
                self._stations.popitem(last=False)
            events = self._stations[key] = deque(maxlen=PER_STATION)
        events.append(event)
        self._stations.move_to_end(key)

    def of(self, vni: int, mac: bytes) -> tuple[Event, ...]:
        """What is remembered of a station, oldest first."""
        return tuple(self._stations.get((vni, mac), ()))

    def forget(self, vni: int) -> None:
        """Forget a whole segment."""
        for key in [key for key in self._stations if key[0] == vni]:
            del self._stations[key]


class Chronicle:
    """Takes every event of a node: history, log, stream."""

    def __init__(self, publish: Callable[[dict[str, Any]], None]) -> None:
        self.history = History()
        self._publish = publish
        self._windows: dict[EventKind, _Window] = {}

    def take(self, event: Event) -> None:
        """An event of the engine or of the node."""
        self.history.record(event)
        level = _LEVELS[event.kind]
        if log.isEnabledFor(level):
            self._windows.setdefault(event.kind, _Window()).log(level, event)
        self._publish(as_json(event))


class _Window:
    """Bounds the log lines of one kind of event."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._lines = 0

    def log(self, level: int, event: Event) -> None:
        if event.when - self._began >= PERIOD:
            if self._lines > BURST:
                log.log(level, "%s: %d more", event.kind.value, self._lines - BURST)
            self._began, self._lines = event.when, 0
        self._lines += 1
        if self._lines <= BURST:
            log.log(level, "%s", sentence(event))
