"""Lessons: a lab with a fault left in place, a text, and a check that tells what is wrong.

Theory of operation
===================

A lesson is a folder of docs/lab/, which an installation carries as vxlan/lab/lessons/:

    01-header/README.md            what one learns, the theory, the assignment
    01-header/lab.toml             the topology, with the fault
    01-header/solution/README.md   how it is found and mended, and why
    01-header/solution/solve.sh    the same as commands

and a module of vxlan/lab/checks/ of the same name (01-header: header.py; dashes become
underscores) with

    check(lab)     yields a Verdict for each thing that has to hold
    prepare(lab)   optional: leaves the fault, where a topology cannot say it

The check looks at the lab as it is: at its nodes, its tables, its packets.  It knows no
solution, so that whatever mends the fault passes.
"""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vxlan.api import ApiError
from vxlan.lab.running import RunningLab
from vxlan.lab.wait import LabError
from vxlan.netns import NetdevError

FOLDER = Path(__file__).parent / "lessons"

_NAME = re.compile(r"([0-9]{2})-([a-z0-9-]+)")


class Verdict(NamedTuple):
    """One thing that was looked at: whether it holds, and what is seen where it does not."""

    holds: bool
    text: str
    seen: str = ""


@dataclass(frozen=True)
class Lesson:
    """One lesson; `number` has two digits."""

    number: str
    folder: Path

    @property
    def name(self) -> str:
        """Number and name, as the folder has it: 01-header.  Its lab has this name."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The first line of its text."""
        return self.text.partition("\n")[0].lstrip("# ")

    @property
    def text(self) -> str:
        """What the learner reads."""
        return (self.folder / "README.md").read_text()

    @property
    def solution(self) -> str:
        """What the learner reads afterwards."""
        return (self.folder / "solution" / "README.md").read_text()

    @property
    def topology(self) -> Path:
        """The file of its lab."""
        return self.folder / "lab.toml"

    def prepare(self, lab: RunningLab) -> None:
        """Leave what of the fault the topology could not say."""
        prepare = getattr(self._module(), "prepare", None)
        if prepare is not None:
            prepare(lab)

    def check(self, lab: RunningLab) -> list[Verdict]:
        """What holds and what does not.  A node that does not answer is a verdict, too."""
        found: list[Verdict] = []
        try:
            for verdict in self._module().check(lab):
                found.append(verdict)  # noqa: PERF402 - those before an error count
        except (LabError, ApiError, NetdevError, OSError, subprocess.SubprocessError) as error:
            found.append(Verdict(False, "the lab can be looked at", str(error)))
        return found

    def _module(self) -> Any:
        name = self.name.partition("-")[2].replace("-", "_")
        return importlib.import_module(f"vxlan.lab.checks.{name}")


def lessons() -> list[Lesson]:
    """All lessons, in their order."""
    return list(_all())


def _all() -> Iterator[Lesson]:
    for folder in sorted(FOLDER.iterdir()) if FOLDER.exists() else ():
        if (named := _NAME.fullmatch(folder.name)) and (folder / "lab.toml").exists():
            yield Lesson(named[1], folder)


def find(word: str) -> Lesson:
    """The lesson of a number ("1", "01") or a name.  Raises LabError."""
    for lesson in _all():
        if word in (lesson.number, lesson.number.lstrip("0"), lesson.name):
            return lesson
    have = ", ".join(lesson.number for lesson in _all()) or "none"
    raise LabError(f"no lesson {word}: there are {have} (`pyvxlan lab lessons`)")


def is_word(text: str) -> bool:
    """Whether a text means a lesson rather than a file."""
    return bool(re.fullmatch(r"[0-9]{1,2}(-[a-z0-9-]+)?", text))
