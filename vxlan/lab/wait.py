"""Wait for a condition instead of sleeping, and say what did not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class LabError(Exception):
    """A lab could not be built or a step of it failed; the text is one line with a remedy."""


class LabTimeout(LabError):
    """Something that was waited for did not happen in time."""


def wait_until(
    condition: Callable[[], T | None], timeout: float, what: str, interval: float = 0.02
) -> T:
    """Call `condition` until it answers something true, and return that.

    Raises LabTimeout with `what` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() >= deadline:
            raise LabTimeout(f"{what}: did not happen within {timeout:g} s")
        time.sleep(interval)
    return answer
