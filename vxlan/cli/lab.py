"""`pyvxlan lab ...`: labs on one machine, made of network namespaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vxlan.cli import lab_words, output
from vxlan.cli.errors import USAGE, Failure
from vxlan.cli.options import json_option

if TYPE_CHECKING:
    from vxlan.lab.plan import Plan
    from vxlan.lab.running import RunningLab

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def lab() -> None:
    """Labs: hosts, containers and overlays on this machine, in network namespaces.

    \b
    pyvxlan lab lessons                  what can be learnt
    pyvxlan lab up 01                    make the lab of a lesson, and leave it running
    pyvxlan lab up pair.toml             make one of your own
    pyvxlan lab enter a                  a shell on host a
    pyvxlan lab exec c1 -- ping 10.42.0.12
    pyvxlan lab pingall                  who reaches whom
    pyvxlan lab check 01                 whether the lesson's task is done
    pyvxlan lab view                     its packets in the browser, hop by hop
    pyvxlan lab down
    """


def complete_lab(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """The labs that are up, for completion."""
    from vxlan.lab import store

    return [name for name in store.names() if name.startswith(begun)]


def complete_place(ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """The hosts, containers and routers of the lab that begin so."""
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
        shell_complete=complete_lab,
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
        return manage.choose(lab_of(name) if name else None)


# -- up and down ---------------------------------------------------------------------------


@lab.command()
@click.argument("what", metavar="FILE|NN")
@click.option("--name", metavar="NAME", help="Name of the lab.  [FILE's, or the lesson's]")
def up(what: str, name: str | None) -> None:
    """Make the lab of a topology FILE or of lesson NN, and leave it running.

    A lab that is up already stays as it is; nodes that have ended are started again.
    """
    from vxlan.lab import lesson, manage

    with failures():
        if lesson.is_word(what):
            came = manage.up_lesson(lesson.find(what), name)
        else:
            came = manage.up(Path(what), name)
    for note in came.lab.state["notes"]:
        output.note(f"note: {note}")
    words = "is up" if came.made else "is up already"
    if came.restarted:
        words += f"; started again: the node of {', '.join(came.restarted)}"
    output.note(f"lab {came.lab.name} {words}: {lab_words.summary(came.lab)}")


@lab.command()
@click.argument("name", required=False, shell_complete=complete_lab)
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
        names = [lab_of(name)] if name else store.names()
        if len(names) > 1 and not everything:
            raise Failure(f"several labs are up ({', '.join(names)}): name one, or --all", USAGE)
        for one in names:
            there = manage.down(one)
            output.note(f"lab {one} is removed" if there else f"no lab named {one} is up")
    if not names:
        output.note("no lab is up")


def lab_of(word: str) -> str:
    """A lab by its name, or by the number of its lesson."""
    from vxlan.lab import lesson, store

    if lesson.is_word(word) and word not in store.names():
        return lesson.find(word).name
    return word


# -- looking at it -------------------------------------------------------------------------


@lab.command()
@click.argument("name", required=False, shell_complete=complete_lab)
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Show the labs that are up: hosts, containers, nodes, namespaces."""
    from vxlan.lab import manage, store
    from vxlan.lab.running import RunningLab

    with failures():
        manage.need_root()
        labs = [RunningLab.load(one) for one in ([lab_of(name)] if name else store.names())]
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
@click.argument("what", metavar="[FILE|NN]", required=False)
@lab_option
@click.option(
    "--format", "form", type=click.Choice(["text", "mermaid", "svg"]), default="text",
    show_default=True, help="A tree, a Mermaid flowchart, or a picture.",
)  # fmt: skip
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), help="Write it to a file.")
def graph(what: str | None, lab_name: str | None, form: str, to: Path | None) -> None:
    """Draw the lab that is up, or that of a topology FILE or of lesson NN (needs no root)."""
    from vxlan.lab import graph as graphs
    from vxlan.lab.svg import svg

    plan = _plan(what, lab_name)
    drawn = {"text": graphs.text, "mermaid": graphs.mermaid, "svg": svg}[form](plan)
    if to is None:
        click.echo(drawn, nl=False)
        return
    try:
        to.write_text(drawn)
    except OSError as error:
        raise Failure(f"{to}: {error.strerror}") from error


def _plan(what: str | None, lab_name: str | None) -> Plan:
    from vxlan.lab import lesson, plan

    if what and lab_name:
        raise click.UsageError("FILE and --lab exclude each other")
    with failures():
        if what is None:
            return plan.load(chosen(lab_name).topology_path)
        return plan.load(lesson.find(what).topology if lesson.is_word(what) else Path(what))
