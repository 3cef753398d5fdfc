"""What the pages are told: every message to every page, bounded.

A page that reads too slowly loses messages and is told how many; nobody waits for it.
Messages of one subject (the FDB of a host, say) are remembered, so that a page that
comes later begins with what holds.
"""

from __future__ import annotations

import json
import queue
import threading
from contextlib import suppress
from typing import Any

MOST_READERS = 16
"""Pages at the same time: a teacher's, a projector's, and some to spare."""

MOST_WAITING = 2048
"""Messages that wait for one page."""


class Crowded(Exception):
    """There are as many readers as there may be."""


class Reader:
    """The messages of one page, in order."""

    def __init__(self) -> None:
        self._queue: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self._lost = 0

    def put(self, text: str) -> None:
        """Add a message, or count it as lost."""
        try:
            self._queue.put_nowait(text)
        except queue.Full:
            self._lost += 1

    def take(self, timeout: float) -> str:
        """The next message; empty when none came within `timeout` seconds."""
        with suppress(queue.Empty):
            return self._queue.get(timeout=timeout)
        if self._lost:
            lost, self._lost = self._lost, 0
            return message("lost", {"count": lost})
        return ""


def message(kind: str, body: dict[str, Any]) -> str:
    """One server-sent event (HTML standard, section 9.2); JSON has no raw line ends."""
    return f"event: {kind}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n"


class Feed:
    """Hands messages to readers; may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: set[Reader] = set()
        self._kept: dict[str, str] = {}

    def tell(self, kind: str, body: dict[str, Any], subject: str | None = None) -> None:
        """Tell all readers; what is about a `subject` replaces what was said of it before."""
        text = message(kind, body)
        with self._lock:
            if subject is not None:
                self._kept[subject] = text
            for reader in self._readers:
                reader.put(text)

    def join(self) -> Reader:
        """A new reader, which begins with what is remembered.  Raises Crowded."""
        reader = Reader()
        with self._lock:
            if len(self._readers) >= MOST_READERS:
                raise Crowded
            for text in self._kept.values():
                reader.put(text)
            self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """Tell this reader nothing more."""
        with self._lock:
            self._readers.discard(reader)
