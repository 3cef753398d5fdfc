"""Names: what a runtime tells on one host is resolved on all of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from engines import Podman, why_not
from runtime import Box, Runtime, conf, ranges
from scapy.layers.dns import DNS, DNSQR, DNSRR
from worlds import VNI

from vxlan import netdev
from vxlan.lab import Lab, ping, segment, wait_until

pytestmark = pytest.mark.namespaces

NO_PODMAN = why_not("podman", "runc", "busybox")


def lan(low: str) -> dict[str, object]:
    six = [{"subnet": "2001:db8:42::/64", "rangeStart": f"2001:db8:42::{low[6]}:1"}]
    one = ranges(f"{low}1", f"{low}9")
    return {**one, "routes": [], "ranges": [*one["ranges"], six]}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, Runtime]]:
    """Two hosts whose nodes answer names, at 10.42.0.1 and 10.42.0.2."""
    with Lab("names") as lab:
        hosts = [lab.host(name, f"192.0.2.{n}/24") for n, name in enumerate("ab", 1)]
        nodes = [
            host.node(
                segment(VNI, other.address, names=True, address=[f"10.42.0.{n}/16"]),
            )
            for n, (host, other) in enumerate(zip(hosts, reversed(hosts), strict=True), 1)
        ]
        lab.start(*nodes)
        first, second = (
            Runtime(host, conf(node.name, lan(f"10.42.{n}.")))
            for n, (host, node) in enumerate(zip(hosts, nodes, strict=True), 1)
        )
        yield first, second


def ask(box: Box, server: str, name: str, kind: str = "A", timeout: float = 5.0) -> DNS:
    with box.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(timeout)
        asking.connect((server, 53))
        asking.send(bytes(DNS(id=77, rd=1, qd=DNSQR(qname=name, qtype=kind))))
        return DNS(asking.recv(4096))


def addresses(answer: DNS) -> list[str]:
    return [one.rdata for one in answer.an or []]


def plain(box: Box) -> list[str]:
    return [cidr.partition("/")[0] for cidr in box.addresses()]


def test_a_name_is_resolved_on_its_own_host_and_on_the_other(
    named: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    here, there = named
    web, client = box(), box()
    result = here.add(web, {"runtimeConfig": {"aliases": ["www"]}}, CNI_ARGS="K8S_POD_NAME=web")
    assert result["dns"] == {"nameservers": ["10.42.0.1"]}
    there.add(client)
    for name in ("web", "WWW"):
        for kind, address in zip(("A", "AAAA"), plain(web), strict=True):
            assert addresses(ask(client, "10.42.0.2", name, kind)) == [address]
            assert addresses(ask(web, "10.42.0.1", name, kind)) == [address]
    for server in ("10.42.0.1", "10.42.0.2"):  # the name is there, a record of that type is not
        none = ask(client, server, "web", "TXT")
        assert (none.rcode, addresses(none)) == (0, [])
    here.delete(web)
    assert ask(client, "10.42.0.2", "web").rcode == 3


def test_a_name_of_several_containers_has_all_their_addresses(
    named: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    here, there = named
    boxes, client = (box(), box()), box()
    for one in boxes:
        here.add(one, {"runtimeConfig": {"aliases": ["web"]}})
    there.add(client)
    assert addresses(ask(client, "10.42.0.2", "web")) == [plain(one)[0] for one in boxes]


def test_what_nobody_knows_is_refused(
    named: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    client = box()
    named[0].add(client)
    assert ask(client, "10.42.0.1", "nobody").rcode == 3
    assert ask(client, "10.42.0.1", "nobody", "TXT").rcode == 3


def test_nonsense_is_not_answered_and_harms_nothing(
    named: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    web = box()
    named[0].add(web, CNI_ARGS="K8S_POD_NAME=web")
    with web.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("10.42.0.1", 53))
        for junk in (b"x", bytes(12), b"\xff" * 600):
            asking.send(junk)
    assert addresses(ask(web, "10.42.0.1", "web")) == [plain(web)[0]]


def test_other_names_are_asked_of_the_hosts_own_server(
    named: tuple[Runtime, Runtime], box: Callable[[], Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has the host's /etc/resolv.conf: so the resolver is asked in this process."""
    import asyncio

    from vxlan import resolver

    def serve(server: socket.socket) -> None:
        message, who = server.recvfrom(4096)
        asked = DNS(message)
        record = DNSRR(rrname=asked.qd[0].qname, rdata="198.51.100.7")
        server.sendto(bytes(DNS(id=asked.id, qr=1, qd=asked.qd, an=record)), who)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(resolver, "PORT", server.getsockname()[1])
        monkeypatch.setattr(resolver, "_servers", lambda: ["10.42.0.1", "127.0.0.1"])
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        query = bytes(DNS(id=9, qd=DNSQR(qname="www.example.org")))
        told = asyncio.run(resolver._ask_servers(query, "10.42.0.1"))
    assert told is not None
    assert addresses(DNS(told)) == ["198.51.100.7"]


def test_names_need_an_address(lab: Lab) -> None:
    from vxlan.lab import LabError

    host = lab.host("a", "192.0.2.1/24")
    with pytest.raises(LabError, match="names are answered at an IPv4 address"):
        host.up(segment(VNI, "192.0.2.2", names=True))


def test_they_come_and_go_with_the_configuration(lab: Lab, box: Callable[[], Box]) -> None:
    host = lab.host("a", "192.0.2.1/24")
    keys = {"address": ["10.42.0.1/16"]}
    vtep = {"local": [host.address]}
    node = host.up(segment(VNI, "192.0.2.2", names=True, **keys))
    web = box()
    Runtime(host, conf(node.name, lan("10.42.1."))).add(web, CNI_ARGS="K8S_POD_NAME=web")
    assert addresses(ask(web, "10.42.0.1", "web")) == [plain(web)[0]]
    node.configure([segment(VNI, "192.0.2.2", **keys)], vtep)
    node.call("reload")

    def silent() -> bool:
        try:
            ask(web, "10.42.0.1", "web", timeout=0.3)
        except OSError:
            return True
        return False

    wait_until(silent, 10, "the resolver to go")


def test_strangers_of_the_underlay_are_not_answered(lab: Lab, box: Callable[[], Box]) -> None:
    """Linux takes what is for the segment's address by any link; the host itself may ask."""
    host, stranger = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    node = host.up(segment(VNI, stranger.address, names=True, address=["10.42.0.1/16"]))
    web = box()
    Runtime(host, conf(node.name, lan("10.42.1."))).add(web, CNI_ARGS="K8S_POD_NAME=web")
    netdev.add_route("10.42.0.1/32", via=host.address, netns=stranger.name)
    assert ping(stranger, "10.42.0.1").received == 1  # type: ignore[arg-type]
    for name in ("web", "nobody"):
        with pytest.raises(TimeoutError):
            ask(stranger, "10.42.0.1", name, timeout=1.0)  # type: ignore[arg-type]
    for asking in (host, web):
        assert addresses(ask(asking, "10.42.0.1", "web")) == [plain(web)[0]]  # type: ignore[arg-type]


def test_another_responder_of_the_host_does_not_disturb(lab: Lab, box: Callable[[], Box]) -> None:
    """systemd-resolved listens at every address, and shares the port."""
    hosts = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    for host in hosts:
        other = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 5355))
    nodes = [
        host.node(segment(VNI, far.address, names=True, address=[f"10.42.0.{n}/16"]))
        for n, (host, far) in enumerate(zip(hosts, reversed(hosts), strict=True), 1)
    ]
    lab.start(*nodes)
    web, client = box(), box()
    first, second = (
        Runtime(host, conf(node.name, lan(f"10.42.{n}.")))
        for n, (host, node) in enumerate(zip(hosts, nodes, strict=True), 1)
    )
    first.add(web, CNI_ARGS="K8S_POD_NAME=web")
    second.add(client)
    assert addresses(ask(client, "10.42.0.2", "web")) == [plain(web)[0]]


@pytest.mark.skipif(bool(NO_PODMAN), reason=NO_PODMAN)
def test_podman_containers_find_each_other(
    named: tuple[Runtime, Runtime], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("podman")
    both = [
        Podman(one.host, folder / one.host.short, one.conf | {"capabilities": {"aliases": True}})
        for one in named
    ]
    try:
        for name, podman in zip(("red", "blue"), both, strict=True):
            podman.box(name, "--network", "net42")
        both[0]("exec", "red", "/bin/ping", "-c1", "-W2", "blue")
        both[1]("exec", "blue", "/bin/ping", "-c1", "-W2", "red")
    finally:
        for podman in both:
            podman.close()
