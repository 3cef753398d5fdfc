"""The socket that Docker talks to: what it refuses, and what it survives."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_fakes import Engine, Host
from vxlan.plugins import docker_http


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Engine]:
    with Engine(Host(tmp_path)) as engine:
        yield engine


def test_only_its_owner_may_use_the_socket(docker: Engine) -> None:
    assert stat.S_IMODE(docker.server.path.stat().st_mode) == 0o600


def test_the_socket_goes_with_the_plugin_and_one_that_was_left_is_replaced(tmp_path: Path) -> None:
    with Engine(Host(tmp_path)) as docker:
        path = docker.server.path
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Engine(Host(tmp_path)) as docker:
        docker.call("Plugin.Activate")


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/NetworkDriver.GwAllocCheck", b"{}", {}, 404),
        ("/", b"{}", {}, 404),
        ("/Plugin.Activate", b"{", {}, 400),
        ("/Plugin.Activate", b"[]", {}, 400),
        ("/Plugin.Activate", b"[" * 100_000, {}, 400),
        ("/Plugin.Activate", b"\xff\xfe", {}, 400),
        ("/Plugin.Activate", b"{}", {"Content-Length": "-1"}, 411),
        ("/Plugin.Activate", b"{}", {"Content-Length": "9" * 30}, 413),
        ("/Plugin.Activate", b"", {}, 200),
    ],
)
def test_whatever_is_sent_is_answered_and_harms_nobody(
    docker: Engine, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert docker.post(path, body, **headers)[0] == status
    docker.call("Plugin.Activate")


def test_a_bug_is_told_as_one_and_the_next_call_is_answered(docker: Engine) -> None:
    def broken(_body: object) -> dict[str, object]:
        raise KeyError("x")

    docker.server.methods = {**docker.server.methods, "Broken": broken}
    assert docker.refusal("Broken") == (
        "pyvxlan failed (KeyError('x')): its log says where; please report"
    )
    docker.call("Plugin.Activate")


def test_clients_that_say_nothing_hold_no_place_for_ever(
    docker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_http._Request, "timeout", 0.2)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(docker_http.MAX_CLIENTS + 8)]
    try:
        for one in silent:
            one.connect(str(docker.server.path))
            one.settimeout(10)
        assert [one.recv(1) for one in silent] == [b""] * len(silent)
    finally:
        for one in silent:
            one.close()
    docker.call("Plugin.Activate")


def test_a_client_that_goes_away_is_no_trouble(docker: Engine) -> None:
    for said in (
        b"",
        b"POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
        b"\0" * 99,
    ):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(docker.server.path))
            one.sendall(said)
    docker.call("Plugin.Activate")
