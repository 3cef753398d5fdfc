"""Asking the two ends of a test: an `Agent` for each, here or on another host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from vxlan.bench.generator import LoadError
from vxlan.lab.namespace import Namespace

STOP_TIMEOUT = 5.0


class Agent:
    """One end: takes requests and gives replies, a line each (vxlan/bench/agent.py)."""

    def __init__(self, requests: IO[str], replies: IO[str]) -> None:
        self._requests, self._replies = requests, replies

    def ask(self, op: str, **arguments: Any) -> None:
        """Send one request; its replies are read by `reply` and `result`."""
        self._requests.write(json.dumps({"op": op, "arguments": arguments}) + "\n")
        self._requests.flush()

    def reply(self) -> dict[str, Any]:
        """The next reply.  Raises LoadError if it is an error, or the agent has ended."""
        line = self._replies.readline()
        if not line:
            raise LoadError("the process at the other end has ended")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise LoadError(found["error"])
        return found

    def result(self) -> dict[str, Any]:
        """The last reply to a request."""
        while not (found := self.reply())["last"]:
            pass
        return found


class LocalAgent(Agent):
    """An agent as a process in a namespace; None: in that of the caller."""

    def __init__(self, namespace: Namespace | None) -> None:
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        start = namespace.popen if namespace else subprocess.Popen
        self._process = start(
            [sys.executable, "-P", "-m", "vxlan.bench.agent"],  # not from whatever folder we are in
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for whoever drives the run
            env={**os.environ, "PYTHONPATH": path},
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        super().__init__(TextIOWrapper(self._process.stdin), TextIOWrapper(self._process.stdout))

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._requests, self._replies):
            with suppress(OSError):
                pipe.close()
