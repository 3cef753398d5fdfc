"""Where results are written: tables on a terminal, plain lines elsewhere, JSON if asked.

A `Page` is what a person reads: headings, labelled facts, tables.  It has two
renderings.  `PlainPage` is for pipes, files and dumb terminals: no colour, no
lines drawn, nothing wrapped, so that grep and awk work.  `RichPage` is for a
terminal; it leaves colour out under NO_COLOR.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import click

from vxlan.cli.options import verbosity

if TYPE_CHECKING:
    from rich.console import Console

Tone = Literal["plain", "good", "warn", "bad", "faint"]

_STYLE: dict[Tone, str] = {
    "plain": "",
    "good": "green",
    "warn": "yellow",
    "bad": "red",
    "faint": "dim",
}


class Column(NamedTuple):
    """A column of a table; `fixed` ones are never wrapped or cut."""

    title: str
    right: bool = False
    fixed: bool = True


class Cell(NamedTuple):
    """Text with a tone, for words such as `up` and `down`."""

    text: str
    tone: Tone = "plain"


Row = Sequence[str | Cell]


class Page(Protocol):
    """What a command writes for a person."""

    def heading(self, text: str) -> None:
        """A line that begins a part."""

    def fact(self, label: str, value: str, tone: Tone = "plain") -> None:
        """One labelled line."""

    def table(self, columns: Sequence[Column], rows: Iterable[Row]) -> None:
        """Columns with titles."""

    def gap(self) -> None:
        """An empty line between parts."""


class PlainPage:
    """Lines for programs and dumb terminals."""

    def heading(self, text: str) -> None:
        click.echo(text)

    def fact(self, label: str, value: str, tone: Tone = "plain") -> None:
        click.echo(f"  {label:<9} {value}")

    def table(self, columns: Sequence[Column], rows: Iterable[Row]) -> None:
        lines = [[column.title for column in columns]]
        lines += [[_text(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = zip(line, widths, columns, strict=True)
            padded = (text.rjust(w) if c.right else text.ljust(w) for text, w, c in cells)
            click.echo("  " + "  ".join(padded).rstrip())

    def gap(self) -> None:
        click.echo()


class RichPage:
    """The same for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def heading(self, text: str) -> None:
        self._console.print(text, style="bold", markup=False, highlight=False)

    def fact(self, label: str, value: str, tone: Tone = "plain") -> None:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=11, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(f"  {label}", "dim"), Text(value, _STYLE[tone]))
        self._console.print(grid)

    def table(self, columns: Sequence[Column], rows: Iterable[Row]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 0, 0, 2), header_style="bold")
        table.show_header = any(column.title for column in columns)
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=column.fixed,
                overflow="fold",
            )
        for row in rows:
            cells = (cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
            table.add_row(*(Text(cell.text, _STYLE[cell.tone]) for cell in cells))
        self._console.print(table)

    def gap(self) -> None:
        self._console.print()


def on_terminal() -> bool:
    """Whether standard output is a terminal that can show a table."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def page() -> Page:
    """The rendering that suits standard output."""
    if not on_terminal():
        return PlainPage()
    from rich.console import Console

    return RichPage(Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False))


def emit_json(value: Any) -> None:
    """Write the value that the API gave."""
    click.echo(json.dumps(value, indent=2))


def emit_json_line(value: Any) -> None:
    """Write one value of a stream, at once."""
    click.echo(json.dumps(value, separators=(",", ":")))
    sys.stdout.flush()


def note(text: str) -> None:
    """A message for the person, not data: standard error, silent under -q."""
    if verbosity() >= 0:
        click.echo(text, err=True)


def _text(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


def size(octets: int) -> str:
    """1536 -> "1.5 KiB"."""
    amount, units = float(octets), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{octets} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def span(seconds: float) -> str:
    """4000 -> "1h06m": the two largest units."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"
