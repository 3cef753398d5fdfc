"""Hosts with a real dockerd, a node and the plugin, in namespaces of this machine.

    lab host (network namespace)
      └── unshare: mounts, processes, host name, IPC      one process ends it all
            ├── pyvxlan up         /run/pyvxlan
            ├── pyvxlan docker serve
            └── dockerd            /run/docker.sock, containers, runc

Each host has a /run of its own, and so its own sockets and named namespaces.  The image is
made of this machine's busybox: no registry is asked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from machines import BUSYBOX, IMAGE, PYVXLAN, ROOT, Machine, image

from vxlan.lab import Host, Lab

__all__ = ["IMAGE", "PYVXLAN", "ROOT"]

DOCKER = next((path for path in ("/usr/bin/docker",) if Path(path).exists()), "docker")
"""The one that was installed with dockerd: it speaks the same version."""


def why_not() -> str:
    """Why no dockerd can run here; empty if one can."""
    packages = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"}
    lacking = [package for tool, package in packages.items() if not shutil.which(tool)]
    if not BUSYBOX.exists() or b"/ld-linux" in BUSYBOX.read_bytes()[:4096]:
        lacking.append("busybox-static")
    return f"needs {lacking[0]}: apt-get install {lacking[0]}" if lacking else ""


class DockerHost(Machine):
    """One host.  `start` and `kill` what runs on it, by its name."""

    def __init__(self, host: Host, folder: Path, share: str) -> None:
        super().__init__(host, folder)
        self.share = share
        for name in ("docker", "state"):
            (folder / name).mkdir()
        (folder / "docker.toml").write_text(f'[vtep]\nlocal = "{host.address}"\n')

    def environ(self) -> dict[str, str]:
        """Of what runs on a host."""
        return super().environ() | {"DOCKER_HOST": "unix:///run/docker.sock"}

    def start_plugin(self, *flags: str) -> None:
        """`pyvxlan docker serve` with the capabilities of its unit, until it listens."""
        state = ["--state", str(self.folder / "state"), "--share", self.share]
        bounds = ["setpriv", "--bounding-set", "-all,+net_admin,+sys_admin", "--no-new-privs"]
        self.start("plugin", [*bounds, *PYVXLAN, "docker", "serve", "-v", *state, *flags])
        socket = "/run/docker/plugins/pyvxlan.sock"
        said = self.log("plugin").count("serves")
        self.wait("plugin", lambda: self.log("plugin").count("serves") > said)
        assert self.run("stat", "-c", "%a", socket).strip() == "600"

    def start_dockerd(self, *flags: str) -> None:
        """dockerd, until it answers."""
        self.start(
            "dockerd",
            ["dockerd", "--data-root", str(self.folder / "docker"), "--exec-root", "/run/docker",
             "--pidfile", "/run/docker.pid", "-H", "unix:///run/docker.sock",
             "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.host.name}",
             *flags],
        )  # fmt: skip
        self.wait("dockerd", lambda: "Server Version" in self.run(DOCKER, "info", check=False))

    def docker(self, *args: str, timeout: float = 60) -> str:
        """What `docker ARGS` printed."""
        return self.run(DOCKER, *args, timeout=timeout).strip()

    def refusal(self, *args: str) -> str:
        """The one line with which `docker ARGS` failed."""
        return self.refused(DOCKER, *args)

    def container(self, name: str, network: str, *flags: str) -> str:
        """`docker run` of something that does nothing; its address in the network."""
        self.docker("run", "-d", "--stop-signal", "KILL", "--name", name, "--network", network,
                    *flags, IMAGE, "sleep", "9999")  # fmt: skip
        return self.address(name, network)

    def address(self, name: str, network: str) -> str:
        """A container's IPv4 address."""
        (shown,) = json.loads(self.docker("inspect", name))
        return str(shown["NetworkSettings"]["Networks"][network]["IPAddress"])

    def exec(self, name: str, *command: str, timeout: float = 60) -> str:
        """What a command in a container printed."""
        return self.docker("exec", name, *command, timeout=timeout)

    def remove_containers(self) -> None:
        """All that there are."""
        if containers := self.docker("ps", "-aq").split():
            self.docker("rm", "-f", *containers)

    def segment(self, vni: int) -> dict[str, Any]:
        """What the node says of a segment."""
        shown = json.loads(self.run(*PYVXLAN, "show", "docker", "--json"))
        nodes = shown if isinstance(shown, list) else [shown]
        return next(one for node in nodes for one in node["segments"] if one["vni"] == vni)

    def state(self) -> dict[str, Any]:
        """What the plugin keeps."""
        kept = ["--state", str(self.folder / "state"), "--json"]
        return dict(json.loads(self.run(*PYVXLAN, "docker", "show", *kept)))

    def links(self) -> set[str]:
        """The devices of the plugin's namespace, and those of its that are in the host's."""
        there = json.loads(self.run("ip", "-n", "pyvxlan-docker", "-j", "link"))
        here = json.loads(self.run("ip", "-j", "link"))
        ours = {link["ifname"] for link in here if len(link["ifname"]) == 13}
        return {link["ifname"] for link in there if link["ifname"] != "lo"} | ours

    def load_image(self) -> None:
        """Make the image out of busybox."""
        done = subprocess.run(
            self.inside(DOCKER, "import", "-", IMAGE), input=image(), capture_output=True,
            timeout=60, env=self.environ(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def reboot(self) -> None:
        """Start anew as a host does, what runs on it by its units."""
        self.renew()
        self.start_node()
        self.start_plugin()
        self.start_dockerd()


@contextmanager
def docker_hosts(folder: Path, *, legacy: bool = True) -> Iterator[tuple[DockerHost, DockerHost]]:
    """Two hosts, everything running, the image loaded; not `legacy`: dockerd alone."""
    if reason := why_not():
        pytest.skip(reason)
    with Lab("dock") as lab:
        made: list[DockerHost] = []
        try:
            for number, short in enumerate("ab", 1):
                host = lab.host(short, f"192.0.2.{number}/24")
                made.append(DockerHost(host, folder / short, f"{number}/2"))
            for one in made:
                if legacy:
                    one.start_node()
                    one.start_plugin()
                one.start_dockerd()
                one.load_image()
            yield made[0], made[1]
        finally:
            for one in made:
                one.close()
