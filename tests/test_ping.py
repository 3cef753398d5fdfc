"""`pyvxlan ping` and the paths in `pyvxlan doctor`: what is sent, and what is said of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.clirun import complaint, run
from tests.fakenode import fake_node, refusal, remote, segment, shown
from vxlan import doctor_paths, node_ping
from vxlan.engine import Datagram, PathState
from vxlan.fdb import Remote
from vxlan.finding import Level

PEER = Remote("192.0.2.2", 4789)

# -- what is sent ----------------------------------------------------------------------------


class Engine:
    """As much of an engine as `ping` needs; `passes(size, flow, tries)` says what comes back."""

    def __init__(self, passes: Callable[[int, int, int], bool]) -> None:
        self.sent: list[tuple[int, int]] = []
        self._passes = passes
        self._answered: set[bytes] = set()

    def paths(self) -> Mapping[str, PathState]:
        return {PEER.address: PathState(1400, 1500, "probe", "complete", True, 0.0)}

    def ping(self, to: Remote, size: int, flow: int, now: float) -> bytes:
        assert to == PEER
        self.sent.append((size, flow))
        nonce = len(self.sent).to_bytes(8)
        if self._passes(size, flow, self.sent.count((size, flow))):
            self._answered.add(nonce)
        return nonce

    def echo(self, nonce: bytes) -> float | None:
        return 0.001 if nonce in self._answered else None


def port_of(datagram: Datagram) -> int:
    return 49152 + (datagram.flow >> 24)


def pinged(engine: Engine, monkeypatch: pytest.MonkeyPatch, **how: Any) -> list[dict[str, Any]]:
    monkeypatch.setattr(node_ping, "DEADLINE", 0.02)
    wanted = {"ports": 4, "size": None, "port_of": port_of, **how}
    answer = asyncio.run(node_ping.ping(engine, PEER, **wanted))  # type: ignore[arg-type]  # part
    assert (answer["address"], answer["port"], answer["overhead"]) == (PEER.address, 4789, 50)
    probes: list[dict[str, Any]] = answer["probes"]
    return probes


def test_two_sizes_from_each_port(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = pinged(Engine(lambda *_: True), monkeypatch)
    assert [one["size"] for one in probes] == [100, 1400] * 4
    ports = [one["srcport"] for one in probes]
    assert len(set(ports)) == 4
    assert all(49152 <= port <= 65535 for port in ports)
    assert all(one["rtt"] == 0.001 for one in probes)


def test_a_size_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = pinged(Engine(lambda *_: True), monkeypatch, size=9000, ports=1)
    assert [one["size"] for one in probes] == [100, 9000]


def test_one_loss_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(lambda _size, _flow, tries: tries > 1)
    assert all(one["rtt"] for one in pinged(engine, monkeypatch))
    assert len(engine.sent) == 16


def test_what_is_lost_twice_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(lambda size, *_: size == 100)
    probes = pinged(engine, monkeypatch, ports=2)
    assert [one["rtt"] is None for one in probes] == [False, True, False, True]
    assert len(engine.sent) == 6


# -- where it stops -----------------------------------------------------------------------------


def path(**changes: Any) -> dict[str, Any]:
    return {
        "mtu": 1500, "ceiling": 1500, "how": "probe", "phase": "complete", "answers": True,
        "since": 61.0, **changes,
    }  # fmt: skip


def answer(
    lost: Callable[[int, int], bool] = lambda _size, _port: False,
    large: int = 1500,
    **changes: Any,
) -> dict[str, Any]:
    """The answer to `ping` from the ports 49152 and 57344; `lost(size, port)` did not come back."""
    return {
        "address": PEER.address,
        "port": 4789,
        "overhead": 50,
        "state": "up",
        "path": path(),
        "probes": [
            {"srcport": port, "size": size, "rtt": None if lost(size, port) else 0.0005}
            for port in (49152, 57344)
            for size in (100, large)
        ],
        **changes,
    }


def all_lost(_size: int, _port: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        (
            answer(lambda size, _: size > 100),
            "small probes pass, 1500 bytes do not from any source port",
            "finds it out within seconds",
        ),
        (
            answer(lambda size, _: size > 100, path=path(mtu=1400)),
            "small probes pass, 1500 bytes do not from any source port",
            "nothing to do: 1400 pass",
        ),
        (
            answer(lambda size, port: size > 100 and port == 57344),
            "1500 bytes do not from source port 57344",
            "the MTU of the links",
        ),
        (
            answer(lambda _, port: port == 49152),
            "nothing comes back for source port 49152",
            "a broken link",
        ),
        (answer(all_lost), "nothing comes back any more", "is pyvxlan up there"),
        (
            answer(all_lost, path=path(answers=False)),
            "no probe is acknowledged",
            "it is no pyvxlan",
        ),
        (
            answer(all_lost, state="down"),
            "the underlay says that it cannot be reached",
            "start the VTEP",
        ),
        (
            answer(all_lost, state="unknown", path=None),
            "nothing comes back",
            "among its remotes",
        ),
    ],
)
def test_where_it_stops(given: dict[str, Any], what: str, remedy: str) -> None:
    said = doctor_paths.where_it_stops(given)
    assert said is not None
    assert what in said[0]
    assert remedy in said[1]


def test_where_nothing_is_lost_nothing_stops() -> None:
    assert doctor_paths.where_it_stops(answer()) is None


# -- ping, as a person sees it --------------------------------------------------------------------


def test_ping_says_a_line_for_each_probe_and_the_sum() -> None:
    with fake_node(ping=answer(large=1400, path=path(mtu=1400))) as node:
        said = run("ping", PEER.address)
    assert node.asked == [("ping", {"dst": PEER.address, "ports": 4})]
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "192.0.2.2: 100 bytes from port 49152: 0.50 ms",
        "192.0.2.2: 1400 bytes from port 49152: 0.50 ms",
        "192.0.2.2: 100 bytes from port 57344: 0.50 ms",
        "192.0.2.2: 1400 bytes from port 57344: 0.50 ms",
        "4 of 4 answered, median 0.50 ms",
        "path MTU 1400, 1350 inside (known by probes 1m01s ago; complete)",
        "the link carries 1500: something on the way is narrower",
    ]


def test_ping_that_gets_no_answer_fails_and_says_what_to_do() -> None:
    silent = path(how="link", phase="base", answers=False, since=None)
    with fake_node(ping=answer(all_lost, path=silent)):
        said = run("ping", PEER.address, "--ports", "2", "--size", "1500")
    assert said.exit_code == 1
    assert "0 of 4 answered\n" in said.stdout
    assert "path MTU 1500, 1450 inside (known from the link's MTU; base)" in said.stdout
    assert said.stdout.endswith("(a kernel device never answers): try an address inside\n")


def test_ping_as_json_is_what_the_node_said() -> None:
    given = answer()
    with fake_node(ping=given):
        assert json.loads(run("ping", PEER.address, "--json").stdout) == given


def test_ping_of_a_stranger_is_one_line() -> None:
    with fake_node(ping=refusal("192.0.2.9 is no remote of this node", "not_found")):
        assert "192.0.2.9 is no remote" in complaint(run("ping", "192.0.2.9"), 1)


@pytest.mark.parametrize("wrong", [["--ports", "0"], ["--ports", "65"], ["--size", "99"]])
def test_ping_refuses_what_makes_no_sense(wrong: list[str]) -> None:
    assert run("ping", PEER.address, *wrong).exit_code == 2


# -- doctor ------------------------------------------------------------------------------------


def findings(one: dict[str, Any], said: dict[str, Any] | None) -> list[tuple[Level, str]]:
    """Of a node with this remote, whose `ping` answers this; None: it must not be asked."""

    def ping(address: str) -> dict[str, Any]:
        assert said is not None, f"{address} was probed"
        return said

    found = doctor_paths.paths(shown("lab", segment(remotes=[one])), ping)
    return [(finding.level, finding.what) for finding in found]


def test_doctor_of_a_whole_path() -> None:
    [(level, what)] = findings(remote(PEER.address), answer())
    assert level is Level.OK
    assert what == (
        "the path to 192.0.2.2 carries 1500 (found by probe); round trip 0.50 ms, 4 of 4 probes"
    )


def test_doctor_of_a_narrow_path_tells_both_numbers() -> None:
    levels = findings(remote(PEER.address), answer(large=1400, path=path(mtu=1400)))
    assert [level for level, _ in levels] == [Level.OK, Level.NOTE]
    assert levels[1][1] == "the link towards 192.0.2.2 carries 1500, the path 1400"


def test_doctor_of_a_black_hole_warns() -> None:
    [(level, what)] = findings(remote(PEER.address), answer(lambda size, _: size > 100))
    assert level is Level.WARN
    assert what.startswith("192.0.2.2: small probes pass, 1500 bytes do not")


@pytest.mark.parametrize(
    ("changes", "level", "what"),
    [
        ({"path": None}, Level.WARN, "there is no route to it"),
        ({"state": "down"}, Level.WARN, "cannot be reached"),
        ({"path": path(answers=False, how="link")}, Level.NOTE, "it is no pyvxlan; 1500 bytes"),
        ({"path": path(how="echo")}, Level.OK, "carries 1500 (found by echo)"),
    ],
)
def test_doctor_does_not_probe_who_will_not_answer(
    changes: dict[str, Any], level: Level, what: str
) -> None:
    [(found, said)] = findings({**remote(PEER.address), **changes}, None)
    assert found is level
    assert what in said


def test_doctor_probes_a_few_remotes_of_many() -> None:
    asked: list[str] = []

    def ping(address: str) -> dict[str, Any]:
        asked.append(address)
        return answer()

    many = [remote(f"192.0.2.{number}") for number in range(1, 101)]
    found = doctor_paths.paths(shown("lab", segment(remotes=many)), ping)
    assert len(asked) == doctor_paths.MOST
    assert len(found) == len(many)
    assert found[-1].what == "the path to 192.0.2.100 carries 1500 (found by probe); not asked now"
