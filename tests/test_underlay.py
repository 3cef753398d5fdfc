from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import DEV, Host, lone_host, readable, two_hosts
from tests.underlays import FLOW, PORT, opened, received, receiver, to
from vxlan import netdev, netns, udpsock
from vxlan.drop import Drop
from vxlan.engine import Datagram
from vxlan.fdb import Remote
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


# -- sending and receiving ------------------------------------------------------------


@pytest.mark.namespaces
@pytest.mark.parametrize("which", ["v4", "v6"])
def test_a_datagram_crosses_with_its_tos(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay], which: str
) -> None:
    source, target = (getattr(host, which) for host in hosts)
    for tos in (0, 0xB8, 0x02, 0x02, 0x03):
        assert ends[0].send(to(target, b"frame", flow=FLOW, tos=tos)) is None
        (got,) = received(ends[1], target)
        assert (got.payload, got.tos, got.remote.address) == (b"frame", tos, source)
        assert 49152 <= got.remote.port <= 65535


@pytest.mark.namespaces
@pytest.mark.parametrize(("asked", "on_the_wire"), [(0, 64), (64, 64), (1, 1), (255, 255)])
def test_the_ttl_is_that_of_the_datagram(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay], asked: int, on_the_wire: int
) -> None:
    with hosts[1].raw(socket.IPPROTO_UDP) as wire:
        ends[0].send(to(hosts[1].v4, flow=1, ttl=7))
        ends[0].send(to(hosts[1].v4, flow=1, ttl=asked))
        wire.settimeout(2)
        headers = [wire.recv(2048) for _ in range(2)]
    assert [header[8] for header in headers] == [7, on_the_wire]


@pytest.mark.namespaces
def test_df_is_set(hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay]) -> None:
    with hosts[1].raw(socket.IPPROTO_UDP) as wire:
        ends[0].send(to(hosts[1].v4, bytes(1400)))
        wire.settimeout(2)
        assert wire.recv(2048)[6] & 0x40


@pytest.mark.namespaces
@pytest.mark.parametrize("udpcsum", [True, False])
def test_the_ipv4_checksum_is_left_out_when_asked(hosts: tuple[Host, Host], udpcsum: bool) -> None:
    netdev.set_wire_like(DEV, hosts[0].name)
    with closing(opened(hosts[0], udpcsum=udpcsum)) as one, closing(opened(hosts[1])) as two:
        with hosts[1].raw(socket.IPPROTO_UDP) as wire:
            one.send(to(hosts[1].v4))
            wire.settimeout(2)
            assert (wire.recv(2048)[26:28] != bytes(2)) is udpcsum
        assert len(received(two, hosts[1].v4)) == 1


@pytest.mark.namespaces
@pytest.mark.parametrize("accepted", [True, False])
def test_a_zero_ipv6_checksum_needs_consent_at_both_ends(
    hosts: tuple[Host, Host], accepted: bool
) -> None:
    one = opened(hosts[0], udp6zerocsumtx=True)
    two = opened(hosts[1], udp6zerocsumrx=accepted)
    with closing(one), closing(two):
        one.send(to(hosts[1].v6))
        sock = receiver(two, hosts[1].v6)
        assert readable(sock, 2.0 if accepted else 0.3) is accepted


@pytest.mark.namespaces
@pytest.mark.parametrize("payload", [b"", bytes(8), bytes(1472)])
def test_any_length_crosses(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay], payload: bytes
) -> None:
    ends[0].send(to(hosts[1].v4, payload))
    assert [got.payload for got in received(ends[1], hosts[1].v4)] == [payload]


@pytest.mark.namespaces
def test_nothing_waits_gives_an_empty_list(ends: tuple[Underlay, Underlay]) -> None:
    assert [ends[0].receive(sock) for sock in ends[0].receivers] == [[], []]


@pytest.mark.namespaces
def test_merged_datagrams_are_cut_apart(hosts: tuple[Host, Host]) -> None:
    """A sender with UDP_SEGMENT on the same host delivers them merged."""
    with closing(opened(hosts[0], gro=True)) as underlay, hosts[0].udp(hosts[0].v4) as sock:
        assert underlay.granted["gro"]
        sock.setsockopt(socket.IPPROTO_UDP, 103, 100)  # UDP_SEGMENT
        payload = bytes(range(250))
        sock.sendto(payload, (hosts[0].v4, PORT))
        assert readable(receiver(underlay, hosts[0].v4))
        got = underlay.receive(receiver(underlay, hosts[0].v4))
        assert [one.payload for one in got] == [payload[:100], payload[100:200], payload[200:]]
        assert {one.remote for one in got} == {Remote(*sock.getsockname())}


@pytest.mark.namespaces
def test_a_forger_of_sources_does_not_fill_the_memory(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vxlan.underlay._MAX_SOURCES", 10)
    for flow in range(0, 1 << 32, 1 << 27):
        ends[0].send(to(hosts[1].v4, flow=flow))
    got = received(ends[1], hosts[1].v4, 32)
    assert len({one.remote.port for one in got}) == 32
    assert len(ends[1]._sources) <= 10


@pytest.mark.namespaces
def test_a_full_receive_buffer_is_counted(hosts: tuple[Host, Host]) -> None:
    with closing(opened(hosts[0])) as one, closing(opened(hosts[1], rcvbuf=16384)) as two:
        sent = 0
        while not udpsock.drops_of(receiver(two, hosts[1].v4)) and sent < 10000:
            assert one.send(to(hosts[1].v4, bytes(1400))) is None
            sent += 1
        got = received(two, hosts[1].v4, sent)
        assert 0 < two.take_rcvbuf_drops() == sent - len(got)
        assert two.take_rcvbuf_drops() == 0


@pytest.mark.namespaces
def test_the_counter_of_the_kernel_may_wrap(
    ends: tuple[Underlay, Underlay], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([0xFFFFFFFE, 0, 3, 0])
    monkeypatch.setattr("vxlan.underlay.drops_of", lambda _: next(readings))
    assert ends[0].take_rcvbuf_drops() == 0xFFFFFFFE
    assert ends[0].take_rcvbuf_drops() == 5


# -- what goes wrong --------------------------------------------------------------------


@pytest.mark.namespaces
@pytest.mark.parametrize("which", ["v4", "v6"])
def test_too_big_for_the_device(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay], which: str
) -> None:
    target = getattr(hosts[1], which)
    assert ends[0].send(to(target, bytes(1500))) is Drop.PKT_TOO_BIG
    errors = ends[0].errors()
    assert {error.address for error in errors} == {target}
    assert {(error.errno, error.mtu, error.origin) for error in errors} == {
        (errno.EMSGSIZE, 1500, "local")
    }


@pytest.mark.namespaces
@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8:9::1"])
def test_no_route(ends: tuple[Underlay, Underlay], address: str) -> None:
    assert ends[0].send(to(address)) is Drop.UNDERLAY_UNREACHABLE


@pytest.mark.namespaces
def test_no_address_of_that_family(hosts: tuple[Host, Host]) -> None:
    with closing(opened(hosts[0], hosts[0].v4)) as underlay:
        assert underlay.send(to(hosts[1].v6)) is Drop.UNDERLAY_UNREACHABLE


@pytest.mark.namespaces
def test_a_blackhole_is_refused_and_a_link_down_is_unreachable(
    hosts: tuple[Host, Host], ends: tuple[Underlay, Underlay]
) -> None:
    assert ends[0].send(Datagram(Remote(hosts[1].v4, 0), b"x")) is Drop.UNDERLAY_REFUSED
    netdev.set_up(DEV, False, netns=hosts[0].name)
    assert ends[0].send(to(hosts[1].v4)) is Drop.UNDERLAY_UNREACHABLE
    netdev.set_up(DEV, netns=hosts[0].name)


@pytest.mark.namespaces
@pytest.mark.parametrize("which", ["v4", "v6"])
def test_a_dead_remote_is_reported_and_costs_no_other_remote_a_packet(
    hosts: tuple[Host, Host], which: str
) -> None:
    target = getattr(hosts[1], which)
    with closing(opened(hosts[0])) as underlay, hosts[1].udp(target, 5000) as alive:
        assert underlay.send(to(target, b"nobody listens")) is None
        assert readable(underlay.error_fd)
        # The error now waits in the socket; this datagram goes elsewhere.
        assert underlay.send(Datagram(Remote(target, 5000), b"alive")) is None
        assert readable(alive)
        assert alive.recv(100) == b"alive"
        (error,) = underlay.errors()
        assert (error.address, error.port, error.errno) == (target, PORT, errno.ECONNREFUSED)
        assert error.origin == ("icmp6" if which == "v6" else "icmp")
        assert error.payload == b"nobody listens"
        assert "no VTEP runs there" in error.detail
        assert target in error.detail
        assert not readable(underlay.error_fd, 0)
        assert underlay.errors() == []


@pytest.mark.namespaces
def test_errors_of_a_storm_come_in_portions(hosts: tuple[Host, Host]) -> None:
    with closing(opened(hosts[0])) as underlay:
        for number in range(400):
            underlay.send(to(hosts[1].v4, bytes(1500), flow=number * FLOW & 0xFFFFFFFF))
        sizes = []
        while readable(underlay.error_fd, 0):
            sizes.append(len(underlay.errors()))
        assert max(sizes) <= 256
        assert sum(sizes) >= 400


class Full:
    """A socket that refuses with a list of errors, then takes everything."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.taken: list[bytes] = []

    def sendto(self, payload: bytes, remote: Remote) -> int:
        if self.codes:
            code = self.codes.pop(0)
            raise OSError(code, os.strerror(code))
        self.taken.append(payload)
        return len(payload)


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("codes", "outcome", "taken"),
    [
        ([errno.EAGAIN], Drop.UNDERLAY_BUSY, 0),
        ([errno.ENOBUFS], Drop.UNDERLAY_BUSY, 0),
        ([errno.EPERM], Drop.UNDERLAY_REFUSED, 0),
        ([errno.EINVAL], Drop.UNDERLAY_REFUSED, 0),
        ([errno.EHOSTUNREACH], None, 1),
        ([errno.ECONNREFUSED, errno.EAGAIN], Drop.UNDERLAY_BUSY, 0),
        ([errno.EMSGSIZE, errno.EMSGSIZE], Drop.PKT_TOO_BIG, 0),
        ([errno.EACCES, errno.EACCES], Drop.UNDERLAY_REFUSED, 0),
        ([errno.ENETUNREACH, errno.EHOSTUNREACH], Drop.UNDERLAY_UNREACHABLE, 0),
    ],
)
def test_each_errno_has_its_reason(
    ends: tuple[Underlay, Underlay], codes: list[int], outcome: Drop | None, taken: int
) -> None:
    sender: Any = ends[0]._pools[2].slots[0]
    sink = Full(*codes)
    sender.sendto = sink.sendto
    assert ends[0].send(to("192.0.2.2")) is outcome
    assert len(sink.taken) == taken
    assert sink.codes == [], "neither tried too often nor too rarely"


# -- opening and closing ------------------------------------------------------------------


@pytest.mark.namespaces
def test_a_port_held_by_a_process_names_it(hosts: tuple[Host, Host]) -> None:
    with closing(opened(hosts[0])), pytest.raises(UnderlayError) as caught:
        opened(hosts[0])
    assert f"process {os.getpid()} (" in str(caught.value)
    assert "--dstport" in str(caught.value)


@pytest.mark.namespaces
@pytest.mark.parametrize("which", ["v4", "v6"])
def test_a_port_held_by_a_kernel_vxlan_device_says_so(hosts: tuple[Host, Host], which: str) -> None:
    here, there = (getattr(host, which) for host in hosts)
    netdev.create_vxlan("vx", 1, local=here, remote=there, netns=hosts[0].name)
    netdev.set_up("vx", netns=hosts[0].name)
    with pytest.raises(UnderlayError, match="kernel vxlan device"):
        opened(hosts[0], here)
    with closing(opened(hosts[0], here, port=4790)) as underlay:
        assert underlay.port == 4790


@pytest.mark.namespaces
@pytest.mark.parametrize("address", ["192.0.2.99", "2001:db8::99"])
def test_an_address_of_another_host_is_refused(hosts: tuple[Host, Host], address: str) -> None:
    with pytest.raises(UnderlayError, match="not an address of this host"):
        opened(hosts[0], address)


@pytest.mark.parametrize("local", [[], ["eth0"], ["192.0.2.256"]])
def test_what_is_no_address_is_refused(local: list[str]) -> None:
    with pytest.raises(UnderlayError) as caught:
        Underlay(local, PORT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("srcport", [(0, 10), (10, 9), (1, 65536)])
def test_what_is_no_range_is_refused(srcport: tuple[int, int]) -> None:
    with pytest.raises(UnderlayError, match="no range of ports"):
        Underlay(["127.0.0.1"], PORT, srcport=srcport)


@pytest.mark.namespaces
def test_an_address_twice_or_spelt_otherwise_is_one(hosts: tuple[Host, Host]) -> None:
    with closing(opened(hosts[0], hosts[0].v6, "2001:0DB8:0::1")) as underlay:
        assert underlay.local == (hosts[0].v6,)
        assert len(underlay.receivers) == 1


@pytest.mark.namespaces
def test_two_addresses_of_a_family_receive_and_the_first_sends(hosts: tuple[Host, Host]) -> None:
    netdev.add_address(DEV, "192.0.2.11/24", hosts[0].name)
    with (
        closing(opened(hosts[0], hosts[0].v4, "192.0.2.11")) as one,
        closing(opened(hosts[1])) as two,
    ):
        two.send(to("192.0.2.11", b"second"))
        assert [got.payload for got in received(one, "192.0.2.11")] == [b"second"]
        one.send(to(hosts[1].v4))
        assert received(two, hosts[1].v4)[0].remote.address == hosts[0].v4


@pytest.mark.namespaces
@pytest.mark.parametrize("which", ["v4", "v6"])
def test_queues_share_what_arrives_by_flows(hosts: tuple[Host, Host], which: str) -> None:
    here, there = (getattr(host, which) for host in hosts)
    with (
        closing(opened(hosts[0], here, queues=3)) as one,
        closing(opened(hosts[1], there)) as two,
    ):
        assert len(one.receivers) == 3
        for flow in range(64):
            assert two.send(to(here, flow=flow * FLOW % (1 << 32))) is None
        shares = [list(iter(lambda sock=sock: one.receive(sock), [])) for sock in one.receivers]
        assert sum(map(len, shares)) == 64
        assert all(shares)


@pytest.mark.namespaces
@pytest.mark.parametrize("queues", [(3, 1), (1, 3), (3, 3)])
def test_queues_do_not_let_another_node_join(
    hosts: tuple[Host, Host], queues: tuple[int, int]
) -> None:
    with (
        closing(opened(hosts[0], queues=queues[0])),
        pytest.raises(UnderlayError, match="taken by"),
    ):
        opened(hosts[0], queues=queues[1])


@pytest.mark.namespaces
def test_a_smaller_receive_buffer_is_told(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_privilege(sock: socket.socket, level: int, option: int, value: int) -> bool:
        return option != 33 and genuine(sock, level, option, value)  # SO_RCVBUFFORCE

    genuine = udpsock.try_option
    monkeypatch.setattr(udpsock, "try_option", without_privilege)
    with closing(opened(hosts[0], hosts[0].v4, rcvbuf=1 << 30)) as underlay:
        assert underlay.granted["rcvbuf"] < 1 << 30
        assert "net.core.rmem_max" in underlay.fallbacks[0]


@pytest.mark.namespaces
def test_options_that_the_kernel_refuses_are_told_and_it_works_without(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = 9999  # no such option: ENOPROTOOPT
    for option in ("UDP_GRO", "_SO_ATTACH_FILTER", "_IP_MTU_DISCOVER", "_IP_RECVERR"):
        monkeypatch.setattr(udpsock, option, nothing)
    with closing(opened(hosts[0], hosts[0].v4, gro=True)) as one:
        told = " ".join(one.fallbacks)
        assert (one.granted["gro"], one.granted["dont_fragment"]) == (False, False)
        assert all(what in told for what in ("UDP_GRO", "filter", "fragment", "error queue"))
        with closing(opened(hosts[1])) as two:
            one.send(to(hosts[1].v4))
            assert len(received(two, hosts[1].v4)) == 1


@pytest.mark.namespaces
def test_close_frees_port_and_descriptors() -> None:
    with lone_host() as name, netns.inside(name):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(2):
            underlay = Underlay(["127.0.0.1", "::1"], PORT)
            underlay.close()
            underlay.close()
        with pytest.raises(UnderlayError):
            Underlay(["127.0.0.1", "2001:db8::77"], PORT)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.namespaces
def test_errors_wake_a_poller_of_pollers(
    hosts: tuple[Host, Host],
) -> None:
    """The engine's epoll holds the pool's, and the event loop's holds the engine's."""
    with closing(opened(hosts[0])) as underlay, select.epoll() as engine, select.epoll() as loop:
        engine.register(underlay.error_fd, select.EPOLLIN)
        loop.register(engine.fileno(), select.EPOLLIN)
        assert loop.poll(0) == []
        underlay.send(to(hosts[1].v4))
        deadline = time.monotonic() + 2
        while not (events := loop.poll(0.1)) and time.monotonic() < deadline:
            pass
        assert events == [(engine.fileno(), select.EPOLLIN)]
        assert engine.poll(0) == [(underlay.error_fd, select.EPOLLIN)]
        underlay.errors()
        assert loop.poll(0) == []
