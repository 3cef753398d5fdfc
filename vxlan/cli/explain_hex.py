"""Octets drawn with their names, four to a row, as RFCs draw them.

           +---------------+---------------+-------------------------------+
        0  | version, IHL  | tos           | total length                  |
           | 45            | 00            | 00 86                         |
           +---------------+---------------+-------------------------------+

A field that does not end with its row goes on in the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import click

from vxlan.cli.explain_text import start

ROW = 4
"""Octets in a row."""

_WIDTH = 16
"""Characters for an octet, one border included."""

_PAYLOAD = 64
"""Octets of the payload that are drawn."""


_SHORT = {"version, length": "version, IHL"}
"""Names that do not fit their octets."""


class _Cell(NamedTuple):
    """A part of a field that lies in one row."""

    name: str
    raw: bytes

    @property
    def width(self) -> int:
        return len(self.raw) * _WIDTH - 1


def show(answer: dict[str, Any]) -> None:
    """The outer headers, where there are any, and then the frame."""
    for line in lines(answer):
        click.echo(line)


def lines(answer: dict[str, Any]) -> Iterator[str]:
    """All of it as text."""
    from vxlan.lab.dissect import Header, dissect

    outer, inner = answer["outer"]["hex"], bytes.fromhex(answer["inner"]["hex"])
    found: list[Header] = []
    if outer:
        found += dissect(bytes.fromhex(outer), *start(answer))
    if inner:
        found += dissect(inner, depth=1)
    at = 0
    for header in found:
        where = "inner " if header.depth else "outer " if header.name != "VXLAN" else ""
        yield ""
        yield f"{where}{header.name}, {header.length} bytes"
        yield from _drawn(at, ((_SHORT.get(one.name, one.name), one.raw) for one in header.fields))
        at += header.length


def _drawn(at: int, fields: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    before: list[_Cell] = []
    for row in _rows(fields):
        yield f"       {_border(before, row)}"
        yield f"{at:5}  |{'|'.join(_text(cell.name, cell.width) for cell in row)}|"
        yield f"       |{'|'.join(_text(cell.raw.hex(' '), cell.width) for cell in row)}|"
        at += sum(len(cell.raw) for cell in row)
        before = row
    yield f"       {_border(before, [])}"


def _rows(fields: Iterable[tuple[str, bytes]]) -> Iterator[list[_Cell]]:
    row: list[_Cell] = []
    left = ROW
    for name, octets in fields:
        raw = octets[:_PAYLOAD] if name == "data" else octets
        while raw:
            row.append(_Cell(name, raw[:left]))
            raw, left = raw[left:], left - len(row[-1].raw)
            name = "..."
            if not left:
                yield row
                row, left = [], ROW
    if row:
        yield row


def _text(text: str, width: int) -> str:
    return f" {text[: width - 2]:<{width - 1}}"


def _border(above: list[_Cell], below: list[_Cell]) -> str:
    """A line with a corner wherever a cell above or below ends."""
    line = ["-"] * (1 + max(sum(len(cell.raw) for cell in row) for row in (above, below)) * _WIDTH)
    for row in (above, below):
        at = 0
        line[0] = "+"
        for cell in row:
            at += len(cell.raw) * _WIDTH
            line[at] = "+"
    return "".join(line)
