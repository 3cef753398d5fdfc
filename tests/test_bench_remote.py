"""Who may ask a host to make traffic, and how two hosts find each other."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from vxlan import __version__
from vxlan.bench import remote
from vxlan.bench.ends import Agent
from vxlan.bench.generator import LoadError
from vxlan.bench.load import Sample
from vxlan.bench.remote import Place, refusal

HERE = Place(("10.42.0.2",), ("192.0.2.2",), ("192.0.2.1",))
ALLOWED = {"10.42.0.1", "192.0.2.1"}


def request(op: str, **arguments: object) -> str:
    return json.dumps({"op": op, "arguments": arguments})


@pytest.mark.parametrize("address", ["10.42.0.1", "192.0.2.1"])
def test_traffic_goes_to_who_asks_and_to_remotes(address: str) -> None:
    assert refusal(request("udp_source", address=address), ALLOWED, HERE) is None


def test_nobody_is_aimed_at() -> None:
    reply = refusal(request("udp_source", address="198.51.100.9"), ALLOWED, HERE)
    assert reply == {"error": "198.51.100.9 is neither you nor a remote", "last": True}


def test_a_sink_listens_on_our_own_addresses_only() -> None:
    assert refusal(request("tcp_sink", address="192.0.2.2"), ALLOWED, HERE) is None
    reply = refusal(request("tcp_sink", address="0.0.0.0"), ALLOWED, HERE)
    assert reply is not None
    assert "no address of this host" in reply["error"]


@pytest.mark.parametrize(
    "line",
    ["", "[]", "7", '{"op": 3, "arguments": 4}', "{", '{"op": 3, "arguments": {"address": 5}}'],
)
def test_nonsense_gets_no_further_than_the_agent(line: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = threading.Thread(target=remote.visit, args=(theirs, "10.42.0.1", HERE))
        worker.start()
        ours.sendall((line + "\n").encode())
        assert "error" in json.loads(ours.makefile().readline())
        ours.shutdown(socket.SHUT_WR)
        worker.join(5)
        assert not worker.is_alive()


def test_a_greeting_tells_version_and_underlay() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=remote.visit, args=(theirs, "10.42.0.1", HERE), daemon=True).start()
        lines = ours.makefile("rw")
        agent = Agent(lines, lines)
        agent.ask("hello")
        greeting = agent.result()
    assert greeting["version"] == __version__
    assert remote.underlay_of(greeting, ["192.0.2.2"]) == "192.0.2.2"


def test_the_way_beside_must_be_known() -> None:
    greeting = {"version": __version__, "underlay": ["192.0.2.2"]}
    with pytest.raises(LoadError, match="--beside"):
        remote.underlay_of(greeting, ["192.0.2.7"])


def test_another_version_is_named() -> None:
    with pytest.raises(LoadError, match="the other host runs pyvxlan 0.0"):
        remote.underlay_of({"version": "0.0", "underlay": []}, [])


def test_the_place_of_a_host_is_what_its_nodes_show() -> None:
    segment = {"address": ["10.42.0.2/16"], "remotes": [{"address": "192.0.2.1"}]}
    shown = {"pid": 7, "vtep": {"local": ["192.0.2.2"]}, "segments": [segment]}
    assert remote.place_of([shown]) == HERE._replace(pids=(7,))


def test_rows_compare_the_rounds() -> None:
    overlay = [Sample({"tcp-1": rate}) for rate in (4.0, 5.0, 4.5)]
    beside = [Sample({"tcp-1": rate}) for rate in (8.0, 10.0, 9.0)]
    (row,) = remote.rows(overlay, beside)
    assert (row["overlay"], row["beside"], row["ratio"], row["verdict"]) == (4.5, 9.0, 0.5, "ok")


def test_a_figure_that_not_every_round_has_is_compared_where_it_is() -> None:
    overlay = [Sample({"rr-p99.9": 90.0}), Sample({}), Sample({"rr-p99.9": 70.0})]
    beside = [Sample({"rr-p99.9": 30.0}), Sample({"rr-p99.9": 10.0}), Sample({})]
    (row,) = remote.rows(overlay, beside)
    assert (row["overlay"], row["beside"], row["ratio"]) == (80.0, 20.0, 3.0)
