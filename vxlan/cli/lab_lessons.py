"""`pyvxlan lab lessons`, `lesson`, `check`: what can be learnt, its text, and whether it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vxlan.cli import lab as labs
from vxlan.cli import output
from vxlan.cli.errors import FAILED, Failure
from vxlan.cli.options import json_option
from vxlan.cli.output import Column, Row

if TYPE_CHECKING:
    from vxlan.lab.lesson import Lesson, Verdict
    from vxlan.lab.running import RunningLab


@click.command()
def lessons() -> None:
    """List the lessons, and where their texts are."""
    from vxlan.lab import lesson

    columns = [Column("lesson"), Column("title"), Column("text", fixed=False)]
    rows: list[Row] = [
        (one.number, one.title.partition(" · ")[2], str(one.folder.resolve() / "README.md"))
        for one in lesson.lessons()
    ]
    output.page().table(columns, rows)
    output.note("begin: `pyvxlan lab lesson 01`, then `pyvxlan lab up 01`")


@click.command("lesson")
@click.argument("number", metavar="NN")
@click.option("--solution", is_flag=True, help="How its fault is found and mended.")
def text(number: str, solution: bool) -> None:
    """Print the text of a lesson."""
    from vxlan.lab import lesson

    with labs.failures():
        found = lesson.find(number)
    click.echo_via_pager(found.solution if solution else found.text)


@click.command()
@click.argument("number", metavar="[NN]", required=False)
@labs.lab_option
@json_option
def check(number: str | None, lab_name: str | None, as_json: bool) -> int:
    """Tell whether the lab of lesson NN is as it should be, or what is still wrong.

    Without NN: the lesson whose lab is up.  Exit status 1 if something is wrong.
    """
    there, lesson = _found(number, lab_name)
    with labs.failures():
        verdicts = lesson.check(there)
    wrong = [verdict for verdict in verdicts if not verdict.holds]
    if as_json:
        output.emit_json(
            {
                "lesson": lesson.name,
                "passed": not wrong,
                "verdicts": [verdict._asdict() for verdict in verdicts],
            }
        )
    else:
        _print(verdicts)
        output.note(_sum_up(lesson, len(verdicts), len(wrong)))
    return FAILED if wrong else 0


def _print(verdicts: list[Verdict]) -> None:
    page = output.page()
    for one in verdicts:
        if one.holds:
            page.fact("ok", one.text, "good")
        else:
            page.fact("wrong", f"{one.text}: not so: {one.seen}", "bad")


def _sum_up(lesson: Lesson, number: int, wrong: int) -> str:
    if not wrong:
        return f"lesson {lesson.number} passed"
    return f"lesson {lesson.number} is not solved yet: {wrong} of {number} do not hold"


def _found(number: str | None, lab_name: str | None) -> tuple[RunningLab, Lesson]:
    """The lab that is meant, and the lesson it belongs to."""
    from vxlan.lab import lesson

    with labs.failures():
        if number is None:
            there = labs.chosen(lab_name)
            if there.lesson is None:
                raise Failure(f"lab {there.name} belongs to no lesson: name one, as `check 01`")
            return there, lesson.find(there.lesson)
        wanted = lesson.find(number)
        there = labs.chosen(lab_name or wanted.name)
        if there.lesson != wanted.name:
            raise Failure(f"lab {there.name} is not that of lesson {wanted.number}")
        return there, wanted
