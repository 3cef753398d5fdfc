"""Lessons: every one is complete, and what is asked wrongly is one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clirun import ROOT, complaint, run
from vxlan.lab import lesson, plan
from vxlan.lab.lesson import Lesson
from vxlan.lab.wait import LabError

LESSONS = lesson.lessons()


@pytest.mark.parametrize("one", LESSONS, ids=lambda one: one.name)
def test_a_lesson_is_whole(one: Lesson) -> None:
    assert one.title.startswith(f"{one.number} · ")
    for part in ("You will learn", f"pyvxlan lab up {one.number}", "## Assignment", "(solution/"):
        assert part in one.text, part
    assert one.solution.startswith(f"# {one.title}: solution")
    assert (one.folder / "solution" / "solve.sh").read_text().startswith("#!/bin/sh\n")
    assert plan.load(one.topology).title.startswith(one.number)
    assert callable(one._module().check)


@pytest.mark.parametrize("one", LESSONS, ids=lambda one: one.name)
def test_a_lesson_is_in_the_list_of_lessons(one: Lesson) -> None:
    entry = (ROOT / "docs" / "lab" / "README.md").read_text()
    assert f"| [{one.number}]({one.name}/README.md) |" in entry


@pytest.mark.parametrize("one", LESSONS, ids=lambda one: one.name)
def test_links_in_a_lesson_lead_somewhere(one: Lesson) -> None:
    for text in (one.folder / "README.md", one.folder / "solution" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", text.read_text()):
            assert (text.parent.resolve() / target).exists(), target


def test_lessons_are_numbered_from_one() -> None:
    assert [one.number for one in LESSONS] == [f"{n:02}" for n in range(1, len(LESSONS) + 1)]


def test_the_list_names_each_with_its_text() -> None:
    lines = run("lab", "lessons").stdout.splitlines()[1:]
    assert len(lines) == len(LESSONS)
    for line, one in zip(lines, LESSONS, strict=True):
        assert line.split()[0] == one.number
        assert Path(line.split()[-1]).exists()


def test_a_lesson_is_found_by_number_and_name() -> None:
    assert lesson.find("1") == lesson.find("01") == lesson.find(LESSONS[0].name) == LESSONS[0]
    with pytest.raises(LabError, match="no lesson 99: there are 01"):
        lesson.find("99")


def test_text_and_solution_are_printed() -> None:
    assert run("lab", "lesson", "01").stdout.startswith("# 01 · The header\n")
    assert "solution" in run("lab", "lesson", "1", "--solution").stdout.partition("\n")[0]


@pytest.mark.parametrize(
    "words", [["up", "99"], ["check", "99"], ["lesson", "nix"], ["graph", "99"], ["down", "99"]]
)
def test_a_lesson_that_is_not_there_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVXLAN_LAB_DIR", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert f"no lesson {words[1]}" in complaint(run("lab", *words), 1)


def test_a_lesson_is_drawn_before_it_is_up() -> None:
    assert run("lab", "graph", "01").stdout.startswith("01 · The header\n")
