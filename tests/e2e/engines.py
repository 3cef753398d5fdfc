"""Real container engines on the hosts of a lab, each with all its files in one folder.

Nothing comes from a registry: the image is busybox, from Debian's static binary.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vxlan.lab import Host, wait_until

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/box:1"
APPLETS = ("sh", "cat", "ip", "nslookup", "ping", "sleep")

_LIMITS = '["nofile=1024:1024", "nproc=4096:4096"]'


def why_not(*programs: str) -> str:
    """Which of these is not installed, as a reason to skip; empty if all are."""
    missing = [one for one in programs if shutil.which(one) is None]
    return f"needs {', '.join(missing)}: .ci/run installs it" if missing else ""


def image(path: Path) -> Path:
    """A root file system of one program."""
    with tarfile.open(path, "w") as archive:
        archive.add(str(shutil.which("busybox")), "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for folder in ("dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry, io.BytesIO())
    return path


class _Engine:
    """What engines have in common: a folder, a plugin, a network."""

    def __init__(self, host: Host, folder: Path, conf: Mapping[str, Any]) -> None:
        self.host, self.folder = host, folder
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        (folder / "bin").mkdir(parents=True)
        (folder / "net.d").mkdir()
        plugin = folder / "bin" / str(conf["type"])
        plugin.write_text(f"#!/bin/sh\nexec {sys.executable} -m vxlan.plugins.cni\n")
        plugin.chmod(0o755)
        listed = {key: conf[key] for key in ("cniVersion", "name")}
        text = json.dumps({**listed, "plugins": [dict(conf)]})
        (folder / "net.d" / "50-net42.conflist").write_text(text)

    def run(self, *words: str, timeout: float = 120.0) -> str:
        """Run a command on the host; its output.  AssertionError with what it said."""
        done = self.host.call(
            subprocess.run,
            words,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return str(done.stdout)


class Podman(_Engine):
    """podman with the CNI backend."""

    def __init__(self, host: Host, folder: Path, conf: Mapping[str, Any]) -> None:
        super().__init__(host, folder, conf)
        (folder / "containers.conf").write_text(
            f"[containers]\ndefault_ulimits = {_LIMITS}\n"
            '[network]\nnetwork_backend = "cni"\n'
            f'cni_plugin_dirs = ["{folder}/bin"]\nnetwork_config_dir = "{folder}/net.d"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n'
            f'lock_type = "file"\ntmp_dir = "{folder}/tmp"\nstatic_dir = "{folder}/static"\n'
            f'volume_path = "{folder}/volumes"\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
        )
        self._environment |= {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        self("import", str(image(folder / "image.tar")), IMAGE)

    def __call__(self, *words: str) -> str:
        return self.run("podman", *words)

    def box(self, name: str, *flags: str) -> str:
        """A container that sleeps."""
        return self("run", "-d", "--name", name, *flags, IMAGE, "/bin/sleep", "600")

    def close(self) -> None:
        self("rm", "--all", "--force", "--time", "0")


class Containerd(_Engine):
    """containerd and `ctr --cni`, which looks for networks and plugins in fixed folders."""

    def __init__(self, host: Host, folder: Path, conf: Mapping[str, Any], tar: Path) -> None:
        super().__init__(host, folder, conf)
        (folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{folder}/c.sock"\n[ttrpc]\naddress = "{folder}/t.sock"\n'
        )
        with (folder / "log").open("wb") as log:
            self._process = host.popen(
                ["containerd", "-c", str(folder / "containerd.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until((folder / "c.sock").exists, 20, "containerd to listen")
            self("images", "import", "--snapshotter", "native", str(tar))
        except BaseException:
            self.close()
            raise

    def __call__(self, *words: str) -> str:
        """`ctr` in a mount namespace where /etc/cni and /opt are this host's."""
        script = (
            "mkdir -p /etc/cni && mount -t tmpfs tmpfs /etc/cni && mount -t tmpfs tmpfs /opt && "
            'ln -s "$0/net.d" /etc/cni/net.d && mkdir /opt/cni && ln -s "$0/bin" /opt/cni/bin && '
            'exec ctr -a "$0/c.sock" "$@"'
        )
        return self.run("unshare", "-m", "sh", "-c", script, str(self.folder), *words)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
