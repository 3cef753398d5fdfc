"""The command line: `pyvxlan ...`.

A command that needs a running node talks to it over its control socket
(vxlan/api.py) and to nothing else; `up` is the one that becomes a node.  One file
for each group of commands.  Data goes to standard output, messages to standard
error.  Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such node runs.

Every invocation imports this package, so whatever is not needed to parse a
command line (rich, asyncio, the node) is imported in the function that needs it.
"""

from __future__ import annotations

import click

from vxlan.cli import (
    bench,
    capture,
    docker,
    doctor,
    explain,
    fault,
    fdb,
    lab_group,
    monitor,
    ping,
    remote,
    replay,
    show,
    station,
    up,
)
from vxlan.cli.errors import Cli
from vxlan.cli.options import verbosity_options, version

__all__ = ["cli", "main"]


@click.group("pyvxlan", cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@version
@verbosity_options
def cli() -> None:
    """A userspace VXLAN overlay (RFC 7348) for hosts whose kernel has none.

    \b
    pyvxlan up --vni 42 --local 192.0.2.1 --remote 192.0.2.2 --tap vxlan42
    pyvxlan up NAME            run /etc/pyvxlan/NAME.toml
    pyvxlan show               what runs, and what was dropped and why
    pyvxlan capture --drops    packets as they come, and what was decided about each
    pyvxlan explain            what becomes of one packet, and why
    pyvxlan doctor             what this host lacks, and what to do about it
    pyvxlan bench --quick      how fast overlays are on this host
    pyvxlan lab up FILE        hosts and overlays on this machine, to learn and to try

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such node runs.
    """


for _command in (
    up.up,
    up.down,
    up.reload,
    show.show,
    monitor.monitor,
    explain.explain,
    capture.capture,
    replay.replay,
    fdb.fdb,
    remote.remote,
    station.station,
    ping.ping,
    fault.fault,
    docker.docker,
    doctor.doctor,
    bench.bench,
    lab_group.lab,
):
    cli.add_command(_command)


def main() -> None:
    """The entry point of `pyvxlan`; never returns."""
    cli.main(prog_name="pyvxlan")
