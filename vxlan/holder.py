"""The parent of a node that is started again: `pyvxlan up --restart`.

Theory of operation
===================

    pyvxlan up --restart  =  python -m vxlan.holder up --restart ...
      |   keeps descriptors, waits
      +-- python -m vxlan up --restart ...       the node; killed, it is started again

To the node this is a service manager: it speaks the protocol of vxlan/fdstore.py on a
socket of its own, and takes datagrams from its child alone (SO_PASSCRED).  What else the
node tells goes on to an outer $NOTIFY_SOCKET.  SIGTERM, SIGINT and SIGHUP go to the node.

    the node                                     what follows
    ends with status 0                           the end
    fails before it ever said READY=1            the end, with its status
    is killed, crashes, fails later              started again, at once; where it did not
                                                 serve for `STABLE` seconds, after a pause

The kernel ends the node in good order (SIGTERM) if this process is killed.  Nothing but
the standard library is imported: what holds descriptors must be small, and not die.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

from vxlan import api, sdnotify, unixsock
from vxlan.fdstore import FIRST, HOLDER

MAX_HELD = 512
"""Descriptors; the node is told by $FDSTORE."""

STABLE = 1.0
"""Seconds since READY=1 after which a node did not die young."""

FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds between two starts of a node that dies young; doubled each time."""

_PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OURS = ("FDSTORE", "FDNAME", "FDPOLL", "MAINPID", "BARRIER")
_MAX_MESSAGE, _MAX_FDS = 4096, 253  # SCM_MAX_FD
_PR_SET_PDEATHSIG = 1


class Holder:
    """One node, started by `command` as often as it takes.  `run` returns the exit status."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._outer = os.environ.pop("NOTIFY_SOCKET", "")
        self._watched = os.environ.get("WATCHDOG_PID") == str(os.getpid())
        self._held: list[tuple[str, int]] = []
        self._child = 0
        self._ending = False
        self._ready: float | None = None
        self._path = api.runtime_dir() / f"holder-{os.getpid()}.notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._woken, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Start the node, and again as long as it is killed."""
        self._listen()
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _PASSED:
            signal.signal(number, self._pass_on)
        try:
            return self._run()
        finally:
            self._path.unlink(missing_ok=True)

    def _run(self) -> int:
        pause, status = 0.0, 0
        while not self._ending:
            before, status = self._ready, self._run_once()
            if status == 0 or self._ready is None:
                break
            stable = self._ready != before and time.monotonic() - self._ready > STABLE
            pause = 0.0 if stable else min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE)
            if not self._ending:
                _say(f"the node {_ended(status)}: it is started again")
                self._wait(pause)
        return 0 if self._ending and status < 0 else abs(status)

    def _listen(self) -> None:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _sweep()
        with unixsock.private():
            self._socket.bind(str(self._path))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)

    # -- the child -------------------------------------------------------------------------

    def _run_once(self) -> int:
        """From a start of the node to its end; its status, -N for signal N."""
        self._start()
        ended = status = 0
        while not ended:
            self._wait(None)
            ended, status = os.waitpid(self._child, os.WNOHANG)
            self._receive()  # also what it told last: nothing of a dead child may be missed
        self._child = 0
        return os.waitstatus_to_exitcode(status)

    def _start(self) -> None:
        """Signals wait while there are two of us."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED)
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            try:
                self._become_node(parent)
            finally:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED)

    def _become_node(self, parent: int) -> None:
        signal.set_wakeup_fd(-1)
        for number in _PASSED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            return
        self._offer()
        os.execve(self._command[0], self._command, self._environ(parent))

    def _offer(self) -> None:
        """Give the node its descriptors, from FIRST on."""
        above = FIRST + len(self._held)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for _, fd in self._held]
        for fd, wanted in zip(high, range(FIRST, above), strict=True):
            os.dup2(fd, wanted)

    def _environ(self, parent: int) -> dict[str, str]:
        own = str(os.getpid())
        listen = {
            "LISTEN_PID": own,
            "LISTEN_FDS": str(len(self._held)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in self._held),
        }
        return {
            **{key: value for key, value in os.environ.items() if key not in listen},
            **(listen if self._held else {}),
            **({"WATCHDOG_PID": own} if self._watched else {}),
            "NOTIFY_SOCKET": str(self._path),
            "FDSTORE": str(MAX_HELD),
            HOLDER: str(parent),
        }

    # -- what it tells -----------------------------------------------------------------------

    def _receive(self) -> None:
        size = socket.CMSG_SPACE(4 * _MAX_FDS) + socket.CMSG_SPACE(12)
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MAX_MESSAGE, size, socket.MSG_CMSG_CLOEXEC
                )
            except OSError:  # EAGAIN
                return
            fds, sender = _ancillary(ancillary)
            lines = data.decode(errors="replace").splitlines() if sender == self._child else []
            for fd in self._take(lines, fds):
                os.close(fd)

    def _take(self, lines: list[str], fds: list[int]) -> list[int]:
        """Do what the node asks for; the descriptors that are not kept."""
        words = dict(line.split("=", 1) for line in lines if "=" in line)
        name = words.get("FDNAME", "stored")
        if words.get("READY") == "1":
            self._ready = time.monotonic()
        self._forward([line for line in lines if not line.startswith(_OURS)])
        if words.get("FDSTOREREMOVE") == "1":
            gone = [fd for other, fd in self._held if other == name]
            self._held = [one for one in self._held if one[0] != name]
            return gone + fds
        fine = len(name) < 256 and ":" not in name and name.isprintable()
        if words.get("FDSTORE") != "1" or not fine or len(self._held) + len(fds) > MAX_HELD:
            return fds
        self._held += [(name, fd) for fd in fds]
        return []

    def _forward(self, lines: list[str]) -> None:
        """At once or not at all: the node must not wait for somebody outside."""
        with suppress(OSError):
            if lines:
                sdnotify.send(lines, to=self._outer, patience=0)

    # -- signals -----------------------------------------------------------------------------

    def _pass_on(self, number: int, _frame: object) -> None:
        self._ending = self._ending or number != signal.SIGHUP
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _wait(self, seconds: float | None) -> None:
        """Until the node tells something, a signal comes, or the time is over."""
        select.select([self._socket.fileno(), self._woken], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)


def _ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[int], int]:
    """The descriptors that came with a datagram, and the process that sent it."""
    fds, sender = array.array("i"), 0
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        elif kind == socket.SCM_CREDENTIALS:
            sender = struct.unpack("3i", data)[0]
    return list(fds), sender


def _sweep() -> None:
    """Remove the sockets of holders that were killed."""
    for path in api.runtime_dir().glob("holder-*.notify"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue


def _say(text: str) -> None:
    print(f"pyvxlan: {text}", file=sys.stderr, flush=True)


def _ended(status: int) -> str:
    if status > 0:
        return f"failed with status {status}"
    return f"was killed by {signal.Signals(-status).name}"


def main() -> int:
    """`python -m vxlan.holder ARGUMENTS`: run `pyvxlan ARGUMENTS`."""
    try:
        return Holder([sys.executable, "-P", "-m", "vxlan", *sys.argv[1:]]).run()
    except OSError as error:
        _say(f"--restart: {error}: set PYVXLAN_RUNTIME_DIR to a folder of its own")
        return 1


if __name__ == "__main__":
    sys.exit(main())
