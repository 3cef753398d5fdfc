"""A TAP that is handed over: what a node is given, and what it does not believe."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytun

from tests.hosts import lone_host
from vxlan import netns, tap_handing
from vxlan.tap import Tap, TapError
from vxlan.tap_handing import Wish

Answer = Callable[[socket.socket], None]


@contextmanager
def owner(folder: Path, answer: Answer) -> Iterator[str]:
    """A socket at which one request is answered so."""
    path = str(folder / "owner")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join(10)


ONE = Wish(42)


def fetch(folder: Path, answer: Answer, wish: Wish = ONE) -> Tap:
    with owner(folder, answer) as path:
        return tap_handing.fetch(path, "vxlan42", wish)


def saying(said: object, *fds: int) -> Answer:
    """The owner that reads the request and says this."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        socket.send_fds(connection, [json.dumps(said).encode()], fds)

    return answer


GRANTED = {"ok": True, "granted": {"csum": True}, "fallbacks": ["no uso"]}


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.namespaces
def test_descriptors_of_another_namespace_arrive_with_what_was_granted(tmp_path: Path) -> None:
    with lone_host() as host:
        with netns.inside(host):
            made = Tap.open("vxlan42", queues=2, persist=True)

        def answer(connection: socket.socket) -> None:
            assert tap_handing.trusted(connection)
            assert tap_handing.read_wish(connection) == Wish(42, 2, offload=True)
            tap_handing.hand(connection, made)

        with closing(fetch(tmp_path, answer, Wish(42, 2, offload=True))) as tap:
            made.close()
            assert len(tap.fds) == 2
            assert tap.granted == {"vnet_hdr": True}
            assert tap.there
            assert not any(map(os.get_blocking, tap.fds))
            assert not any(map(os.get_inheritable, tap.fds))
            assert tap.read() is None


@pytest.mark.parametrize(
    "said",
    [
        [], 7, {}, {"ok": True}, {**GRANTED, "granted": 7}, {**GRANTED, "fallbacks": None},
        {"ok": False},
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_told(tmp_path: Path, said: object) -> None:
    before = open_files()
    with pytest.raises(TapError, match="tap vxlan42: its owner's answer is no answer: update both"):
        fetch(tmp_path, saying(said, 0))
    assert open_files() == before


def test_a_refusal_comes_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TapError, match="^tap vxlan42: no such network: ask again$"):
        fetch(tmp_path, saying({"ok": False, "error": "no such\nnetwork: ask again"}))


def test_what_is_no_tap_is_closed_and_refused(tmp_path: Path) -> None:
    before = open_files()
    for number, fds in enumerate(((), (0,), (os.open("/", os.O_RDONLY),))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(TapError, match="what its owner handed over is no such TAP"):
            fetch(folder, saying(GRANTED, *fds))
        for fd in fds:
            if fd:
                os.close(fd)
    assert open_files() == before


@pytest.mark.namespaces
def test_a_tap_without_our_header_is_refused(tmp_path: Path) -> None:
    with lone_host() as host:
        with netns.inside(host):
            plain = pytun.TunTapDevice("plain", flags=pytun.IFF_TAP | pytun.IFF_NO_PI)
        with pytest.raises(TapError, match="what its owner handed over is no such TAP"):
            fetch(tmp_path, saying(GRANTED, plain.fileno()))
        plain.close()


def test_more_than_was_asked_for_is_refused_whole(tmp_path: Path) -> None:
    before = open_files()
    with pytest.raises(TapError, match="no answer"):
        fetch(tmp_path, saying(GRANTED, *[0] * 100))
    assert open_files() == before


def test_an_owner_that_is_away_or_silent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap_handing, "TIMEOUT", 0.2)
    with pytest.raises(TapError, match=r"does not answer at /nowhere \(No such file.*\): start it"):
        tap_handing.fetch("/nowhere", "vxlan42", Wish(42))
    ended = threading.Event()
    with owner(tmp_path, lambda _: ended.wait(10) and None) as path:
        with pytest.raises(TapError, match="does not answer"):
            tap_handing.fetch(path, "vxlan42", Wish(42))
        ended.set()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"7", b"{}", b'{"vni": 42}', b"[" * 9999,
        b'{"vni": "42", "queues": 1, "offload": true}',
        b'{"vni": 42, "queues": 0, "offload": true}',
        b'{"vni": 42, "queues": 65, "offload": true}',
        b'{"vni": 42, "queues": true, "offload": true}',
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_refused(raw: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(raw) if raw else theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match="no request for a TAP|are numbers|are possible"):
            tap_handing.read_wish(ours)
