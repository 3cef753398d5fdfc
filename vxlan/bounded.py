"""A bound on the threads of a `socketserver`: a connection that finds no room is closed."""

from __future__ import annotations

import threading
from socketserver import ThreadingMixIn
from typing import Any


class BoundedThreads(ThreadingMixIn):
    """Serves each connection in a thread of its own, `most` of them at the same time.

    To be inherited from before the server, with `most` given by the class.
    """

    daemon_threads = True
    most: int

    def __init__(self, *args: Any) -> None:
        self._room = threading.BoundedSemaphore(self.most)
        super().__init__(*args)

    def turned_away(self) -> None:
        """A connection found no room."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection, if there is room for one, and one to be had."""
        if not self._room.acquire(blocking=False):
            self.turned_away()
            self.shutdown_request(request)  # type: ignore[attr-defined]  # the server's
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._room.release()
            self.shutdown_request(request)  # type: ignore[attr-defined]  # the server's

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection and give its room back, however it ended."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()
