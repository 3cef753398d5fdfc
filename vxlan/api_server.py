"""The control socket, seen from the node: serve requests and publish events.

Theory of operation
===================

The server knows lines and clients, not what the operations mean: the node gives it a
table from operation to function.  A function takes the request's arguments, returns
what JSON can say, and raises ApiError to refuse.  Whatever a client sends, it gets an
answer, and neither the node nor another client suffers for it:

    a line longer than MAX_REQUEST     answered, then closed
    more than MAX_CLIENTS              answered, then closed
    no JSON, no object, no "op"        answered, the connection goes on
    a client that does not read        loses events, and is told how many

A request may open a stream, which then has the connection (vxlan/api_stream.py).

Two nodes of one name exclude each other by a lock on the runtime directory that is
held only while the socket is put in place.  A socket at which nobody listens was left
by a node that was killed, and is replaced.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import chown
from typing import Any

from vxlan import unixsock
from vxlan.api import MAX_REQUEST, ApiError, listener
from vxlan.api_stream import Events, Stream, line_of

MAX_CLIENTS = 64

PLACE_TRIES = 10
"""How often nodes that end may take the runtime folder from under one that starts."""

Operation = Callable[[dict[str, Any]], Any]
"""Takes the arguments; may be a coroutine function."""

Opener = Callable[[dict[str, Any]], Stream]
"""Takes the arguments; what follows the answer (vxlan/api_stream.py)."""

log = logging.getLogger(__name__)


class Server:
    """The control socket of one node.  `bind`, then `serve`, then `close`."""

    def __init__(
        self,
        path: Path,
        operations: Mapping[str, Operation],
        group: str | None = None,
        streams: Mapping[str, Opener] | None = None,
    ) -> None:
        self.path = path
        self._operations = operations
        self._streams = {"monitor": self._open_monitor, **(streams or {})}
        self._group = group
        self._socket: socket.socket | None = None
        self._made_folder = False
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._subscribers: set[Events] = set()
        self._ending: str | None = None

    def bind(self) -> None:
        """Put the socket in place, before anything else: only one node may have the name.

        Raises ApiError if another node has it, or the place cannot be used.
        """
        try:
            self._take_place()
            self._open_to_group()
        except (OSError, ApiError) as error:
            self.close_socket()
            if isinstance(error, ApiError):
                raise
            raise ApiError(f"control socket {self.path}: {error}: {_REMEDY}") from None

    def _take_place(self) -> None:
        """Make the folder and the socket; again, if a node that ends took the folder away."""
        for left in reversed(range(PLACE_TRIES)):
            try:
                self._make_folder()
                with _locked(self.path.parent):
                    self._replace()
                return
            except FileNotFoundError:
                if not left:
                    raise

    def _make_folder(self) -> None:
        self.path.parent.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o755)
            self._made_folder = True

    def _replace(self) -> None:
        pid = listener(self.path)
        if pid is not None:
            name = self.path.stem
            raise ApiError(f"node {name} already runs (pid {pid}): pyvxlan down {name}", "conflict")
        with suppress(FileNotFoundError):
            self.path.unlink()
            log.info("replaced the control socket of a node that was killed: %s", self.path)
        self._socket = _listen(self.path)

    def _open_to_group(self) -> None:
        if self._group is None:
            return
        try:
            chown(self.path, group=self._group)
        except LookupError:
            text = f"group: there is no group {self._group}: make it, or name another"
            raise ApiError(text) from None
        self.path.chmod(0o660)

    async def serve(self) -> None:
        """Begin to answer."""
        assert self._socket is not None
        self._server = await asyncio.start_unix_server(
            self._accept, sock=self._socket, limit=MAX_REQUEST
        )

    def refuse_from_now(self, why: str) -> None:
        """Answer every request with a refusal; the name stays taken until `close`."""
        self._ending = why

    async def close(self) -> None:
        """Let the clients go and take the socket away."""
        self.close_socket()
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def close_socket(self) -> None:
        """Take the socket away; enough where `serve` was not called.

        The name goes before the socket: a node that starts meanwhile puts its own there.
        """
        if self._socket is not None:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("the control socket stays behind (%s): the next start takes it", error)
            if self._server is None:
                self._socket.close()
            self._socket = None
        if self._made_folder:
            self._made_folder = False
            with suppress(OSError):
                self.path.parent.rmdir()

    def publish(self, event: Mapping[str, Any]) -> None:
        """Hand an event to everyone who monitors."""
        if self._subscribers:
            line = line_of(event)
            for subscriber in self._subscribers:
                subscriber.put(line, event.get("vni"))

    # -- one client ------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            writer.transport.abort()  # what a client did not read by now, it never will
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) > MAX_CLIENTS:
            writer.write(_refusal(f"{MAX_CLIENTS} clients are served already: close one"))
            return
        while line := await _read_line(reader, writer):
            stream, answer = await self._answer(line)
            if stream is not None:
                await stream.carry(answer, reader, writer)
                return
            writer.write(answer)
            await writer.drain()

    async def _answer(self, line: bytes) -> tuple[Stream | None, bytes]:
        """The answer to a line; with the stream if it asks for one."""
        try:
            request = _parse(line)
            if self._ending is not None:
                raise ApiError(f"{self._ending}: ask again when it runs", "failed")
            if request["op"] in self._streams:
                stream = self._streams[request.pop("op")](request)
                return stream, line_of({"ok": True, "result": stream.result})
            return None, line_of({"ok": True, "result": await self._perform(request)})
        except ApiError as error:
            return None, _refusal(str(error), error.code)
        except Exception as error:
            log.exception("a request failed: %r", line[:200])
            return None, _refusal(f"the node failed ({error!r}): its log says where; please report")

    async def _perform(self, request: dict[str, Any]) -> Any:
        operation = self._operations.get(request.pop("op"))
        if operation is None:
            known = ", ".join([*self._streams, *self._operations])
            raise ApiError(f"no such operation: known are {known}", "usage")
        result = operation(request)
        return await result if inspect.isawaitable(result) else result

    def _open_monitor(self, args: dict[str, Any]) -> Stream:
        _vni_of(args)
        events = Events(args.get("vni"), self._subscribers.discard)
        self._subscribers.add(events)
        return events


async def _read_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """A whole line, or nothing at the end of the connection or of our patience."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError:
        writer.write(_refusal(f"the request is longer than {MAX_REQUEST} bytes: split it", "usage"))
        return b""


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ApiError("the request is not JSON: send one object on one line", "usage") from None
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise ApiError('the request is no object with an "op": see docs/control-socket.md', "usage")
    return request


def _vni_of(request: dict[str, Any]) -> None:
    vni = request.get("vni")
    if vni is not None and (isinstance(vni, bool) or not isinstance(vni, int)):
        raise ApiError(f"vni: {vni!r} is not a VNI: it must be 0 to 16777215", "usage")


def _refusal(text: str, code: str = "failed") -> bytes:
    return line_of({"ok": False, "error": text, "code": code})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _listen(path: Path) -> socket.socket:
    """A listening socket that is nobody else's from the first moment."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with unixsock.private():
            listening.bind(str(path))
            listening.listen(MAX_CLIENTS)
    except OSError:
        listening.close()
        raise
    return listening


_REMEDY = "set PYVXLAN_RUNTIME_DIR to a folder that you may write"
