"""`pyvxlan bench` given what it cannot use: one line, and an exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clirun import complaint, run

RUN: dict[str, Any] = {"machine": {}, "rows": []}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--overlays", "gre"], "no overlay gre: there are none, kernel"),
        (["--overlays", ","], "it names nothing"),
        (["--tests", ""], "it names nothing"),
        (["--seconds", "nan"], "nan is no time"),
        (["--seconds", "0"], "not in the range"),
        (["--mtu", "576"], "not in the range"),
        (["--json", "--markdown"], "exclude each other"),
        (["remote", "--seconds", "nan", "10.42.0.2"], "nan is no time"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], told: str) -> None:
    assert told in complaint(run("bench", *words), 2)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '"x"', '{"rows": [{}]}', '{"rows": 7}', json.dumps(RUN)]
)
def test_a_file_that_is_no_run_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    done = run("bench", "report", str(path), "--out", str(tmp_path / "out"))
    assert f"{path}: not saved by `pyvxlan bench --json`" in complaint(done, 1)


@pytest.mark.parametrize("benchmarks", [None, 3, [{}], [{"name": "a", "params": {"size": "x"}}]])
def test_a_file_that_is_no_suite_is_named(benchmarks: object, tmp_path: Path) -> None:
    path, suite = tmp_path / "run.json", tmp_path / "suite.json"
    path.write_text(json.dumps(RUN))
    suite.write_text(json.dumps({"benchmarks": benchmarks}))
    done = run("bench", "report", str(path), "--memory", str(suite))
    assert f"{suite}: not saved by `make bench`" in complaint(done, 1)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("bench", "report", str(tmp_path / "none.json"))
    assert f"{tmp_path}/none.json: No such file or directory" in complaint(done, 1)


def test_a_host_that_is_none_is_named() -> None:
    done = run("bench", "remote", "nobody.invalid")
    assert "nobody.invalid: no such host" in complaint(done, 1)
