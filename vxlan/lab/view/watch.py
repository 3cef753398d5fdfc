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

import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from vxlan import api, netdev, wire
from vxlan.drop import Drop
from vxlan.lab.sniffer import Sniffer
from vxlan.lab.view import story
from vxlan.lab.view.feed import Feed
from vxlan.lab.view.journey import MOST_JOURNEYS, Journey, Journeys, Sighting
from vxlan.lab.view.scene import HostView, Scene, SegmentView

TICK = 0.05
"""Seconds between two looks at the sniffers."""

MOST_AT_ONCE = 32
"""Frames of one stop for each look."""

MOST_WAITING = 1024
"""Things said by nodes that wait for one look at the packets; the oldest are dropped."""

BUFFER = 1 << 18
"""Bytes that wait at one stop."""

RETRY = 2.0
"""Seconds until a node that has ended is asked again."""

PERIOD = 1.0
"""Seconds between two readings of a table."""


class Watcher:
    """All threads that look; `start`, then `stop`."""

    def __init__(self, scene: Scene, feed: Feed) -> None:
        self._scene, self._feed = scene, feed
        self._packets = Packets(scene, feed)
        self._tables = [Tables(host, scene, self._packets) for host in scene.hosts]
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
        self._feed.tell("scene", self._scene.json(), subject="scene")
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
            self._packets.look()

    def _watch_tables(self) -> None:
        while not self._ending.is_set():
            for table in self._tables:
                table.look()
            self._stir.wait(PERIOD)
            self._stir.clear()

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
        self._names = story.Names(scene)
        self._sniffers = [
            (stop, Sniffer(stop.namespace, stop.interface, BUFFER)) for stop in scene.stops
        ]
        self._journeys = Journeys(scene.ports)
        self._told: dict[int, tuple[int, dict[bytes, int]]] = {}
        self._skipped = 0
        self._waiting: deque[tuple[str, dict[str, Any], str | None]] = deque(maxlen=MOST_WAITING)

    def then(self, kind: str, body: dict[str, Any], subject: str | None = None) -> None:
        """Tell something, but first the packets that have passed by now."""
        self._waiting.append((kind, body, subject))

    def look(self) -> None:
        """Wait a tick for packets, and tell what came."""
        select.select([sniffer for _, sniffer in self._sniffers], [], [], TICK)
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
        for _, sniffer in self._sniffers:
            sniffer.close()

    def _sightings(self) -> list[Sighting]:
        return [
            Sighting(stop, captured.direction, captured.when, captured.data)
            for stop, sniffer in self._sniffers
            for captured in sniffer.packets(MOST_AT_ONCE)
            if len(captured.data) >= wire.ETH_HLEN
        ]

    def _tell(self, journey: Journey) -> None:
        told, frames = self._told.pop(journey.number, (0, {}))
        body = story.told(journey, told, frames, self._names)
        self._told[journey.number] = len(journey.steps), frames
        while len(self._told) > MOST_JOURNEYS:
            del self._told[next(iter(self._told))]
        self._feed.tell("packet", body)

    def _tell_skipped(self) -> None:
        lost = self._journeys.skipped + sum(sniffer.lost for _, sniffer in self._sniffers)
        if lost > self._skipped:
            self._feed.tell("skipped", {"count": lost - self._skipped})
            self._skipped = lost


class Tables:
    """The FDB and the drops of one host."""

    def __init__(self, host: HostView, scene: Scene, packets: Packets) -> None:
        self._host, self._packets = host, packets
        self._netns = next(stop.namespace.name for stop in scene.stops if stop.owner == host.name)
        self._drops: dict[str, int] | None = None

    def look(self) -> None:
        """Read them, and tell."""
        try:
            body = self._read()
        except (api.ApiError, netdev.NetdevError, OSError, ValueError) as error:
            body = {"trouble": str(error)}
        subject = f"vtep {self._host.name}"
        self._packets.then("vtep", {"host": self._host.name, "time": time.time(), **body}, subject)

    def _read(self) -> dict[str, Any]:
        if self._host.node is not None:
            return self._node(self._host.node)
        return self._kernel()

    def _node(self, name: str) -> dict[str, Any]:
        shown, entries = api.call(name, "show"), api.call(name, "fdb.show")
        self._tell_drops(_drops(shown))
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
            "engine": self._host.vtep,
            "segments": [
                {"vni": one.vni, "mtu": netdev.link(one.tap, self._netns).mtu, "ageing": 300.0,
                 "remotes": [], }
                for one in self._host.segments
            ],
            "entries": [
                entry for segment in self._host.segments for entry in self._kernel_entries(segment)
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
                body = {"host": self._host.name, "reason": reason, "time": time.time()}
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
