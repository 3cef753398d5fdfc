"""Every lesson, whole: with its fault the check fails, with its solution it passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clirun import complaint, run
from vxlan import netns
from vxlan.lab import RunningLab, lesson, manage, store
from vxlan.lab.lesson import Lesson

pytestmark = pytest.mark.namespaces


@pytest.fixture(autouse=True)
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYVXLAN_LAB_DIR", str(tmp_path / "labs"))
    yield
    for name in store.names():
        manage.down(name)


def checked(number: str) -> tuple[int, dict[str, Any]]:
    result = run("lab", "check", number, "--json")
    return result.exit_code, json.loads(result.stdout)


def until_passed(number: str, looks: int = 4) -> tuple[int, dict[str, Any]]:
    """Look again, as a learner does: a path is found by probing, which takes its time."""
    for _ in range(looks - 1):
        status, found = checked(number)
        if status == 0:
            return status, found
    return checked(number)


def solve(one: Lesson) -> None:
    """As a learner would: the commands of the solution, by the `pyvxlan` under test."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", str(one.folder / "solution" / "solve.sh")],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("one", lesson.lessons(), ids=lambda one: one.name)
def test_a_lesson_from_its_fault_to_its_solution(one: Lesson) -> None:
    assert run("lab", "up", one.number).exit_code == 0
    lab = RunningLab.load(one.name)

    status, before = checked(one.number)
    wrong = [verdict for verdict in before["verdicts"] if not verdict["holds"]]
    assert (status, before["passed"]) == (1, False)
    assert wrong
    assert all(verdict["seen"] for verdict in wrong)

    solve(one)
    status, after = until_passed(one.number)
    assert (status, after["passed"]) == (0, True), after
    assert run("lab", "check", one.number).stderr.endswith(f"lesson {one.number} passed\n")

    assert run("lab", "down", one.number).exit_code == 0
    assert [name for name in netns.names() if name.startswith(f"{lab.prefix}-")] == []


def test_a_lesson_whose_lab_is_down_is_one_line() -> None:
    assert "no lab named 01-header is up" in complaint(run("lab", "check", "01"), 1)
    assert "no lab is up" in complaint(run("lab", "check"), 1)


def test_the_check_says_which_node_does_not_run() -> None:
    lab = manage.up_lesson(lesson.find("01")).lab
    lab.hosts["b"].node.stop()
    result = run("lab", "check")
    assert result.exit_code == 1
    assert "the node of b runs: not so" in result.stdout
    assert run("lab", "up", "01").exit_code == 0
    assert RunningLab.load(lab.name).silent_hosts() == []
