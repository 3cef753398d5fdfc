"""An underlay that loses, repeats and reorders datagrams slows a stream and never bends it."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
from collections.abc import Iterator

import pytest
from worlds import VNI, two_hosts

from vxlan.lab import Host, Lab, segment, tcp_transfer

MEBI = 1 << 20
LENGTHS = {"fastpath": 32 * MEBI, "python": 4 * MEBI}
SOAK = int(os.environ.get("PYVXLAN_SOAK", "0"))
"""Bytes each way; `make soak` sets it."""
PORT = 4789

pytestmark = pytest.mark.namespaces


class Relay(threading.Thread):
    """Stands between two VTEPs, each of which takes it for the other, and plays tricks.

    Of 100 datagrams 2 are lost, 1 comes twice, and 3 come later than those behind them.
    """

    LOSS, TWICE, LATE, HELD = 0.02, 0.01, 0.03, 8

    def __init__(self, host: Host, one: str, other: str) -> None:
        super().__init__(daemon=True, name="relay")
        self._socket = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 16 * MEBI)  # SO_RCVBUFFORCE
        self._socket.bind((host.address, PORT))
        self._socket.setblocking(False)
        self._to = {one: (other, PORT), other: (one, PORT)}
        self._random = random.Random(20240)
        self._late: list[tuple[bytes, tuple[str, int]]] = []
        self._ended = threading.Event()
        self.seen = self.lost = self.repeated = self.reordered = 0

    def run(self) -> None:
        while not self._ended.is_set():
            if select.select([self._socket], [], [], 0.01)[0]:
                self._drain()
            self._release()

    def _drain(self) -> None:
        for _ in range(256):
            try:
                payload, source = self._socket.recvfrom(65536)
            except BlockingIOError:
                return
            self._take(payload, self._to[source[0]])

    def _take(self, payload: bytes, to: tuple[str, int]) -> None:
        self.seen += 1
        chance = self._random.random()
        if chance < self.LOSS:
            self.lost += 1
        elif chance < self.LOSS + self.LATE:
            self.reordered += 1
            self._late.append((payload, to))
            if len(self._late) > self.HELD:
                self._release()
        else:
            self._socket.sendto(payload, to)
            if chance > 1 - self.TWICE:
                self.repeated += 1
                self._socket.sendto(payload, to)

    def _release(self) -> None:
        for payload, to in self._late:
            self._socket.sendto(payload, to)
        self._late.clear()

    def end(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def relay(lab: Lab) -> Iterator[Relay]:
    """Between hosts a and b, which are not there yet."""
    running = Relay(lab.host("r", "192.0.2.254/24"), "192.0.2.1", "192.0.2.2")
    running.start()
    yield running
    running.end()


def test_streams_both_ways_are_intact(lab: Lab, relay: Relay, engine_name: str) -> None:
    """IPv4 there, IPv6 back."""
    a, b, c1, c2 = two_hosts(lab)
    keys = {"mtu": 1450}  # the relay answers no probe
    lab.start(*(h.node(segment(VNI, "192.0.2.254", **keys), engine=engine_name) for h in (a, b)))
    length = SOAK or LENGTHS[engine_name]
    patience = 30.0 + length / MEBI
    assert tcp_transfer(c1, c2, c2.address, length, timeout=patience).intact
    assert tcp_transfer(c2, c1, c1.addresses[1], length, timeout=patience).intact
    assert min(relay.lost, relay.repeated, relay.reordered) > 10
