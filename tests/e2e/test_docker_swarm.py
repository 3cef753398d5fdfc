"""A swarm of two real dockerds, with pyvxlan as its managed plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dockerhosts import IMAGE, ROOT, DockerHost, docker_hosts

from vxlan.lab.wait import wait_until

pytestmark = pytest.mark.namespaces

DRIVER = "pyvxlan:latest"
Hosts = tuple[DockerHost, DockerHost]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docker-plugin` makes."""
    folder = tmp_path_factory.mktemp("plugin") / "made"
    builder = ROOT / "packaging" / "docker_plugin.py"
    if not builder.exists():
        pytest.skip("no source tree here")
    subprocess.run([sys.executable, builder, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[Hosts]:
    """Two hosts of one swarm; the kernel's ingress network has port 4789 there."""
    with docker_hosts(tmp_path_factory.mktemp("docker"), legacy=False) as made:
        manager, worker = made
        manager.docker("swarm", "init", "--advertise-addr", manager.host.address)
        token = manager.docker("swarm", "join-token", "-q", "worker")
        worker.docker("swarm", "join", "--token", token, f"{manager.host.address}:2377")
        for host in made:
            host.docker("plugin", "create", "pyvxlan", str(plugin))
            host.docker("plugin", "set", "pyvxlan", "DSTPORT=4790")
            host.docker("plugin", "enable", "pyvxlan")
        manager.docker("network", "create", "-d", DRIVER, "--attachable",
                       "--subnet", "10.70.0.0/24", "ov")  # fmt: skip
        for host, name in zip(made, ("c1", "c2"), strict=True):
            wait_until(lambda host=host: "docker.sock" in listening(host), 30, "the node to run")
            host.docker("run", "-d", "--stop-signal", "KILL", "--name", name, "--network", "ov",
                        IMAGE, "sleep", "9999")  # fmt: skip
        yield made


def listening(host: DockerHost) -> str:
    """The control sockets of the plugin's node."""
    found = host.run(
        "sh", "-c", f"ls {host.folder}/docker/plugins/*/rootfs/run/pyvxlan", check=False
    )
    return str(found)


def reaches(host: DockerHost, name: str, whom: str) -> bool:
    found = subprocess.run(
        host.inside("docker", "exec", name, "ping", "-c", "1", "-W", "2", whom),
        capture_output=True, env=host.environ(),
    )  # fmt: skip
    return found.returncode == 0


def test_names_and_data_cross_hosts(swarm: Hosts) -> None:
    a, b = swarm
    wait_until(lambda: reaches(a, "c1", "c2"), 30, "c2 to be reached by name")
    wait_until(lambda: reaches(b, "c2", "c1"), 30, "c1 to be reached by name")
    assert "vni" in a.docker("network", "inspect", "ov", "-f", "{{json .Options}}")


def test_a_service_s_name_leads_to_all_its_tasks(swarm: Hosts) -> None:
    a, _ = swarm
    a.docker("service", "create", "-d", "-q", "--name", "svc", "--replicas", "3",
             "--endpoint-mode", "dnsrr", "--network", "ov", "--stop-signal", "KILL",
             "--no-resolve-image", IMAGE, "sleep", "9999")  # fmt: skip
    try:
        wait_until(lambda: tasks(a) == 3, 40, "three tasks to have a name", interval=0.5)
        wait_until(lambda: all(reaches(a, "c1", "svc") for _ in range(6)), 30, "all to be reached")
    finally:
        a.docker("service", "rm", "svc")


def tasks(host: DockerHost) -> int:
    said = host.run("docker", "exec", "c1", "nslookup", "svc", check=False)
    return said.count("Address: 10.70.0.")


def test_the_plugin_sees_the_namespaces_of_containers(swarm: Hosts) -> None:
    for host in swarm:
        wait_until(lambda host=host: all(seen(host)), 60, "all to be seen", interval=1)


def seen(host: DockerHost) -> list[bool]:
    """Of each endpoint, whether its namespace was seen."""
    (network,) = kept(host)["networks"].values()
    return [endpoint["seen"] for endpoint in network["endpoints"].values()]


def kept(host: DockerHost) -> dict[str, Any]:
    """What the plugin has on its disk."""
    path = f"{host.folder}/docker/plugins/*/rootfs/var/lib/pyvxlan/docker/pyvxlan.json"
    return dict(json.loads(host.run("sh", "-c", f"cat {path}")))


def test_a_plugin_that_is_killed_comes_back_and_containers_keep_their_interfaces(
    swarm: Hosts,
) -> None:
    a, _ = swarm
    wait_until(lambda: reaches(a, "c1", "c2"), 30, "c2 to be reached by name")
    before = a.exec("c1", "ip", "link", "show", "eth0")
    a.run("sh", "-c", "kill -9 $(pgrep -o -f 'vxlan docker managed')")
    wait_until(lambda: reaches(a, "c1", "c2"), 40, "c2 to be reached again")
    assert a.exec("c1", "ip", "link", "show", "eth0") == before
