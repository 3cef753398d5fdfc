"""A pyvxlan host in Docker's own overlay network: the VTEP that swarm knows nothing of."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from dockerhosts import DockerHost, docker_hosts

from vxlan import netdev
from vxlan.lab import Host, Node, ping, segment, wait_until

pytestmark = pytest.mark.namespaces

OURS, MAC = "10.0.1.200", "02:42:0a:00:01:c8"
SIZE = 4 << 20


@dataclass(frozen=True)
class Overlay:
    """Docker's network `demo`, with a container on each host, and a third host with pyvxlan."""

    docker: tuple[DockerHost, DockerHost]
    host: Host
    node: Node
    vni: int

    def namespace(self, docker: DockerHost) -> str:
        """Where Docker keeps the network's bridge and its vxlan device."""
        number = docker.docker("network", "inspect", "demo", "-f", "{{slice .ID 0 10}}")
        return f"/run/docker/netns/1-{number}"

    def change(self, docker: DockerHost, *words: str) -> None:
        """Something in there, by iproute2."""
        docker.run("nsenter", f"--net={self.namespace(docker)}", *words)

    def tell_docker(self, docker: DockerHost) -> None:
        """What gossip tells of other hosts: whose address that is, and where it is."""
        self.change(
            docker, *f"ip neigh replace {OURS} lladdr {MAC} dev vxlan0 nud permanent".split()
        )
        self.change(docker, *f"bridge fdb replace {MAC} dev vxlan0 dst {self.host.address}".split())

    def tell_ourselves(self, address: str) -> None:
        """Docker's driver lets no ARP answer out.  A container's MAC is made of its address."""
        mac = bytes([0x02, 0x42, *(int(part) for part in address.split("."))])
        netdev.add_neighbour(f"vxlan{self.vni}", address, mac, self.host.name)


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overlay]:
    with docker_hosts(tmp_path_factory.mktemp("docker"), legacy=False) as made:
        manager, worker = made
        manager.docker("swarm", "init", "--advertise-addr", manager.host.address)
        token = manager.docker("swarm", "join-token", "-q", "worker")
        worker.docker("swarm", "join", "--token", token, f"{manager.host.address}:2377")
        manager.docker(
            *("network", "create", "-d", "overlay", "--attachable", "demo"),
            *("--subnet", "10.0.1.0/24", "--ip-range", "10.0.1.0/25"),
        )
        for name, one in zip(("aa", "bb"), made, strict=True):
            one.container(name, "demo")
        option = '{{index .Options "com.docker.network.driver.overlay.vxlanid_list"}}'
        vni = int(manager.docker("network", "inspect", "demo", "-f", option))
        host = manager.host.lab.host("c", "192.0.2.3/24")
        remotes = [one.host.address for one in made]
        node = host.up(
            segment(vni, *remotes, bridge=None, address=[f"{OURS}/24"], mac=MAC),
        )
        yield Overlay(made, host, node, vni)


def test_no_entry_no_way(overlay: Overlay) -> None:
    """Docker's driver floods nothing and lets no ARP answer out; if it did, the docs are wrong."""
    docker = overlay.docker[0]
    assert ping(overlay.host, docker.address("aa", "demo")).received == 0
    assert not reaches(docker, "aa")


def test_entries_on_both_sides_and_either_may_speak_first(overlay: Overlay) -> None:
    for docker, name in zip(overlay.docker, ("aa", "bb"), strict=True):
        overlay.tell_docker(docker)
        overlay.tell_ourselves(docker.address(name, "demo"))
    wait_until(lambda: reaches(overlay.docker[0], "aa"), 10, "aa to reach us")
    assert ping(overlay.host, overlay.docker[1].address("bb", "demo")).received == 1
    shown = overlay.node.segment(overlay.vni)
    assert shown["counters"]["drops"] == {}
    dynamic = {one["mac"] for one in overlay.node.fdb(overlay.vni).values()}
    assert len(dynamic) == 2, "both containers are learned from data"


def test_docker_s_own_traffic_is_not_disturbed(overlay: Overlay) -> None:
    overlay.docker[0].exec("aa", "ping", "-c", "1", "-W", "2", "bb")


def reaches(docker: DockerHost, name: str) -> bool:
    words = docker.inside("docker", "exec", name, "ping", "-c", "1", "-W", "1", OURS)
    return subprocess.run(words, capture_output=True, env=docker.environ()).returncode == 0


def test_data_arrives_whole(overlay: Overlay) -> None:
    docker = overlay.docker[1]
    docker.exec("bb", "sh", "-c", f"head -c {SIZE} /dev/urandom > /www/file; httpd -p 80 -h /www")
    wanted = docker.exec("bb", "sha256sum", "/www/file").split()[0]
    url = f"http://{docker.address('bb', 'demo')}/file"
    code = f"import urllib.request, hashlib; d = urllib.request.urlopen({url!r}, timeout=20).read()"
    code += "; print(len(d), hashlib.sha256(d).hexdigest())"
    told = overlay.host.run(["python3", "-c", code], timeout=60)
    assert told.split() == [str(SIZE), wanted]
