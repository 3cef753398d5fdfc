"""Underlays in hosts under test: opened, sent through, received from."""

from __future__ import annotations

import socket
from typing import Any

from tests.hosts import Host, readable
from vxlan import netns
from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.underlay import Underlay

PORT = 4789
FLOW = 0x9E3779B9
"""An odd number whose multiples spread over 32 bits: the flows of a test."""


def opened(host: Host, *local: str, port: int = PORT, pool: int = 32, **options: Any) -> Underlay:
    """An underlay in a host; few source ports, since a test process may have 1024 descriptors."""
    with netns.inside(host.name):
        return Underlay(local or (host.v4, host.v6), port, pool=pool, **options)


def receiver(underlay: Underlay, address: str) -> socket.socket:
    return next(sock for sock in underlay.receivers if sock.getsockname()[0] == address)


def received(underlay: Underlay, address: str, count: int = 1) -> list[Datagram]:
    """At least `count` datagrams that came to `address`, or fewer after two seconds."""
    sock, found = receiver(underlay, address), []
    while len(found) < count and readable(sock):
        found += underlay.receive(sock)
    return found


def to(address: str, payload: bytes = b"payload", **fields: int) -> Datagram:
    return Datagram(Remote(address, PORT), payload, **fields)
