"""Processes that this one did not start, or starts no more: alive, ended, in a namespace.

A process number is used again, so a process is known by its number and the moment of its
start, in clock ticks after boot (proc(5), field 22 of stat).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vxlan import netns

_PATIENCE = 0.02


class Process(NamedTuple):
    """One process; `started` in ticks after boot."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it runs; one that ended and waits for its parent does not."""
        return _started(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def of_pid(pid: int) -> Process | None:
    """The process that has this number now, if there is one."""
    started = _started(pid)
    return None if started is None else Process(pid, started)


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def end(processes: Iterable[Process], patience: float, *signals: signal.Signals) -> None:
    """Ask processes to end by `signals` (SIGTERM), after `patience` seconds by SIGKILL."""
    left = list(processes)
    for process in left:
        for number in signals or (signal.SIGTERM,):
            process.signal(number)
    left = _wait(left, patience)
    for process in left:
        process.signal(signal.SIGKILL)
    _wait(left, patience)


def _wait(processes: list[Process], patience: float) -> list[Process]:
    """Those that are still there when `patience` seconds are over."""
    deadline = time.monotonic() + patience
    while (left := [one for one in processes if one.alive]) and time.monotonic() < deadline:
        time.sleep(_PATIENCE)
    return left


def inside(namespaces: Iterable[str]) -> list[Process]:
    """The processes whose network namespace is one of these, but not ours and our parents."""
    wanted = {_inode(Path(netns.RUN_DIR, name)) for name in namespaces} - {None}
    spared = _lineage()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) not in spared:
            process = of_pid(int(entry.name))
            if process and _inode(entry / "ns/net") in wanted:
                found.append(process)
    return found


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _lineage() -> set[int]:
    """This process and its parents: whoever types `down` inside the lab keeps the shell."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        with suppress(OSError):
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found
