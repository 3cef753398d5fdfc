"""What outlives a node: small JSON files, written whole or not at all.

Theory of operation
===================

A file is written beside its place, flushed to the disk and then renamed, so whoever
reads it finds the old content or the new, also after a crash or a power failure in
between.  It belongs to its owner alone.

A file that cannot be understood is an error that names it.  It is never overwritten:
what is in it may be all that knows about running containers.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

DEFAULT_DIR = "/var/lib/pyvxlan"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StateError(Exception):
    """The state can be neither read nor written; one line with the remedy."""


def state_dir() -> Path:
    """Where state is kept: $PYVXLAN_STATE_DIR, else $STATE_DIRECTORY (systemd), else /var/lib."""
    chosen = os.environ.get("PYVXLAN_STATE_DIR") or os.environ.get("STATE_DIRECTORY")
    return Path(chosen.split(":")[0]) if chosen else Path(DEFAULT_DIR)


def boot_id() -> str:
    """Another one after each boot: what was plugged in before is gone then."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def load(path: Path) -> Any:
    """What was saved; None if nothing was.  Raises StateError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"state {path}: cannot be read ({error}): mend or remove it") from None


def save(path: Path, value: Any) -> None:
    """Replace the content, atomically.  Blocks for the disk.  Raises StateError."""
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(beside, json.dumps(value, indent=1).encode())
        os.replace(beside, path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StateError(
            f"state {path}: cannot be written ({error.strerror}): "
            "make room, or set PYVXLAN_STATE_DIR to a folder of the node's own"
        ) from None


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)


def _flush_folder(folder: Path) -> None:
    """Only then the new name is on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
