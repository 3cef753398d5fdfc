"""Traffic: what one end of a test does.  Nothing here knows what joins the ends.

Theory of operation
===================

Each test has a sink and a source.  A sink opens its sockets, tells its port, waits for
traffic and tells what came; a source sends and tells what it sent.  Both are
generators of replies, so that whoever drives them can pass the port on in between:

    sink    {"port": 40123} ................................. {"bytes": ..., ...}
    source                   connects, sends for `seconds`    {"bytes": ...}

What is sent is one block of noise over and over, and what arrives is compared with it
byte by byte: a dataplane that loses, swaps or alters data is not fast but broken.
The rate is taken where the data arrives, from the first byte to the last.

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
from typing import Any

from vxlan.bench.mmsg import Batch, udp_socket

Reply = dict[str, Any]

BLOCK = random.Random(4789).randbytes(1 << 18)
"""What TCP carries, again and again.  Its length has nothing in common with an MSS."""

STALL = 3.0
"""Seconds without a byte after which an end gives up."""

QUIET = 0.4
"""Seconds without a datagram after which a flood has ended."""

END = 1
"""A datagram of this many bytes is the last one."""

SEND_BATCH, RECEIVE_BATCH = 32, 256
RECEIVE_BUFFER = 4 << 20
REQUEST = bytes(range(64))
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
        takers = [_Taker(connection) for connection in connections]
        _side_by_side([taker.run for taker in takers])
        yield {
            "bytes": sum(taker.count for taker in takers),
            "seconds": max(t.last for t in takers) - min(t.first for t in takers),
            "intact": all(taker.intact for taker in takers),
        }


class _Taker:
    """Receives one stream to its end and compares it with what should come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        _give_up_after(connection, STALL)
        self.count = 0
        self.intact = True
        self.first = self.last = time.perf_counter()

    def run(self) -> None:
        block = bytearray(len(BLOCK))
        while got := self._connection.recv_into(block, len(block), socket.MSG_WAITALL):
            self.first = self.first if self.count else time.perf_counter()
            self.count += got
            whole = got == len(BLOCK)
            self.intact &= block == BLOCK if whole else block[:got] == BLOCK[:got]
            self.last = time.perf_counter()
            if not whole:
                return


def tcp_source(address: str, port: int, streams: int, seconds: float) -> Iterator[Reply]:
    """Send `streams` streams for `seconds`: bytes."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection((address, port), timeout=STALL))
            for _ in range(streams)
        ]
        until = time.perf_counter() + seconds
        givers = [_Giver(one, until) for one in sockets]
        _side_by_side([giver.run for giver in givers])
        yield {"bytes": sum(giver.count for giver in givers)}


class _Giver:
    """Sends one stream until the time is over and all of it was taken."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until
        self.count = 0

    def run(self) -> None:
        while time.perf_counter() < self._until:
            self._connection.sendall(BLOCK)
            self.count += len(BLOCK)
        self._connection.shutdown(socket.SHUT_WR)
        self._connection.recv(1)  # empty: the sink has read everything, and closed


# -- a flood of datagrams -----------------------------------------------------------------------


def udp_sink(address: str, size: int) -> Iterator[Reply]:
    """Count and check datagrams of `size` bytes: packets, rate (each second), intact."""
    with udp_socket(address) as receiver:
        receiver.bind((address, 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        _give_up_after(receiver, STALL)
        yield {"port": receiver.getsockname()[1]}
        yield _count_datagrams(receiver, size)


def _count_datagrams(receiver: socket.socket, size: int) -> Reply:
    taker = _Datagrams(size)
    descriptor = receiver.fileno()
    taker.take(descriptor)
    first, begun = time.perf_counter(), taker.packets
    _give_up_after(receiver, QUIET)
    with suppress(BlockingIOError):
        while not taker.ended:
            taker.take(descriptor)
    seconds = max(taker.last - first, 1e-6)
    rate = (taker.packets - begun) / seconds
    return {"packets": taker.packets, "rate": rate, "intact": taker.intact}


class _Datagrams:
    """Receives datagrams and compares them with what should come."""

    def __init__(self, size: int) -> None:
        self._batch, self._size = Batch(RECEIVE_BATCH, size), size
        self._expected = BLOCK[:size] * RECEIVE_BATCH
        self.packets = 0
        self.intact, self.ended = True, False
        self.last = time.perf_counter()

    def take(self, descriptor: int) -> None:
        """One batch.  Raises OSError."""
        lengths = self._batch.receive(descriptor)
        self.ended = END in lengths
        whole = lengths[: lengths.index(END)] if self.ended else lengths
        flat = len(whole) * self._size
        self.intact &= self._batch.buffer[:flat] == self._expected[:flat]
        self.intact &= set(whole) <= {self._size}
        self.packets += len(whole)
        self.last = time.perf_counter() if whole else self.last


def udp_source(address: str, port: int, size: int, seconds: float) -> Iterator[Reply]:
    """Send datagrams of `size` bytes, as many as go, for `seconds`: packets."""
    batch = Batch(SEND_BATCH, size)
    batch.buffer[:] = BLOCK[:size] * SEND_BATCH
    with udp_socket(address) as sender:
        sender.connect((address, port))
        descriptor, packets = sender.fileno(), 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            with suppress(ConnectionRefusedError, BlockingIOError):
                packets += batch.send(descriptor)
        _end(sender)
    yield {"packets": packets}


# -- request and response -------------------------------------------------------------------------


def rr_sink(address: str) -> Iterator[Reply]:
    """Send every request back: requests."""
    with udp_socket(address) as server:
        server.bind((address, 0))
        _give_up_after(server, STALL)
        yield {"port": server.getsockname()[1]}
        count = 0
        with suppress(BlockingIOError):
            while len((request := server.recvfrom(2048))[0]) > END:
                server.sendto(*request)
                count += 1
        yield {"requests": count}


def rr_source(address: str, port: int, seconds: float) -> Iterator[Reply]:
    """One request after the other for `seconds`: round trips in microseconds."""
    with udp_socket(address) as client:
        client.connect((address, port))
        _give_up_after(client, QUIET)
        trips, lost = _round_trips(client, seconds)
        _end(client)
    if len(trips) < WARM_UP:
        raise LoadError(f"{lost} of {lost + len(trips)} requests were not answered")
    yield {"requests": len(trips) + lost, "lost": lost, **_distribution(trips)}


def _round_trips(client: socket.socket, seconds: float) -> tuple[list[int], int]:
    trips: list[int] = []
    lost, now = 0, time.perf_counter_ns
    numbered = struct.Struct("!I60x")
    until = now() + int(seconds * 1e9)
    for number in range(1 << 32):
        request = numbered.pack(number) if number else REQUEST
        start = now()
        if (start > until and len(trips) >= 2 * WARM_UP) or lost > MOST_LOST:
            break
        try:
            client.send(request)
            while client.recv(2048) != request:
                pass  # the answer to a request that was given up
        except (BlockingIOError, ConnectionRefusedError):
            lost += 1
        else:
            trips.append(now() - start)
    return trips[WARM_UP:], lost


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
            sender.send(bytes(END))


# -- helpers --------------------------------------------------------------------------------------


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
