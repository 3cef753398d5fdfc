"""`pyvxlan lab ...`: labs on one machine, made of network namespaces."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vxlan.cli import lab_words, output
from vxlan.cli.errors import FAILED, USAGE, Failure
from vxlan.cli.options import json_option
from vxlan.cli.output import Cell, Column

if TYPE_CHECKING:
    from vxlan.lab.plan import Plan
    from vxlan.lab.reach import Reach
    from vxlan.lab.running import RunningLab

F = TypeVar("F", bound=Callable[..., Any])

NOT_FOUND = 127
"""The exit status of `exec` where there is no such command, as shells have it."""


@click.group()
def lab() -> None:
    """Labs: hosts, containers and overlays on this machine, in network namespaces.

    \b
    pyvxlan lab up pair.toml             make it, and leave it running
    pyvxlan lab enter a                  a shell on host a
    pyvxlan lab exec c1 -- ping 10.42.0.12
    pyvxlan lab pingall                  who reaches whom
    pyvxlan lab down
    """


def _complete_lab(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    from vxlan.lab import store

    return [name for name in store.names() if name.startswith(begun)]


def complete_place(ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """Hosts, containers and routers of the lab that is meant."""
    from vxlan.lab import LabError, manage

    try:
        there = manage.choose(ctx.params.get("lab_name"))
    except LabError:
        return []
    return [name for name in there.places if name.startswith(begun)]


def lab_option(command: F) -> F:
    """`--lab NAME`, for commands whose arguments are something else."""
    return click.option(
        "-l",
        "--lab",
        "lab_name",
        metavar="NAME",
        shell_complete=_complete_lab,
        help="Which lab, where more than one is up.",
    )(command)


@contextmanager
def failures() -> Iterator[None]:
    """What goes wrong with labs, as one line."""
    from vxlan.config_reading import ConfigError
    from vxlan.lab import LabError
    from vxlan.netns import NetdevError

    try:
        yield
    except (LabError, ConfigError, NetdevError) as error:
        raise Failure(str(error)) from error


def chosen(name: str | None) -> RunningLab:
    """The lab that is meant; a `Failure` where there is none."""
    from vxlan.lab import manage

    with failures():
        return manage.choose(name)


# -- up and down ---------------------------------------------------------------------------


@lab.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Name of the lab.  [FILE's]")
def up(file: Path, name: str | None) -> None:
    """Make the lab of a topology FILE, and leave it running.

    A lab that is up already stays as it is; nodes that have ended are started again.
    """
    from vxlan.lab import manage

    with failures():
        came = manage.up(file, name)
    for note in came.lab.state["notes"]:
        output.note(f"note: {note}")
    words = "is up" if came.made else "is up already"
    if came.restarted:
        words += f"; started again: the node of {', '.join(came.restarted)}"
    output.note(f"lab {came.lab.name} {words}: {lab_words.summary(came.lab)}")


@lab.command()
@click.argument("name", required=False, shell_complete=_complete_lab)
@click.option("--all", "everything", is_flag=True, help="All labs that are up.")
def down(name: str | None, everything: bool) -> None:
    """Remove a lab: its processes, namespaces and files.

    It is no error if there is none.
    """
    from vxlan.lab import manage, store

    if name and everything:
        raise click.UsageError("NAME and --all exclude each other")
    with failures():
        manage.need_root()
        names = [name] if name else store.names()
        if len(names) > 1 and not everything:
            raise Failure(f"several labs are up ({', '.join(names)}): name one, or --all", USAGE)
        for one in names:
            there = manage.down(one)
            output.note(f"lab {one} is removed" if there else f"no lab named {one} is up")
    if not names:
        output.note("no lab is up")


# -- looking at it -------------------------------------------------------------------------


@lab.command()
@click.argument("name", required=False, shell_complete=_complete_lab)
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show the labs that are up: hosts, containers, nodes, namespaces."""
    from vxlan.lab import manage, store
    from vxlan.lab.running import RunningLab

    with failures():
        manage.need_root()
        labs = [RunningLab.load(one) for one in ([name] if name else store.names())]
    if as_json:
        output.emit_json([lab_words.as_json(one) for one in labs])
        return
    if not labs:
        output.note("no lab is up: `pyvxlan lab up FILE`")
    page = output.page()
    for index, one in enumerate(labs):
        if index:
            page.gap()
        lab_words.show(page, one)


@lab.command()
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@lab_option
@click.option(
    "--format", "form", type=click.Choice(["text", "mermaid", "svg"]), default="text",
    show_default=True, help="A tree, a Mermaid flowchart, or a picture.",
)  # fmt: skip
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), help="Write it to a file.")
def graph(file: Path | None, lab_name: str | None, form: str, to: Path | None) -> None:
    """Draw a lab: the one that is up, or that of a topology FILE (needs no root)."""
    from vxlan.lab import graph as graphs
    from vxlan.lab.svg import svg

    plan = _plan(file, lab_name)
    drawn = {"text": graphs.text, "mermaid": graphs.mermaid, "svg": svg}[form](plan)
    if to is None:
        click.echo(drawn, nl=False)
        return
    try:
        to.write_text(drawn)
    except OSError as error:
        raise Failure(f"{to}: {error.strerror}") from error


def _plan(file: Path | None, lab_name: str | None) -> Plan:
    from vxlan.lab import plan

    if file and lab_name:
        raise click.UsageError("FILE and --lab exclude each other")
    with failures():
        return plan.load(file or chosen(lab_name).topology_path)


@lab.command()
@lab_option
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

    there = chosen(lab_name)
    with failures():
        ways = reach.pingall(there, timeout)
    lost = [way for way in ways if way.rtt is None]
    if as_json:
        output.emit_json([way._asdict() for way in ways])
    else:
        _print_ways(ways)
        output.note(f"{len(ways) - len(lost)} of {len(ways)} reached")
    return FAILED if lost else 0


def _print_ways(ways: list[Reach]) -> None:
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
                "underlay" if way.vni is None else f"VNI {way.vni}",
                Cell("lost", "bad") if way.rtt is None else f"{way.rtt * 1e3:.2f}",
            )
            for way in ways
        ),
    )


# -- being in it ---------------------------------------------------------------------------


@lab.command()
@click.argument("host", shell_complete=complete_place)
@lab_option
def enter(host: str, lab_name: str | None) -> None:
    """Open a shell on a host, container or router of the lab; `exit` leaves it.

    There, `pyvxlan show` and the like mean the node of that host.
    """
    there = chosen(lab_name)
    shell = os.environ.get("SHELL") or "/bin/sh"
    if Path(shell).name == "bash":
        _become(there, host, [shell, "--rcfile", str(_bashrc(there, host))])
    _become(there, host, [shell])


def _bashrc(there: RunningLab, host: str) -> Path:
    """What bash reads first: the user's own, then where we are, in the prompt."""
    path = there.directory / "bashrc"
    path.write_text(
        '[ -r ~/.bashrc ] && . ~/.bashrc\nPS1="[$PYVXLAN_LAB $PYVXLAN_PLACE] \\\\w# "\n'
    )
    return path


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host", shell_complete=complete_place)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
@lab_option
def execute(host: str, command: tuple[str, ...], lab_name: str | None) -> None:
    """Run a command on a host, container or router; its exit status is ours."""
    _become(chosen(lab_name), host, list(command))


def _become(there: RunningLab, host: str, command: list[str]) -> None:
    """Run a command in the place of this process; does not return."""
    from vxlan import netns

    with failures():
        place = there.place(host)
        environ = there.environment(host)
        with netns.inside(place.name):
            try:
                sys.stdout.flush()
                os.execvpe(command[0], command, environ)
            except OSError as error:
                raise Failure(f"{command[0]}: {error.strerror}", NOT_FOUND) from error
