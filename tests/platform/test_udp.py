"""What the underlay believes about UDP sockets of this kernel, one belief for each test."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest
import uvloop

from tests.hosts import Host, readable, two_hosts
from vxlan import netdev, netns, udpsock, underlay_holder

pytestmark = pytest.mark.namespaces

UDP_SEGMENT, UDP_GRO = 103, 104
SO_NO_CHECK, SO_ATTACH_FILTER = 11, 26
IP_MTU_DISCOVER, IP_RECVERR = 10, 11
DO, PROBE = 2, 3
PORT = 4789


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as both:
        yield both


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frag_needed(victim: socket.socket, target: str, mtu: int) -> bytes:
    """The ICMP message that claims a datagram of `victim` to (target, PORT) was too big."""
    source, port = victim.getsockname()
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 1428, 0, 0x4000, 64, 17, 0) + addresses
    quoted += struct.pack("!HHHH", port, PORT, 1408, 0)
    head = struct.pack("!BBHHH", 3, 4, 0, 0, mtu)
    return head[:2] + struct.pack("!H", checksum(head + quoted)) + head[4:] + quoted


def refusal(sock: socket.socket, payload: bytes, target: tuple[str, int]) -> int:
    """The errno of a send, 0 if there was none."""
    try:
        sock.sendto(payload, target)
    except OSError as error:
        return error.errno or 0
    return 0


def dead_end(host: Host, target: str) -> socket.socket:
    """A socket whose last datagram met no listener, once the answer is there."""
    sock = host.udp(host.v4)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sock.sendto(b"to nobody", (target, PORT))
    poller = select.poll()
    poller.register(sock, 0)
    assert poller.poll(2000), "no ICMP error came"
    return sock


def test_gro_tells_the_size_of_a_segment(hosts: tuple[Host, Host]) -> None:
    with hosts[0].udp(hosts[0].v4) as one, hosts[0].udp(hosts[0].v4) as two:
        one.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
        two.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        one.sendto(bytes(250), two.getsockname())
        assert readable(two)
        payload, ancillary, _, _ = two.recvmsg(65536, 128)
    assert len(payload) == 250
    assert ancillary == [(socket.IPPROTO_UDP, UDP_GRO, struct.pack("=i", 100))]


def test_segmentation_and_a_zero_checksum_exclude_each_other(hosts: tuple[Host, Host]) -> None:
    with hosts[0].udp(hosts[0].v4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
        assert refusal(sock, bytes(250), (hosts[1].v4, PORT)) == errno.EINVAL


@pytest.mark.parametrize(("mode", "outcome"), [(DO, errno.EMSGSIZE), (PROBE, 0)])
def test_a_forged_frag_needed_moves_do_but_not_probe(
    hosts: tuple[Host, Host], mode: int, outcome: int
) -> None:
    target = (hosts[1].v4, PORT)
    with hosts[0].udp(hosts[0].v4) as victim, hosts[1].raw(socket.IPPROTO_ICMP) as forger:
        victim.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, mode)
        assert refusal(victim, bytes(1400), target) == 0
        forger.sendto(frag_needed(victim, hosts[1].v4, 600), (hosts[0].v4, 0))
        believed = netdev.route_to(hosts[1].v4, hosts[0].name).mtu
        assert believed == 600, "the forgery reached the routing table"
        assert refusal(victim, bytes(1400), target) == outcome


def test_a_kernel_vxlan_device_holds_its_port_while_it_is_up(hosts: tuple[Host, Host]) -> None:
    here, name = hosts[0].v4, hosts[0].name
    netdev.create_vxlan("vx", 1, local=here, remote=hosts[1].v4, netns=name)
    hosts[0].udp(here, PORT).close()
    netdev.set_up("vx", netns=name)
    with pytest.raises(OSError, match="in use") as caught:
        hosts[0].udp(here, PORT)
    assert caught.value.errno == errno.EADDRINUSE
    with netns.inside(name):
        assert "kernel vxlan device" in underlay_holder.holder_of(here, PORT)
    netdev.set_up("vx", False, netns=name)
    hosts[0].udp(here, PORT).close()


def test_a_filter_that_keeps_nothing_answers_nothing(hosts: tuple[Host, Host]) -> None:
    options = udpsock.SocketOptions()
    with netns.inside(hosts[0].name):
        deaf = udpsock.open_sender(hosts[0].v4, 50000, options)
    with deaf, hosts[1].udp(hosts[1].v4) as other:
        other.connect((hosts[0].v4, 50000))
        other.send(b"anybody?")
        assert not readable(other, 0.2)
        assert not readable(deaf, 0)


@pytest.mark.parametrize("option", [55, 40], ids=["SO_MEMINFO", "SO_RXQ_OVFL"])
def test_the_kernel_counts_what_a_full_buffer_lost(hosts: tuple[Host, Host], option: int) -> None:
    with hosts[0].udp(hosts[0].v4) as one, hosts[1].udp(hosts[1].v4) as two:
        two.setsockopt(socket.SOL_SOCKET, 40, 1)
        two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sent = 0
        while not udpsock.drops_of(two) and sent < 10000:
            one.sendto(bytes(1000), two.getsockname())
            sent += 1
        taken = 0
        while readable(two, 0.2):
            two.recvmsg(2048)
            taken += 1
        if option == 55:
            lost = udpsock.drops_of(two)
        else:  # it comes with the next datagram only, which is why SO_MEMINFO is asked
            one.sendto(b"next", two.getsockname())
            assert readable(two)
            lost = struct.unpack("=I", two.recvmsg(2048, 64)[1][0][2])[0]
        assert 0 < lost == sent - taken


def test_an_icmp_error_fails_the_next_send_whoever_it_goes_to(hosts: tuple[Host, Host]) -> None:
    with dead_end(hosts[0], hosts[1].v4) as sock, hosts[1].udp(hosts[1].v4) as alive:
        assert refusal(sock, b"lost", alive.getsockname()) == errno.ECONNREFUSED
        assert refusal(sock, b"sent", alive.getsockname()) == 0
        assert readable(alive)
        assert alive.recv(10) == b"sent"


def test_an_epoll_reports_errors_without_being_asked(hosts: tuple[Host, Host]) -> None:
    with dead_end(hosts[0], hosts[1].v4) as sock, select.epoll() as errors:
        errors.register(sock.fileno(), 0)
        assert errors.poll(0) == [(sock.fileno(), select.EPOLLERR)]
        sock.recvmsg(2048, 256, socket.MSG_ERRQUEUE)
        assert errors.poll(0) == []


def test_uvloop_follows_an_epoll_through_errors(hosts: tuple[Host, Host]) -> None:
    """It gives up a socket at its first POLLERR, but not an epoll that holds the socket."""

    async def count_errors(sock: socket.socket, rounds: int) -> int:
        loop, seen = asyncio.get_running_loop(), asyncio.Semaphore(0)

        def drain() -> None:
            sock.recvmsg(2048, 256, socket.MSG_ERRQUEUE)
            seen.release()

        with select.epoll() as errors:
            errors.register(sock.fileno(), 0)
            loop.add_reader(errors.fileno(), drain)
            for _ in range(rounds):
                await asyncio.wait_for(seen.acquire(), 2)
                await asyncio.sleep(1.1 / 20)
                sock.sendto(b"to nobody", (hosts[1].v4, PORT))
            loop.remove_reader(errors.fileno())
        return rounds

    with dead_end(hosts[0], hosts[1].v4) as sock:
        assert uvloop.run(count_errors(sock, 3)) == 3


def test_uvloop_carries_no_netlink() -> None:
    async def open_it() -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        with sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=sock)

    with pytest.raises(ValueError, match="family"):
        uvloop.run(open_it())


def test_a_send_that_no_device_can_carry_is_queued_as_a_local_error(
    hosts: tuple[Host, Host],
) -> None:
    with hosts[0].udp(hosts[0].v4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PROBE)
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        assert refusal(sock, bytes(1473), (hosts[1].v4, PORT)) == errno.EMSGSIZE
        _, ancillary, _, address = sock.recvmsg(2048, 256, socket.MSG_ERRQUEUE)
        code, origin, *_, mtu, _ = struct.unpack_from("=IBBBBII", ancillary[0][2])
    assert (code, origin, mtu) == (errno.EMSGSIZE, 1, 1500)
    assert address == (hosts[1].v4, 0), "the port is not told"


def test_a_socket_stays_in_the_namespace_it_was_made_in(hosts: tuple[Host, Host]) -> None:
    with hosts[0].udp(hosts[0].v4) as one, hosts[1].udp(hosts[1].v4, PORT) as two:
        started = time.monotonic()
        one.sendto(b"across", (hosts[1].v4, PORT))
        assert readable(two, 2 - (time.monotonic() - started))
        assert two.recvfrom(10) == (b"across", one.getsockname())
