"""Nodes whose descriptors are kept: by `pyvxlan up --restart`, and by a manager played here."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from worlds import Pair

from vxlan import api
from vxlan.lab import Ping, ping, wait_until
from vxlan.lab.noderun import environment

READY = 30.0
MAX = 64
"""Descriptors that the played manager keeps."""


class Keeper:
    """The node of host a, started by somebody who keeps its descriptors."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.node = pair, pair.node
        self.process: subprocess.Popen[bytes] = subprocess.Popen(["true"])
        self.process.wait()

    def up(self, *flags: str) -> list[str]:
        """The command line of the node."""
        path = str(self.node.config_path)
        up = [sys.executable, "-P", "-m", "vxlan", "up", path, "--name", self.node.name]
        return [*up, *flags]

    def pid(self) -> int:
        """Of the node that runs now; 0 if none answers."""
        with suppress(api.ApiError, OSError):
            return int(self.node.show()["pid"])
        return 0

    def wait_for_other(self, than: int) -> int:
        """Wait for a node that is another process than this one; its pid."""

        def another() -> bool:
            assert self.process.poll() is None, self.node.log()[-2000:]
            return self.pid() not in (0, than)

        wait_until(another, READY, "the node to run again")
        return self.pid()

    def kept(self) -> dict[str, object]:
        """What the node says of the store."""
        return dict(self.node.show()["kept"])

    def end(self) -> int:
        """An orderly end; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(READY)


class Holder(Keeper):
    """`pyvxlan up --restart`."""

    def start(self) -> None:
        """Start both, and wait for the node."""
        with self.node.log_path.open("ab") as log:
            self.process = self.pair.a.popen(
                self.up("--restart"), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=environment(),
            )  # fmt: skip
        self.wait_for_other(0)

    def kill(self) -> int:
        """kill -9 of the node; waits for the next one, whose pid it returns."""
        before = self.pid()
        os.kill(before, signal.SIGKILL)
        return self.wait_for_other(before)


class Manager(Keeper, threading.Thread):
    """What sd_notify(3) and sd_listen_fds(3) say of a manager, and no more.

    held  (FDNAME, descriptor) in the order in which they came; a test may change it
    """

    def __init__(self, pair: Pair, folder: Path) -> None:
        threading.Thread.__init__(self, daemon=True, name="manager")
        Keeper.__init__(self, pair)
        self.held: list[tuple[str, int]] = []
        self.told: list[str] = []
        self.limit = MAX
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._over = threading.Event()
        threading.Thread.start(self)

    def run(self) -> None:
        """Take what the node tells."""
        while not self._over.is_set():
            if select.select([self._socket], [], [], 0.05)[0]:
                self._take()

    def _take(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._socket, 4096, 253)
        lines = data.decode().split("\n")
        words = dict(line.split("=", 1) for line in lines)
        name = words.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in words:
            for one in [one for one in self.held if one[0] == name]:
                self.held.remove(one)
                os.close(one[1])
        elif "FDSTORE" in words and len(self.held) + len(fds) <= self.limit:
            self.held += [(name, fd) for fd in fds]
            fds = []
        self.told += lines
        for fd in fds:
            os.close(fd)

    @property
    def names(self) -> list[str]:
        """What is held."""
        return sorted(name for name, _ in self.held)

    def put(self, name: str, fd: int) -> None:
        """Hold something that no node gave; under a name that is taken, in the place of that."""
        self.drop(name)
        self.held.append((name, fd))

    def drop(self, name: str) -> None:
        """Lose something."""
        for one in [one for one in self.held if one[0] == name]:
            self.held.remove(one)
            os.close(one[1])

    def start_node(self) -> None:
        """Start the node with what is held, and wait for it."""
        count = len(self.held)
        script = 'LISTEN_PID=$$ exec "$@"'
        env = {**environment(), "NOTIFY_SOCKET": str(self._path), "FDSTORE": str(self.limit)}
        if count:
            env["LISTEN_FDS"] = str(count)
            env["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.held)
        with self.node.log_path.open("ab") as log:
            self.process = self.pair.a.popen(
                ["sh", "-c", script, "sh", *self.up()], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=env, pass_fds=range(3, 3 + count), preexec_fn=self._give,
            )  # fmt: skip
        self.wait_for_other(0)

    def _give(self) -> None:
        """In the child: what is held, from 3 on."""
        high = [os.dup2(fd, 200 + index) for index, (_, fd) in enumerate(self.held)]
        for index, fd in enumerate(high):
            os.dup2(fd, 3 + index)

    def kill(self) -> None:
        """kill -9, and nothing else."""
        self.process.kill()
        self.process.wait(READY)

    def close(self) -> None:
        """End everything."""
        self.end()
        self._over.set()
        self.join()
        for _, fd in self.held:
            os.close(fd)
        self._socket.close()


class Pinging(threading.Thread):
    """600 echo requests from one container to the other, one every 5 ms, meanwhile."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(daemon=True, name="pinging")
        self._pair, self.result = pair, Ping(())

    def run(self) -> None:
        pair = self._pair
        self.result = ping(pair.c1, pair.c2.address, 600, interval=0.005, timeout=5)

    def __enter__(self) -> Pinging:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    @property
    def worst(self) -> float:
        """The longest round trip in seconds."""
        return max(rtt or 0.0 for rtt in self.result.rtts)


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
