"""What follows an answer on the control socket: events, or records of packets.

Theory of operation
===================

A stream is opened by a request and carried until either side closes.  Who fills it
never waits for who reads it: what does not fit is counted, and the count is told when
there is room again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

MAX_WAITING = 4096
"""Events that may wait for one slow reader."""

PATIENCE = 2.0
"""Seconds that a client has to take what waited for it at the end."""


class Stream:
    """What waits for one client; `result` is the answer that stands before it."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.filled = asyncio.Event()

    def take(self) -> bytes:
        """All that waits, which then waits no more."""
        raise NotImplementedError

    def close(self) -> None:
        """The client is gone."""

    async def carry(
        self, answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send the answer, and then what comes, until the client closes its side."""
        writer.write(answer)
        gone = asyncio.ensure_future(_until_closed(reader))
        pump = asyncio.ensure_future(self._pump(writer))
        try:
            await asyncio.wait((gone, pump), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            gone.cancel()
            pump.cancel()
            await asyncio.gather(gone, pump, return_exceptions=True)
        await self._send_rest(writer)

    async def _send_rest(self, writer: asyncio.StreamWriter) -> None:
        """What waited when the client said that it has enough."""
        writer.write(self.take())
        try:
            async with asyncio.timeout(PATIENCE):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()

    async def _pump(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await writer.drain()
            await self.filled.wait()
            self.filled.clear()
            writer.write(self.take())


class Events(Stream):
    """Events as lines of JSON, of one segment and of those that name none."""

    def __init__(self, vni: int | None, closed: Callable[[Events], None]) -> None:
        super().__init__("streaming")
        self._closed = closed
        self._vni = vni
        self._lines: deque[bytes] = deque()
        self._lost = 0

    def put(self, line: bytes, vni: int | None) -> None:
        """Let an event wait, or count it as lost."""
        if self._vni is not None and vni is not None and vni != self._vni:
            return
        if len(self._lines) < MAX_WAITING:
            self._lines.append(line)
        else:
            self._lost += 1
        self.filled.set()

    def take(self) -> bytes:
        lines = b"".join(self._lines)
        self._lines.clear()
        if self._lost:
            lines += line_of({"event": "events_lost", "count": self._lost})
            self._lost = 0
        return lines

    def close(self) -> None:
        self._closed(self)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Return when the client closes; what it says meanwhile is not heard."""
    while await reader.read(4096):
        pass


def line_of(value: Mapping[str, Any]) -> bytes:
    """An object as one line of JSON."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
