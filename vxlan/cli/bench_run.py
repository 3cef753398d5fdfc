"""Running a matrix from the command line: root, progress, and an end that tidies up."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from vxlan.cli import output
from vxlan.cli.errors import Failure
from vxlan.cli.options import verbosity

if TYPE_CHECKING:
    from vxlan.bench.matrix import Progress, Results, Settings


def run(settings: Settings) -> Results:
    """Run the matrix.  Raises Failure without root, or where root may not make namespaces."""
    from vxlan.bench.generator import GENERATOR
    from vxlan.bench.matrix import Run
    from vxlan.lab import LabError
    from vxlan.netdev import NetdevError

    if os.geteuid() != 0:
        raise Failure("bench makes network namespaces: run it as root")
    announce(GENERATOR)
    with ended_by_sigterm(), progress() as tell:
        try:
            return Run(settings, tell).run()
        except (NetdevError, LabError) as error:
            raise Failure(str(error)) from error


def announce(*generators: str) -> None:
    """Say so where traffic does not come from the compiled loops."""
    if "python" in generators:
        output.note(
            "bench: the extension is not built here: traffic comes from the slower Python "
            "generator, which bounds what small packets can show; install a C compiler and the "
            "Python headers, then install pyvxlan again"
        )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: everything is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress() -> Iterator[Progress]:
    """A line on standard error: rewritten on a terminal, at each tenth elsewhere."""
    tty, seen = sys.stderr.isatty(), [-1]

    def tell(text: str, part: float) -> None:
        tenth = int(part * 10)
        if verbosity() < 0 or (not tty and tenth == seen[0]):
            return
        seen[0] = tenth
        line = f"bench: {part:4.0%} {text}"
        click.echo(f"\r\033[K{line}" if tty else line, err=True, nl=not tty)

    try:
        yield tell
    finally:
        if tty:
            click.echo("\r\033[K", err=True, nl=False)
