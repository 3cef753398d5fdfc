"""`pyvxlan lab ping`, `pingall`, `enter`, `exec`: from one place of a lab to another, and in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vxlan.cli import lab as labs
from vxlan.cli import output
from vxlan.cli.errors import FAILED, Failure
from vxlan.cli.options import json_option
from vxlan.cli.output import Cell, Column

if TYPE_CHECKING:
    from vxlan.lab.reach import Reach
    from vxlan.lab.running import RunningLab

NOT_FOUND = 127
"""The exit status of `exec` where there is no such command, as shells have it."""


@click.command()
@labs.lab_option
@click.option(
    "--timeout", type=click.FloatRange(0.1, 60), default=1.0, show_default=True,
    metavar="S", help="Seconds to wait for each answer, over three requests.",
)  # fmt: skip
@json_option
def pingall(lab_name: str | None, timeout: float, as_json: bool) -> int:
    """Ping from everybody to everybody who should be reached.

    Hosts ping hosts in the underlay, containers the containers of their VNI.
    Exit status 1 if somebody is not reached.
    """
    from vxlan.lab import reach

    there = labs.chosen(lab_name)
    with labs.failures():
        ways = reach.pingall(there, timeout)
    lost = [way for way in ways if way.rtt is None]
    if as_json:
        output.emit_json([way._asdict() for way in ways])
    else:
        _print_ways(there, ways)
        output.note(f"{len(ways) - len(lost)} of {len(ways)} reached")
    return FAILED if lost else 0


def _print_ways(there: RunningLab, ways: list[Reach]) -> None:
    columns = [
        Column("from"), Column("to"), Column("address"), Column("through"),
        Column("RTT ms", right=True),
    ]  # fmt: skip
    output.page().table(
        columns,
        (
            (
                way.source,
                way.target,
                way.address,
                _through(there, way),
                Cell("lost", "bad") if way.rtt is None else f"{way.rtt * 1e3:.2f}",
            )
            for way in ways
        ),
    )


@click.command()
@click.argument("source", metavar="FROM", shell_complete=labs.complete_place)
@click.argument("target", metavar="TO", shell_complete=labs.complete_place)
@labs.lab_option
@click.option("-c", "--count", type=click.IntRange(1, 10_000), default=3, show_default=True,
              metavar="N", help="Requests.")  # fmt: skip
@click.option("--size", type=click.IntRange(0, 65_000), default=56, show_default=True,
              metavar="BYTES", help="Data in each; a packet has 28 more (IPv6: 48).")  # fmt: skip
def ping(source: str, target: str, lab_name: str | None, count: int, size: int) -> int:
    """Ping from one place to another, a name or an address; needs no tool installed.

    Exit status 1 if nothing comes back.
    """
    from vxlan.lab import ping as echo
    from vxlan.lab.topology import Station

    there = labs.chosen(lab_name)
    with labs.failures():
        to = there.places.get(target)
        address = to.address if isinstance(to, Station) else _address(there, target)
        seen = echo(there.place(source), address, count, interval=0.2, timeout=1.0, size=size)
    for number, rtt in enumerate(seen.rtts):
        click.echo(f"seq={number} {'lost' if rtt is None else f'time={rtt * 1e3:.2f} ms'}")
    output.note(f"{seen.received} of {seen.sent} answered by {address}")
    return 0 if seen.received else FAILED


def _address(there: RunningLab, word: str) -> str:
    from vxlan.config_values import station_address

    try:
        return station_address(word)
    except ValueError:
        there.place(word)  # raises with what is known, unless it is the switch
        raise Failure(f"{word} has no address") from None


def _through(there: RunningLab, way: Reach) -> str:
    if way.vni is not None:
        return f"VNI {way.vni}"
    return "underlay" if way.source in there.hosts else "bridge"


# -- being in it ---------------------------------------------------------------------------


@click.command()
@click.argument("host", shell_complete=labs.complete_place)
@labs.lab_option
def enter(host: str, lab_name: str | None) -> None:
    """Open a shell on a host, container or router of the lab; `exit` leaves it.

    There, `pyvxlan show` and the like mean the node of that host, and its configuration
    is at hand.
    """
    there = labs.chosen(lab_name)
    shell = os.environ.get("SHELL") or "/bin/sh"
    options = ["--rcfile", str(_bashrc(there))] if Path(shell).name == "bash" else []
    home = there.directory / host
    _become(there, host, [shell, *options], home if home.is_dir() else None)


def _bashrc(there: RunningLab) -> Path:
    """What bash reads first: the user's own, then where we are, in the prompt."""
    path = there.directory / "bashrc"
    path.write_text('[ -r ~/.bashrc ] && . ~/.bashrc\nPS1="[$PYVXLAN_LAB $PYVXLAN_PLACE] \\w# "\n')
    return path


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host", shell_complete=labs.complete_place)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
@labs.lab_option
def execute(host: str, command: tuple[str, ...], lab_name: str | None) -> None:
    """Run a command on a host, container or router; its exit status is ours."""
    _become(labs.chosen(lab_name), host, list(command))


def _become(there: RunningLab, host: str, command: list[str], home: Path | None = None) -> None:
    """Run a command in the place of this process, in the folder `home`; does not return."""
    from vxlan import netns

    with labs.failures():
        place = there.place(host)
        environ = there.environment(host)
        with netns.inside(place.name):
            try:
                if home:
                    os.chdir(home)
                sys.stdout.flush()
                os.execvpe(command[0], command, environ)
            except OSError as error:
                raise Failure(f"{command[0]}: {error.strerror}", NOT_FOUND) from error
