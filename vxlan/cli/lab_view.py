"""`pyvxlan lab view`: the page for the class."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from vxlan.cli import lab_words, output
from vxlan.cli.lab import complete_lab, failures

if TYPE_CHECKING:
    from vxlan.lab.running import RunningLab

PORT = 8474
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("name", required=False, shell_complete=complete_lab)
@click.option(
    "--port", default=PORT, type=click.IntRange(0, 65535), show_default=True,
    help="TCP port on 127.0.0.1; 0: any that is free.",
)  # fmt: skip
def view(name: str | None, port: int) -> None:
    """Show a lab in the browser: its packets, hop by hop, and what each VTEP learns.

    Serves a page on 127.0.0.1 until Ctrl-C, and prints its address.  Where no lab is
    up, three hosts are made for it, and removed at the end.
    """
    from vxlan.lab import store
    from vxlan.lab.view import show

    for number in _ENDING:
        signal.signal(number, signal.default_int_handler)
    with failures(), _lab(name) as lab, show(lab, port) as server:
        with suppress(KeyboardInterrupt):
            output.note(f"lab {lab.name}: {lab_words.summary(lab)}. Open this; Ctrl-C ends it:")
            click.echo(server.url)
            sys.stdout.flush()
            while lab.name in store.names():
                time.sleep(1.0)
            output.note(f"lab {lab.name} was taken down")
        for number in _ENDING:  # what was made is removed undisturbed
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _lab(name: str | None) -> Iterator[RunningLab]:
    """The lab that is meant; one of its own where none is up."""
    from vxlan.lab import manage, store
    from vxlan.lab.view import EXAMPLE

    if name is not None or store.names():
        yield _there(name)
        return
    came = manage.up(EXAMPLE)
    try:
        yield came.lab
    finally:
        if came.made:  # another view may have made it meanwhile, and is still there
            manage.down(came.lab.name)


def _there(name: str | None) -> RunningLab:
    """A lab that somebody made, or is about to have made."""
    from vxlan.lab import manage, store
    from vxlan.lab.wait import LabError

    manage.choose(name)
    with store.locked():
        lab = manage.choose(name)
    if not lab.whole:
        raise LabError(f"lab {lab.name} is not whole: `pyvxlan lab down {lab.name}`, then up again")
    return lab
