"""The page's server: known files, its own page's clicks, and nothing for strangers."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from vxlan.lab import LabError, wait_until
from vxlan.lab.view import feed as feeds
from vxlan.lab.view import server as servers
from vxlan.lab.view.feed import Feed
from vxlan.lab.view.server import MOST_BODY, MOST_CONNECTIONS, PageServer

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def done() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def server(done: list[tuple[str, dict[str, Any]]]) -> Iterator[PageServer]:
    def do(action: str, said: dict[str, Any]) -> str:
        if action == "fail":
            raise LabError("it cannot be done")
        done.append((action, said))
        return "done"

    made = PageServer(Feed(), do, port=0)
    made.start()
    yield made
    made.stop()


def ask(
    server: PageServer, method: str, path: str, body: str | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def post(
    server: PageServer, body: str = "{}", action: str = "ping", **headers: str
) -> tuple[int, bytes]:
    given = {"Origin": server.url.rsplit("/", 2)[0], "Content_Type": "application/json"} | headers
    answer, content = ask(server, "POST", f"/{server.token}/do/{action}", body, **given)
    return answer.status, content


def test_the_page_and_its_files_are_served(server: PageServer) -> None:
    for name, kind in (
        ("", "html"),
        ("view.css", "css"),
        ("view.js", "javascript"),
        ("icon.svg", "svg"),
    ):
        answer, content = ask(server, "GET", f"/{server.token}/{name}")
        assert answer.status == 200
        assert kind in answer.headers["Content-Type"]
        assert content
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "http" not in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path", ["server.py", "../server.py", "page/view.js", "%2e%2e/x", "x" * 900]
)
def test_other_files_are_not(server: PageServer, path: str) -> None:
    assert ask(server, "GET", f"/{server.token}/{path}")[0].status == 404


@pytest.mark.parametrize(
    "path", ["/", "/view.js", "/feed", "/wrong/", "/wrong/feed", "/%00/", "/ä/"]
)
def test_without_the_token_there_is_nothing(server: PageServer, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), 5) as raw:
        raw.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert b" 403 " in raw.makefile("rb").readline()


@pytest.mark.parametrize("host", ["example.org", "rebound.example:80", "192.0.2.1", "", "["])
def test_another_name_of_this_machine_is_refused(server: PageServer, host: str) -> None:
    answer, _ = ask(server, "GET", f"/{server.token}/", Host=host)
    assert answer.status == 421


def test_a_click_of_the_page_is_done(
    server: PageServer, done: list[tuple[str, dict[str, Any]]]
) -> None:
    status, content = post(server, '{"from": "c1"}')
    assert (status, json.loads(content)) == (200, {"ok": True, "said": "done"})
    assert done == [("ping", {"from": "c1"})]
    assert json.loads(post(server, action="fail")[1]) == {"ok": False, "said": "it cannot be done"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://127.0.0.1"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Host": "example.org"},
    ],
)
def test_a_click_elsewhere_is_not(
    server: PageServer, done: list[tuple[str, dict[str, Any]]], headers: dict[str, str]
) -> None:
    assert post(server, **headers)[0] in (400, 403, 421)
    assert done == []


def test_a_post_without_an_origin_is_refused(server: PageServer, done: list[Any]) -> None:
    path = f"/{server.token}/do/ping"
    answer, _ = ask(server, "POST", path, "{}", Content_Type="application/json")
    assert answer.status == 403
    assert done == []


@pytest.mark.parametrize(
    "body",
    ["", "[]", "nonsense", "{", "1", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")],
)
def test_nonsense_is_refused(server: PageServer, body: str, done: list[Any]) -> None:
    assert post(server, body)[0] == 400
    assert done == []


def test_what_is_too_long_is_refused_unread(server: PageServer) -> None:
    assert post(server, json.dumps({"x": "y" * MOST_BODY}))[0] == 413


def test_no_more_connections_than_there_is_room_for(server: PageServer) -> None:
    held = [
        socket.create_connection(("127.0.0.1", server.server_port), 5)
        for _ in range(MOST_CONNECTIONS)
    ]
    try:
        with socket.create_connection(("127.0.0.1", server.server_port), 5) as late:
            late.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with suppress(ConnectionResetError):
                assert late.recv(1) == b""
    finally:
        for one in held:
            one.close()


def test_a_place_is_given_back_where_no_thread_can_be_started(
    server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(MOST_CONNECTIONS + 1):
            ours, theirs = socket.socketpair()
            server.process_request(theirs, "")
            assert ours.recv(1) == b""
            ours.close()
    assert ask(server, "GET", f"/{server.token}/")[0].status == 200


@pytest.mark.parametrize(
    "head", ["", "GET / HTTP/1.0\r\nX: ", "POST /{}/do/ping HTTP/1.0\r\n{}\r\n"]
)
def test_who_sends_a_byte_now_and_then_is_not_waited_for(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    monkeypatch.setattr(servers, "IDLE", 0.5)
    port = server.server_port
    named = (
        f"Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 4000\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), 0.05) as slow:
        slow.sendall(head.format(server.token, named).encode())

        def closed() -> bool:
            try:
                slow.sendall(b" ")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(closed, 10.0, "the server to close it")


def test_a_taken_port_is_one_line_with_the_remedy(server: PageServer) -> None:
    with pytest.raises(LabError, match="--port"):
        PageServer(Feed(), server.do, server.server_port)


# -- the feed ------------------------------------------------------------------------------


def lines(server: PageServer) -> Iterator[str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request("GET", f"/{server.token}/feed")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    while line := answer.readline():
        yield line.decode().rstrip("\n")
    connection.close()


def test_a_page_is_told_what_holds_and_then_what_happens(server: PageServer) -> None:
    server.feed.tell("vtep", {"n": 1}, subject="vtep a")
    server.feed.tell("vtep", {"n": 2}, subject="vtep a")
    server.feed.tell("packet", {"n": 3})
    found = lines(server)
    assert [next(found), next(found), next(found)] == ["event: vtep", 'data: {"n":2}', ""]
    server.feed.tell("packet", {"text": "two\nlines"})
    assert [next(found), next(found)] == ["event: packet", 'data: {"text":"two\\nlines"}']


def test_there_are_only_so_many_readers() -> None:
    feed = Feed()
    readers = [feed.join() for _ in range(feeds.MOST_READERS)]
    with pytest.raises(feeds.Crowded):
        feed.join()
    feed.leave(readers[0])
    feed.join()


def test_a_slow_reader_loses_messages_and_is_told() -> None:
    feed = Feed()
    reader = feed.join()
    for number in range(feeds.MOST_WAITING + 3):
        feed.tell("packet", {"n": number})
    for number in range(feeds.MOST_WAITING):
        assert f'{{"n":{number}}}' in reader.take(0.1)
    assert reader.take(0.01) == feeds.message("lost", {"count": 3})
    assert reader.take(0.01) == ""
