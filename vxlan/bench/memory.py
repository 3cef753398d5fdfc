"""Figures of the in-memory suites (bench/), read from the JSON that `make bench` saves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Nanoseconds for each packet: minimum and median over the rounds."""

    job: str
    by: str
    size: int
    entries: int
    least: float
    median: float


def load(path: Path) -> list[Cost]:
    """The costs in a file.  Raises OSError, or ValueError if it is another kind of file."""
    try:
        found = json.loads(path.read_text())
        return [_cost(one) for one in found["benchmarks"]]
    except KeyError as error:
        raise ValueError(f"{path}: not saved by `make bench`: no {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not saved by `make bench`: {error}") from error


def _cost(one: dict[str, Any]) -> Cost:
    params = one["params"] or {}
    return Cost(
        job=one["name"].partition("[")[0].removeprefix("test_").removesuffix("_by_hand"),
        by=_by(params),
        size=int(params.get("size", 0)),
        entries=int(params.get("entries", 0)),
        least=_nanoseconds(one["ns_per_packet"]["min"]),
        median=_nanoseconds(one["ns_per_packet"]["median"]),
    )


def _nanoseconds(value: Any) -> float:
    found = float(value)
    if not 0 < found < math.inf:
        raise ValueError(f"{value} ns is no cost")
    return found


def _by(params: Mapping[str, Any]) -> str:
    """Who did the job: the parameter has a name in each suite."""
    named = (params.get(word) for word in ("by", "engine_name", "table"))
    return next((str(name) for name in named if name), "python")
