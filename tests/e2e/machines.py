"""A machine of its own for daemons of containers, as far as namespaces go.

    lab host (network namespace)
      └── unshare: mounts, processes, host name, IPC      one process ends it all

Each has a /run of its own, and so its own sockets and named namespaces.

PYVXLAN_ENGINES names the root of another distribution (tests/e2e/newer_engines.sh makes
one): its /usr, with its engines, is then the machine's.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vxlan.lab import Host
from vxlan.lab.wait import wait_until

IMAGE = "box:1"
BUSYBOX = Path("/bin/busybox")
ROOT = Path(__file__).resolve().parents[2]
ENGINES = os.environ.get("PYVXLAN_ENGINES", "")
PYVXLAN = [sys.executable, "-m", "vxlan"]

_HOLDER = """
set -e; folder=$1; engines=$3
hostname "$2"
mkdir -p "$folder/cgroup"; mount --rbind /sys/fs/cgroup "$folder/cgroup"
mount -t sysfs sysfs /sys; mount --rbind "$folder/cgroup" /sys/fs/cgroup; umount -l "$folder/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run
mount --make-shared /run
mkdir -p /run/netns /run/lock /run/docker/plugins /etc/docker
mount --bind "$folder/etc" /etc/docker
mount --bind "$folder/resolv.conf" /etc/resolv.conf
if [ "$engines" ]; then
    for part in /etc/ld.so.cache /etc/alternatives /usr; do
        mount --bind "$engines$part" "$part"
    done
fi
: > "$folder/ready"
trap 'exit 0' TERM
while :; do sleep 3600 & wait $!; done
"""


class Machine:
    """One machine.  `start` and `kill` what runs on it, by its name."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "etc").mkdir(parents=True)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self._hold()

    def _hold(self) -> None:
        command = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc"]
        words = [str(self.folder), self.host.name, ENGINES]
        script = ["--kill-child", "sh", "-c", _HOLDER, "sh", *words]
        with (self.folder / "holder.log").open("wb") as log:
            self._holder = self.host.popen([*command, *script], stdout=log, stderr=log)
        wait_until((self.folder / "ready").exists, 10, f"{self.folder}/holder.log: host to be made")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self._init = int(children.read_text().split()[0])

    def renew(self) -> None:
        """Lose processes, /run and network devices, and keep the disk."""
        self.close()
        self._children.clear()
        (self.folder / "ready").unlink()
        self._hold()
        for link in json.loads(self.run("ip", "-j", "link")):
            if link["ifname"] not in ("lo", self.host.link):
                self.run("ip", "link", "delete", link["ifname"], check=False)

    def inside(self, *command: str) -> list[str]:
        """A command line that runs `command` on the machine."""
        return ["nsenter", "-t", str(self._init), "-m", "-n", "-p", "-u", "-i", "--", *command]

    def run(self, *command: str, timeout: float = 60, check: bool = True) -> str:
        """What a command printed; AssertionError carries what it complained of."""
        done = self._done(command, timeout)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def refused(self, *command: str) -> str:
        """The one line with which a command failed."""
        done = self._done(command, 60)
        assert done.returncode != 0, done.stdout
        return done.stderr.strip()

    def _done(self, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.inside(*command),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
        )

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process; its log is NAME.log, its pid on the machine in NAME.pid."""
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

    def environ(self) -> dict[str, str]:
        """Of what runs on the machine."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYVXLAN_RUNTIME_DIR": "/run/pyvxlan"}

    def log(self, name: str) -> str:
        """What it said."""
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start_node(self, name: str = "docker", *flags: str) -> None:
        """`pyvxlan up` of the file NAME.toml, until it answers."""
        line = f"node {name}: "  # a node that was killed leaves its socket
        said = self.log("node").count(line)
        self.start("node", [*PYVXLAN, "up", *flags, str(self.folder / f"{name}.toml")])
        self.wait("node", lambda: self.log("node").count(line) > said)

    def wait(self, name: str, condition: Any) -> None:
        """Until something holds that a process is to bring about."""

        def there() -> bool:
            if (status := self._children[name].poll()) is not None:
                raise AssertionError(f"{name} ended with {status}: {self.log(name)[-2000:]}")
            return bool(condition())

        wait_until(there, 40, f"{name} on {self.host.name}", interval=0.1)

    def close(self) -> None:
        """End everything that runs on the machine."""
        with suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        self._holder.wait(30)
        for child in self._children.values():
            child.wait(30)
        for folder in sorted(Path("/sys/fs/cgroup").rglob(self.host.name), reverse=True):
            _remove_cgroup(folder)


def _remove_cgroup(folder: Path) -> None:
    for inner in folder.iterdir() if folder.is_dir() else ():
        if inner.is_dir():
            _remove_cgroup(inner)
    with suppress(OSError):
        folder.rmdir()


def image() -> bytes:
    """A root file system of busybox, as a tar."""
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
