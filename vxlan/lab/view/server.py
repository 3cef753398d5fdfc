"""The web server of the page: 127.0.0.1 only, known files only, strangers refused.

Theory of operation
===================

    GET  /TOKEN/             the page, and its files: those in `page`, by name
    GET  /TOKEN/feed         server-sent events, until either side closes
    POST /TOKEN/do/ACTION    a JSON object; answers {"ok": true|false, "said": text}

Who else can reach this port?  Other users of the machine, and every web page that the
teacher's browser shows.  So each address begins with a random token.  The Host header
must name this machine (no other name may be rebound to it), a POST must come from
a page of our own origin, and every answer forbids to load anything from elsewhere.
Connections, request sizes, times and readers are bounded: a whole request comes in time,
so that nobody holds a place by sending a byte now and then.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from typing import Any

from vxlan.bounded import BoundedThreads
from vxlan.lab.view.feed import Crowded, Feed
from vxlan.lab.wait import LabError

ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 48
MOST_BODY = 4096
IDLE = 15.0
"""Seconds for a whole request to come, and for a page to take each thing it is sent."""

ALIVE = 5.0
"""Seconds between two signs of life on a quiet feed."""

_THIS_MACHINE = re.compile(rf"({re.escape(ADDRESS)}|localhost)(:\d{{1,5}})?")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Do = Callable[[str, dict[str, Any]], str]
"""Do an action by its name, with its arguments; what to say of it.  Raises LabError."""


class Refused(Exception):
    """A request that is not served."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class PageServer(BoundedThreads, HTTPServer):
    """Serves the page from its own threads, from `start` until `stop`.

    Raises LabError if the port is taken.
    """

    most = request_queue_size = MOST_CONNECTIONS

    def __init__(self, feed: Feed, do: Do, port: int) -> None:
        self.feed, self.do = feed, do
        self.token = secrets.token_urlsafe(18)
        self.files = _page_files()
        self.ending = threading.Event()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise LabError(
                f"{ADDRESS}:{port}: {error.strerror}: choose another port with --port"
            ) from error

    @property
    def url(self) -> str:
        """The page; who knows it may do everything that the page can."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def start(self) -> None:
        """Begin to serve."""
        threading.Thread(
            target=self.serve_forever, args=(0.05,), name="view-server", daemon=True
        ).start()

    def stop(self) -> None:
        """Serve no more; open feeds end."""
        self.ending.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke concerns nobody else."""


def _page_files() -> dict[str, tuple[str, bytes]]:
    """Type and content of each file of the page, by name."""
    folder = files("vxlan.lab.view") / "page"
    found = {
        entry.name: (_TYPES["." + entry.name.rpartition(".")[2]], entry.read_bytes())
        for entry in folder.iterdir()
        if "." + entry.name.rpartition(".")[2] in _TYPES
    }
    return {"": found["index.html"], **found}


class _InTime(io.RawIOBase):
    """What a connection sends within `IDLE` seconds in all.  Raises TimeoutError after that."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end = time.monotonic() + IDLE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(IDLE)


class _Handler(BaseHTTPRequestHandler):
    """One request.  HTTP/1.0: the connection ends with the answer."""

    server: PageServer
    timeout = IDLE
    server_version = "pyvxlan"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_InTime(self.connection))

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged: their addresses hold the token."""

    def _guarded(self, serve: Callable[[str], None]) -> None:
        try:
            serve(self._path())
        except Refused as refused:
            self._answer(refused.status, "text/plain; charset=utf-8", f"{refused}\n".encode())
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _path(self) -> str:
        """What follows the token.  Raises Refused for strangers."""
        if not _THIS_MACHINE.fullmatch(self.headers.get("Host", "")):
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
        token, _, path = self.path.partition("?")[0][1:].partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "the address of the page is the one that `pyvxlan lab view` printed",
            )
        return path

    def _get(self, path: str) -> None:
        if path == "feed":
            self._stream()
        elif path in self.server.files:
            self._answer(HTTPStatus.OK, *self.server.files[path])
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such file")

    def _post(self, path: str) -> None:
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refused(HTTPStatus.FORBIDDEN, "only the page itself may ask for this")
        where, _, action = path.partition("/")
        if where != "do":
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing to do here")
        try:
            said = {"ok": True, "said": self.server.do(action, self._body())}
        except LabError as error:
            said = {"ok": False, "said": str(error)}
        self._answer(HTTPStatus.OK, "application/json", json.dumps(said).encode())

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdecimal():
            raise Refused(HTTPStatus.BAD_REQUEST, "a JSON object with its length is expected")
        if int(length) > MOST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "that is too long")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "that is no JSON object")
        return body

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._head(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def _stream(self) -> None:
        try:
            reader = self.server.feed.join()
        except Crowded:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open") from None
        try:
            self._head(HTTPStatus.OK, "text/event-stream")
            self.end_headers()
            while not self.server.ending.is_set():
                self.wfile.write((reader.take(ALIVE) or ": alive\n\n").encode())
        finally:
            self.server.feed.leave(reader)
