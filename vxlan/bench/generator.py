"""Traffic: what one end of a test does.  Nothing here knows what joins the ends.

Theory of operation
===================

Each test has a sink and a source.  A sink opens its sockets, tells its port, waits for
traffic and tells what came; a source sends and tells what it sent.  Both are
generators of replies, so that whoever drives them can pass the port on in between:

    sink    {"port": 40123} ................................. {"bytes": ..., ...}
    source                   connects, sends for `seconds`    {"bytes": ...}

What is sent is known to both ends, and what arrives is compared with it byte by byte: a
dataplane that loses, swaps, doubles or alters data is not fast but broken.  The rate is
taken where the data arrives, from the first byte to the last.

The loops around the system calls are compiled (fastpath/generator.pxi), so that no tool
is needed and the generator is not what bounds a figure.  Where the extension was not
built they are Python (vxlan/bench/loops.py); `GENERATOR` says which, and whoever prints
a figure says so, too.

`run` is the one door: name and arguments of an operation -> its replies.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from vxlan.bench import loops
from vxlan.bench.mmsg import udp_socket

ENDS: Any
"""Where the classes of both ends come from."""

try:
    from vxlan import _fastpath
except ImportError:
    GENERATOR, ENDS = "python", loops
else:
    GENERATOR, ENDS = "fastpath", _fastpath

Reply = dict[str, Any]

BLOCK = random.Random(4789).randbytes(1 << 18)
"""What TCP carries, again and again, and what datagrams are cut out of.

Its length has nothing in common with an MSS.
"""

STALL = 3.0
"""Seconds without a byte after which an end gives up."""

QUIET = 0.4
"""Seconds without a datagram after which a flood has ended."""

SLICE = 0.1
"""Seconds after which a loop looks whether somebody wants it to end."""

END = bytes(1)
"""The last datagram."""

REQUEST = 64
RECEIVE_BUFFER = 4 << 20
WARM_UP = 50
MOST_LOST = 3

QUANTILES = (*(step / 100 for step in range(100)), 0.995, 0.999, 0.9999, 1.0)


class LoadError(Exception):
    """Traffic could not be sent or did not arrive; one line that says what happened."""


def run(op: str, arguments: dict[str, Any]) -> Iterator[Reply]:
    """The replies of one operation.  Raises LoadError."""
    if op not in OPERATIONS:
        raise LoadError(f"{op}: no such operation: both ends need the same version of pyvxlan")
    try:
        yield from OPERATIONS[op](**arguments)
    except OSError as error:
        stalled = error.errno in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINPROGRESS)
        raise LoadError("nothing arrived" if stalled else str(error)) from error


# -- TCP streams ------------------------------------------------------------------------------


def tcp_sink(address: str, streams: int) -> Iterator[Reply]:
    """Receive and check `streams` streams: bytes, seconds, intact."""
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = stack.enter_context(socket.create_server((address, 0), family=family))
        _give_up_after(listener, STALL)
        yield {"port": listener.getsockname()[1]}
        connections = [stack.enter_context(listener.accept()[0]) for _ in range(streams)]
        sinks = [ENDS.StreamSink(BLOCK) for _ in connections]
        pairs = zip(sinks, connections, strict=True)
        _side_by_side([partial(_receive, sink, connection) for sink, connection in pairs])
        yield {
            "bytes": sum(sink.count for sink in sinks),
            "seconds": max(sink.last for sink in sinks) - min(sink.first for sink in sinks),
            "intact": all(sink.intact for sink in sinks),
        }


def _receive(sink: Any, connection: socket.socket) -> None:
    """One stream, to its end."""
    _give_up_after(connection, STALL)
    while not sink.take(connection.fileno(), SLICE):
        pass


def tcp_source(address: str, port: int, streams: int, seconds: float) -> Iterator[Reply]:
    """Send `streams` streams for `seconds`: bytes."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((address, port), timeout=STALL))
            for _ in range(streams)
        ]
        until = time.perf_counter() + seconds
        sources = [ENDS.StreamSource(BLOCK) for _ in connections]
        pairs = zip(sources, connections, strict=True)
        _side_by_side([partial(_pour, source, stream, until) for source, stream in pairs])
        yield {"bytes": sum(source.count for source in sources)}


def _pour(source: Any, connection: socket.socket, until: float) -> None:
    """One stream, until the time is over and all of it was taken."""
    _give_up_after(connection, STALL)
    for left in _slices(until):
        source.send(connection.fileno(), left)
    connection.shutdown(socket.SHUT_WR)
    connection.recv(1)  # empty: the sink has read everything, and closed


# -- a flood of datagrams -----------------------------------------------------------------------


def udp_sink(address: str, size: int) -> Iterator[Reply]:
    """Count and check datagrams of `size` bytes.

    packets (right ones, each once), rate (of these, each second), duplicates, corrupted,
    reordered, intact.
    """
    sink = ENDS.FloodSink(BLOCK, size)
    with udp_socket(address) as receiver:
        receiver.bind((address, 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        _give_up_after(receiver, STALL)
        yield {"port": receiver.getsockname()[1]}
        rate = _catch(sink, receiver)
    told = {word: getattr(sink, word) for word in ("duplicates", "corrupted", "reordered")}
    yield {"packets": sink.packets, "rate": rate, **told, "intact": not sink.corrupted}


def _catch(sink: Any, receiver: socket.socket) -> float:
    """Everything that comes; how many each second, from the first batch on."""
    ended = sink.take(receiver.fileno(), 0.0)
    first, begun = sink.last, sink.packets
    _give_up_after(receiver, QUIET)
    with suppress(BlockingIOError):
        while not ended:
            ended = sink.take(receiver.fileno(), SLICE)
    return float((sink.packets - begun) / max(sink.last - first, 1e-6))


def udp_source(address: str, port: int, size: int, seconds: float) -> Iterator[Reply]:
    """Send datagrams of `size` bytes, as many as go, for `seconds`: packets."""
    source = ENDS.FloodSource(BLOCK, size)
    with udp_socket(address) as sender:
        sender.connect((address, port))
        for left in _slices(time.perf_counter() + seconds):
            source.send(sender.fileno(), left)
        _end(sender)
    yield {"packets": source.packets}


# -- request and response -------------------------------------------------------------------------


def rr_sink(address: str) -> Iterator[Reply]:
    """Send every request back: requests."""
    answerer = ENDS.Answerer()
    with udp_socket(address) as server:
        server.bind((address, 0))
        _give_up_after(server, STALL)
        yield {"port": server.getsockname()[1]}
        with suppress(BlockingIOError):
            while not answerer.answer(server.fileno(), SLICE):
                pass
    yield {"requests": answerer.requests}


def rr_source(address: str, port: int, seconds: float) -> Iterator[Reply]:
    """One request after the other for `seconds`: round trips in microseconds."""
    asker = ENDS.Asker(BLOCK, REQUEST)
    with udp_socket(address) as client:
        client.connect((address, port))
        _give_up_after(client, QUIET)
        trips = _round_trips(asker, client, seconds)
        _end(client)
    if len(trips) < WARM_UP:
        raise LoadError(f"{asker.lost} of {asker.lost + len(trips)} requests were not answered")
    yield {
        "requests": len(trips) + asker.lost,
        "lost": asker.lost,
        "intact": not asker.corrupted,
        **_distribution(trips),
    }


def _round_trips(asker: Any, client: socket.socket, seconds: float) -> list[int]:
    """Nanoseconds of each, without the first ones; until the time is over, or too many are lost."""
    trips: list[int] = []
    until = time.perf_counter() + seconds
    while asker.lost <= MOST_LOST:
        left = until - time.perf_counter()
        if left <= 0 and len(trips) >= 2 * WARM_UP:
            break
        trips += asker.ask(client.fileno(), min(max(left, 0.0), SLICE))
    return trips[WARM_UP:]


def _distribution(trips: list[int]) -> Reply:
    """Quantiles, and a histogram whose bounds grow by a quarter, both in microseconds."""
    trips.sort()
    last = len(trips) - 1
    bounds = [1.25**step for step in range(10, 72)]
    counts = [0] * (len(bounds) + 1)
    for trip in trips:
        counts[bisect_left(bounds, trip / 1000)] += 1
    return {
        "quantiles": {str(q): trips[round(q * last)] / 1000 for q in QUANTILES},
        "histogram": [
            [round(bound, 1), count] for bound, count in zip(bounds, counts, strict=False) if count
        ],
    }


def _end(sender: socket.socket) -> None:
    """Tell a sink of datagrams that no more will come; one of these will get through."""
    for _ in range(3):
        time.sleep(0.01)
        with suppress(OSError):
            sender.send(END)


# -- helpers --------------------------------------------------------------------------------------


def _slices(until: float) -> Iterator[float]:
    """The time that is left, again and again, in pieces after which Ctrl-C is heard."""
    while (left := until - time.perf_counter()) > 0:
        yield min(left, SLICE)


def _give_up_after(sock: socket.socket, seconds: float) -> None:
    """By the kernel's timer: Python's own timeouts would make the socket non-blocking."""
    sock.settimeout(None)
    value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _side_by_side(jobs: list[Callable[[], None]]) -> None:
    """Run jobs in a thread each; the first OSError of any of them is raised here."""
    errors: list[OSError] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


OPERATIONS: dict[str, Callable[..., Iterator[Reply]]] = {
    "tcp_sink": tcp_sink,
    "tcp_source": tcp_source,
    "udp_sink": udp_sink,
    "udp_source": udp_source,
    "rr_sink": rr_sink,
    "rr_source": rr_source,
}
