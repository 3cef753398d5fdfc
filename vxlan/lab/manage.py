"""Labs come up and go down: twice is no error, and neither leaves anything behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vxlan.lab import plan as plans
from vxlan.lab import store
from vxlan.lab.build import build
from vxlan.lab.lesson import Lesson
from vxlan.lab.running import RunningLab
from vxlan.lab.wait import LabError


class Came(NamedTuple):
    """What `up` did: `made` anew, or it was there; `restarted` nodes that had ended."""

    lab: RunningLab
    made: bool
    restarted: list[str]


def need_root() -> None:
    """Raise LabError unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise LabError("a lab is made of network namespaces and TAP devices: run it as root")


def up_lesson(lesson: Lesson, name: str | None = None) -> Came:
    """Bring the lab of a lesson up, with its fault; raises like `up`."""
    return up(lesson.topology, name or lesson.name, lesson)


def up(path: Path, name: str | None = None, lesson: Lesson | None = None) -> Came:
    """Bring the lab of a topology file up; one that is up already stays as it is.

    `name` is the file's, unless given.  Raises ConfigError for the file, LabError,
    NetdevError and OSError for the making.
    """
    plan = plans.load(path)
    need_root()
    name = name or store.name_from(path.stem)
    with store.locked():
        if name in store.names():
            there = RunningLab.load(name)
            if there.whole:
                return _as_it_is(there, path)
            there.down()
        build(plan, name, path, lesson.name if lesson else None)
        made = RunningLab.load(name)
        if lesson:
            _prepare(lesson, made)
    return Came(made, True, [])


def _prepare(lesson: Lesson, made: RunningLab) -> None:
    try:
        lesson.prepare(made)
    except BaseException:
        made.down()
        raise


def _as_it_is(lab: RunningLab, path: Path) -> Came:
    if lab.topology_path.read_bytes() != path.read_bytes():
        raise LabError(
            f"lab {lab.name} is up, with another topology than {path} has now: "
            f"`pyvxlan lab down {lab.name}` first, or --name for a second lab"
        )
    return Came(lab, False, lab.restart_nodes())


def down(name: str) -> bool:
    """Remove a lab; whether there was one.  Raises LabError without root."""
    need_root()
    store.directory(name)
    if not store.root().exists():
        return False
    with store.locked():
        if name not in store.names():
            return False
        try:
            RunningLab.load(name).down()
        except (KeyError, TypeError):
            raise LabError(f"{store.directory(name)}: not written by this version") from None
    return True


def choose(name: str | None) -> RunningLab:
    """The lab that is meant: the named one, or the only one.  Raises LabError."""
    need_root()
    if name is None:
        names = store.names()
        if not names:
            raise LabError("no lab is up: `pyvxlan lab up FILE`")
        if len(names) > 1:
            raise LabError(f"several labs are up ({', '.join(names)}): name one with --lab")
        name = names[0]
    return RunningLab.load(name)
