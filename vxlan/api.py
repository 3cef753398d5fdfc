"""The control socket, seen from outside: find running nodes and talk to them.

Theory of operation
===================

A node listens on a unix stream socket, NAME.sock in the runtime directory.  Who may
open it is a matter of file permissions alone.  Both sides write JSON objects, one a
line:

    -> {"op": "fdb.show", "vni": 42}
    <- {"ok": true, "result": [...]}
    <- {"ok": false, "error": "one line with the remedy", "code": "not_found"}

A connection carries any number of requests, answered in order.  After `monitor` it
carries events, one a line, until either side closes it.  docs/control-socket.md lists
the operations.  This module is imported by command line tools that live for
milliseconds: it uses the standard library only, and neither asyncio nor logging.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

MAX_REQUEST = 1 << 20
"""Bytes of the longest request line that a node reads."""

Code = Literal["usage", "not_found", "conflict", "failed", "not_running"]


class ApiError(Exception):
    """A node refused a request; the text is one line with the remedy."""

    def __init__(self, text: str, code: Code = "failed") -> None:
        super().__init__(text)
        self.code: Code = code


class NotRunning(ApiError):
    """No node listens under this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no node named {name} runs: pyvxlan up {name}", "not_running")


def runtime_dir() -> Path:
    """Where control sockets are."""
    chosen = os.environ.get("PYVXLAN_RUNTIME_DIR") or os.environ.get("RUNTIME_DIRECTORY")
    return Path(chosen.split(":")[0]) if chosen else Path("/run/pyvxlan")


def socket_path(name: str) -> Path:
    """The control socket of node `name`; a name with a slash is the socket's own path."""
    return Path(name) if "/" in name else runtime_dir() / f"{name}.sock"


def running() -> list[str]:
    """The names of the nodes that listen and that the caller may talk to."""
    return sorted(path.stem for path in runtime_dir().glob("*.sock") if listener(path) is not None)


def listener(path: Path) -> int | None:
    """The process id of whoever listens at `path`; None if nobody does, or not for us."""
    try:
        with closing(_connect(path, 1.0)) as connection:
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
            )
    except OSError:
        return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def call(name: str, op: str, *, timeout: float = 60.0, **args: Any) -> Any:
    """The result of one request.

    Raises ApiError if the node refuses it, NotRunning if there is no node, and OSError
    where the socket may not be opened or no answer comes within `timeout` seconds.
    """
    with closing(_open(name, timeout)) as connection, connection.makefile("rb") as answers:
        _send(connection, op, args)
        return _result(answers.readline(), name)


def stream(
    name: str, op: str, *, opened: Callable[[], None] | None = None, **args: Any
) -> Iterator[dict[str, Any]]:
    """The objects that follow a request such as `monitor`, until the node ends.

    The request is sent when the first object is asked for; `opened` is called when it was
    granted: nothing that happens from then on is missed.  Raises like `call`.
    """
    with closing(_open(name, 60.0)) as connection, connection.makefile("rb") as answers:
        _send(connection, op, args)
        _result(answers.readline(), name)
        connection.settimeout(None)
        if opened is not None:
            opened()
        for line in answers:
            yield json.loads(line)


class Chunks:
    """The bytes that follow an answer, as they come; iteration raises OSError."""

    def __init__(self, connection: socket.socket, answers: BufferedReader) -> None:
        self._connection = connection
        self._answers = answers

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes:
        chunk = self._answers.read1(1 << 18)
        if not chunk:
            raise StopIteration
        return chunk

    def finish(self) -> None:
        """Ask for the end: what the node has seen until now still comes."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End at once."""
        self._answers.close()
        self._connection.close()


def chunks(name: str, op: str, **args: Any) -> tuple[Any, Chunks]:
    """The answer to a request such as `capture`, and the bytes that follow.

    Raises like `call`.
    """
    connection = _open(name, 60.0)
    try:
        answers = connection.makefile("rb")
        _send(connection, op, args)
        result = _result(answers.readline(), name)
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return result, Chunks(connection, answers)


def _open(name: str, timeout: float) -> socket.socket:
    try:
        return _connect(socket_path(name), timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunning(name) from None


def _connect(path: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _send(connection: socket.socket, op: str, args: dict[str, Any]) -> None:
    connection.sendall(json.dumps({"op": op, **args}).encode() + b"\n")


def _result(line: bytes, name: str) -> Any:
    if not line.endswith(b"\n"):
        raise OSError(errno.ECONNRESET, f"node {name} ended before it answered")
    answer = json.loads(line)
    if answer["ok"]:
        return answer["result"]
    raise ApiError(answer["error"], answer["code"])
