"""Two hosts with a router between them, and ways to send what is too big."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from worlds import VNI, Pair

from vxlan import netdev
from vxlan.lab import FAR, Container, Lab, Namespace, Node, Router, Sniffer, segment, wait_until

UNDERLAY = {
    4: (("192.0.2.254/24", "192.0.2.1/24"), ("198.51.100.254/24", "198.51.100.1/24")),
    6: (("2001:db8:1::fe/64", "2001:db8:1::1/64"), ("2001:db8:2::fe/64", "2001:db8:2::1/64")),
}
"""(router, host) on each side, by IP version."""

NARROW = 1400
"""What a narrow router carries."""

OVERHEAD = {4: 50, 6: 70}

IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO, IP_MTU = 10, 0, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24


@dataclass(frozen=True)
class Routed(Pair):
    """A pair whose hosts a and b are in two networks; containers have an MTU of 1500."""

    router: Router

    def path(self) -> dict[str, Any]:
        """What the node of host a knows of the path to b."""
        found: dict[str, Any] = self.node.segment(VNI)["remotes"][0]["path"]
        return found

    def wait_path(self, mtu: int, timeout: float = 15.0) -> None:
        """Wait until the node of host a has found out what the path carries."""
        wait_until(
            lambda: (self.path()["mtu"], self.path()["phase"]) == (mtu, "complete"),
            timeout,
            f"path MTU {mtu}",
        )

    def wait_overlay(self, mtu: int) -> None:
        """Wait until the segment of host a has this MTU."""
        wait_until(lambda: self.node.segment(VNI)["mtu"] == mtu, 5.0, f"overlay MTU {mtu}")


def networks(lab: Lab, outer: int = 4, mtu: int = 1500, inner: int = 1500) -> Routed:
    """Hosts, router and containers; nothing yet carries frames."""
    (near, one), (far, other) = UNDERLAY[outer]
    router = Router(lab, "r", [near], [far], mtu)
    a, b = lab.host("a", one, mtu=mtu), lab.host("b", other, mtu=mtu, network=FAR)
    router.serve(a, b)
    c1 = a.container("c1", "10.42.0.11/16", "2001:db8:42::11/64", mtu=inner)
    c2 = b.container("c2", "10.42.0.12/16", "2001:db8:42::12/64", mtu=inner)
    return Routed(lab, a, b, c1, c2, (), router)


def narrow(lab: Lab, outer: int = 4, *, silent: bool = True) -> Routed:
    """Two networks whose router carries 1400 bytes, and says so or not."""
    world = networks(lab, outer)
    world.router.carry(NARROW, world.a, world.b)
    if silent:
        world.router.be_silent()
    return world


def with_nodes(made: Routed, engine: str, **keys: object) -> Routed:
    """A pyvxlan node on each host."""
    nodes: tuple[Node, ...] = (
        made.a.node(segment(VNI, made.b.address, **keys), engine=engine),
        made.b.node(segment(VNI, made.a.address, **keys), engine=engine),
    )
    made.lab.start(*nodes)
    return Routed(made.lab, made.a, made.b, made.c1, made.c2, nodes, made.router)


# -- datagrams that must not be fragmented ---------------------------------------------------


class Udp:
    """A datagram socket of `source`, connected to one of `sink` that it can read."""

    def __init__(self, source: Namespace, sink: Namespace, address: str, discover: int) -> None:
        six = ":" in address
        family = socket.AF_INET6 if six else socket.AF_INET
        self._size = 40 + 8 if six else 20 + 8
        self._mtu = (socket.IPPROTO_IPV6, IPV6_MTU) if six else (socket.IPPROTO_IP, IP_MTU)
        self._sink = sink.socket(family, socket.SOCK_DGRAM)
        self._sink.bind((address, 0))
        self._source = source.socket(family, socket.SOCK_DGRAM)
        option = IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER
        self._source.setsockopt(self._mtu[0], option, discover)
        self._source.connect(self._sink.getsockname()[:2])

    def send(self, packet: int) -> bool:
        """Send a packet of so many bytes, IP header included; False: too big, says the stack.

        An ICMP about an earlier packet would fail this one, so that error is taken first.
        """
        self._source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            self._source.send(bytes(packet - self._size))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            return False
        return True

    def arrives(self, packet: int, timeout: float = 0.3) -> bool:
        """Send a packet; whether the other end got it."""
        self._sink.settimeout(timeout)
        if not self.send(packet):
            return False
        try:
            return len(self._sink.recv(1 << 16)) == packet - self._size
        except TimeoutError:
            return False

    @property
    def mtu(self) -> int:
        """What the stack believes that the path carries."""
        return self._source.getsockopt(*self._mtu)


def learned_mtu(container: Container, address: str) -> int | None:
    """The path MTU that a container's stack learned from ICMP; None if it learned none."""
    route = netdev.route_to(address, container.name)
    return route.mtu if route.learned else None


# -- what passes the router ---------------------------------------------------------------------


def is_fragment(frame: bytes) -> bool:
    """Whether an Ethernet frame carries a fragment of an IP packet."""
    if frame[12:14] == b"\x08\x00":
        return bool(int.from_bytes(frame[20:22]) & 0x3FFF)
    return frame[12:14] == b"\x86\xdd" and frame[20] == 44


@contextmanager
def nothing_fragmented(world: Routed) -> Iterator[None]:
    """Neither side of the router sees a fragment of an outer packet."""
    with Sniffer(world.router, "eth0") as near, Sniffer(world.router, "eth1") as far:
        yield
        seen = near.packets() + far.packets()
        assert seen
        assert not [one for one in seen if is_fragment(one.data)]


def drop_icmp(container: Container) -> None:
    """Let a container's firewall discard all ICMP that arrives, as too many do."""
    for rule in (
        "add table inet deaf",
        "add chain inet deaf in { type filter hook input priority 0 ; }",
        "add rule inet deaf in meta l4proto icmp drop",
        "add rule inet deaf in icmpv6 type { packet-too-big, destination-unreachable } drop",
    ):
        container.run(["nft", rule])
