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

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from vxlan.lab import Host, Lab
from vxlan.lab.wait import wait_until

IMAGE = "box:1"
BUSYBOX = Path("/bin/busybox")
ROOT = Path(__file__).resolve().parents[2]

DOCKER = next((path for path in ("/usr/bin/docker",) if Path(path).exists()), "docker")
"""The one that was installed with dockerd: it speaks the same version."""

_HOLDER = """
set -e; folder=$1
hostname "$2"
mkdir -p "$folder/cgroup"; mount --rbind /sys/fs/cgroup "$folder/cgroup"
mount -t sysfs sysfs /sys; mount --rbind "$folder/cgroup" /sys/fs/cgroup; umount -l "$folder/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/docker/plugins /etc/docker
mount --bind "$folder/etc" /etc/docker
mount --bind "$folder/resolv.conf" /etc/resolv.conf
: > "$folder/ready"
trap 'exit 0' TERM
while :; do sleep 3600 & wait $!; done
"""


def why_not() -> str:
    """Why no dockerd can run here; empty if one can."""
    packages = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"}
    lacking = [package for tool, package in packages.items() if not shutil.which(tool)]
    if not BUSYBOX.exists() or b"/ld-linux" in BUSYBOX.read_bytes()[:4096]:
        lacking.append("busybox-static")
    return f"needs {lacking[0]}: apt-get install {lacking[0]}" if lacking else ""


class DockerHost:
    """One host.  `start` and `kill` what runs on it, by its name."""

    def __init__(self, host: Host, folder: Path, share: str) -> None:
        self.host = host
        self.folder = folder
        self.share = share
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("etc", "docker", "state"):
            (folder / name).mkdir(parents=True)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (folder / "docker.toml").write_text(f'[vtep]\nlocal = "{host.address}"\n')
        self._hold()

    def _hold(self) -> None:
        command = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
        script = ["--kill-child", "sh", "-c", _HOLDER, "sh", str(self.folder), self.host.name]
        with (self.folder / "holder.log").open("wb") as log:
            self._holder = self.host.popen([*command, *script], stdout=log, stderr=log)
        wait_until((self.folder / "ready").exists, 10, f"{self.folder}/holder.log: host to be made")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self._init = int(children.read_text().split()[0])

    # -- processes ---------------------------------------------------------------------------

    def inside(self, *command: str) -> list[str]:
        """A command line that runs `command` on the host."""
        return ["nsenter", "-t", str(self._init), "-m", "-n", "-p", "-u", "-i", "--", *command]

    def run(self, *command: str, timeout: float = 60, check: bool = True) -> str:
        """What a command printed; CalledProcessError carries what it complained of."""
        done = subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environ(),
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process; its log is NAME.log, its pid on the host in NAME.pid."""
        wrapped = ["sh", "-c", 'echo $$ > "$1"; shift; exec "$@"', "sh"]
        pidfile = str(self.folder / f"{name}.pid")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                self.inside(*wrapped, pidfile, *command), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self.environ(),
            )  # fmt: skip

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, and wait for the end."""
        pid = (self.folder / f"{name}.pid").read_text().strip()
        self.run("sh", "-c", f"kill -{number.value} {int(pid)}")
        self._children.pop(name).wait(30)

    @staticmethod
    def environ() -> dict[str, str]:
        """Of what runs on a host."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYVXLAN_RUNTIME_DIR": "/run/pyvxlan",
                "DOCKER_HOST": "unix:///run/docker.sock"}  # fmt: skip

    def log(self, name: str) -> str:
        """What it said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # -- what runs here ----------------------------------------------------------------------

    def start_node(self) -> None:
        """`pyvxlan up`, until it answers."""
        self.start("node", [*PYVXLAN, "up", str(self.folder / "docker.toml")])
        self._wait("node", lambda: self.run("ls", "/run/pyvxlan/docker.sock", check=False))

    def start_plugin(self, *flags: str) -> None:
        """`pyvxlan docker serve` with the capabilities of its unit, until it listens."""
        state = ["--state", str(self.folder / "state"), "--share", self.share]
        bounds = ["setpriv", "--bounding-set", "-all,+net_admin,+sys_admin", "--no-new-privs"]
        self.start("plugin", [*bounds, *PYVXLAN, "docker", "serve", "-v", *state, *flags])
        socket = "/run/docker/plugins/pyvxlan.sock"
        said = self.log("plugin").count("serves")
        self._wait("plugin", lambda: self.log("plugin").count("serves") > said)
        assert self.run("stat", "-c", "%a", socket).strip() == "600"

    def start_dockerd(self) -> None:
        """dockerd, until it answers."""
        self.start(
            "dockerd",
            ["dockerd", "--data-root", str(self.folder / "docker"), "--exec-root", "/run/docker",
             "--pidfile", "/run/docker.pid", "-H", "unix:///run/docker.sock",
             "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.host.name}"],
        )  # fmt: skip
        self._wait("dockerd", lambda: "Server Version" in self.run(DOCKER, "info", check=False))

    def _wait(self, name: str, condition: Any) -> None:
        def there() -> bool:
            if (status := self._children[name].poll()) is not None:
                raise AssertionError(f"{name} ended with {status}: {self.log(name)[-2000:]}")
            return bool(condition())

        wait_until(there, 40, f"{name} on {self.host.name}", interval=0.1)

    def docker(self, *args: str, timeout: float = 60) -> str:
        """What `docker ARGS` printed."""
        return self.run(DOCKER, *args, timeout=timeout).strip()

    def refusal(self, *args: str) -> str:
        """The one line with which `docker ARGS` failed."""
        done = subprocess.run(
            self.inside(DOCKER, *args),
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environ(),
        )
        assert done.returncode != 0, done.stdout
        return done.stderr.strip()

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
            self.inside(DOCKER, "import", "-", IMAGE), input=_image(), capture_output=True,
            timeout=60, env=self.environ(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def reboot(self) -> None:
        """Lose processes, /run and network devices, keep the disk, and start as the units do."""
        self.close()
        self._children.clear()
        (self.folder / "ready").unlink()
        self._hold()
        for link in json.loads(self.run("ip", "-j", "link")):
            if link["ifname"] not in ("lo", self.host.link):
                self.run("ip", "link", "delete", link["ifname"], check=False)
        self.start_node()
        self.start_plugin()
        self.start_dockerd()

    def close(self) -> None:
        """End everything that runs on the host."""
        with suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        self._holder.wait(30)
        for child in self._children.values():
            child.wait(30)
        for folder in sorted(Path("/sys/fs/cgroup").rglob(self.host.name), reverse=True):
            _remove_cgroup(folder)


PYVXLAN = [sys.executable, "-m", "vxlan"]


def _remove_cgroup(folder: Path) -> None:
    for inner in folder.iterdir() if folder.is_dir() else ():
        if inner.is_dir():
            _remove_cgroup(inner)
    with suppress(OSError):
        folder.rmdir()


def _image() -> bytes:
    names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "www"):
            _add(tar, folder, tarfile.DIRTYPE, mode=0o1777 if folder == "tmp" else 0o755)
        _add(tar, "bin/busybox", content=BUSYBOX.read_bytes(), mode=0o755)
        for name in set(names.split()) - {"busybox"}:
            _add(tar, f"bin/{name}", tarfile.SYMTYPE, target="busybox")
        _add(tar, "etc/passwd", content=b"root:x:0:0:root:/:/bin/sh\n")
    return packed.getvalue()


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, *, content: bytes = b"",
    mode: int = 0o644, target: str = "",
) -> None:  # fmt: skip
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(content), target
    tar.addfile(info, io.BytesIO(content))


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
