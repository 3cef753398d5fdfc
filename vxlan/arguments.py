"""The arguments of one request to a node: checked one by one, refused with a code.

All of it raises ApiError "usage".  A check takes the value and returns it in canonical
form, or raises ValueError (vxlan/config_values.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from vxlan.api import ApiError

T = TypeVar("T")
Args = dict[str, Any]


def checked(args: Args, key: str, check: Callable[[object], T]) -> T:
    """The value of an argument that has to be there."""
    if key not in args:
        raise ApiError(f"{key} is missing: the request needs it", "usage")
    try:
        return check(args[key])
    except ValueError as error:
        raise ApiError(f"{key}: {error}", "usage") from None


def optional(args: Args, key: str, default: T, check: Callable[[object], T]) -> T:
    """The value of an argument that may be missing."""
    return checked(args, key, check) if args.get(key) is not None else default


def only(args: Args, *known: str) -> None:
    """Refuse arguments that nobody reads; null counts as not given."""
    for key in [key for key, value in args.items() if value is None]:
        del args[key]
    unknown = [key for key in args if key not in known]
    if unknown:
        takes = ", ".join(known) or "none"
        raise ApiError(f"no such argument: {unknown[0]} (this takes {takes})", "usage")
