"""What a check finds, and what it is given.  See vxlan/doctor.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from vxlan.config import NodeConfig, VtepConfig


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    what    what was found, one clause with its numbers
    remedy  what to do about it; empty where there is nothing to do
    still   what works all the same; empty where nothing is lost
    """

    level: Level
    what: str
    remedy: str = ""
    still: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        text = f"{self.what}: {self.remedy}" if self.remedy else self.what
        return f"{text} (still works: {self.still})" if self.still else text

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the checks compare the host with.

    config  the node that shall run; None: no particular one
    pid     a node that runs already, with the VTEP `vtep`
    """

    config: NodeConfig | None = None
    vtep: VtepConfig = field(default_factory=VtepConfig)
    bridged: bool = True
    pid: int | None = None


Check = Callable[[Wanted], Iterator[Finding]]
"""Looks at one thing; never raises."""
