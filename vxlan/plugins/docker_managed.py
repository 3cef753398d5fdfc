"""The plugin as Docker itself runs it: `docker plugin enable pyvxlan`.

Docker starts one process in a container of its own, without systemd.  So this one takes
care of the node as well: it starts it when the host's address is known, with a parent that
starts it again when it is killed (vxlan/holder.py), and both whenever they end.  What the
plugin is told comes by `docker plugin set`:

    LOCAL     the underlay address; otherwise the host's in its swarm
    DSTPORT   the UDP port, the same on every host
    ENGINE    auto, python or fastpath

The namespace with the devices outlives this process, because Docker shows /run/netns to the
host (`propagatedMount`).
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from vxlan import config
from vxlan.plugins import docker_engine
from vxlan.plugins.docker_node import DEFAULT

PAUSE = 1.0
"""Seconds until a node that has ended is started again."""

STOP_TIMEOUT = 10.0

log = logging.getLogger(__name__)


class Carrier:
    """The node, as a child of this process.  `start`, then `stop`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._local = environ.get("LOCAL", "")
        self._dstport = environ.get("DSTPORT") or "4789"
        self._engine = environ.get("ENGINE") or "auto"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to have a node run."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        if self._child is not None:
            self._child.terminate()
        self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        said = ""
        while not self._ended.is_set():
            try:
                address = self._local or docker_engine.own_address()
                if address is not None:
                    self._run_once(self._write(address))
            except OSError as error:  # a full disk, no more processes: it passes
                if str(error) != said:
                    log.error("the node cannot be started: %s: it is tried again", error)
                said = str(error)
            self._ended.wait(PAUSE)

    def _run_once(self, path: Path) -> None:
        command = [sys.executable, "-m", "vxlan", "up", "--restart", str(path)]
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if self._ended.is_set():
            self._child.terminate()
        status = self._child.wait()
        if not self._ended.is_set():
            log.error("the node ended with status %d: it is started again", status)

    def _write(self, address: str) -> Path:
        """Where the plugin looks, too, when it has to say why no node runs."""
        path = config.find(DEFAULT)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            "[vtep]",
            f'local = "{address}"',
            f"dstport = {self._dstport}",
            f'engine = "{self._engine}"',
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path
