"""Where running labs are written down: /run/pyvxlan-lab/NAME/, open to root alone.

    NAME/state.json      what there is: hosts, containers, namespaces, nodes, sockets
    NAME/topology.toml   the file that it was made from
    NAME/HOST/           a host's node: HOST.toml, HOST.sock, HOST.log

A lab is written down before its first namespace is made, so that `down` finds what a
killed `up` left.  PYVXLAN_LAB_DIR names another folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vxlan.lab.wait import LabError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
_STATE = "state.json"
TOPOLOGY = "topology.toml"
"""The copy of the file that a lab was made from."""


def root() -> Path:
    """The folder of all labs."""
    return Path(os.environ.get("PYVXLAN_LAB_DIR") or "/run/pyvxlan-lab")


def directory(name: str) -> Path:
    """The folder of one lab.  Raises LabError where the name is none."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name of a lab: up to 24 of a-z, 0-9 and '-'")
    return root() / name


def name_from(text: str) -> str:
    """A lab's name out of the name of its file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:24] or "lab"


def names() -> list[str]:
    """The labs that are written down, sorted."""
    return sorted(path.parent.name for path in root().glob(f"*/{_STATE}"))


def read(name: str) -> dict[str, Any]:
    """What is written down of a lab.  Raises LabError where there is none."""
    path = directory(name) / _STATE
    try:
        state: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        up = f"up are {', '.join(names())}" if names() else "none is up"
        raise LabError(f"no lab named {name} is up ({up}): `pyvxlan lab up FILE`") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: cannot be read ({error}): remove {path.parent}") from None
    return state


def write(name: str, state: dict[str, Any]) -> None:
    """Write a lab down, whole or not at all."""
    folder = directory(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f"{_STATE}.new"
    draft.write_text(json.dumps(state, indent=1) + "\n")
    draft.replace(folder / _STATE)


def forget(name: str) -> None:
    """Remove what is written down of a lab, and the folder of all with the last one."""
    shutil.rmtree(directory(name), ignore_errors=True)
    with suppress(OSError):
        root().rmdir()


@contextmanager
def locked() -> Iterator[None]:
    """Whoever makes or removes a lab takes turns."""
    folder = _lock()
    try:
        yield
    finally:
        os.close(folder)
        with suppress(OSError):
            root().rmdir()


def _lock() -> int:
    """A descriptor of the folder of all labs, locked; anew if another removed it meanwhile."""
    while True:
        root().mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            folder = os.open(root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(folder, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if root().stat().st_ino == os.fstat(folder).st_ino:
                    return folder
            os.close(folder)
