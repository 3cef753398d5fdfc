"""`python -m vxlan.lab.view`: the example lab and its page, until interrupted."""

from __future__ import annotations

import signal
import sys

from vxlan.lab.topology import Lab
from vxlan.lab.view import PORT, example, show


def main() -> None:
    """Show the example until SIGINT or SIGTERM."""
    with Lab("class", wire=True) as lab:
        example.furnish(lab)
        with show(lab, int(sys.argv[1]) if len(sys.argv) > 1 else PORT) as server:
            print(server.url, flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
