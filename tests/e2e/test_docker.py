"""Docker's networks over VXLAN, with two real dockerds."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from dockerhosts import IMAGE, PYVXLAN, DockerHost, docker_hosts

pytestmark = pytest.mark.namespaces

NET = ("-d", "pyvxlan", "--ipam-driver", "pyvxlan")
REMOTES = ("-o", "remotes=192.0.2.1,192.0.2.2")
Hosts = tuple[DockerHost, DockerHost]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with docker_hosts(tmp_path_factory.mktemp("docker")) as made:
        yield made


@pytest.fixture
def clean(hosts: Hosts) -> Iterator[Hosts]:
    """Whatever a test leaves is removed; and then nothing of it may be left."""
    yield hosts
    for host in hosts:
        host.remove_containers()
        if networks := host.docker("network", "ls", "-q", "--filter", "driver=pyvxlan").split():
            host.docker("network", "rm", *networks)
        assert host.links() == set()
        assert host.state() == {"version": 1, "networks": {}, "pools": {}}


@pytest.fixture
def net(clean: Hosts, request: pytest.FixtureRequest) -> Hosts:
    """The network "net" on both hosts, made by the same command."""
    for host in clean:
        host.docker("network", "create", *NET, "--subnet", "10.42.0.0/16", *REMOTES,
                    "-o", "vni=42", *getattr(request, "param", ()), "net")  # fmt: skip
    return clean


either_way = pytest.mark.parametrize(
    "net", [("-o", "attach=macvlan"), ("-o", "attach=bridge")], ids=["macvlan", "bridge"],
    indirect=True,
)  # fmt: skip


def ping(host: DockerHost, name: str, address: str) -> bool:
    return " 0% packet loss" in host.exec(name, "ping", "-c", "2", "-W", "5", address)


@either_way
def test_containers_of_two_hosts_talk_and_no_address_is_there_twice(net: Hosts) -> None:
    a, b = net
    here, there = a.container("c1", "net"), b.container("c2", "net")
    assert (here, there) == ("10.42.0.2", "10.42.128.0")
    assert ping(a, "c1", there)
    assert ping(b, "c2", here)
    shown = a.exec("c1", "ip", "addr", "show", "eth0")
    assert "mtu 1450" in shown
    assert "02:42:0a:2a:00:02" in shown


def test_how_containers_are_joined_is_chosen_kept_and_shown(net: Hosts) -> None:
    a, _ = net
    a.container("c1", "net")
    assert a.links() == {"vxlan42"}
    a.docker("network", "create", *NET, "--subnet", "10.43.0.0/16", "-o", "vni=43",
             "-o", "attach=bridge", "veths")  # fmt: skip
    a.container("c2", "veths")
    (endpoint,) = a.state()["networks"][network_id(a, "veths")]["endpoints"]
    assert a.links() == {"vxlan42", "vxlan43", "br43", f"p{endpoint[:12]}"}
    shown = a.run(*PYVXLAN, "docker", "show", "--state", str(a.folder / "state"))
    ways = {line.split()[1]: line.split()[2] for line in shown.splitlines() if "10.4" in line}
    assert ways == {"42": "macvlan", "43": "bridge"}


def test_two_containers_with_one_mac_are_refused_with_the_remedy(net: Hosts) -> None:
    a, _ = net
    mac = ("--mac-address", "02:00:00:00:00:01")
    a.container("c1", "net", *mac)
    refused = a.refusal("run", "--network", "net", *mac, IMAGE, "true")
    assert "another container of this network has the MAC 02:00:00:00:00:01: stop it" in refused
    a.docker("stop", "c1")
    a.container("c2", "net", *mac)


def test_a_transfer_arrives_whole(net: Hosts) -> None:
    a, b = net
    a.container("c1", "net")
    there = b.container("c2", "net")
    assert transfer(a, "c1", b, "c2", there, 32) is True


RECEIVE = "mkfifo /open; nc -l -p 5000 0<> /open | sha256sum > /sum; : > /done"
"""busybox's nc ends when nobody can write to it any more."""


def transfer(a: DockerHost, sender: str, b: DockerHost, sink: str, to: str, megabytes: int) -> bool:
    """Whether that many random MiB by TCP have the same checksum at both ends."""
    b.docker("exec", "-d", sink, "sh", "-c", RECEIVE)
    a.exec(sender, "dd", "if=/dev/urandom", "of=/sent", "bs=1M", f"count={megabytes}")
    b.exec(sink, "sh", "-c", "until netstat -lnt | grep -q :5000; do sleep 0.1; done")
    a.exec(sender, "sh", "-c", f"nc {to} 5000 < /sent", timeout=300)
    b.exec(sink, "sh", "-c", "until [ -e /done ]; do sleep 0.1; done")
    sent = a.exec(sender, "sha256sum", "/sent").split()[0]
    return sent == b.exec(sink, "cat", "/sum").split()[0]


@either_way
def test_containers_of_one_host_talk_without_leaving_it(net: Hosts) -> None:
    a, _ = net
    a.container("c1", "net")
    there = a.container("c2", "net")
    before = a.segment(42)["counters"]["encap_bytes"]
    assert transfer(a, "c1", a, "c2", there, 8)
    assert a.segment(42)["counters"]["encap_bytes"] - before < 100_000
    assert a.exec("c1", "ping", "-c", "1", "c2")  # Docker's DNS knows its own containers


@either_way
def test_the_life_of_a_container(net: Hosts) -> None:
    a, b = net
    address = a.container("c1", "net")
    b.container("c2", "net")
    for change in (("restart", "-t", "0"), ("stop",), ("start",), ("kill",), ("start",)):
        a.docker(*change, "c1")
        running = change[0] in ("restart", "start")
        assert len(a.state()["networks"][network_id(a)]["endpoints"]) == running
        if running:
            assert ping(b, "c2", a.address("c1", "net"))
    a.docker("network", "disconnect", "net", "c1")
    assert "eth0" not in a.exec("c1", "ip", "link")
    a.docker("network", "connect", "--ip", address, "net", "c1")
    assert ping(b, "c2", address)


def network_id(host: DockerHost, name: str = "net") -> str:
    return host.docker("network", "inspect", name, "-f", "{{.Id}}")


def test_several_networks_ipv6_and_a_fixed_address(net: Hosts) -> None:
    a, b = net
    for host in net:
        host.docker("network", "create", *NET, "--subnet", "10.43.0.0/16", "--ipv6",
                    "--subnet", "fd42::/64", *REMOTES, "-o", "vni=43",
                    "-o", "com.docker.network.driver.mtu=1400", "six")  # fmt: skip
    a.container("c1", "net")
    a.docker("network", "connect", "--ip", "10.43.7.7", "--ip6", "fd42::7:7", "six", "c1")
    b.container("c2", "six", "--mac-address", "02:00:00:00:07:08")
    shown = a.exec("c1", "ip", "addr")
    assert "10.42.0.2/16" in shown
    assert "10.43.7.7/16" in shown
    assert "mtu 1400" in shown
    assert "02:00:00:00:07:08" in b.exec("c2", "ip", "link", "show", "eth0")
    assert ping(b, "c2", "10.43.7.7")
    assert ping(b, "c2", "fd42::7:7")


def test_the_way_out_and_published_ports_are_docker_s(net: Hosts) -> None:
    a, b = net
    a.docker("run", "-d", "--stop-signal", "KILL", "--name", "web", "--network", "net",
             "-p", "8088:80", IMAGE, "sh", "-c", "echo hello > /www/index.html; "
             "exec httpd -f -h /www -p 80")  # fmt: skip
    assert "default via 172." in a.exec("web", "ip", "route")
    assert b.run(sys.executable, "-c", FETCH, "http://192.0.2.1:8088/") == "hello\n"


FETCH = """
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for left in reversed(range(100)):
    try:
        print(opener.open(sys.argv[1], timeout=5).read().decode(), end="")
        break
    except OSError:
        if not left:
            raise
        time.sleep(0.1)
"""


def test_an_internal_network_has_no_way_out(net: Hosts) -> None:
    a, _ = net
    a.docker("network", "create", *NET, "--internal", "--subnet", "10.44.0.0/16", "-o", "vni=44",
             "inner")  # fmt: skip
    a.container("c1", "inner")
    assert "default" not in a.exec("c1", "ip", "route")
    assert "eth1" not in a.exec("c1", "ip", "link")


def test_docker_s_own_ipam_with_a_range_for_each_host(clean: Hosts) -> None:
    a, b = clean
    for number, host in enumerate(clean, 1):
        part = ("--subnet", "10.42.0.0/16", "--ip-range", f"10.42.{number}.0/24")
        host.docker("network", "create", "-d", "pyvxlan", *part, *REMOTES, "-o", "vni=42", "net")
    a.container("c1", "net")
    there = b.container("c2", "net")
    assert there.startswith("10.42.2.")
    assert ping(a, "c1", there)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--subnet", "10.45.0.0/16"), "vni: it is missing: give the VXLAN Network Identifier"),
        (("--subnet", "10.45.0.0/16", "-o", "vni=42"), "vni 42 is taken by the network"),
        (("--subnet", "10.42.7.0/24", "-o", "vni=45"), "overlaps 10.42.0.0/16 of another network"),
        (("--subnet", "10.45.0.0/16", "-o", "vni=45", "-o", "remote=x"), "did you mean remotes?"),
        (("--subnet", "10.45.0.0/16", "-o", "vni=45", "-o", "remotes=x"), "is not an IP address"),
        (
            ("--subnet", "10.45.0.0/16", "-o", "vni=45", "-o", "attach=ipvlan"),
            "-o attach=ipvlan: there is no such way: known are macvlan, bridge",
        ),
        (
            ("--subnet", "10.45.0.0/16", "-o", "vni=45", *REMOTES, "-o", "mtu=1500"),
            "mtu 1500 does not fit",
        ),
        (("-o", "vni=45"), "no subnet: all hosts of a network need the same one"),
    ],
)
def test_docker_prints_cause_and_remedy(net: Hosts, arguments: tuple[str, ...], words: str) -> None:
    refused = net[0].refusal("network", "create", *NET, *arguments, "other")
    assert words in refused
    assert "\n" not in refused
    assert list(net[0].state()["networks"]) == [network_id(net[0])]
