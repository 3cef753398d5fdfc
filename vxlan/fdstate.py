"""A value that outlives the process: JSON in memory that only a descriptor holds.

Theory of operation
===================

The memory (memfd_create(2)) lies in the descriptor store, and is rewritten in place:

    pyvxlan 1 LENGTH SHA256\n     of what follows
    {"restarts": 2, ...}

A process can be killed in the midst of writing.  Then the digest does not fit, and the
next one begins with nothing; it is never handed half a value.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from typing import Any

MAX_SIZE = 4 << 20
"""Bytes of the longest value."""

_HEAD = "pyvxlan 1"
_HEAD_SIZE = 128


class StateTorn(Exception):
    """What the memory holds cannot be used; the text says why."""


def make() -> int:
    """A descriptor of new, empty memory.  Raises OSError."""
    return os.memfd_create("pyvxlan-state", os.MFD_CLOEXEC)


def write(fd: int, value: Any) -> bool:
    """Replace the value; False where it is too long, and then none is there.  Raises OSError."""
    body = json.dumps(value, separators=(",", ":")).encode()
    fits = len(body) <= MAX_SIZE
    content = _head(body) + body if fits else b""
    written = 0
    while written < len(content):
        written += os.pwrite(fd, content[written:], written)
    os.ftruncate(fd, len(content))
    return fits


def read(fd: int) -> dict[str, Any]:
    """The value that was written last; an object.  Raises StateTorn."""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIZE + _HEAD_SIZE:
            raise StateTorn("it is no state of a node")
        content = os.pread(fd, status.st_size, 0)
    except OSError as error:
        raise StateTorn(f"it cannot be read ({error.strerror})") from None
    head, _, body = content.partition(b"\n")
    if head + b"\n" != _head(body):
        raise StateTorn("it was not written to its end, or by another version")
    with suppress(ValueError):
        value = json.loads(body)
        if isinstance(value, dict):
            return value
    raise StateTorn("it is no object")


def _head(body: bytes) -> bytes:
    return f"{_HEAD} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()
