"""What Docker's networks outlive: the plugin, the node and dockerd, each killed; and many lives."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from dockerhosts import DOCKER, PYVXLAN, DockerHost, docker_hosts

from vxlan.lab.wait import wait_until

pytestmark = pytest.mark.namespaces

LIVES = int(os.environ.get("PYVXLAN_CONTAINERS", "6"))
"""Containers that come and go; `make soak` takes 200."""

PIECES = int(os.environ.get("PYVXLAN_SOAK", str(64 << 20))) >> 22
"""Of 4 MiB, in the transfer that a node is killed in."""

Hosts = tuple[DockerHost, DockerHost]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with docker_hosts(tmp_path_factory.mktemp("docker")) as made:
        for host in made:
            host.docker("network", "create", "-d", "pyvxlan", "--ipam-driver", "pyvxlan",
                        "--subnet", "10.42.0.0/16", "-o", "remotes=192.0.2.1,192.0.2.2",
                        "-o", "vni=42", "net")  # fmt: skip
        yield made


@pytest.fixture
def pair(hosts: Hosts) -> Iterator[tuple[DockerHost, DockerHost, str, str]]:
    """The hosts, with a container on each, and their addresses."""
    a, b = hosts
    yield a, b, a.container("c1", "net"), b.container("c2", "net")
    for host in hosts:
        host.remove_containers()


def ping(host: DockerHost, name: str, address: str, count: int = 2) -> bool:
    return " 0% packet loss" in host.exec(
        name, "ping", "-c", str(count), "-i", "0.1", "-W", "9", address
    )


def reaches(host: DockerHost, name: str, address: str) -> bool:
    """Whether an answer comes now."""
    pinging = (DOCKER, "exec", name, "ping", "-c", "1", "-W", "1", address)
    return " 0% packet loss" in host.run(*pinging, check=False)


def endpoints(host: DockerHost) -> list[str]:
    (network,) = host.state()["networks"].values()
    return list(network["endpoints"])


def kept(host: DockerHost) -> dict[str, Any]:
    """What the plugin keeps, but for what it looked up meanwhile."""
    state = host.state()
    for network in state["networks"].values():
        for endpoint in network["endpoints"].values():
            del endpoint["seen"]
    return state


def sandboxes(host: DockerHost) -> set[str]:
    """The namespaces in which the plugin thinks its containers are."""
    (network,) = host.state()["networks"].values()
    return {endpoint["sandbox"] for endpoint in network["endpoints"].values()}


def namespaces(host: DockerHost) -> list[str]:
    """Those that there are: what is mounted, and no plain file that Docker left behind."""
    said = host.run("sh", "-c", "cd /run/docker/netns; stat -f -c '%T %n' *")
    return [line.split()[1] for line in said.splitlines() if line.startswith("nsfs ")]


def test_a_plugin_that_is_killed_costs_no_packet(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, _, _, there = pair
    before = kept(a)
    reached: list[bool] = []
    pinging = threading.Thread(target=lambda: reached.append(ping(a, "c1", there, 30)))
    pinging.start()
    a.kill("plugin")
    a.start_plugin()
    pinging.join()
    assert reached == [True]
    assert kept(a) == before
    assert a.container("c3", "net") == "10.42.0.3"
    assert ping(a, "c3", there)
    a.docker("rm", "-f", "c1", "c3")
    assert endpoints(a) == []


def test_docker_waits_for_a_plugin_that_was_killed(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, _, _, there = pair
    a.kill("plugin")
    started = threading.Timer(1.5, a.start_plugin)
    started.start()
    a.docker("restart", "-t", "0", "c1")
    started.join()
    assert len(endpoints(a)) == 1
    assert ping(a, "c1", there)


def test_a_node_that_is_killed_in_a_transfer_loses_no_byte(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, b, _, there = pair
    a.exec("c1", "dd", "if=/dev/urandom", "of=/sent", "bs=4M", f"count={PIECES}")
    b.docker("exec", "-d", "c2", "sh", "-c", "mkfifo /o; nc -l -p 5000 0<>/o >/got; : >/done")
    b.exec("c2", "sh", "-c", "until netstat -lnt | grep -q :5000; do sleep 0.1; done")
    pieces = (
        f"for n in $(seq 0 {PIECES - 1}); do dd if=/sent bs=4M skip=$n count=1; sleep 0.1; done"
    )
    sending = subprocess.Popen(
        a.inside(DOCKER, "exec", "c1", "sh", "-c", f"({pieces}) 2>/dev/null | nc {there} 5000")
    )
    wait_until(lambda: received(b) > 4 << 20, 30, "the transfer to be under way")
    for host in (a, b):
        host.kill("node")
        host.start_node()
    assert received(b) < PIECES << 22, "it was over before"
    assert sending.wait(300) == 0
    b.exec("c2", "sh", "-c", "until [ -e /done ]; do sleep 0.1; done", timeout=60)
    assert received(b) == PIECES << 22
    assert a.exec("c1", "md5sum", "/sent").split()[0] == b.exec("c2", "md5sum", "/got").split()[0]


def test_containers_of_a_host_have_each_other_while_the_node_is_away(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, _, _, there = pair
    beside = a.container("c3", "net")
    before = a.exec("c1", "cat", "/sys/class/net/eth0/ifindex")
    a.kill("node")
    assert ping(a, "c1", beside)
    a.kill("plugin")
    a.start_plugin()
    wait_until(lambda: reaches(a, "c1", beside), 10, "the plugin to have given a carrier")
    a.start_node()
    wait_until(lambda: reaches(a, "c1", there), 20, "the node to be back")
    assert ping(a, "c1", beside)
    assert a.exec("c1", "cat", "/sys/class/net/eth0/ifindex") == before


def test_a_network_with_a_bridge_outlives_the_node_too(hosts: Hosts) -> None:
    a, _ = hosts
    a.docker("network", "create", "-d", "pyvxlan", "--ipam-driver", "pyvxlan", "--subnet",
             "10.44.0.0/16", "-o", "vni=44", "-o", "remotes=192.0.2.2", "-o", "attach=bridge",
             "bridged")  # fmt: skip
    try:
        here, beside = a.container("c4", "bridged"), a.container("c5", "bridged")
        a.kill("node")
        assert ping(a, "c4", beside)
        a.start_node()
        serves = (*PYVXLAN, "fdb", "show", "vni", "44", "-n", "docker")
        wait_until(lambda: a.run(*serves, check=False), 10, "the node to serve it again")
        assert ping(a, "c5", here)
        before = a.segment(44)["counters"]["encap_packets"]
        a.exec("c4", "sh", "-c", "ping -c 1 -W 1 10.44.128.1 || true")
        assert a.segment(44)["counters"]["encap_packets"] > before
    finally:
        a.remove_containers()
        a.docker("network", "rm", "bridged")


def test_packets_wait_for_a_node_that_is_killed(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, _, _, there = pair
    a.kill("node", signal.SIGTERM)
    a.start_node("docker", "--restart")
    wait_until(lambda: ping(a, "c1", there, 1), 30, "the segment to be asked for again")
    said: list[str] = []
    # not so often that the answers that waited overflow the 7 KiB that busybox has for them
    command = ("ping", "-c", "50", "-i", "0.1", "-W", "9", there)
    pinging = threading.Thread(target=lambda: said.append(a.exec("c1", *command)))
    pinging.start()
    holder = (a.folder / "node.pid").read_text().strip()
    for times in (1, 2):
        (node,) = a.run("cat", f"/proc/{holder}/task/{holder}/children").split()
        a.run("sh", "-c", f"kill -9 {int(node)}")
        wait_until(partial(went_on, a, times), 30, "it to be back")
    pinging.join()
    found = re.search(r"(\d+) packets received", said[0])
    assert found is not None
    assert int(found[1]) >= 50 - 2, said  # each may have had one in its hands
    a.kill("node", signal.SIGTERM)
    a.start_node()


def went_on(host: DockerHost, times: int) -> bool:
    return host.log("node").count("going on with what") >= times


def received(host: DockerHost) -> int:
    return int(host.exec("c2", "stat", "-c", "%s", "/got"))


def assert_back(host: DockerHost, address: str, there: str) -> None:
    """What is restarted always has its address, what is not can be started, both reach `there`."""
    wait_until(lambda: host.docker("ps", "-q", "--filter", "name=always"), 30, "it to be back")
    assert host.address("always", "net") == address
    assert ping(host, "always", there)
    host.docker("start", "c1")
    assert ping(host, "c1", there)


def test_a_dockerd_that_is_killed_leaves_no_orphan(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, _, _, there = pair
    a.container("always", "net", "--ip", "10.42.0.77", "--restart", "always")
    a.kill("dockerd")
    a.run("rm", "-f", "/run/docker.pid")
    a.start_dockerd()
    assert_back(a, "10.42.0.77", there)
    wait_until(lambda: len(endpoints(a)) == 2, 60, "the orphans to be collected", interval=1)
    assert a.links() == {"vxlan42"}
    assert sandboxes(a) == {f"/run/docker/netns/{name}" for name in namespaces(a)}


def test_a_host_that_boots_anew_has_its_networks_and_containers_back(
    pair: tuple[DockerHost, DockerHost, str, str],
) -> None:
    a, _, _, there = pair
    a.container("always", "net", "--ip", "10.42.0.78", "--restart", "always")
    a.reboot()
    assert_back(a, "10.42.0.78", there)
    assert len(endpoints(a)) == 2


@pytest.fixture
def living_on(hosts: Hosts) -> Iterator[DockerHost]:
    """The first host, where containers live on without dockerd."""
    host = hosts[0]
    restart_dockerd(host, signal.SIGTERM, "--live-restore")
    yield host
    host.remove_containers()
    restart_dockerd(host, signal.SIGTERM)


def restart_dockerd(host: DockerHost, number: signal.Signals, *flags: str) -> None:
    host.kill("dockerd", number)
    host.run("rm", "-f", "/run/docker.pid")
    host.start_dockerd(*flags)


def test_containers_that_live_on_without_dockerd(
    living_on: DockerHost, pair: tuple[DockerHost, DockerHost, str, str]
) -> None:
    a, b, here, there = pair
    joined, pools = endpoints(a), a.state()["pools"]
    reached: list[bool] = []
    pinging = threading.Thread(target=lambda: reached.append(ping(b, "c2", here, 100)))
    pinging.start()
    restart_dockerd(a, signal.SIGKILL, "--live-restore")
    a.kill("plugin")
    a.start_plugin()
    pinging.join()
    assert reached == [True]
    a.kill("dockerd")
    for name, start in (("plugin", a.start_plugin), ("node", a.start_node)):
        a.kill(name)
        start()
    wait_until(lambda: a.segment(42)["tap"] in a.links(), 10, "the plugin to see the node")
    assert ping(b, "c2", here)
    a.run("rm", "-f", "/run/docker.pid")
    a.start_dockerd("--live-restore")
    assert (endpoints(a), a.state()["pools"]) == (joined, pools)
    assert a.docker("ps", "-q", "--filter", "name=c1", "--filter", "status=running")
    assert ping(a, "c1", there)
    assert a.container("c3", "net") not in ("10.42.0.1", here)
    a.docker("rm", "-f", "c1", "c3")
    assert endpoints(a) == []
    assert not any(re.fullmatch("[pc][0-9a-f]{12}", name) for name in a.links())
    (pool,) = a.state()["pools"].values()
    assert pool["used"] == {"10.42.0.1": "gateway"}


def test_a_plugin_killed_at_any_moment_leaves_nothing_half_made(hosts: Hosts) -> None:
    a, _ = hosts
    before = a.links()
    for _ in range(4):
        command = (DOCKER, "run", "-d", "--stop-signal", "KILL", "--network", "net")
        running = subprocess.Popen(a.inside(*command, "box:1", "sleep", "9"), env=a.environ())
        time.sleep(random.uniform(0.05, 0.5))
        a.kill("plugin")
        a.start_plugin()
        running.wait(60)
        a.remove_containers()
    a.kill("plugin", signal.SIGTERM)
    a.start_plugin()
    assert a.links() == before
    assert endpoints(a) == []
    (pool,) = a.state()["pools"].values()
    assert pool["used"] == {"10.42.0.1": "gateway"}


def test_a_network_removed_without_the_plugin_keeps_neither_vni_nor_subnet(hosts: Hosts) -> None:
    a, _ = hosts
    create = ("network", "create", "-d", "pyvxlan", "--ipam-driver", "pyvxlan", "--subnet",
              "10.43.0.0/16", "-o", "vni=43")  # fmt: skip
    before = a.state(), a.links()
    a.docker(*create, "gone")
    a.kill("plugin")
    a.docker("network", "rm", "gone", timeout=120)
    a.start_plugin()
    assert a.state()["networks"] == before[0]["networks"]
    assert a.links() == before[1]
    a.docker(*create, "anew")
    a.docker("network", "rm", "anew")
    assert (a.state(), a.links()) == before


def test_many_containers_leave_nothing_behind(hosts: Hosts) -> None:
    a, _ = hosts
    one_life(a, 0)
    before = a.links(), a.state(), open_files(a)
    memory = resident(a)
    for number in range(1, LIVES):
        one_life(a, number)
    after = a.links(), a.state(), open_files(a)
    assert after[0] == before[0]
    assert after[1]["networks"] == before[1]["networks"]
    assert after[2] == before[2]
    assert resident(a) - memory < 8 << 20


def one_life(host: DockerHost, number: int) -> None:
    host.container(f"life{number}", "net")
    host.docker("rm", "-f", f"life{number}")


def pid(host: DockerHost) -> str:
    return (host.folder / "plugin.pid").read_text().strip()


def open_files(host: DockerHost) -> int:
    return len(host.run("ls", f"/proc/{pid(host)}/fd").split())


def resident(host: DockerHost) -> int:
    """Bytes of memory that the plugin has."""
    status = host.run("cat", f"/proc/{pid(host)}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10
