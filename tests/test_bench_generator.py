"""The bench's own traffic, over loopback: both generators, and what they find."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vxlan.bench import generator, loops
from vxlan.bench.agent import answers
from vxlan.bench.generator import BLOCK, END, LoadError, run
from vxlan.bench.mmsg import Batch, udp_socket

try:
    from vxlan import _fastpath
except ImportError:
    ENDS: dict[str, Any] = {"python": loops}
else:
    ENDS = {"python": loops, "fastpath": _fastpath}

HERE = "127.0.0.1"
SIZE = 64


@pytest.fixture(params=ENDS)
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who makes the traffic: both do the same."""
    monkeypatch.setattr(generator, "ENDS", ENDS[request.param])
    return str(request.param)


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
def test_streams_arrive_whole(by: str, streams: int) -> None:
    sent, got = exchange("tcp", streams=streams)
    assert got["bytes"] == sent["bytes"] > streams * 1000
    assert got["intact"]
    assert got["seconds"] > 0


@pytest.mark.parametrize("size", [64, 1400])
def test_datagrams_are_counted_and_checked(by: str, size: int) -> None:
    sent, got = exchange("udp", size=size)
    assert 0 < got["packets"] <= sent["packets"]
    assert got["intact"]
    assert (got["duplicates"], got["corrupted"]) == (0, 0)


def test_round_trips_have_a_distribution(by: str) -> None:
    told, served = exchange("rr")
    assert told["requests"] <= served["requests"]
    assert told["lost"] == 0
    assert told["intact"]
    quantiles = [told["quantiles"][str(q)] for q in generator.QUANTILES]
    assert quantiles == sorted(quantiles)
    assert sum(count for _, count in told["histogram"]) == told["requests"]


def test_a_loop_works_for_its_time_over_ipv6(by: str) -> None:
    sink = run("udp_sink", {"address": "::1", "size": SIZE})
    port = next(sink)["port"]
    source = run("udp_source", {"address": "::1", "port": port, "size": SIZE, "seconds": 0.02})
    receiver = threading.Thread(target=lambda: told.extend(sink))
    told: list[dict[str, Any]] = []
    receiver.start()
    assert next(source)["packets"] >= told_packets(receiver, told) > 0


def told_packets(receiver: threading.Thread, told: list[dict[str, Any]]) -> int:
    receiver.join(10)
    return int(told[0]["packets"])


# -- what arrives otherwise than it was sent ---------------------------------------------------


def send_over_tcp(data: bytes) -> dict[str, Any]:
    sink = run("tcp_sink", {"address": HERE, "streams": 1})
    with socket.create_connection((HERE, next(sink)["port"])) as sender:
        threading.Thread(target=lambda: (sender.sendall(data), sender.shutdown(1))).start()
        return next(sink)


@pytest.mark.parametrize("at", [0, 1000, len(BLOCK) - 1, len(BLOCK) + 5])
def test_one_changed_byte_is_found(by: str, at: int) -> None:
    good = BLOCK + BLOCK[:100]
    bad = bytearray(good)
    bad[at] ^= 1
    assert send_over_tcp(good)["intact"]
    assert not send_over_tcp(bytes(bad))["intact"]


def test_a_missing_byte_in_a_stream_is_found(by: str) -> None:
    assert not send_over_tcp(BLOCK[:5000] + BLOCK[5001:9000])["intact"]


ALL = [loops.Datagrams(BLOCK, SIZE).datagram(number) for number in range(40)]
FAR = loops.Datagrams(BLOCK, SIZE).datagram(5 * loops.WINDOW)


def caught(datagrams: list[bytes]) -> dict[str, Any]:
    """What a sink tells of these, and then the last one."""
    sink = run("udp_sink", {"address": HERE, "size": SIZE})
    with udp_socket(HERE) as sender:
        sender.connect((HERE, next(sink)["port"]))
        for payload in (*datagrams, END):
            sender.send(payload)
        return next(sink)


@pytest.mark.parametrize(
    ("datagrams", "packets", "duplicates", "corrupted", "reordered"),
    [
        (ALL, 40, 0, 0, 0),
        (ALL[:7] + ALL[9:], 38, 0, 0, 0),
        (ALL[30:], 10, 0, 0, 0),
        (ALL[:5] + ALL[3:], 40, 2, 0, 0),
        (ALL * 3, 40, 80, 0, 0),
        ([ALL[1], ALL[0], *ALL[2:]], 40, 0, 0, 1),
        (ALL[::-1], 40, 0, 0, 39),
        ([*ALL, FAR, ALL[0]], 41, 1, 0, 0),
        ([*ALL[:3], ALL[3][:-1], *ALL[4:]], 39, 0, 1, 0),
        ([*ALL[:3], ALL[3] + b"?", *ALL[4:]], 39, 0, 1, 0),
        ([*ALL[:3], b"?" * SIZE, bytes(SIZE), b"", *ALL[3:]], 40, 0, 3, 0),
        ([*ALL[:3], ALL[3][:8] + ALL[4][8:], *ALL[4:]], 39, 0, 1, 0),
    ],
    ids=[
        *("whole", "lost", "begun late", "twice", "three times", "swapped", "backwards"),
        *("older than is known", "cut", "longer", "noise", "another's payload"),
    ],
)
def test_what_was_done_to_datagrams_is_found(
    by: str, datagrams: list[bytes], packets: int, duplicates: int, corrupted: int, reordered: int
) -> None:
    told = caught(datagrams)
    assert told["packets"] == packets
    assert told["duplicates"] == duplicates
    assert told["corrupted"] == corrupted
    assert told["reordered"] == reordered
    assert told["intact"] == (corrupted == 0)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_both_find_the_same(data: st.DataObject) -> None:
    """Any order, any repetition, any damage."""
    spoiled = st.tuples(st.sampled_from(ALL), st.integers(0, SIZE - 1)).map(
        lambda one: one[0][: one[1]] + bytes((one[0][one[1]] ^ 1,)) + one[0][one[1] + 1 :]
    )
    chosen = st.sampled_from([*ALL, FAR]) | spoiled | st.binary(min_size=2, max_size=80)
    datagrams = data.draw(st.lists(chosen, max_size=80))
    found = []
    for ends in ENDS.values():
        sink = ends.FloodSink(BLOCK, SIZE)
        receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with receiver, sender:
            for payload in (*datagrams, END):
                sender.send(payload)
                if sink.take(receiver.fileno(), 0.0):
                    break
        found.append((sink.packets, sink.duplicates, sink.corrupted, sink.reordered))
    assert found == found[:1] * len(ENDS)


@pytest.mark.parametrize("source", ENDS)
@pytest.mark.parametrize("sink", ENDS)
def test_one_understands_the_other(source: str, sink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = SimpleNamespace(
        FloodSource=ENDS[source].FloodSource,
        FloodSink=ENDS[sink].FloodSink,
        StreamSource=ENDS[source].StreamSource,
        StreamSink=ENDS[sink].StreamSink,
        Asker=ENDS[source].Asker,
        Answerer=ENDS[sink].Answerer,
    )
    monkeypatch.setattr(generator, "ENDS", mixed)
    assert exchange("udp", 0.02, size=100)[1]["intact"]
    assert exchange("tcp", 0.02, streams=2)[1]["intact"]
    assert exchange("rr", 0.02)[0]["intact"]


class Disturber:
    """Stands between two ends, and does something to each datagram of a kind."""

    def __init__(self, port: int) -> None:
        self._inside, self._outside = udp_socket(HERE), udp_socket(HERE)
        self._inside.bind((HERE, 0))
        self._inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._outside.connect((HERE, port))
        self.port = self._inside.getsockname()[1]
        self.came = self.lost = self.doubled = self.spoiled = 0

    def run(self) -> None:
        with self._inside, self._outside:
            while len(data := self._inside.recv(2048)) > len(END):
                self.came += 1
                self.pass_on(data)
            self._outside.send(END)

    def pass_on(self, data: bytes) -> None:
        if self.came % 10 == 3:
            self.lost += 1
        elif self.came % 10 == 5:
            self.doubled += 1
            self._outside.send(data)
            self._outside.send(data)
        elif self.came % 10 == 7:
            self.spoiled += 1
            self._outside.send(data[:-1] + bytes((data[-1] ^ 0x80,)))
        else:
            self._outside.send(data)


def test_what_the_way_does_is_found_to_the_packet(by: str) -> None:
    sink = run("udp_sink", {"address": HERE, "size": SIZE})
    way = Disturber(next(sink)["port"])
    told: list[dict[str, Any]] = []
    jobs = (way.run, lambda: told.extend(sink))
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    arguments = {"address": HERE, "port": way.port, "size": SIZE, "seconds": 0.003}
    list(run("udp_source", arguments))
    for thread in threads:
        thread.join(10)
    assert way.doubled
    assert told[0]["packets"] == way.came - way.lost - way.spoiled
    assert told[0]["duplicates"] == way.doubled
    assert told[0]["corrupted"] == way.spoiled


def test_a_spoiled_answer_and_a_late_one_are_told_apart(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "QUIET", 0.05)
    asker = ENDS[by].Asker(BLOCK, SIZE)
    with udp_socket(HERE) as client, udp_socket(HERE) as server:
        server.bind((HERE, 0))
        client.connect(server.getsockname())
        generator._give_up_after(client, 0.05)
        assert asker.ask(client.fileno(), 0.0) == []
        late, source = server.recvfrom(2048)
        server.sendto(late, source)
        server.sendto(late[:-1] + b"?", source)
        assert asker.ask(client.fileno(), 0.0) == []
    assert (asker.lost, asker.corrupted) == (2, 1)


@pytest.mark.parametrize("size", [-1, 8, len(BLOCK)])
def test_a_size_that_cannot_be_is_refused(by: str, size: int) -> None:
    for kind in ("FloodSource", "FloodSink", "Asker"):
        with pytest.raises(ValueError, match=f"{size} bytes"):
            getattr(ENDS[by], kind)(BLOCK, size)


def test_a_descriptor_that_is_none_is_an_error(by: str) -> None:
    ends = ENDS[by]
    for call in (
        ends.FloodSource(BLOCK, SIZE).send,
        ends.FloodSink(BLOCK, SIZE).take,
        ends.StreamSource(BLOCK).send,
        ends.StreamSink(BLOCK).take,
        ends.Asker(BLOCK, SIZE).ask,
        ends.Answerer().answer,
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(10_000, 0.01)


def test_the_compiled_one_is_chosen_where_it_is_built() -> None:
    assert ("fastpath" if "fastpath" in ENDS else "python") == generator.GENERATOR


def test_without_the_extension_python_does_it_and_says_so() -> None:
    script = (
        "import sys; sys.modules['vxlan._fastpath'] = None; sys.argv[0] = 'pyvxlan'\n"
        "from vxlan.bench import generator; print(generator.GENERATOR)\n"
        "from vxlan.cli.bench_run import announce; announce(generator.GENERATOR)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "python\n"
    assert "the extension is not built here" in done.stderr


def test_a_batch_is_one_flat_buffer() -> None:
    with udp_socket(HERE) as receiver, udp_socket(HERE) as sender:
        receiver.bind((HERE, 0))
        sender.connect(receiver.getsockname())
        out, back = Batch(3, 4), Batch(8, 4)
        out.buffer[:] = b"aaaabbbbcccc"
        assert out.send(sender.fileno()) == 3
        assert back.receive(receiver.fileno()) == [4, 4, 4]
        assert bytes(back.buffer[:12]) == b"aaaabbbbcccc"


def test_nobody_there_is_one_line(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
