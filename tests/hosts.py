"""Two hosts for tests of the edges: namespaces joined by a veth, and what to ask of them."""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vxlan import netdev, netns

DEV = "eth0"
STATION = bytes.fromhex("020000000001")


@dataclass(frozen=True)
class Host:
    """One namespace with its end of the underlay."""

    name: str
    v4: str
    v6: str

    def udp(self, address: str, port: int = 0) -> socket.socket:
        """A non-blocking UDP socket in this host."""
        with netns.inside(self.name):
            sock = socket.socket(
                socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
            )
        sock.setblocking(False)
        sock.bind((address, port))
        return sock

    def raw(self, protocol: int, family: int = socket.AF_INET) -> socket.socket:
        """A raw IP socket in this host."""
        with netns.inside(self.name):
            return socket.socket(family, socket.SOCK_RAW, protocol)


@contextmanager
def lone_host() -> Iterator[str]:
    """The name of a fresh namespace whose loopback is up."""
    name = f"edge-{secrets.token_hex(3)}"
    netns.create(name)
    try:
        netdev.set_up("lo", netns=name)
        yield name
    finally:
        netns.delete(name)


@contextmanager
def two_hosts(mtu: int = 1500) -> Iterator[tuple[Host, Host]]:
    """192.0.2.1 and .2, 2001:db8::1 and ::2, joined by a veth."""
    with lone_host() as one, lone_host() as two:
        netdev.create_veth(DEV, DEV, one, two, mtu)
        hosts = Host(one, "192.0.2.1", "2001:db8::1"), Host(two, "192.0.2.2", "2001:db8::2")
        for host in hosts:
            netdev.add_address(DEV, f"{host.v4}/24", host.name)
            netdev.add_address(DEV, f"{host.v6}/64", host.name)
            netdev.set_up(DEV, netns=host.name)
        for host in hosts:
            await_running(DEV, host.name)
        yield hosts


def await_running(name: str, netns_name: str) -> None:
    """Wait for the kernel to notice a carrier; before that IPv6 sends nothing."""
    deadline = time.monotonic() + 5
    while not netdev.link(name, netns_name).running:
        assert time.monotonic() < deadline, f"{name} has no carrier"
        time.sleep(0.01)


def readable(fd: int | socket.socket, within: float = 2.0) -> bool:
    """Whether a descriptor becomes readable in time."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(within * 1000))
