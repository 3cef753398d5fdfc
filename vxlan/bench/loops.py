"""The ends of traffic in Python: for hosts on which the extension was not built.

Theory of operation
===================

There are two of each of these classes, here and in the extension (fastpath/generator.pxi),
with one meaning; which of them runs is decided in vxlan/bench/generator.py.  A method
works for `duration` seconds, or until there is something to tell, and returns, so that
Ctrl-C is heard.  Waiting ends by the socket's own timer, as BlockingIOError.

Each datagram is another one, and the receiver can make it again from its number:

    number (8 bytes) | block[number * 64 modulo ...] ........... |
                     `---- size - 8 bytes, compared one by one --'

So a receiver knows of every datagram whether it was sent (`corrupted` if not), whether
it was here before (`duplicates`), and whether a later one overtook it (`reordered`).
What is missing is what the source has sent less what the sink has.  `WINDOW` datagrams
are remembered; an older one counts as a duplicate, since nobody can tell.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vxlan.bench.mmsg import Batch

SEND_BATCH, CATCH_BATCH = 32, 256
NUMBER_HLEN, NUMBER_STEP = 8, 64
WINDOW = 1 << 20
LONGEST_REQUEST = 2048

clock = time.perf_counter


class Datagrams:
    """Datagrams of `size` bytes cut out of `block`.  Raises ValueError for an unfit size."""

    def __init__(self, block: bytes, size: int) -> None:
        if not NUMBER_HLEN < size < len(block):
            raise ValueError(f"{size} bytes: more than {NUMBER_HLEN} and less than {len(block)}")
        self.block, self.size = block, size
        self._span = len(block) - size

    def datagram(self, number: int) -> bytes:
        """The one of this number."""
        at = number % WINDOW * NUMBER_STEP % self._span
        return number.to_bytes(NUMBER_HLEN, "big") + self.block[at : at + self.size - NUMBER_HLEN]


class FloodSource(Datagrams):
    """Sends numbered datagrams, as many as go: `packets` so far."""

    def __init__(self, block: bytes, size: int) -> None:
        super().__init__(block, size)
        self.packets = 0
        self._batch = Batch(SEND_BATCH, size)

    def send(self, fd: int, duration: float) -> None:
        """Send on a connected socket.  Raises OSError."""
        until = clock() + duration
        while clock() < until:
            numbers = range(self.packets, self.packets + SEND_BATCH)
            self._batch.buffer[:] = b"".join(map(self.datagram, numbers))
            with suppress(ConnectionRefusedError, BlockingIOError):
                self.packets += self._send(fd)

    def _send(self, fd: int) -> int:
        try:
            return self._batch.send(fd)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return 0
            raise


class FloodSink(Datagrams):
    """Receives them: `packets` are right and here for the first time."""

    def __init__(self, block: bytes, size: int) -> None:
        super().__init__(block, size)
        self.packets = self.duplicates = self.corrupted = self.reordered = 0
        self.last = clock()
        self._next = 0
        self._seen = bytearray(WINDOW)
        self._batch = Batch(CATCH_BATCH, size + 1)

    def take(self, fd: int, duration: float) -> bool:
        """Receive, one batch at least; True when the last datagram has come.  Raises OSError."""
        until = clock() + duration
        while True:
            lengths = self._batch.receive(fd)
            for at, length in enumerate(lengths):
                if length == 1:
                    self.last = clock() if at else self.last
                    return True
                start = at * self._batch.stride
                self._judge(bytes(self._batch.buffer[start : start + length]))
            self.last = clock()
            if self.last >= until:
                return False

    def _judge(self, data: bytes) -> None:
        number = int.from_bytes(data[:NUMBER_HLEN], "big")
        if data == self.datagram(number):
            self._note(number)
        else:
            self.corrupted += 1

    def _note(self, number: int) -> None:
        if number >= self._next:
            self._advance(number)
        elif self._next - number > WINDOW or self._seen[number % WINDOW]:
            self.duplicates += 1
            return
        else:
            self.reordered += 1
        self._seen[number % WINDOW] = 1
        self.packets += 1

    def _advance(self, number: int) -> None:
        if number - self._next >= WINDOW:
            self._seen = bytearray(WINDOW)
        else:
            for skipped in range(self._next, number):
                self._seen[skipped % WINDOW] = 0
        self._next = number + 1


class StreamSource:
    """Sends `block` over and over on a stream: `count` bytes so far."""

    def __init__(self, block: bytes) -> None:
        self.count = 0
        self._block = memoryview(block)

    def send(self, fd: int, duration: float) -> None:
        """Send.  Raises OSError."""
        until = clock() + duration
        with _borrowed(fd) as stream:
            while clock() < until:
                self.count += stream.send(self._block[self.count % len(self._block) :])


class StreamSink:
    """Receives a stream: `count` bytes, `intact` if all of them are what should come."""

    def __init__(self, block: bytes) -> None:
        self.count, self.intact = 0, True
        self.first = self.last = clock()
        self._block, self._buffer = memoryview(block), memoryview(bytearray(len(block)))

    def take(self, fd: int, duration: float) -> bool:
        """Receive; True at the end of the stream.  Raises OSError."""
        until = clock() + duration
        with _borrowed(fd) as stream:
            while True:
                at = self.count % len(self._block)
                got = stream.recv_into(self._buffer, len(self._block) - at, socket.MSG_WAITALL)
                if not got:
                    return True
                self.last = clock()
                self.first = self.first if self.count else self.last
                self.intact &= self._buffer[:got] == self._block[at : at + got]
                self.count += got
                if self.last >= until:
                    return False


class Asker(Datagrams):
    """Sends one request after the other and waits for each answer."""

    def __init__(self, block: bytes, size: int) -> None:
        super().__init__(block, size)
        if size > LONGEST_REQUEST:
            raise ValueError(f"{size} bytes: a request has {LONGEST_REQUEST} at the most")
        self.lost = self.corrupted = 0
        self._number = 0

    def ask(self, fd: int, duration: float) -> list[int]:
        """Round trips in nanoseconds; one at least, unless it was lost.  Raises OSError."""
        until, now = clock() + duration, time.perf_counter_ns
        trips: list[int] = []
        with _borrowed(fd) as client:
            while True:
                request = self.datagram(self._number)
                self._number += 1
                start = now()
                try:
                    client.send(request)
                    self._wait(client, request)
                except (BlockingIOError, ConnectionRefusedError):
                    self.lost += 1
                    return trips
                trips.append(now() - start)
                if clock() >= until:
                    return trips

    def _wait(self, client: socket.socket, request: bytes) -> None:
        while (answer := client.recv(LONGEST_REQUEST)) != request:
            late = self.datagram(int.from_bytes(answer[:NUMBER_HLEN], "big"))
            self.corrupted += answer != late


class Answerer:
    """Sends every request back to whoever sent it: `requests` so far."""

    def __init__(self) -> None:
        self.requests = 0

    def answer(self, fd: int, duration: float) -> bool:
        """Answer; True when the last request has come.  Raises OSError."""
        until = clock() + duration
        with _borrowed(fd) as server:
            while True:
                request, source = server.recvfrom(LONGEST_REQUEST)
                if len(request) == 1:
                    return True
                with suppress(OSError):
                    server.sendto(request, source)
                    self.requests += 1
                if clock() >= until:
                    return False


@contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object on a descriptor that stays its owner's."""
    made = socket.socket(fileno=fd)
    try:
        yield made
    finally:
        made.detach()
