"""Unix sockets of ours: nobody else's from the first moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def private() -> Iterator[None]:
    """What is bound meanwhile has mode 0600.  The mask is that of all threads: be quick."""
    umask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(umask)
