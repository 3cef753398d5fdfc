"""`pyvxlan lab view` in a real browser: packets travel, tables fill, keys work."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from tests.browser import MISSING, Browser
from tests.clirun import complaint, process, run
from tests.topologies import PAIR, ROUTED
from vxlan import netdev, netns
from vxlan.lab import RunningLab, manage, plan, store, wait_until
from vxlan.lab.build import build
from vxlan.lab.view import EXAMPLE, PageServer, show
from vxlan.lab.view.feed import Reader
from vxlan.lab.view.journey import Sighting
from vxlan.lab.view.lookout import Lookout

pytestmark = pytest.mark.namespaces

RECORD = """
window.said = [];
new MutationObserver(() => window.said.push(document.getElementById("say").innerText))
    .observe(document.getElementById("say"), {childList: true});
window.wrapped = new Set();
new MutationObserver(() => {
    for (const token of document.querySelectorAll(".token.wrapped .tag"))
        window.wrapped.add(token.textContent);
}).observe(document.getElementById("stage"), {subtree: true, attributes: true});
"""
C1_TO_C2 = {"from": "c1", "to": "c2"}
LIVE = "document.getElementById('link').textContent === 'live' && page_is_drawn()"
DRAWN = "window.page_is_drawn = () => document.querySelectorAll('#stage .vtep').length === 3;"


@dataclass(frozen=True)
class World:
    lab: RunningLab
    server: PageServer
    browser: Browser


@pytest.fixture(scope="module")
def shown(labs: Path) -> Iterator[World]:
    if MISSING:
        pytest.skip(MISSING)
    lab = manage.up(EXAMPLE, f"t-{secrets.token_hex(3)}").lab
    with show(lab, port=0) as server, Browser() as browser:
        yield World(lab, server, browser)


@pytest.fixture
def world(shown: World) -> World:
    """The page, freshly loaded, of a lab that has learned nothing."""
    open_page(shown.browser, shown.server.url)
    shown.browser.js("document.getElementsByName('speed')[2].value = 40")
    shown.browser.press("3", "f")
    shown.browser.wait("document.getElementById('note').innerText.includes('forgotten')")
    shown.browser.press("n")
    shown.browser.js(RECORD)
    return shown


def open_page(browser: Browser, url: str) -> None:
    browser.open(url)
    browser.js(DRAWN)
    browser.wait(LIVE)


def fdb(host: str) -> str:
    return f"document.querySelector('#fdb-{host} tbody').innerText"


def heard(browser: Browser, words: str) -> None:
    browser.wait(f"window.said.some(said => said.includes({words!r}))")


def test_it_loads_without_complaint_and_asks_nobody_else(world: World) -> None:
    assert world.browser.complaints() == []
    asked = [url for url in world.browser.requests() if not url.startswith("chrome:")]
    outside = [url for url in asked if not url.startswith((world.server.url, "data:"))]
    assert asked
    assert outside == []


def test_a_ping_travels_hop_by_hop_and_the_tables_fill(world: World) -> None:
    browser = world.browser
    browser.click("#ping button")
    for words in (
        "c1 sends 42 bytes to everybody.",
        "VNI 42, 50 bytes more. It is for everybody, so each remote gets a copy.",
        "The VTEP of b wraps it: VNI 42, 50 bytes more, to a (192.0.2.1).",
        "b receives it at its link, 92 bytes.",
        "The VTEP of b takes 50 bytes of outer headers off.",
        "b learns: c1 is behind a 192.0.2.1.",
        "a learns: c2 is behind b 192.0.2.2.",
        "c1 sends 98 bytes to c2.",
        "c1 receives it.",
    ):
        heard(browser, words)
    assert browser.js("return [...window.wrapped]") == ["VNI 42"]
    for host, station in (("a", "c2"), ("b", "c1"), ("c", "c1")):
        browser.wait(f"{fdb(host)}.includes('{station}')")
    listed = browser.js(
        "return [...document.querySelectorAll('#packets > li:not([hidden]) .word')]"
        ".map(one => one.textContent).join(' ')"
    )
    assert "answer ping ARP! ARP?" in listed
    assert "answer after" in browser.text("#note")


def test_headers_unfold_while_it_is_wrapped(world: World) -> None:
    browser = world.browser
    names = "[...document.querySelectorAll('#layers > li:not(.leave)')].map(i => i.dataset.layer)"
    browser.press("2", "p")
    outer = ["Ethernet", "IPv4", "UDP", "VXLAN", "Ethernet", "ARP"]
    browser.wait(f"{names}.join() === '{','.join(outer)}'")
    browser.press(" ")
    assert "VNI" in browser.text("#layers li.vxlan table")
    assert "50 of outer headers" in browser.text("#strip-text")
    browser.press(" ", "3")
    browser.wait(f"{names}.join() === 'Ethernet,IPv4,ICMP,payload'")


def test_the_whole_page_obeys_the_keyboard(world: World) -> None:
    browser = world.browser
    browser.press(" ", "p")
    browser.wait("parseInt(document.getElementById('waiting').textContent) >= 4")
    assert browser.js("return window.said.length") == 0
    browser.press("Right")
    heard(browser, "c1 sends 42 bytes to everybody.")
    browser.press("Right")
    heard(browser, "The bridge of a copies it")
    assert browser.js("return window.said.length") == 2
    browser.press("?")
    browser.wait("document.getElementById('help-text').open")
    browser.press("Escape")
    browser.wait("!document.getElementById('help-text').open")
    before = browser.js("return document.documentElement.dataset.theme")
    browser.press("d")
    assert browser.js("return document.documentElement.dataset.theme") != before
    browser.press("d", "n", " ")
    browser.wait("document.getElementById('waiting').textContent === ''")
    browser.press("Tab")
    assert browser.js("return document.activeElement !== document.body")
    assert browser.complaints() == []


def test_a_flapped_mac_moves_and_comes_back(world: World) -> None:
    browser = world.browser
    browser.press("p")
    browser.wait(f"{fdb('a')}.includes('192.0.2.2')")
    browser.click("#flap button")
    browser.wait(f"{fdb('a')}.includes('moved') && {fdb('a')}.includes('192.0.2.3')")
    heard(browser, "a believes that c2 moved: it is behind c 192.0.2.3 now.")


def test_what_is_silent_ages_before_the_eyes_of_the_class(world: World) -> None:
    node = world.lab.hosts["a"].node
    before = node.config_path.read_text()
    assert "ageing = 60" in before
    node.config_path.write_text(before.replace("ageing = 60", "ageing = 3"))
    node.call("reload")
    try:
        world.browser.press("p")
        world.browser.wait(f"{fdb('a')}.includes('/3 s')")
        world.browser.wait("document.querySelector('#fdb-a tr.gone')", 30)
        world.browser.wait(
            "document.getElementById('event').innerText === 'a forgets c2: it was silent too long.'"
        )
    finally:
        node.config_path.write_text(before)
        node.call("reload")


def test_a_narrow_wire_is_drawn_and_what_is_lost_is_told(world: World) -> None:
    browser, switch = world.browser, world.lab.places["switch"].name
    browser.js("document.querySelector('#shrink [name=host]').value = 'b'")
    browser.press("s")
    browser.wait("document.querySelector('.wire.narrow')")
    assert netdev.link("b", switch).mtu == 1400
    browser.wait("!document.getElementById('fdb-a').innerText.includes('MTU 1450')", 30)
    browser.js("document.querySelector('#ping [name=size]').value = '1400'")
    browser.press("p")
    browser.wait("document.getElementById('fdb-a').innerText.includes('PKT_TOO_BIG')")
    heard(browser, "The VTEP of a drops a packet")
    browser.js("document.querySelector('#shrink [name=mtu]').value = '1500'")
    browser.press("s")
    browser.wait("!document.querySelector('.wire.narrow')")
    assert netdev.link("b", switch).mtu == 1500


STRANGER = b"""<!doctype html><link rel="icon" href="data:,"><form method="post"></form><script>
const target = location.hash.slice(1);
fetch(target, {method: "POST", mode: "no-cors", body: "{}"})
    .finally(() => { document.title = "tried"; });
</script>"""


class Stranger(BaseHTTPRequestHandler):
    """A page from elsewhere that was told the token, and clicks by itself."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(STRANGER)

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_of_another_origin_can_do_nothing(world: World) -> None:
    told = world.server.feed.join()
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as other:
        threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
        world.browser.open(f"http://127.0.0.1:{other.server_port}/#{world.server.url}do/forget")
        world.browser.wait("document.title === 'tried'")
        other.shutdown()
    world.server.feed.leave(told)
    assert not any("forgotten" in message for message in iter(lambda: told.take(0.1), ""))
    open_page(world.browser, world.server.url)
    world.browser.press("f")
    world.browser.wait("document.getElementById('note').innerText.includes('forgotten')")


# -- without a browser ---------------------------------------------------------------------


def heard_by(reader: Reader, kind: str, wanted: Callable[[Any], bool]) -> Any:
    """The first message of a kind that is wanted."""

    def first() -> Any:
        while text := reader.take(0.05):
            head, _, data = text.partition("\ndata: ")
            if head == f"event: {kind}" and wanted(body := json.loads(data)):
                return body
        return None

    return wait_until(first, 20.0, f"a message about {kind}")


def way_of_ping(reader: Reader) -> list[str]:
    """The way of the first ping that arrived; it may be told in pieces."""
    ways = defaultdict[int, list[str]](list)

    def arrived(body: Any) -> bool:
        way = ways[body["id"]]
        way += [f"{step['stop']} {step['dir']}" for step in body["steps"]]
        return body["word"] == "ping" and body["done"] and "c2/eth0 in" in way

    return ways[heard_by(reader, "packet", arrived)["id"]]


def test_a_packet_is_followed_through_a_router(labs: Path) -> None:
    path = labs / "routed.toml"
    path.write_text(ROUTED)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    with show(lab, port=0) as server:
        reader = server.feed.join()
        scene = heard_by(reader, "scene", lambda body: True)
        assert scene["networks"] == ["switch", "far"]
        wait_until(lambda: b"answer after" in click(server.url, "ping", **C1_TO_C2), 20.0, "a ping")
        way = way_of_ping(reader)
    assert way == [
        "c1/eth0 out", "a/vxlan42 out", "a/eth0 out", "r/eth0 in", "r/eth1 out",
        "b/eth0 in", "b/vxlan42 in", "c2/eth0 in",
    ]  # fmt: skip


def test_a_node_that_comes_back_is_seen_again_with_what_it_has_now(labs: Path) -> None:
    path = labs / "pair.toml"
    path.write_text(PAIR)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    with show(lab, port=0) as server:
        reader = server.feed.join()
        node = lab.hosts["a"].node
        node.config_path.write_text(node.config_path.read_text().replace('"vxlan42"', '"other42"'))
        node.call("down")
        wait_until(lambda: node.pid is None, 10.0, "the node to end")
        lab.restart_nodes()
        heard_by(reader, "scene", lambda body: body["stops"].get("a/other42") == "tap")

        def seen_again() -> bool:
            came = b"answer after" in click(server.url, "ping", **C1_TO_C2)
            return came and "a/other42 out" in way_of_ping(reader)

        wait_until(seen_again, 30.0, "a packet at the new TAP")


def test_a_link_that_goes_down_and_comes_back_is_watched_again(labs: Path) -> None:
    path = labs / "pair.toml"
    path.write_text(PAIR)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    with show(lab, port=0) as server:
        reader = server.feed.join()
        lab.hosts["b"].set_link(False)
        assert b"no answer" in click(server.url, "ping", **C1_TO_C2)
        heard_by(reader, "packet", lambda body: body)  # the page lives on meanwhile
        lab.hosts["b"].set_link(True)

        def seen_again() -> bool:
            came = b"answer after" in click(server.url, "ping", **C1_TO_C2)
            return came and "b/eth0 in" in way_of_ping(reader)

        wait_until(seen_again, 30.0, "a packet at the link")


def test_a_fault_of_a_look_does_not_end_the_page(
    labs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = labs / "pair.toml"
    path.write_text(PAIR)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    faults = [RuntimeError("a fault")]

    def sightings(self: Lookout, most: int) -> list[Sighting]:
        if faults:
            raise faults.pop()
        return told(self, most)

    told = Lookout.sightings
    monkeypatch.setattr(Lookout, "sightings", sightings)
    with show(lab, port=0) as server:
        reader = server.feed.join()
        wait_until(lambda: "a fault" in caplog.text, 10.0, "the fault to be logged")
        click(server.url, "ping", **C1_TO_C2)
        assert "b/eth0 in" in way_of_ping(reader)


# -- the command ---------------------------------------------------------------------------


def click(url: str, action: str, **said: object) -> bytes:
    """What the server says to a click."""
    headers = {"Origin": url.rsplit("/", 2)[0], "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}do/{action}", json.dumps(said).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return cast(bytes, answer.read())


def test_wires_are_widened_again_and_the_port_is_closed(labs: Path) -> None:
    path = labs / "pair.toml"
    path.write_text(PAIR)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    switch = lab.places["switch"].name
    with show(lab, port=0) as server:
        assert b"silently loses" in click(server.url, "shrink", host="a", mtu=1400)
        assert netdev.link("a", switch).mtu == 1400
    assert netdev.link("a", switch).mtu == 1500
    with pytest.raises(urllib.error.URLError):
        click(server.url, "ping")


def test_a_wire_that_a_killed_view_left_narrow_is_widened(labs: Path) -> None:
    path = labs / "pair.toml"
    path.write_text(PAIR)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    switch = lab.places["switch"].name
    netdev.set_mtu("a", 1300, netns=switch)
    with show(lab, port=0) as server:
        assert b"silently loses" in click(server.url, "shrink", host="a", mtu=1400)
    assert netdev.link("a", switch).mtu == 1500


def test_a_view_ends_in_good_order_when_its_lab_is_taken_down(labs: Path) -> None:
    path = labs / "pair.toml"
    path.write_text(PAIR)
    lab = manage.up(path, f"t-{secrets.token_hex(3)}").lab
    with process("lab", "view", lab.name, "--port", "0") as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert b"silently loses" in click(url, "shrink", host="a", mtu=1400)
        manage.down(lab.name)
        _, said = child.communicate(timeout=30)
    assert (child.returncode, "was taken down" in said) == (0, True)
    assert "Traceback" not in said


def test_where_no_lab_is_up_one_is_made_and_removed(tmp_path: Path) -> None:
    environ = {**os.environ, "PYVXLAN_LAB_DIR": str(tmp_path / "run")}
    with process("lab", "view", "--port", "0", env=environ) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert b"answer after" in click(url, "ping", **{"from": "c1", "to": "c3"})
        state = json.loads((tmp_path / "run" / "class" / "state.json").read_text())
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
    assert [name for name in netns.names() if name.startswith(state["prefix"])] == []
    assert not (tmp_path / "run").exists()


def waits_for_a_lock(pid: int) -> bool:
    """Whether a process stands in line for a file lock (proc(5), /proc/locks)."""
    return any(
        "->" in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines()
    )


def test_a_view_leaves_the_lab_that_another_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVXLAN_LAB_DIR", str(tmp_path / "run"))
    lock = ExitStack()
    lock.enter_context(store.locked())
    with lock, process("lab", "view", "--port", "0") as child:
        wait_until(lambda: waits_for_a_lock(child.pid), 20.0, "the command to wait")
        build(plan.load(EXAMPLE), "class", EXAMPLE, None)
        lock.close()
        try:
            assert child.stdout is not None
            assert child.stdout.readline().startswith("http://127.0.0.1:")
            child.send_signal(signal.SIGINT)
            assert child.wait(30) == 0
            assert RunningLab.load("class").whole
        finally:
            manage.down("class")


def test_a_lab_that_was_never_finished_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVXLAN_LAB_DIR", str(tmp_path / "run"))
    state = {"name": "half", "title": "", "lesson": None, "prefix": "half-0000", "ready": False}
    store.write("half", state)
    assert "`pyvxlan lab down half`" in complaint(run("lab", "view", "--port", "0"), 1)


def test_a_lab_that_is_not_up_is_one_line(labs: Path) -> None:
    assert "no lab named nowhere is up" in complaint(run("lab", "view", "nowhere"), 1)
