"""Look at a lab and tell the feed: packets as they pass, events, tables, drops.

Theory of operation
===================

    sniffers (one each stop) ---> one thread: journeys -----> "packet"
                                        ^   and then -------> what waits
    monitor of each node -----> one thread each   |           "event"
    fdb.show, show of each ---> one thread, each second       "vtep", "drop"

What a node says is told after the packets that led to it: it waits until the sniffers
have been emptied once more.  So a page can put both in their order.

Packets wait in the kernel's buffers, which are small here: what a page cannot draw
anyway is lost there and counted ("skipped").  Sightings are put in order by the
kernel's clock, a batch each `TICK`.  A table is read again soon after an event, and
each second otherwise, for ages and for what a kernel's device has learned.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from vxlan import api, netdev, wire
from vxlan.drop import Drop
from vxlan.lab.view import story
from vxlan.lab.view.feed import Feed
from vxlan.lab.view.journey import MOST_JOURNEYS, Journey, Journeys, Sighting
from vxlan.lab.view.lookout import Lookout
from vxlan.lab.view.scene import HostView, Scene, SegmentView, Stop

log = logging.getLogger(__name__)

TICK = 0.05
"""Seconds between two looks at the sniffers."""

MOST_AT_ONCE = 32
"""Frames of one stop for each look."""

MOST_WAITING = 1024
"""Things said by nodes that wait for one look at the packets; the oldest are dropped."""

RETRY = 2.0
"""Seconds until a node that has ended is asked again."""

PERIOD = 1.0
"""Seconds between two readings of a table."""


class Watcher:
    """All threads that look; `start`, then `stop`."""

    def __init__(self, scene: Scene, feed: Feed) -> None:
        self.scene, self._feed = scene, feed
        self._packets = Packets(scene, feed)
        self._tables = [
            Tables(host, scene.places[host.name].name, self._packets) for host in scene.hosts
        ]
        self._ending = threading.Event()
        self._stir = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch_packets, name="view-packets", daemon=True),
            threading.Thread(target=self._watch_tables, name="view-tables", daemon=True),
            *(
                threading.Thread(
                    target=self._watch_events, args=(host,), name=f"view-{host.name}", daemon=True
                )
                for host in scene.hosts
                if host.node
            ),
        ]

    def start(self) -> None:
        """Tell the scene, then begin to look."""
        self._feed.tell("scene", self.scene.json(), subject="scene")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more.  Threads that wait for a node's next event end with the process."""
        self._ending.set()
        self._stir.set()
        for thread in self._threads[:2]:
            thread.join(5.0)
        self._packets.close()

    def _watch_packets(self) -> None:
        while not self._ending.is_set():
            with self._going_on("packets"):
                self._packets.look()

    def _watch_tables(self) -> None:
        while not self._ending.is_set():
            with self._going_on("tables"):
                for table in self._tables:
                    if table.look():
                        self._redraw(table.host)
            self._stir.wait(PERIOD)
            self._stir.clear()

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """A fault of the page is logged; it must not look live and stand still."""
        try:
            yield
        except Exception:
            log.exception("the page's look at the %s failed; it goes on", what)
            self._ending.wait(RETRY)

    def _redraw(self, host: HostView) -> None:
        self.scene = self.scene.with_host(host)
        self._packets.then("scene", self.scene.json(), "scene")
        self._packets.scene = self.scene

    def _watch_events(self, host: HostView) -> None:
        while not self._ending.wait(0.0):
            with suppress(api.ApiError, OSError, ValueError):
                for event in api.stream(host.node or "", "monitor"):
                    if self._ending.is_set():
                        return
                    self._packets.then("event", {"host": host.name, **event})
                    self._stir.set()
            self._ending.wait(RETRY)  # the node has ended; it may come back


class Packets:
    """Sniffers at all stops, and what they see as messages."""

    def __init__(self, scene: Scene, feed: Feed) -> None:
        self._feed = feed
        self.scene = scene
        self._lookouts: dict[Stop, Lookout] = {}
        self._journeys = Journeys()
        self._names = story.Names(scene)
        self._follow(scene)
        self._told: dict[int, tuple[int, dict[bytes, int]]] = {}
        self._skipped = 0
        self._waiting: deque[tuple[str, dict[str, Any], str | None]] = deque(maxlen=MOST_WAITING)

    def then(self, kind: str, body: dict[str, Any], subject: str | None = None) -> None:
        """Tell something, but first the packets that have passed by now."""
        self._waiting.append((kind, body, subject))

    def look(self) -> None:
        """Wait a tick for packets, and tell what came."""
        if self._drawn is not self.scene:
            self._follow(self.scene)
        open_now = [one.sniffer for one in self._lookouts.values() if one.sniffer.listening]
        select.select(open_now, [], [], TICK)
        time.sleep(TICK / 4)  # what belongs together is here by then
        count = len(self._waiting)
        for journey in self._journeys.add(self._sightings()):
            self._tell(journey)
        for _ in range(count):
            self._feed.tell(*self._waiting.popleft())
        for journey in self._journeys.settle(time.time()):
            self._tell(journey)
        self._tell_skipped()

    def close(self) -> None:
        """Close the sniffers."""
        for lookout in self._lookouts.values():
            lookout.close()

    def _follow(self, scene: Scene) -> None:
        """Look where the stops are now."""
        stops = set(scene.stops)
        for stop in set(self._lookouts) - stops:
            self._lookouts.pop(stop).close()
        for stop in stops - set(self._lookouts):
            self._lookouts[stop] = Lookout(stop)
        self._journeys.ports = scene.ports
        self._drawn = scene

    def _sightings(self) -> list[Sighting]:
        return [
            sighting
            for lookout in self._lookouts.values()
            for sighting in lookout.sightings(MOST_AT_ONCE)
        ]

    def _tell(self, journey: Journey) -> None:
        told, frames = self._told.pop(journey.number, (0, {}))
        body = story.told(journey, told, frames, self._names)
        self._told[journey.number] = len(journey.steps), frames
        while len(self._told) > MOST_JOURNEYS:
            del self._told[next(iter(self._told))]
        self._feed.tell("packet", body)

    def _tell_skipped(self) -> None:
        lost = self._journeys.skipped + sum(one.lost for one in self._lookouts.values())
        if lost > self._skipped:
            self._feed.tell("skipped", {"count": lost - self._skipped})
            self._skipped = lost


class Tables:
    """The FDB and the drops of one host."""

    def __init__(self, host: HostView, netns: str, packets: Packets) -> None:
        self.host, self._netns, self._packets = host, netns, packets
        self._drops: dict[str, int] | None = None

    def look(self) -> bool:
        """Read them, and tell; whether the host has other segments than before."""
        before = self.host
        try:
            body = self._read()
        except (api.ApiError, netdev.NetdevError, OSError, ValueError) as error:
            body = {"trouble": str(error)}
        subject = f"vtep {self.host.name}"
        self._packets.then("vtep", {"host": self.host.name, "time": time.time(), **body}, subject)
        return self.host != before

    def _read(self) -> dict[str, Any]:
        if self.host.node is not None:
            return self._node(self.host.node)
        return self._kernel()

    def _node(self, name: str) -> dict[str, Any]:
        shown, entries = api.call(name, "show"), api.call(name, "fdb.show")
        self._tell_drops(_drops(shown))
        segments = (SegmentView(one["vni"], one["tap"], one["bridge"]) for one in shown["segments"])
        self.host = replace(self.host, segments=tuple(segments), dstport=shown["vtep"]["dstport"])
        return {
            "engine": shown["engine"]["name"],
            "faults": [fault["text"] for fault in shown["faults"]],
            "segments": [
                {
                    "vni": segment["vni"],
                    "mtu": segment["mtu"],
                    "ageing": segment["policy"]["ageing"],
                    "remotes": [
                        {"address": one["address"], "path": (one["path"] or {}).get("mtu")}
                        for one in segment["remotes"]
                    ],
                }
                for segment in shown["segments"]
            ],
            "entries": [_entry(entry) for entry in entries if entry["mac"] != _FLOOD],
        }

    def _kernel(self) -> dict[str, Any]:
        return {
            "engine": self.host.vtep,
            "segments": [
                {"vni": one.vni, "mtu": netdev.link(one.tap, self._netns).mtu, "ageing": 300.0,
                 "remotes": [], }
                for one in self.host.segments
            ],
            "entries": [
                entry for segment in self.host.segments for entry in self._kernel_entries(segment)
            ],
        }  # fmt: skip

    def _kernel_entries(self, segment: SegmentView) -> list[dict[str, Any]]:
        return [
            {
                "vni": segment.vni,
                "mac": wire.mac_text(entry.mac),
                "dst": [entry.dst],
                "state": "static" if entry.permanent else "dynamic",
                "age": None,
            }
            for entry in netdev.fdb(segment.tap, self._netns)
            if entry.dst is not None and entry.mac != wire.ZERO_MAC
        ]

    def _tell_drops(self, now: dict[str, int]) -> None:
        before, self._drops = self._drops, now
        if before is None:
            return
        for reason, count in now.items():
            if count > before.get(reason, 0):
                body = {"host": self.host.name, "reason": reason, "time": time.time()}
                more = count - before.get(reason, 0)
                self._packets.then("drop", {**body, "count": more, "meaning": _meaning(reason)})


_FLOOD = wire.mac_text(wire.ZERO_MAC)


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {key: entry[key] for key in ("vni", "mac", "state", "age")}
    return {**kept, "dst": [remote["address"] for remote in entry["dst"]]}


def _drops(shown: dict[str, Any]) -> dict[str, int]:
    """All discards of a node by reason."""
    total: dict[str, int] = {}
    for part in (shown["vtep"], *shown["segments"]):
        for reason, count in part["counters"]["drops"].items():
            total[reason] = total.get(reason, 0) + count
    return total


def _meaning(reason: str) -> str:
    try:
        return Drop[reason].meaning
    except KeyError:
        return ""
