"""Run the command line, in this process or in one of its own; and answers to print."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.fakenode import FLOOD, MAC, entry
from vxlan.cli import cli

ROOT = Path(__file__).resolve().parent.parent

ENTRIES = [
    entry(FLOOD, "192.0.2.2", "2001:db8::3", state="static", source="flood list", used=None),
    entry(MAC, "192.0.2.2"),
    entry("02:42:0a:2a:00:03", "192.0.2.3", vni=7, state="extern_learn", source="evpn"),
]
ENTRIES[2]["dst"][0]["port"] = 8472


def event(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "event": kind, "time": 1_800_000_000.25, "when": 1_800_000_000.25, "age": 60.0, "vni": 42,
        "mac": MAC, "remote": {"address": "192.0.2.2", "port": 4789}, "was": None,
        "detail": "data", **changes,
    }  # fmt: skip


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def complaint(result: Result, status: int) -> str:
    """The one line on standard error of a command that ended with `status`."""
    assert (result.exit_code, result.stdout) == (status, ""), result.stderr
    assert result.stderr.startswith("pyvxlan: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@contextmanager
def process(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`python -m vxlan ...` as a process of its own."""
    command = [sys.executable, "-m", "vxlan", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        try:
            yield child
        finally:
            child.kill()
