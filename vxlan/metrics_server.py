"""Answer Prometheus: GET /metrics by HTTP, and nothing else.

Theory of operation
===================

A connection carries one request, and is closed behind the answer.  Whatever comes in,
the node goes on: a request has at most MAX_HEAD bytes and PATIENCE seconds, and only
MAX_CLIENTS are served at a time.  Nothing that a client sends is used but the method
and the path.  What is told is public to whoever reaches the address, which is therefore
a loopback address unless the operator writes another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from vxlan.metrics import CONTENT_TYPE

MAX_HEAD = 8192
"""Bytes of the longest request."""

MAX_CLIENTS = 16
MAX_TURNED_AWAY = 16
"""Clients that are told so at the same time; more are cut off."""

PATIENCE = 5.0
"""Seconds that a client has to ask, and again to take the answer."""

log = logging.getLogger(__name__)

_STATUS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class MetricsError(Exception):
    """The address cannot be listened on; one line with the remedy."""


class MetricsServer:
    """Serves what `text` gives, freshly for each request."""

    def __init__(self, address: str, port: int, text: Callable[[], Awaitable[str]]) -> None:
        self.address, self.port = address, port
        self._text = text
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; port 0 takes a free one, which `port` then tells.  Raises MetricsError."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self.address, self.port, limit=MAX_HEAD
            )
        except OSError as error:
            raise MetricsError(
                f"metrics {self.address} port {self.port}: {error.strerror or error}: "
                "choose another address or port"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and let the clients go."""
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS + MAX_TURNED_AWAY:
            writer.transport.abort()
            return
        self._clients.add(task)
        try:
            async with asyncio.timeout(PATIENCE):
                head = await _head(reader)
            if head is not None:
                writer.write(await self._answer(head))
            writer.close()
            async with asyncio.timeout(PATIENCE):
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._clients.discard(task)

    async def _answer(self, head: bytes) -> bytes:
        method, path = _asked(head)
        if len(self._clients) > MAX_CLIENTS:
            return _response(503, f"{MAX_CLIENTS} are served already\n")
        if not path:
            return _response(400, "this is no request of HTTP\n")
        if path.partition("?")[0] != "/metrics":
            return _response(404, "only /metrics is here\n")
        if method not in ("GET", "HEAD"):
            return _response(405, "only GET is answered\n", "Allow: GET, HEAD\r\n")
        try:
            text = await self._text()
        except Exception:
            log.exception("metrics could not be told")
            return _response(500, "the node failed: its log says where\n")
        return _response(200, text, without_body=method == "HEAD")


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """A request up to its empty line; b"" for one that is none, None for no request at all."""
    with suppress(asyncio.LimitOverrunError):
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as cut:
            return b"" if cut.partial else None
    return b""


def _asked(head: bytes) -> tuple[str, str]:
    """Method and path; two empty texts for what is no request."""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", ""
    return words[0], words[1]


def _response(status: int, text: str, more: str = "", *, without_body: bool = False) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{more}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if without_body else body)
