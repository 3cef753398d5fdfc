"""What `pyvxlan explain` says is what is then on the wire, octet by octet."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from packets import probe_frame
from worlds import VNI, Pair, lab_of, two_hosts

from tests.clirun import complaint, run
from tests.topologies import PAIR
from vxlan import netdev
from vxlan.cli import session
from vxlan.lab import Container, Lab, RunningLab, Sniffer, ping, segment

pytestmark = pytest.mark.namespaces


@pytest.fixture(autouse=True)
def nobody_else_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may have nodes with the same addresses on this machine."""
    wanted = {"shared_pair", "pair"} & set(request.fixturenames)
    pairs = [request.getfixturevalue(name) for name in wanted]
    names = [node.name for pair in pairs for node in pair.nodes]
    monkeypatch.setattr(session, "running", lambda: names)


def send(source: Container, frame: bytes) -> None:
    with source.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((source.link, 0))
        sender.send(frame)


def explained(*args: str) -> dict[str, Any]:
    result = run("explain", *args, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def frame_between(pair: Pair, mark: bytes, sport: int = 7000) -> bytes:
    return probe_frame(mark, pair.c2.mac.hex(":"), pair.c1.mac.hex(":"), sport=sport)


@pytest.mark.parametrize("sport", [7000, 7001, 40000])
def test_the_outer_headers_are_those_on_the_wire(shared_pair: Pair, sport: int) -> None:
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    frame = frame_between(shared_pair, b"octet by octet", sport)
    said = explained("-n", shared_pair.node.name, frame.hex())
    with Sniffer(shared_pair.b, shared_pair.b.link) as wire:
        send(shared_pair.c1, frame)
        seen = wire.wait_for(lambda one: frame in one.data, what="the frame on the wire").data
    assert said["verdict"] == "encap"
    assert seen[14:].startswith(bytes.fromhex(said["outer"]["hex"]) + frame)
    assert bytes.fromhex(said["payloads"][0]) == seen[42:]


def test_the_answer_is_the_one_that_the_container_gets(lab: Lab, engine_name: str) -> None:
    a, b, c1, c2 = two_hosts(lab, mtu=1500)
    node = a.node(segment(VNI, b.address), engine=engine_name)
    lab.start(node)
    frame = probe_frame(bytes(1460), c2.mac.hex(":"), c1.mac.hex(":"))
    said = explained("-n", node.name, frame.hex())
    assert (said["reason"], said["mtu"]["fate"]) == ("PKT_TOO_BIG", "answered")
    answer = bytes.fromhex(said["answer"])
    with Sniffer(c1, c1.link) as seen:
        send(c1, frame)
        seen.wait_for(lambda one: one.data == answer, what="the answer that was foretold")


def test_the_other_end_agrees(shared_pair: Pair) -> None:
    """It is found by its address; what it would do is what it does."""
    near, far = shared_pair.nodes
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    frame = frame_between(shared_pair, b"both ends")
    (end,) = explained("-n", near.name, frame.hex(), "--both-ends")["other_ends"]
    assert (end["node"], end["address"], end["why"]) == (far.name, shared_pair.b.address, "")
    decided = end["explanation"]
    assert (decided["verdict"], decided["reason"]) == ("decap", "known_remote")
    assert bytes.fromhex(decided["delivered"]) == frame
    with Sniffer(shared_pair.c2, shared_pair.c2.link) as seen:
        send(shared_pair.c1, frame)
        seen.wait_for(lambda one: one.data == frame, what="the frame at the other end")


def test_an_end_that_refuses_and_ends_that_cannot_be_asked(pair: Pair) -> None:
    near, far = pair.nodes
    far.call("remote.del", vni=VNI, dst=pair.a.address)
    near.call("remote.add", vni=VNI, dst="192.0.2.9")
    stations = ("--from", "02:00:00:00:44:01", "--to", "ff:ff:ff:ff:ff:ff")
    ends = explained("-n", near.name, *stations, "--both-ends")["other_ends"]
    there, nobody = sorted(ends, key=lambda end: str(end["address"]))
    assert there["explanation"]["reason"] == "UNKNOWN_REMOTE"
    assert "no node that runs on this machine has 192.0.2.9" in nobody["why"]
    gone = explained("-n", near.name, *stations, "--peer", "gone")["other_ends"]
    assert {end["why"] for end in gone} == {"no node named gone runs: pyvxlan up gone"}


def test_a_captured_datagram_is_judged_by_both_ends(shared_pair: Pair) -> None:
    """The sender knows its own; the receiver looks at it as when it came."""
    near, far = shared_pair.nodes
    assert ping(shared_pair.c1, shared_pair.c2.address).received == 1
    frame = frame_between(shared_pair, b"captured")
    with Sniffer(shared_pair.b, shared_pair.b.link) as wire:
        send(shared_pair.c1, frame)
        seen = wire.wait_for(lambda one: frame in one.data, what="the frame on the wire").data
    sent = explained("-n", near.name, seen.hex())
    assert (sent["side"], sent["vni"], sent["verdict"]) == ("encap", VNI, "encap")
    came = explained("-n", far.name, seen.hex(), "--both-ends")
    assert (came["side"], came["outer"]["hex"]) == ("decap", seen[14:50].hex())
    assert came["other_ends"][0]["node"] == near.name
    assert came["other_ends"][0]["explanation"]["outer"] == sent["outer"]


def test_words_name_stations_of_the_host(pair: Pair) -> None:
    """An address stands for the MAC that the host has, or has learned from its neighbours."""
    netdev.add_address("br0", "10.42.0.1/16", pair.a.name)
    assert ping(pair.a, pair.c2.address).received == 1
    words = ("--from", "10.42.0.1", "--to", pair.c2.address, "--proto", "tcp")
    said = explained("-n", pair.node.name, *words, "--size", "1500", "--df")
    assert said["inner"]["dst"] == pair.c2.mac.hex(":")
    assert said["inner"]["src"] == netdev.link("br0", pair.a.name).mac.hex(":")
    assert (said["entry"]["state"], said["reason"]) == ("dynamic", "PKT_TOO_BIG")
    assert said["notes"] == []


@pytest.fixture(scope="module")
def there(labs: Path) -> RunningLab:
    """A lab that stays up; its nodes' sockets lie in folders of their own."""
    return lab_of(labs, PAIR)


def test_names_of_a_lab_are_stations_and_its_nodes_are_asked(there: RunningLab) -> None:
    c1, c2 = there.containers["c1"], there.containers["c2"]
    assert ping(c1, c2.address).received == 1
    words = ("--from", "c1", "--to", "c2", "--proto", "tcp", "--both-ends", "--json")
    said = json.loads(run("lab", "explain", "a", *words, "--lab", there.name).stdout)
    assert (said["inner"]["src"], said["inner"]["dst"]) == (c1.mac.hex(":"), c2.mac.hex(":"))
    assert (said["inner"]["ip"]["src"], said["notes"]) == (c1.address, [])
    (end,) = said["other_ends"]
    assert (end["node"], end["explanation"]["verdict"]) == ("b", "decap")
    wrong = complaint(run("lab", "explain", "c1", *words, "--lab", there.name), 1)
    assert "c1 is no host with a VTEP" in wrong
