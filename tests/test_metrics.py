"""Prometheus: the text, and that no client can harm the node that gives it."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from tests.fakenode import counters, remote, segment, shown
from tests.memory_node import A, World, make_world
from vxlan import metrics_server
from vxlan.config import ConfigError, load
from vxlan.config_values import Endpoint
from vxlan.drop import Drop
from vxlan.metrics import render
from vxlan.metrics_server import MetricsError, MetricsServer

HEAD = '[vtep]\nlocal = "192.0.2.1"\n'
SEGMENT = "[[segment]]\nvni = 42\n"

# -- the text ------------------------------------------------------------------------

LABEL = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
LINE = re.compile(rf"[a-z_]+(?:\{{{LABEL}(?:,{LABEL})*\}})? \S+")


def samples(text: str) -> dict[str, float]:
    """Series -> value; AssertionError for what is no line of the format, or comes twice."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        assert LINE.fullmatch(line), line
        series, _, value = line.rpartition(" ")
        assert series not in found
        found[series] = float(value)
    return found


def test_every_counter_of_show_is_there() -> None:
    dropping = counters({"UNKNOWN_REMOTE": 7}, encap_packets=9, encap_bytes=900, learned=3)
    text = render(shown("lab", segment(counters=dropping)), now=1_800_000_000.0)
    found = samples(text)
    assert found['pyvxlan_drops_total{vni="42",reason="UNKNOWN_REMOTE"}'] == 7
    assert found['pyvxlan_encap_packets_total{vni="42"}'] == 9
    assert found['pyvxlan_remote_encap_packets_total{vni="42",remote="192.0.2.2",port="4789"}'] == (
        1234
    )
    assert found["pyvxlan_start_time_seconds"] == 1_799_996_000
    for key in counters():
        if key != "drops":
            labels = "" if key in ("probes", "announcements") else '{vni="42"}'
            assert f"pyvxlan_{key}_total{labels}" in found
    for why in Drop:
        assert f'pyvxlan_drops_total{{vni="42",reason="{why.name}"}}' in found
        assert f'pyvxlan_vtep_drops_total{{reason="{why.name}"}}' in found


def test_every_metric_says_what_it_is_once() -> None:
    text = render(shown("lab", segment(7, remotes=[]), segment(42)))
    helped = re.findall(r"^# HELP (\S+) \S.*\.$", text, re.MULTILINE)
    typed = re.findall(r"^# TYPE (\S+) (counter|gauge)$", text, re.MULTILINE)
    assert helped == [name for name, _ in typed]
    assert len(set(helped)) == len(helped)
    for name, kind in typed:
        assert name.endswith("_total") == (kind == "counter"), name
    assert {line.split("{")[0].split()[0] for line in samples(text)} == set(helped) - {
        "pyvxlan_remote_drops_total"  # nothing of the kind occurred
    }


def test_what_is_not_known_is_left_out_or_zero() -> None:
    nowhere = {**remote("192.0.2.9", state="unknown"), "path": None}
    found = samples(render(shown("lab", segment(remotes=[nowhere]))))
    labels = '{vni="42",remote="192.0.2.9",port="4789"}'
    assert found[f"pyvxlan_remote_up{labels}"] == 0
    assert f"pyvxlan_remote_path_mtu_bytes{labels}" not in found


def test_labels_are_escaped() -> None:
    assert r'node="a\"b\\c\nd"' in render(shown('a"b\\c\nd'))


# -- the configuration ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"127.0.0.1:9479"', "127.0.0.1:9479"),
        ('"[::1]:9479"', "[::1]:9479"),
        ("9479", "127.0.0.1:9479"),
        ('"0.0.0.0:9479"', "0.0.0.0:9479"),
    ],
)
def test_where_metrics_are_told(tmp_path: Path, written: str, meant: str) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(f"{HEAD}metrics = {written}\n{SEGMENT}")
    assert str(load(path).vtep.metrics) == meant


@pytest.mark.parametrize(
    "written",
    ['""', '"127.0.0.1"', '"localhost:9479"', '"127.0.0.1:0"', '"127.0.0.1:99999999"', "true", "0"],
)
def test_what_is_no_address_is_refused_with_its_line(tmp_path: Path, written: str) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(f"{HEAD}metrics = {written}\n{SEGMENT}")
    with pytest.raises(ConfigError, match=r"lab\.toml:3: vtep\.metrics: "):
        load(path)


def test_nobody_is_told_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(HEAD + SEGMENT)
    assert load(path).vtep.metrics is None


def test_an_endpoint_shows_as_it_is_written() -> None:
    assert [str(Endpoint("::1", 80)), str(Endpoint("127.0.0.1", 80))] == [
        "[::1]:80",
        "127.0.0.1:80",
    ]


# -- the server ----------------------------------------------------------------------


@asynccontextmanager
async def serving(text: str = "pyvxlan_up 1\n") -> AsyncIterator[MetricsServer]:
    async def told() -> str:
        if not text:
            raise RuntimeError("broken")
        return text

    server = MetricsServer("127.0.0.1", 0, told)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def say(server: MetricsServer, request: bytes) -> bytes:
    """The whole answer to what one client sends before it closes its side."""
    reader, writer = await asyncio.open_connection(server.address, server.port)
    with closing(writer):
        writer.write(request)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_scrape() -> None:
    async def scrape() -> None:
        async with serving() as server:
            url = f"http://127.0.0.1:{server.port}/metrics"
            with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert answer.read() == b"pyvxlan_up 1\n"

    asyncio.run(scrape())


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (GET, b"200", True),
        (GET.replace(b"/metrics", b"/metrics?x=1"), b"200", True),
        (GET.replace(b"GET", b"HEAD"), b"200", False),
        (GET.replace(b"GET", b"POST"), b"405", True),
        (GET.replace(b"/metrics", b"/"), b"404", True),
        (GET.replace(b"/metrics", b"/../../etc/passwd"), b"404", True),
        (b"hello\r\n\r\n", b"400", True),
        (b"\xff\x00\r\n\r\n", b"400", True),
        (b"GET /metrics HTTP/1.1\r\n", b"400", True),
        (b"GET /metrics HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", b"400", True),
    ],
)
def test_every_request_has_its_answer(request_: bytes, status: bytes, body: bool) -> None:
    async def ask() -> bytes:
        async with serving() as server:
            return await say(server, request_)

    head, _, text = asyncio.run(ask()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b" ")
    assert bool(text) == body


def test_a_node_that_fails_says_so_and_serves_the_next() -> None:
    async def ask() -> None:
        async with serving("") as server:
            for _ in range(2):
                assert (await say(server, GET)).startswith(b"HTTP/1.1 500 ")

    asyncio.run(ask())


def test_clients_that_say_nothing_are_bounded_in_number_and_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_server, "MAX_CLIENTS", 2)

    async def crowd() -> None:
        async with serving() as server:
            idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
            while len(server._clients) < 2:
                await asyncio.sleep(0.01)
            assert (await say(server, GET)).startswith(b"HTTP/1.1 503 ")
            monkeypatch.setattr(metrics_server, "MAX_TURNED_AWAY", 0)
            with suppress(ConnectionResetError):  # it may be cut off before or after it asked
                assert await say(server, GET) == b""
            for _, writer in idle:
                writer.close()
            while server._clients:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(metrics_server, "PATIENCE", 0.05)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            with closing(writer):
                assert await asyncio.wait_for(reader.read(), 10) == b""

    asyncio.run(asyncio.wait_for(crowd(), 20))


def test_a_port_that_is_taken_is_refused_in_one_line() -> None:
    async def start(port: int) -> None:
        await MetricsServer("127.0.0.1", port, serving).start()  # type: ignore[arg-type]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetricsError, match=rf"^metrics 127.0.0.1 port {port}: .*: choose"):
            asyncio.run(start(port))


# -- a node --------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = make_world(tmp_path, monkeypatch)
    return next(made)


def test_a_node_tells_its_own_counters(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def scrape() -> None:
        world.write(f'[[segment]]\nvni = 7\nremotes = ["{A}"]\n', f"metrics = {port}")
        async with world.run():
            url = f"http://127.0.0.1:{port}/metrics"
            with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
                found = samples(answer.read().decode())
            assert found['pyvxlan_mtu_bytes{vni="7"}'] == 1450
            assert found['pyvxlan_drops_total{vni="7",reason="PKT_TOO_BIG"}'] == 0
        with pytest.raises(urllib.error.URLError):
            await asyncio.to_thread(urllib.request.urlopen, url)

    asyncio.run(scrape())
    world.close()
