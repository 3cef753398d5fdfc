from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.hosts import Host, readable, two_hosts
from tests.underlays import FLOW, opened, received, to
from vxlan import portpool, udpsock
from vxlan.fdb import Remote
from vxlan.portpool import Sender
from vxlan.underlay import Underlay, UnderlayError


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as both:
        yield both


@pytest.fixture
def ends(hosts: tuple[Host, Host]) -> Iterator[tuple[Underlay, Underlay]]:
    one, two = opened(hosts[0]), opened(hosts[1])
    with closing(one), closing(two):
        yield one, two


@pytest.mark.namespaces
def test_many_flows_use_many_ports_and_each_keeps_its_own(hosts: tuple[Host, Host]) -> None:
    flows = [number * FLOW & 0xFFFFFFFF for number in range(300)]
    ports = []
    with (
        closing(opened(hosts[0], hosts[0].v4, pool=256)) as one,
        closing(opened(hosts[1], hosts[1].v4)) as two,
    ):
        for _ in range(2):
            for flow in flows:
                one.send(to(hosts[1].v4, flow=flow))
            ports.append([got.remote.port for got in received(two, hosts[1].v4, 300)])
    assert ports[0] == ports[1]
    assert len(set(ports[0])) >= 100


@pytest.mark.namespaces
@pytest.mark.parametrize("flow", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_every_flow_has_a_port(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay], flow: int
) -> None:
    assert ends[0].send(to(hosts[1].v6, flow=flow)) is None


@pytest.mark.namespaces
def test_descriptors_by_slot_are_those_that_send(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay]
) -> None:
    fds = ends[0].pool_fds()
    assert {family: len(slots) for family, slots in fds.items()} == {
        socket.AF_INET: 32,
        socket.AF_INET6: 32,
    }
    with socket.socket(fileno=os.dup(fds[socket.AF_INET][FLOW * 32 >> 32])) as sock:
        expected = sock.getsockname()[1]
    ends[0].send(to(hosts[1].v4, flow=FLOW))
    assert received(ends[1], hosts[1].v4)[0].remote.port == expected


@pytest.mark.namespaces
def test_a_taken_port_is_skipped(hosts: tuple[Host, Host]) -> None:
    with hosts[0].udp(hosts[0].v4, 50000):
        underlay = opened(hosts[0], hosts[0].v4, srcport=(50000, 50003), pool=3)
        with closing(underlay):
            ports = {sender.socket.getsockname()[1] for sender in underlay._pools[2].slots}
    assert ports == {50001, 50002, 50003}
    assert underlay.fallbacks == []


@pytest.mark.namespaces
def test_the_vxlan_port_is_no_source_port(hosts: tuple[Host, Host]) -> None:
    with closing(opened(hosts[0], hosts[0].v4, srcport=(4789, 4790), pool=2)) as underlay:
        assert [sock.getsockname()[1] for sock in underlay._pools[2].sockets] == [4790]
        assert "1 source ports instead of 2" in underlay.fallbacks[0]
        assert len(underlay.pool_fds()[socket.AF_INET]) == 2


@pytest.mark.namespaces
def test_a_range_that_is_taken_is_refused(hosts: tuple[Host, Host]) -> None:
    with hosts[0].udp(hosts[0].v4, 50000), pytest.raises(UnderlayError, match="srcport"):
        opened(hosts[0], hosts[0].v4, srcport=(50000, 50000))


@pytest.mark.namespaces
def test_running_out_of_descriptors_shares_sockets(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, left = udpsock.open_sender, iter(range(3))

    def few(*arguments: Any) -> socket.socket:
        if next(left, None) is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return genuine(*arguments)

    monkeypatch.setattr(portpool, "open_sender", few)
    with closing(opened(hosts[0], hosts[0].v4, pool=8)) as underlay:
        assert "3 source ports instead of 8" in underlay.fallbacks[0]
        assert underlay.granted["source_ports"] == 3
        assert len(set(underlay.pool_fds()[socket.AF_INET])) == 3


@pytest.mark.namespaces
def test_the_pool_leaves_descriptors_for_the_rest(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with closing(opened(hosts[0])) as underlay:
        assert underlay.granted["source_ports"] == 32
        assert all("LimitNOFILE" in sentence for sentence in underlay.fallbacks)


@pytest.mark.namespaces
def test_a_sender_receives_nothing_and_answers_nothing(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay]
) -> None:
    sender = ends[0]._pools[2].slots[0].socket
    with hosts[1].udp(hosts[1].v4) as other:
        other.connect(sender.getsockname())
        other.send(b"to a source port")
        assert not readable(other, 0.2), "an ICMP error would make it readable"
    with pytest.raises(BlockingIOError):
        sender.recv(100)


class Recorder:
    """A socket that remembers which options were set."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def setsockopt(self, *option: int) -> None:
        self.asked.append(option)

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.1", 50000

    def sendto(self, payload: bytes, remote: Remote) -> int:
        return len(payload)


def test_a_sender_sets_only_what_differs() -> None:
    recorder: Any = Recorder()
    sender = Sender(recorder)
    for tos, ttl in ((0, 64), (4, 64), (4, 64), (4, 9), (0, 0)):
        sender.mark(tos, ttl)
    tos_of, ttl_of = (socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IP, socket.IP_TTL)
    assert recorder.asked == [(*tos_of, 4), (*ttl_of, 9), (*tos_of, 0), (*ttl_of, 64)]
