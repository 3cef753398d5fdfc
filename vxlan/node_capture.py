"""Captures of a running node: from the engine's records to the clients that want them.

Theory of operation
===================

    engine --take_captured--> Captures --put--> CaptureStream --> client

While anybody captures, records are fetched from the engine some times a second; with
nobody, the engine sees nothing and nothing runs here.  One capture alone is filtered
in the engine.  With several, the engine records everything, and each stream gets what
it wants of it.

A client that does not read has MAX_WAITING bytes of records; what comes beyond is
counted and told in the stream, as is what the engine could not keep.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from vxlan import config_values as values
from vxlan.api import ApiError
from vxlan.api_stream import Stream
from vxlan.arguments import Args, checked, only
from vxlan.recorder import Batch
from vxlan.sight import SNAPLEN, Seen, Sight, each, lost, pack

if TYPE_CHECKING:
    from vxlan.node import Node

FILTERED = 256
"""Bytes of a packet that filters look at, however few are kept."""

VERSION = 1
"""Of the records; raised when their layout changes."""

MAX_STREAMS = 8
MAX_WAITING = 16 << 20
"""Bytes that may wait for one slow client."""

PERIOD = 0.02
"""Seconds between two looks at what the engine has seen."""

LAST_LOOKS = 16
"""How often the engine is asked for the rest when a capture ends; it goes on recording."""

HELD = 0.002
"""Seconds that records may be left to the next look, so that they come in order."""

T = TypeVar("T")


class CaptureStream(Stream):
    """The records that one client wants."""

    def __init__(self, sight: Sight, result: Any, closed: Callable[[CaptureStream], None]) -> None:
        super().__init__(result)
        self.sight = sight
        self._closed = closed
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._lost = 0

    def put(self, batch: Batch) -> None:
        """Let records wait, or count them as lost."""
        self._lost += batch.lost
        if not batch.packets and not self._lost:
            return
        if self._waiting + len(batch.records) > MAX_WAITING:
            self._lost += batch.packets
            return
        if self._lost:
            self._append(pack(lost(self._lost, time.time_ns())))
            self._lost = 0
        self._append(batch.records)
        self.filled.set()

    def _append(self, records: bytes) -> None:
        self._chunks.append(records)
        self._waiting += len(records)

    def take(self) -> bytes:
        records = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting = 0
        return records

    def close(self) -> None:
        self._closed(self)


class Captures:
    """All captures of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._streams: list[CaptureStream] = []
        self._fetching: asyncio.Task[None] | None = None

    def open(self, args: dict[str, Any]) -> CaptureStream:
        """Begin to capture.  Raises ApiError."""
        sight = _sight(args)
        if len(self._streams) >= MAX_STREAMS:
            raise ApiError(f"{MAX_STREAMS} captures run already: end one", "conflict")
        self._pass_on()
        stream = CaptureStream(sight, self._about(), self._close)
        self._streams.append(stream)
        try:
            self._follow()
        except BaseException:
            self._streams.remove(stream)
            raise
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        return stream

    def _about(self) -> dict[str, Any]:
        vtep = self._node.config.vtep
        return {
            "version": VERSION,
            "name": self._node.config.name,
            "local": list(self._node.local),
            "dstport": vtep.dstport,
            "segments": [
                {"vni": vni, "tap": segment.config.tap}
                for vni, segment in self._node.segments.items()
            ],
        }

    def _close(self, stream: CaptureStream) -> None:
        for _ in range(LAST_LOOKS):
            if not self._pass_on():
                break
        self._streams.remove(stream)
        self._follow()

    def _follow(self) -> None:
        """Let the engine see what the streams want."""
        if not self._streams:
            self._node.engine.capture(None)
        elif len(self._streams) == 1:
            self._node.engine.capture(self._streams[0].sight)
        else:
            longest = max(FILTERED, *(stream.sight.snaplen for stream in self._streams))
            self._node.engine.capture(Sight(snaplen=longest))

    async def _fetch(self) -> None:
        while self._streams:
            much = self._pass_on(HELD) > SNAPLEN
            await asyncio.sleep(0 if much else PERIOD)
        self._fetching = None

    def _pass_on(self, held: float = 0.0) -> int:
        """Hand out what the engine has seen; how many bytes that was."""
        if not self._streams:
            return 0
        batch = self._node.engine.take_captured(held)
        if len(self._streams) == 1:
            self._streams[0].put(batch)
        elif batch.packets or batch.lost:
            packets = list(each(batch.records))
            for stream in self._streams:
                stream.put(wanted(packets, stream.sight, batch.lost))
        return len(batch.records)


def wanted(packets: list[Seen], sight: Sight, missed: int) -> Batch:
    """Of the records of everything, those that a sight wants."""
    kept = [seen for seen in packets if sight.wants(seen)]
    cut = [seen._replace(data=seen.data[: sight.snaplen]) for seen in kept]
    return Batch(b"".join(map(pack, cut)), len(cut), missed)


def _sight(args: Args) -> Sight:
    only(args, *_ARGUMENTS)
    return Sight(**{key: checked(args, key, _ARGUMENTS[key]) for key in args})


def _packed(value: object) -> bytes:
    try:
        return ip_address(values.text(value)).packed
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address") from None


_ARGUMENTS: dict[str, Callable[[object], Any]] = {
    "vni": values.vni,
    "mac": values.mac,
    "ip": _packed,
    "remote": values.underlay_address,
    "drops": values.flag,
    "side": values.one_of("inner", "outer"),
    "snaplen": lambda value: values.whole(value, 16, SNAPLEN, "a number of bytes"),
}
