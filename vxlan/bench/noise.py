"""What else the machine did while a sample was taken, from /proc.

busy     CPU seconds that were not idle, of all cores
steal    CPU seconds that the hypervisor gave to somebody else
others   CPU seconds of processes that are not ours
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1

_KTHREADD = 2
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment, in seconds."""

    at: float
    busy: float
    steal: float
    processes: dict[int, float]


@dataclass(frozen=True, slots=True)
class Use:
    """The difference of two readings, in seconds."""

    elapsed: float
    busy: float
    steal: float
    others: float

    @property
    def disturbance(self) -> float:
        """The part of the machine that was not ours to use, 0 to 1."""
        return self._part(self.steal + self.others)

    @property
    def stolen(self) -> float:
        """The part that the hypervisor gave to somebody else, 0 to 1."""
        return self._part(self.steal)

    def _part(self, seconds: float) -> float:
        return seconds / (self.elapsed * CORES) if self.elapsed else 0.0


def read() -> Reading:
    """Now."""
    busy, steal = machine_seconds(Path("/proc/stat").read_text())
    return Reading(time.monotonic(), busy, steal, processes())


def between(before: Reading, after: Reading, ours: Collection[int]) -> Use:
    """What happened in between; `ours` are the pids that belong to the measurement."""
    others = sum(
        used - before.processes.get(pid, 0.0)
        for pid, used in after.processes.items()
        if pid not in ours
    )
    return Use(
        after.at - before.at,
        after.busy - before.busy,
        after.steal - before.steal,
        max(others, 0.0),
    )


def machine_seconds(stat: str) -> tuple[float, float]:
    """busy, steal from the text of /proc/stat; what a guest runs counts once."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


def processes() -> dict[int, float]:
    """CPU seconds of every process, kernel threads left out."""
    found: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parent, used = process_seconds(Path("/proc", entry, "stat").read_text())
                if _KTHREADD not in (parent, int(entry)):
                    found[int(entry)] = used
    return found


def process_seconds(stat: str) -> tuple[int, float]:
    """Parent and CPU seconds from the text of /proc/PID/stat; names may hold spaces."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of(pids: Collection[int]) -> float:
    """CPU seconds of processes with all their threads, to the nanosecond.

    clock_getcpuclockid(3) makes the number of a process's clock in this way.
    """
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            total += time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    return total


def machine() -> dict[str, Any]:
    """What a reader must know about the machine before reading a figure."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_field("model name"),
        "cores": CORES,
        "mhz": _cpu_field("cpu MHz"),
        "governor": _governor(),
        "hypervisor": "hypervisor" in _cpu_field("flags").split(),
        "load": os.getloadavg()[0],
    }


def _cpu_field(label: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == label:
            return value.strip()
    return ""


def frequency(cpuinfo: str) -> float:
    """MHz from the text of /proc/cpuinfo, mean of all cores; 0 where it does not say."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    found = [float(value) for name, _, value in lines if name.strip() == "cpu MHz"]
    return sum(found) / len(found) if found else 0.0


def mhz() -> float:
    """How fast the cores run now, in MHz; 0 where the kernel does not say."""
    return frequency(Path("/proc/cpuinfo").read_text())


def _governor() -> str:
    with suppress(OSError):
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    return ""
