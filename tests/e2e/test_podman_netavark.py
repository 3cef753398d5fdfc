"""podman 5 starts `pyvxlan-netavark` for its networks.

Debian 12's podman 4.3 knows no plugins, so this needs PYVXLAN_ENGINES (tests/e2e/machines.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import ENGINES, IMAGE, Machine, image

from vxlan.lab import Host, Lab
from vxlan.lab.wait import wait_until

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(
        not Path(ENGINES, "usr/lib/podman/netavark").exists() or not ENGINES,
        reason="PYVXLAN_ENGINES names no root with podman 5: make test-engines makes one",
    ),
]

DRIVER = "pyvxlan"
LIMITS = '["nofile=1024:1024", "nproc=4096:4096"]'
POWERS = '["DAC_OVERRIDE", "KILL", "NET_BIND_SERVICE", "NET_RAW"]'


class Podman(Machine):
    """A machine with podman, a node, and the plugin where podman looks for it."""

    def __init__(self, host: Host, folder: Path, number: int, other: str) -> None:
        super().__init__(host, folder)
        self._configure(folder)
        (folder / "office.toml").write_text(
            f'[vtep]\nlocal = "{host.address}"\n[[segment]]\nvni = 42\nbridge = "br42"\n'
            f'address = ["10.42.0.{number}/16"]\nnames = true\nremotes = ["{other}"]\n'
        )
        self.start_node("office")
        self("import", str(folder / "image.tar"), IMAGE)
        self.create("net42", "--subnet", "10.42.0.0/16", "--ip-range", f"10.42.{number}.0/24")

    def _configure(self, folder: Path) -> None:
        (folder / "plugins").mkdir()
        plugin = folder / "plugins" / DRIVER
        plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m vxlan.plugins.netavark "$@"\n')
        plugin.chmod(0o755)
        (folder / "image.tar").write_bytes(image())
        (folder / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = {LIMITS}\ndefault_capabilities = {POWERS}\n"
            f'[network]\nnetavark_plugin_dirs = ["{folder}/plugins"]\n'
            f'network_config_dir = "{folder}/networks"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n'
            f'lock_type = "file"\ntmp_dir = "/run/libpod"\nstatic_dir = "{folder}/static"\n'
            f'volume_path = "{folder}/volumes"\n'
        )
        places = f'runroot = "/run/containers"\ngraphroot = "{folder}/graph"\n'
        (folder / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\n{places}')

    def environ(self) -> dict[str, str]:
        return super().environ() | {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }

    def __call__(self, *words: str) -> str:
        return self.run("podman", *words).strip()

    def create(self, name: str, *words: str) -> None:
        """A network of ours."""
        self("network", "create", "--driver", DRIVER, "-o", "vni=42", *words, name)

    def box(self, name: str, *flags: str, does: str = ":") -> str:
        """A container that does something and sleeps; its address in net42."""
        flags = flags or ("--network", "net42")
        self("run", "-d", "--name", name, *flags, IMAGE, "sh", "-c", f"{does}; exec sleep 600")
        return self.address(name)

    def address(self, name: str) -> str:
        """A container's, in net42."""
        (found,) = json.loads(self("inspect", name))
        return str(found["NetworkSettings"]["Networks"]["net42"]["IPAddress"])

    def ping(self, name: str, to: str) -> str:
        """Two pings; raises if none came back."""
        return self("exec", name, "ping", "-c2", "-W3", to)

    def attached(self) -> list[dict[str, Any]]:
        """What the node says that it has."""
        return list(json.loads(self.run(sys.executable, "-c", ATTACHED)))

    def links(self) -> set[str]:
        """The ends of containers' links."""
        found = {one["ifname"] for one in json.loads(self.run("ip", "-j", "link"))}
        return {name for name in found if name.startswith("pv")}


ATTACHED = """
import json
from vxlan import api
print(json.dumps(api.call("office", "attached")))
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Podman, Podman]]:
    folder = tmp_path_factory.mktemp("podman")
    with Lab("podm") as lab:
        hosts = [lab.host(short, f"192.0.2.{number}/24") for number, short in enumerate("ab", 1)]
        made: list[Podman] = []
        try:
            for number, host in enumerate(hosts, 1):
                other = hosts[2 - number].address
                made.append(Podman(host, folder / host.short, number, other))
            yield made[0], made[1]
        finally:
            for one in made:
                one.close()


@pytest.fixture
def pair(machines: tuple[Podman, Podman]) -> Iterator[tuple[Podman, Podman]]:
    """The machines; when the test's containers are removed nothing of them is left."""
    yield machines
    for one in machines:
        one("rm", "--all", "--force", "--time", "0")
        assert (one.attached(), one.links()) == ([], set())


def test_podman_knows_the_driver(pair: tuple[Podman, Podman]) -> None:
    assert DRIVER in pair[0]("info", "-f", "{{.Plugins.Network}}")
    assert "no_default_route:true" in pair[0]("network", "inspect", "net42", "-f", "{{.Options}}")


def test_containers_of_two_hosts_reach_each_other(pair: tuple[Podman, Podman]) -> None:
    a, b = pair
    assert a.box("p1") == "10.42.1.1"
    there = b.box("p2", "--network", "net42:ip=10.42.7.9,mac=02:00:00:00:07:09")
    assert there == "10.42.7.9"
    assert "2 packets received" in a.ping("p1", there)
    assert "2 packets received" in b.ping("p2", "10.42.1.1")
    assert "02:00:00:00:07:09" in b("exec", "p2", "ip", "link", "show", "eth0")
    assert "mtu 1450" in a("exec", "p1", "ip", "link", "show", "eth0")


def test_a_transfer_arrives_whole(pair: tuple[Podman, Podman]) -> None:
    a, b = pair
    a.box("p1")
    receive = "mkfifo /o; nc -l -p 5000 0<>/o | sha256sum >/sum; : >/end"
    there = b.box("p2", does=receive)
    b("exec", "p2", "sh", "-c", "until netstat -lnt | grep -q :5000; do sleep 0.1; done")
    a("exec", "p1", "dd", "if=/dev/urandom", "of=/sent", "bs=1M", "count=16")
    a("exec", "p1", "sh", "-c", f"nc {there} 5000 </sent")
    b("exec", "p2", "sh", "-c", "until [ -e /end ]; do sleep 0.1; done")
    sums = [a("exec", "p1", "sha256sum", "/sent"), b("exec", "p2", "cat", "/sum")]
    assert sums[0].split()[0] == sums[1].split()[0]


def test_names_and_aliases_are_resolved_across_hosts(pair: tuple[Podman, Podman]) -> None:
    a, b = pair
    a.box("p1")
    b.box("web", "--network", "net42:alias=www")
    for name in ("web", "www"):
        assert "2 packets received" in a.ping("p1", name)


def test_the_life_of_a_container(pair: tuple[Podman, Podman]) -> None:
    a, b = pair
    a.box("p1")
    b.box("p2")
    for words in (("stop", "-t0"), ("start",), ("restart", "-t0"), ("kill",), ("start",)):
        a(*words, "p1")
        running = words[0] in ("start", "restart")
        if running:
            assert "2 packets received" in b.ping("p2", a.address("p1"))
        else:
            wait_until(lambda: not a.attached(), 10, "the container to be detached")
    a("network", "disconnect", "net42", "p1")
    assert a.attached() == []
    a("network", "connect", "net42", "p1")
    assert "2 packets received" in b.ping("p2", a.address("p1"))
    a("network", "reload", "p1")
    assert "2 packets received" in b.ping("p2", a.address("p1"))


def test_another_network_keeps_the_way_out_and_publishes_ports(
    pair: tuple[Podman, Podman],
) -> None:
    a, b = pair
    both = ("--network", "podman", "--network", "net42")
    a.box("p1", "-p", "8080:80", *both, does="echo hello >/www/index.html; httpd -h /www")
    routes = a("exec", "p1", "ip", "route").splitlines()
    assert len([one for one in routes if one.startswith("default")]) == 1
    assert "default via 10.88.0.1" in routes[0]
    wait_until(lambda: fetched(b, "http://192.0.2.1:8080/") == "hello\n", 10, "an answer")


def fetched(machine: Podman, url: str) -> str:
    return machine.run("busybox", "wget", "-q", "-O", "-", url, check=False)


def test_a_node_that_is_killed_and_started_again(pair: tuple[Podman, Podman]) -> None:
    a, b = pair
    a.box("p1")
    there = b.box("p2")
    a.kill("node")
    a.start_node("office")
    assert "2 packets received" in a.ping("p1", there)
    a.kill("node")
    a("rm", "-f", "-t0", "p1")
    assert a.links() == set()
    a.start_node("office")
    assert a.attached() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no subnet"),
        (("--subnet", "10.9.0.0/16", "-o", "vlan=1"), "no such option: vlan"),
    ],
)
def test_podman_shows_the_cause_and_the_remedy(
    pair: tuple[Podman, Podman], words: tuple[str, ...], said: str
) -> None:
    create = ("network", "create", "--driver", DRIVER, "-o", "vni=42")
    assert said in pair[0].refused("podman", *create, *words, "other")
    assert pair[0]("network", "ls", "-q").split() == ["net42", "podman"]
