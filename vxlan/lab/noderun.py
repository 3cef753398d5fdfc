"""A pyvxlan node as a real process in a host's namespace.

Theory of operation
===================

The node runs as a user would run it, `python -m vxlan up FILE`, inside the
namespace of its host.  Sockets of the file system know no network namespace, so
this process talks to the node's control socket directly, through `vxlan.api`.

Nothing here finds a process by pattern: a node is ended by the pid that started
it.  It runs in a session of its own, so Ctrl-C in a terminal reaches the lab
and not the node, and the lab ends the node in good order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vxlan import api
from vxlan.lab.wait import LabError, LabTimeout, wait_until

if TYPE_CHECKING:
    from vxlan.lab.namespace import Namespace

START_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0


def config_text(vtep: Mapping[str, object], segments: Sequence[Mapping[str, object]]) -> str:
    """A node's configuration file; keys and values as in the TOML of the design."""
    tables = [("[vtep]", vtep), *(("[[segment]]", segment) for segment in segments)]
    return "\n".join(
        "\n".join([title, *(f"{key} = {_toml(value)}" for key, value in table.items()), ""])
        for title, table in tables
    )


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return json.dumps(value)  # strings, integers, floats and booleans look the same in TOML


def environment(runtime: Path | None = None) -> dict[str, str]:
    """Ours, so that a node finds the very package that runs this lab.

    `runtime` is where control sockets are, unless they are where ours are.
    """
    here = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    found = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here}
    return found if runtime is None else {**found, "PYVXLAN_RUNTIME_DIR": str(runtime)}


class NodeCalls:
    """What can be asked of a node; `target` is its name, or the path of its control socket."""

    target: str

    def call(self, op: str, **arguments: Any) -> Any:
        """One request to the control socket.  Raises api.ApiError."""
        return api.call(self.target, op, **arguments)

    def show(self) -> dict[str, Any]:
        """What `pyvxlan show --json` prints."""
        answer: dict[str, Any] = self.call("show")
        return answer

    def segment(self, vni: int) -> dict[str, Any]:
        """The part of `show` about one VNI."""
        segments: list[dict[str, Any]] = self.show()["segments"]
        return next(segment for segment in segments if segment["vni"] == vni)

    def inject(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Add faults, each a table as in vxlan/config_fault.py.  Raises api.ApiError."""
        for one in faults:
            self.call("fault.add", **one)

    def fdb(self, vni: int) -> dict[str, dict[str, Any]]:
        """The forwarding entries of a VNI by MAC, without the flood list."""
        entries: list[dict[str, Any]] = self.call("fdb.show", vni=vni)
        return {entry["mac"]: entry for entry in entries if entry["mac"] != "00:00:00:00:00:00"}


class Node(NodeCalls):
    """One node process; made by `Host.up`.

    `flags` follow `python -m vxlan up`; without any, it reads `config_path`, which
    `configure` writes.  `log_path` receives what it prints.  With `own_runtime` its
    control socket is in `directory` too, apart from those of other nodes.
    """

    def __init__(
        self,
        namespace: Namespace,
        name: str,
        flags: Sequence[str],
        directory: Path,
        *,
        own_runtime: bool = False,
    ) -> None:
        self.name = name
        self._runtime = directory if own_runtime else None
        self.target = str(directory / f"{name}.sock") if own_runtime else name
        self.config_path = directory / f"{name}.toml"
        self.log_path = directory / f"{name}.log"
        self._namespace = namespace
        self._flags = tuple(flags)
        self._process: subprocess.Popen[bytes] | None = None

    # -- its life ------------------------------------------------------------------

    def start(self) -> None:
        """Start the process; `wait_ready` waits until it answers."""
        what = self._flags or (str(self.config_path),)
        command = [sys.executable, "-P", "-m", "vxlan", "up", *what, "--name", self.name]
        with self.log_path.open("ab") as log:
            self._process = self._namespace.popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment(self._runtime),
            )

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until the control socket answers.  Raises LabError with the log's end."""
        try:
            wait_until(self._answers, timeout, f"node {self.name} to answer", interval=0.05)
        except LabTimeout as error:
            raise LabError(f"{error}; it said: {self._last_words()}") from error

    def _answers(self) -> bool:
        if self.returncode is not None:
            raise LabError(
                f"node {self.name} ended with status {self.returncode}: {self._last_words()}"
            )
        with suppress(api.ApiError, OSError):
            return bool(self.show()["pid"] == self.pid)
        return False

    @property
    def pid(self) -> int:
        """The process, running or ended.  Raises LabError before `start`."""
        if self._process is None:
            raise LabError(f"node {self.name} was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, -N for signal N; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def stop(self, timeout: float = STOP_TIMEOUT) -> int | None:
        """End it with SIGTERM, with SIGKILL if that is not enough; its exit status."""
        if self._process is None or self.returncode is not None:
            return self.returncode
        self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int | None:
        """End it with SIGKILL; it gets no chance to tidy up."""
        if self._process is None:
            return None
        self._process.kill()
        return self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        if self._process is not None:
            self._process.send_signal(number)

    def log(self) -> str:
        """What it printed so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _last_words(self) -> str:
        lines = self.log().strip().splitlines()
        return " / ".join(lines[-4:]) or "nothing"

    def configure(
        self, segments: Sequence[Mapping[str, object]], vtep: Mapping[str, object]
    ) -> None:
        """Write the configuration file; a running node follows at its next reload."""
        self.config_path.write_text(config_text(vtep, segments))
