"""Whether a container's network namespace is still there, by the file that Docker keeps of it.

Docker mounts the namespace on a file, the sandbox key, before it asks us to join it, and
unmounts it when the container is gone; a plain file may stay behind for a while.  So what
was seen as a namespace once, and is none now, is lost.  Where Docker's mounts
are out of sight nothing is concluded.
"""

from __future__ import annotations

import os
from pathlib import Path

UNKNOWN = "unknown"
"""In the place of a path that shows no namespace."""


def known(path: str) -> str:
    """The path itself, if a namespace can be seen there; else UNKNOWN."""
    try:
        return path if _is_namespace(path) else UNKNOWN
    except OSError:
        return UNKNOWN


def gone(path: str) -> bool:
    """Whether there is no namespace any more.  False also where nobody can say."""
    if not path.startswith("/") or not Path(path).parent.is_dir():
        return False
    try:
        return not _is_namespace(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _is_namespace(path: str) -> bool:
    """Whether the file is of the file system that all namespaces are of (nsfs)."""
    return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
