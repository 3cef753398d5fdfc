"""The protocol of Docker's plugins: JSON by HTTP POST over a unix socket.

Theory of operation
===================

Docker asks `POST /NetworkDriver.Join` with a JSON object as the body, and shows its user
what comes back under "Err".  One connection carries one request, so nobody who is
silent holds a thread for long.  Whatever arrives gets an answer and harms nobody:

    no such method            404, which Docker takes for "not implemented"
    no JSON object            400
    longer than MAX_BODY      413, without reading it
    a refusal                 200 and the error, "cause: remedy" on one line
    a bug of ours             the same, and the log says where
    more than MAX_CLIENTS     closed: Docker asks again after a second
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from vxlan.plugins.private_server import PrivateServer

MAX_BODY = 1 << 20
"""Bytes of the longest request that is read."""

MAX_CLIENTS = 64
PATIENCE = 10.0
"""Seconds that a client may take for its request."""

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

Handler = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the body of a request and returns that of the answer; raises Refusal."""

log = logging.getLogger(__name__)


class Refusal(Exception):
    """What a container engine asks for cannot be done; one line with cause and remedy."""


class PluginServer(PrivateServer):
    """Answers Docker.  `serve_forever`, then `close`."""

    most = request_queue_size = MAX_CLIENTS

    def __init__(self, path: Path, methods: Mapping[str, Handler]) -> None:
        self.methods = methods
        super().__init__(path, _Request)

    def turned_away(self) -> None:
        """Docker asks again."""
        log.warning("%d requests at once: one more is turned away", MAX_CLIENTS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or spoke no HTTP, is no trouble of ours."""
        log.debug("a request was given up: %r", sys.exception())


class _Request(BaseHTTPRequestHandler):
    """One request.  HTTP/1.0: the connection ends with the answer."""

    server: PluginServer
    timeout = PATIENCE

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._turn_away(411, "the request has no Content-Length")
        elif len(length) > 9 or int(length) > MAX_BODY:
            self._turn_away(413, f"the request is longer than {MAX_BODY} bytes")
        else:
            self._perform(self.path.removeprefix("/"), self.rfile.read(int(length)))

    def _perform(self, method: str, raw: bytes) -> None:
        handler = self.server.methods.get(method)
        if handler is None:
            self._answer(404, _error(f"{method[:100]}: no such method"))
            return
        try:
            body = _object(raw)
        except ValueError as error:
            self._answer(400, _error(f"the request is no JSON object: {error}"))
        else:
            self._answer(200, _perform(method, handler, body))

    def _turn_away(self, status: int, text: str) -> None:
        """Answer, and let the rest of the request pass: else the answer would not be heard."""
        self._answer(status, _error(text))
        self.connection.shutdown(socket.SHUT_WR)
        left = MAX_BODY
        while left > 0 and (part := self.rfile.read1(left)):
            left -= len(part)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        """A unix socket has no address."""
        return "unix"

    def log_message(self, *args: Any) -> None:
        """What is worth a line is logged where it happens."""


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw) if raw.strip() else {}
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is something else")
    return value


def _perform(method: str, handler: Handler, body: dict[str, Any]) -> dict[str, Any]:
    log.debug("%s %s", method, body)
    try:
        return handler(body)
    except Refusal as refusal:
        text = " ".join(str(refusal).split())
        log.warning("%s refused: %s", method, text)
        return _error(text)
    except Exception as error:
        log.exception("%s failed: %r", method, str(body)[:500])
        return _error(f"pyvxlan failed ({error!r}): its log says where; please report")


def _error(text: str) -> dict[str, Any]:
    """Docker reads "Err" of a network driver, and "Error" of an IPAM driver."""
    return {"Err": text, "Error": text}
