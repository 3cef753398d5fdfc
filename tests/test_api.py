"""The control socket: client and server, and that no client can harm the node."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest

from vxlan import api, api_server, api_stream
from vxlan.api_server import Server


def echo(args: dict[str, Any]) -> dict[str, Any]:
    return args


async def late(args: dict[str, Any]) -> str:
    await asyncio.sleep(0)
    return f"late {args['word']}"


def refuse(args: dict[str, Any]) -> None:
    raise api.ApiError("no such thing: make it", "not_found")


def fail(args: dict[str, Any]) -> None:
    raise RuntimeError("broken")


OPERATIONS = {"echo": echo, "late": late, "refuse": refuse, "fail": fail}


class Running:
    """A server in a thread of its own, so that the synchronous client can talk to it."""

    def __init__(self, name: str = "n1") -> None:
        self.server = Server(api.socket_path(name), OPERATIONS)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self.server.bind()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve()
        self._ready.set()
        await self._stop.wait()
        await self.server.close()

    def publish(self, *events: dict[str, Any]) -> None:
        """All in one turn of the loop, so that no client can read in between."""
        done = threading.Event()

        def now() -> None:
            for event in events:
                self.server.publish(event)
            done.set()

        self.loop.call_soon_threadsafe(now)
        assert done.wait(10)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    monkeypatch.setenv("PYVXLAN_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def node() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture
def raw(node: Running) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(api.socket_path("n1")))
        yield connection


def ask(connection: socket.socket, data: bytes) -> dict[str, Any]:
    connection.sendall(data)
    return read_line(connection)


def read_line(connection: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        assert byte, f"closed after {line!r}"
        line += byte
    answer: dict[str, Any] = json.loads(line)
    return answer


def test_a_call_and_its_result(node: Running) -> None:
    assert api.call("n1", "echo", vni=42, mac="x") == {"vni": 42, "mac": "x"}
    assert api.call("n1", "late", word="answer") == "late answer"


def test_a_refusal_carries_text_and_code(node: Running) -> None:
    with pytest.raises(api.ApiError, match="no such thing: make it") as caught:
        api.call("n1", "refuse")
    assert caught.value.code == "not_found"


def test_an_unknown_operation_is_refused_with_the_known_ones(node: Running) -> None:
    with pytest.raises(api.ApiError, match="known are monitor, echo, late") as caught:
        api.call("n1", "nonsense")
    assert caught.value.code == "usage"


def test_an_operation_that_breaks_answers_and_the_node_goes_on(node: Running) -> None:
    with pytest.raises(api.ApiError, match="RuntimeError.*its log says where"):
        api.call("n1", "fail")
    assert api.call("n1", "echo") == {}


def test_nobody_there() -> None:
    with pytest.raises(api.NotRunning, match="no node named n1 runs: pyvxlan up n1"):
        api.call("n1", "echo")
    with pytest.raises(api.NotRunning):
        next(api.stream("n1", "monitor"))
    assert api.running() == []


@pytest.mark.parametrize(
    "line",
    [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"op":5}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n"],
)
def test_malformed_requests_are_answered_and_the_connection_goes_on(
    raw: socket.socket, line: bytes
) -> None:
    answer = ask(raw, line)
    assert answer["ok"] is False
    assert answer["code"] == "usage"
    assert ask(raw, b'{"op":"echo","a":1}\n') == {"ok": True, "result": {"a": 1}}


def test_requests_of_one_connection_are_answered_in_order(raw: socket.socket) -> None:
    raw.sendall(b"".join(b'{"op":"echo","n":%d}\n' % n for n in range(100)))
    assert [read_line(raw)["result"]["n"] for _ in range(100)] == list(range(100))


def test_a_request_without_end_is_refused(raw: socket.socket, node: Running) -> None:
    sender = threading.Thread(target=send_all, args=(raw, b"x" * (api.MAX_REQUEST * 3)))
    sender.start()
    assert "longer than 1048576 bytes" in read_line(raw)["error"]
    sender.join(10)
    assert api.call("n1", "echo") == {}


def send_all(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        return


def test_clients_beyond_the_bound_are_refused_until_others_go(node: Running) -> None:
    path = str(api.socket_path("n1"))
    clients = [socket.socket(socket.AF_UNIX) for _ in range(api_server.MAX_CLIENTS)]
    for client in clients:
        client.settimeout(10)
        client.connect(path)
        assert ask(client, b'{"op":"echo"}\n')["ok"]
    with socket.socket(socket.AF_UNIX) as one_more:
        one_more.settimeout(10)
        one_more.connect(path)
        assert "64 clients" in read_line(one_more)["error"]
    for client in clients:
        client.close()
    assert wait_for_answer() == {}


def wait_for_answer() -> Any:
    """Ask until the server has seen that the others went."""
    for _ in range(1000):
        try:
            return api.call("n1", "echo")
        except (api.ApiError, OSError):
            continue
    raise AssertionError("the node never had room again")


def test_events_reach_whoever_monitors(node: Running, raw: socket.socket) -> None:
    assert ask(raw, b'{"op":"monitor"}\n') == {"ok": True, "result": "streaming"}
    node.publish({"event": "learned", "vni": 1}, {"event": "learned", "vni": 2})
    assert [read_line(raw)["vni"] for _ in range(2)] == [1, 2]


def test_a_monitor_of_one_vni_hears_that_and_what_has_none(
    node: Running, raw: socket.socket
) -> None:
    ask(raw, b'{"op":"monitor","vni":2}\n')
    node.publish({"event": "a", "vni": 1}, {"event": "b", "vni": 2}, {"event": "c", "vni": None})
    assert [read_line(raw)["event"] for _ in range(2)] == ["b", "c"]


def test_a_monitor_with_a_wrong_vni_is_refused(raw: socket.socket) -> None:
    assert ask(raw, b'{"op":"monitor","vni":"x"}\n')["code"] == "usage"


def test_a_slow_reader_loses_events_and_is_told_how_many(node: Running, raw: socket.socket) -> None:
    ask(raw, b'{"op":"monitor"}\n')
    count = api_stream.MAX_WAITING + 10
    node.publish(*({"event": "learned", "vni": 1, "n": n} for n in range(count)))
    for n in range(api_stream.MAX_WAITING):
        assert read_line(raw)["n"] == n
    assert read_line(raw) == {"event": "events_lost", "count": 10}


def test_the_stream_ends_with_the_node() -> None:
    with Running() as node:
        events = api.stream("n1", "monitor")
        first: list[dict[str, Any]] = []
        reader = threading.Thread(target=lambda: first.extend(events))
        reader.start()
        while not node.server._subscribers:
            pass
        node.publish({"event": "learned", "vni": 1})
    reader.join(10)
    assert not reader.is_alive()
    assert first == [{"event": "learned", "vni": 1}]


def test_the_socket_is_private_and_goes_with_the_node(runtime: Path) -> None:
    with Running():
        mode = stat.S_IMODE((runtime / "n1.sock").stat().st_mode)
        assert mode == 0o600
        assert api.running() == ["n1"]
    assert not runtime.exists()


def test_the_socket_of_a_group(runtime: Path) -> None:
    group = next(iter(os.getgroups()), os.getgid())
    import grp

    server = Server(api.socket_path("n1"), {}, group=grp.getgrgid(group).gr_name)
    server.bind()
    status = (runtime / "n1.sock").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, group)
    server.close_socket()


def test_a_group_that_is_not_there_leaves_nothing_behind(runtime: Path) -> None:
    server = Server(api.socket_path("n1"), {}, group="no-such-group")
    with pytest.raises(api.ApiError, match="there is no group no-such-group: make it"):
        server.bind()
    assert not runtime.exists()


def test_a_second_node_of_the_name_is_refused_and_the_first_lives(node: Running) -> None:
    with pytest.raises(api.ApiError) as caught:
        Server(api.socket_path("n1"), {}).bind()
    assert str(caught.value) == f"node n1 already runs (pid {os.getpid()}): pyvxlan down n1"
    assert api.call("n1", "echo") == {}


def test_the_socket_of_a_killed_node_is_replaced(runtime: Path) -> None:
    runtime.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(runtime / "n1.sock"))
    assert api.running() == []
    with Running():
        assert api.call("n1", "echo") == {}


def start_and_end(name: str) -> None:
    for _ in range(200):
        server = Server(api.socket_path(name), {})
        server.bind()
        server.close_socket()


def test_nodes_that_start_and_end_at_once_do_not_take_each_others_folder() -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(start_and_end, (f"n{number}" for number in range(4))))


def test_a_place_that_cannot_be_used_is_named(runtime: Path) -> None:
    runtime.write_text("a file, no folder")
    with pytest.raises(api.ApiError, match="set PYVXLAN_RUNTIME_DIR"):
        Server(api.socket_path("n1"), {}).bind()


def test_a_socket_that_cannot_be_removed_is_said_and_does_no_harm(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node of root has given up CAP_DAC_OVERRIDE when it ends in somebody else's folder."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    server = Server(api.socket_path("n1"), {})
    server.bind()
    monkeypatch.setattr(Path, "unlink", refuse)
    server.close_socket()
    assert "stays behind" in caplog.text
    monkeypatch.undo()
    assert api.listener(runtime / "n1.sock") is None


def test_the_client_is_light() -> None:
    """Command line tools import it for a life of milliseconds."""
    program = (
        "import sys, vxlan.api; "
        "heavy = {'asyncio', 'logging', 'click', 'pyroute2', 'uvloop', 'vxlan.engine'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = str(Path(api.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.stdout.strip() == "[]"
