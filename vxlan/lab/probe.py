"""Traffic for labs: echo requests and checked transfers, by sockets of a namespace.

Theory of operation
===================

A socket belongs for ever to the namespace in which it was opened, whatever
thread uses it later.  So a probe opens its sockets inside the two namespaces
and then does all its work here, with no process and no tool installed.

Echo requests are sent on a schedule and answers are matched by sequence number,
so a lost one delays nothing:

    requests  0----1----2----3----          one each `interval`
    answers     0----1---------3            2 was lost: rtts[2] is None
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vxlan.wire import checksum

if TYPE_CHECKING:
    from vxlan.lab.namespace import Namespace

_ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_CHUNK = 1 << 18
_SO_MAX_PACING_RATE = 47


@dataclass(frozen=True, slots=True)
class Ping:
    """What came back: for each request its round trip in seconds, or None."""

    rtts: tuple[float | None, ...]

    @property
    def sent(self) -> int:
        """Requests sent."""
        return len(self.rtts)

    @property
    def received(self) -> int:
        """Requests that were answered in time."""
        return sum(rtt is not None for rtt in self.rtts)

    @property
    def lost(self) -> int:
        """Requests that were not."""
        return self.sent - self.received


class Transfer(NamedTuple):
    """One checked TCP transfer."""

    length: int
    seconds: float
    sent_sha256: str
    received_sha256: str

    @property
    def intact(self) -> bool:
        """Whether what arrived is what was sent."""
        return self.sent_sha256 == self.received_sha256

    @property
    def megabits(self) -> float:
        """Payload rate in 10^6 bit/s."""
        return self.length * 8 / self.seconds / 1e6


def ping(
    source: Namespace,
    address: str,
    count: int = 1,
    *,
    interval: float = 0.2,
    timeout: float = 2.0,
    size: int = 56,
) -> Ping:
    """Send `count` ICMP or ICMPv6 echo requests with `size` bytes of data.

    `timeout` is how long to wait for answers after the last request.
    """
    with _Echo(source, address, size) as echo:
        return echo.run(count, interval, timeout)


class _Echo:
    """One raw socket and the requests that are under way on it."""

    def __init__(self, source: Namespace, address: str, size: int) -> None:
        self._v6 = ipaddress.ip_address(address).version == 6
        self._address = address
        self._data = bytes(index & 0xFF for index in range(size))
        self._identifier = int.from_bytes(os.urandom(2))
        family = socket.AF_INET6 if self._v6 else socket.AF_INET
        protocol = socket.IPPROTO_ICMPV6 if self._v6 else socket.IPPROTO_ICMP
        self._socket = source.socket(family, socket.SOCK_RAW, protocol)
        self._sent_at: list[float] = []
        self._rtts: list[float | None] = []

    def __enter__(self) -> _Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, count: int, interval: float, timeout: float) -> Ping:
        start = time.monotonic()
        for sequence in range(count):
            self._collect(until=start + sequence * interval)
            self._send(sequence)
        self._collect(until=time.monotonic() + timeout, stop_when_complete=True)
        return Ping(tuple(self._rtts))

    def _send(self, sequence: int) -> None:
        kind = 128 if self._v6 else 8
        head = _ECHO.pack(kind, 0, 0, self._identifier, sequence & 0xFFFF)
        check = 0 if self._v6 else checksum(head + self._data)  # the kernel sums ICMPv6
        head = _ECHO.pack(kind, 0, check, self._identifier, sequence & 0xFFFF)
        self._sent_at.append(time.monotonic())
        self._rtts.append(None)
        with suppress(OSError):  # no neighbour, link down: the request counts as lost
            self._socket.sendto(head + self._data, (self._address, 0))

    def _collect(self, until: float, stop_when_complete: bool = False) -> None:
        while (left := until - time.monotonic()) > 0:
            if stop_when_complete and None not in self._rtts:
                return
            if select.select([self._socket], [], [], left)[0]:
                self._take_answer()

    def _take_answer(self) -> None:
        try:
            message, sender = self._socket.recvfrom(1 << 16)
        except OSError:
            return
        if not self._v6:
            message = message[(message[0] & 0x0F) * 4 :]
        if len(message) < _ECHO.size or sender[0] != self._address:
            return
        kind, _, _, identifier, sequence = _ECHO.unpack_from(message)
        if kind != (129 if self._v6 else 0) or identifier != self._identifier:
            return
        if message[_ECHO.size :] == self._data and sequence < len(self._rtts):
            self._rtts[sequence] = time.monotonic() - self._sent_at[sequence]


def tcp_transfer(
    source: Namespace,
    sink: Namespace,
    address: str,
    length: int,
    timeout: float = 30.0,
    pace: int = 0,
) -> Transfer:
    """Send `length` random bytes over TCP from `source` to `address` in `sink`.

    `pace` is at most how many bytes a second; 0: as many as go.
    Raises OSError (TimeoutError) when the connection does not come or stalls.
    """
    with _listener(sink, address, timeout) as listener:
        receiver = _Receiver(listener)
        receiver.start()
        start = time.monotonic()
        with source.socket(listener.family, socket.SOCK_STREAM) as sender:
            sender.settimeout(timeout)
            if pace:
                sender.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, pace)
            sender.connect(listener.getsockname()[:2])
            sent = _send_random(sender, length)
            sender.shutdown(socket.SHUT_WR)
            receiver.join(timeout)
        if receiver.error is not None:
            raise receiver.error
        return Transfer(length, time.monotonic() - start, sent, receiver.digest.hexdigest())


def _listener(sink: Namespace, address: str, timeout: float) -> socket.socket:
    v6 = ipaddress.ip_address(address).version == 6
    listener = sink.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    listener.settimeout(timeout)
    listener.bind((address, 0))
    listener.listen(1)
    return listener


class _Receiver(threading.Thread):
    """Accepts one connection and hashes it to its end."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(daemon=True, name="lab-tcp-sink")
        self._listener = listener
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            self._receive()
        except OSError as error:
            self.error = error

    def _receive(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(self._listener.gettimeout())
            while data := connection.recv(_CHUNK):
                self.digest.update(data)


def _send_random(sender: socket.socket, length: int) -> str:
    digest = hashlib.sha256()
    while length:
        chunk = os.urandom(min(length, _CHUNK))
        digest.update(chunk)
        sender.sendall(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def udp_exchange(
    source: Namespace, sink: Namespace, address: str, payload: bytes, timeout: float = 5.0
) -> bytes:
    """Send one datagram to `address` in `sink`, send it back reversed; what came back.

    Raises TimeoutError when either direction loses it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        sink.socket(family, socket.SOCK_DGRAM) as server,
        source.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(timeout)
        client.settimeout(timeout)
        server.bind((address, 0))
        client.sendto(payload, server.getsockname())
        request, sender = server.recvfrom(1 << 16)
        server.sendto(request[::-1], sender)
        return client.recv(1 << 16)
