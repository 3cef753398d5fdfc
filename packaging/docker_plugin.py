"""Make the folder of a managed Docker plugin out of the Python that runs this: no registry.

    .venv/bin/python packaging/docker_plugin.py build/docker-plugin
    docker plugin create pyvxlan build/docker-plugin
    docker plugin enable pyvxlan

The root file system has this interpreter with its standard library, pyvxlan and the packages
that it needs, and the shared libraries that ldd finds for them: nothing else, no shell.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from importlib import metadata
from pathlib import Path

PREFIX = "opt/pyvxlan"
UNUSED = shutil.ignore_patterns(
    "__pycache__", "*.a", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip",
    "lib2to3", "site-packages", "config-*", "pydoc_data", "_tkinter*", "_test*",
)  # fmt: skip

CONFIG = {
    "description": "VXLAN networks for swarm, without the kernel's vxlan driver",
    "documentation": "docs/containers.md",
    "entrypoint": [f"/{PREFIX}/bin/python3", "-m", "vxlan", "docker", "managed"],
    "workdir": "/",
    "interface": {
        "types": ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"],
        "socket": "pyvxlan.sock",
    },
    "network": {"type": "host"},
    "linux": {
        "capabilities": ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"],
        "devices": [{"path": "/dev/net/tun"}],
    },
    "mounts": [
        {
            "name": "docker.sock",
            "description": "to ask dockerd who takes part in a network",
            "settable": ["source"],
            "source": "/run/docker.sock",
            "destination": "/run/docker.sock",
            "type": "bind",
            "options": ["bind"],
        },
        {
            "name": "docker.run",
            "description": "where dockerd mounts namespaces: to see whether a container is gone",
            "settable": ["source"],
            "source": "/run/docker",
            "destination": "/run/docker",
            "type": "bind",
            "options": ["rbind", "rslave", "ro"],
        },
    ],
    "propagatedMount": "/run/netns",
    "env": [
        {"name": name, "description": what, "settable": ["value"], "value": value}
        for name, what, value in (
            ("LOCAL", "underlay address; empty: the host's in its swarm", ""),
            ("DSTPORT", "UDP port, the same on every host", "4789"),
            ("ENGINE", "auto, python or fastpath", "auto"),
        )
    ],
    "args": {"name": "", "settable": None, "value": []},
}


def build(folder: Path) -> None:
    """Make config.json and rootfs in `folder`, which is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "rootfs"
    for empty in (
        "dev",
        "etc",
        "proc",
        "sys",
        "tmp",
        "var/lib/pyvxlan",
        "run/docker/plugins",
        "run/netns",
    ):
        (root / empty).mkdir(parents=True)
    (root / "run/docker.sock").touch()
    (root / "var/run").symlink_to("/run")
    _copy_python(root / PREFIX)
    for name in sorted(_needed("pyvxlan")):
        _copy_package(name, root / PREFIX)
    _copy_ours(root / PREFIX)
    _copy_libraries(root)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))


def _library(prefix: Path) -> Path:
    return prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _copy_python(prefix: Path) -> None:
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), prefix / "bin" / "python3")
    shutil.copytree(sysconfig.get_path("stdlib"), _library(prefix), ignore=UNUSED, symlinks=True)
    (_library(prefix) / "site-packages").mkdir()


def _needed(name: str) -> set[str]:
    """Our package's requirements, and theirs, as far as they are for this platform."""
    found: set[str] = set()
    for requirement in metadata.requires(name) or ():
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        if match is None or "extra ==" in requirement:
            continue
        with suppress(metadata.PackageNotFoundError):
            found |= _needed(match[0]) | {match[0]}
    return found


def _copy_package(name: str, prefix: Path) -> None:
    for file in metadata.files(name) or ():
        source = Path(str(file.locate()))
        if source.is_file() and ".." not in file.parts and "__pycache__" not in file.parts:
            target = _library(prefix) / "site-packages" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _copy_ours(prefix: Path) -> None:
    package = Path(__file__).resolve().parent.parent / "vxlan"
    shutil.copytree(package, _library(prefix) / "site-packages" / "vxlan", ignore=UNUSED)


def _copy_libraries(root: Path) -> None:
    """What the interpreter and every extension are linked with, where they look for it."""
    objects = [root / PREFIX / "bin" / "python3", *(root / PREFIX).rglob("*.so*")]
    wanted: set[str] = set()
    for one in objects:
        said = subprocess.run(["ldd", str(one)], capture_output=True, text=True, check=False).stdout
        wanted |= set(re.findall(r"(/\S+) \(0x", said))
    for library in sorted(wanted):
        target = root / library.lstrip("/")
        if not Path(library).is_relative_to(root):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, target)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
