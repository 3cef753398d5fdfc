"""Reading a TOML file against tables of known keys; every refusal names file, line and key.

Node configurations (vxlan/config.py) and lab topologies (vxlan/lab/plan.py) are read by
this.  What reads a table raises Wrong, with the path of the key; `located` makes it the
one line that people see.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vxlan.config_lines import KeyPath, Wrong, line_of, show

Check = Callable[[object], Any]


class ConfigError(Exception):
    """One line: where, which key, what is wrong, what would be right."""


def text_of(path: Path) -> str:
    """The text of a file.  Raises ConfigError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file: make it, or give the path of another") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


def tables_of(path: Path, content: str) -> dict[str, Any]:
    """The tables of a TOML text.  Raises ConfigError where it is none."""
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


@contextmanager
def located(path: Path, content: str) -> Iterator[None]:
    """Turn Wrong into a ConfigError that begins with the file, the line and the key."""
    try:
        yield
    except Wrong as wrong:
        where = f"{path}:{line_of(content, wrong.path)}: {show(wrong.path)}"
        raise ConfigError(f"{where.removesuffix(': ')}: {wrong}") from None


def array(table: Mapping[str, Any], key: str, path: KeyPath) -> list[Mapping[str, Any]]:
    """The tables of [[key]]; none if the key is missing.  Raises Wrong."""
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        header = show(tuple(part for part in (*path, key) if isinstance(part, str)))
        raise Wrong((*path, key), f"it is not a list of tables: write [[{header}]]")
    return found


def values(table: object, known: Mapping[str, Check | None], path: KeyPath) -> dict[str, Any]:
    """The checked values of `table`; a key whose check is None is left to the caller."""
    if not isinstance(table, dict):
        raise Wrong(path, f"it is not a table: write [{show(path)}]")
    for key in table:
        if key not in known:
            raise Wrong((*path, key), f"no such key: {meant(key, known)}")
    return {
        key: checked(known[key], value, (*path, key))
        for key, value in table.items()
        if known[key] is not None
    }


def meant(word: str, known: Mapping[str, object] | list[str]) -> str:
    """The remedy for a word that is not among those known."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def checked(check: Check | None, value: object, path: KeyPath) -> Any:
    """What `check` makes of a value.  Raises Wrong with its complaint."""
    assert check is not None
    try:
        return check(value)
    except ValueError as error:
        raise Wrong(path, str(error)) from None
