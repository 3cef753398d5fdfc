"""The bench's own traffic, between two threads over loopback."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from vxlan.bench import generator
from vxlan.bench.agent import answers
from vxlan.bench.generator import BLOCK, LoadError, run
from vxlan.bench.mmsg import Batch, udp_socket

HERE = "127.0.0.1"


def exchange(kind: str, seconds: float = 0.05, **common: Any) -> tuple[dict[str, Any], ...]:
    """What the source and what the sink tell."""
    sink = run(f"{kind}_sink", {"address": HERE, **common})
    port = next(sink)["port"]
    told: list[dict[str, Any]] = []
    receiver = threading.Thread(target=lambda: told.extend(sink))
    receiver.start()
    (sent,) = run(f"{kind}_source", {"address": HERE, "port": port, "seconds": seconds, **common})
    receiver.join(10)
    return sent, told[0]


@pytest.mark.parametrize("streams", [1, 4])
def test_streams_arrive_whole(streams: int) -> None:
    sent, got = exchange("tcp", streams=streams)
    assert got["bytes"] == sent["bytes"] >= streams * len(BLOCK)
    assert got["intact"]
    assert got["seconds"] > 0


@pytest.mark.parametrize("size", [64, 1400])
def test_datagrams_are_counted_and_checked(size: int) -> None:
    sent, got = exchange("udp", size=size)
    assert 0 < got["packets"] <= sent["packets"]
    assert got["intact"]


def test_round_trips_have_a_distribution() -> None:
    told, served = exchange("rr")
    assert told["requests"] <= served["requests"]
    assert told["lost"] == 0
    quantiles = [told["quantiles"][str(q)] for q in generator.QUANTILES]
    assert quantiles == sorted(quantiles)
    assert sum(count for _, count in told["histogram"]) == told["requests"]


def send_over_tcp(data: bytes) -> dict[str, Any]:
    sink = run("tcp_sink", {"address": HERE, "streams": 1})
    with socket.create_connection((HERE, next(sink)["port"])) as sender:
        threading.Thread(target=lambda: (sender.sendall(data), sender.shutdown(1))).start()
        return next(sink)


@pytest.mark.parametrize("at", [0, 1000, len(BLOCK) - 1, len(BLOCK) + 5])
def test_one_changed_byte_is_found(at: int) -> None:
    good = BLOCK + BLOCK[:100]
    bad = bytearray(good)
    bad[at] ^= 1
    assert send_over_tcp(good)["intact"]
    assert not send_over_tcp(bytes(bad))["intact"]


@pytest.mark.parametrize("spoiled", [b"?" * 64, BLOCK[:63]], ids=["changed", "shortened"])
def test_a_spoiled_datagram_is_found(spoiled: bytes) -> None:
    sink = run("udp_sink", {"address": HERE, "size": 64})
    with udp_socket(HERE) as sender:
        sender.connect((HERE, next(sink)["port"]))
        sender.send(BLOCK[:64])
        worker: list[dict[str, Any]] = []
        receiver = threading.Thread(target=lambda: worker.extend(sink))
        receiver.start()
        for payload in (BLOCK[:64], spoiled, BLOCK[:64], b"\0"):
            sender.send(payload)
        receiver.join(5)
    assert not worker[0]["intact"]


def test_a_batch_is_one_flat_buffer() -> None:
    with udp_socket(HERE) as receiver, udp_socket(HERE) as sender:
        receiver.bind((HERE, 0))
        sender.connect(receiver.getsockname())
        out, back = Batch(3, 4), Batch(8, 4)
        out.buffer[:] = b"aaaabbbbcccc"
        assert out.send(sender.fileno()) == 3
        assert back.receive(receiver.fileno()) == [4, 4, 4]
        assert bytes(back.buffer[:12]) == b"aaaabbbbcccc"


def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "STALL", 0.1)
    with pytest.raises(LoadError, match="nothing arrived"):
        list(run("udp_sink", {"address": HERE, "size": 64}))


# -- the agent that wraps it ------------------------------------------------------------------


def test_an_agent_answers_in_lines() -> None:
    request = {"op": "rr_sink", "arguments": {"address": HERE}}
    replies = answers(json.dumps(request))
    first = next(replies)
    assert not first["last"]
    with udp_socket(HERE) as sender:
        sender.sendto(b"\0", (HERE, first["port"]))
    assert next(replies) == {"requests": 0, "last": True}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("no json", "not a request"),
        ("{}", "not a request"),
        ('{"op": "reboot", "arguments": {}}', "no such operation"),
        ('{"op": "rr_sink", "arguments": {"size": 1}}', "not a request"),
    ],
)
def test_an_agent_survives_what_is_no_request(line: str, error: str) -> None:
    (reply,) = answers(line)
    assert error in reply["error"]
    assert reply["last"]
