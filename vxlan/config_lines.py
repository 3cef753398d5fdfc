"""Where in a TOML file a key is written, for messages.

tomllib tells the place of a syntax error but not of a value.  This scan is no parser:
it knows table headers and `key =` at the beginning of a line, which is how people
write these files.  Whatever it does not recognise is reported at the line of the
nearest enclosing thing that it does.
"""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]
"""("segment", 0, "vni") is the `vni` of the first [[segment]]."""

_ARRAY = re.compile(r"\s*\[\[\s*([^]]+?)\s*\]\]")
_TABLE = re.compile(r"\s*\[\s*([^]]+?)\s*\]")
_KEY = re.compile(r"""\s*["']?([A-Za-z0-9_-]+)["']?\s*=""")


class Wrong(Exception):
    """A value is wrong: the path of its key, and the words for it."""

    def __init__(self, path: KeyPath, words: str) -> None:
        super().__init__(words)
        self.path = path


def line_of(text: str, path: KeyPath) -> int:
    """The line (from 1) where `path` is written, or what encloses it; 1 if nothing does."""
    places = _places(text)
    while path and path not in places:
        path = path[:-1]
    return places.get(path, 1)


def show(path: KeyPath) -> str:
    """segment[0].vni"""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}"
    return shown.removeprefix(".")


def _places(text: str) -> dict[KeyPath, int]:
    places: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if found := _ARRAY.match(line):
            table = _enter(found[1], counts, array=True)
        elif found := _TABLE.match(line):
            table = _enter(found[1], counts, array=False)
        elif found := _KEY.match(line):
            places.setdefault((*table, found[1]), number)
            continue
        else:
            continue
        places.setdefault(table, number)
    return places


def _enter(header: str, counts: dict[KeyPath, int], *, array: bool) -> KeyPath:
    """The path of the table that a header opens; `counts` holds how many of each array."""
    path: KeyPath = ()
    names = [name.strip(" \"'") for name in header.split(".")]
    for depth, name in enumerate(names):
        path = (*path, name)
        if array and depth == len(names) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path
