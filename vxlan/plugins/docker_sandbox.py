"""Whether a container's network namespace is there, by the file that Docker keeps of it.

Docker mounts the namespace on a file, the sandbox key, some time after it asked us to join it.
It unmounts it when the container is gone; a plain file may stay behind for a while.  So
what was a namespace once, and is none now, is lost.  What was never seen as one may be
starting, or Docker's mounts are out of sight: nothing is concluded then.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_there(path: str) -> bool | None:
    """Whether there is a namespace; None: nobody can say, its folder is out of sight."""
    if not path.startswith("/") or not Path(path).parent.is_dir():
        return None
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev  # both of nsfs
    except FileNotFoundError:
        return False
    except OSError:
        return None
