"""The parent of a node: it keeps descriptors and starts its child again.  Real processes.

The child is a script of a few lines that speaks the protocol, so that many lives take seconds.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HEAD = """
import os, signal, socket, sys, time
def tell(text, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(s, [text.encode()], fds)
def say(*words):
    print(*words, flush=True)
fds = int(os.environ.get("LISTEN_FDS", 0))
names = os.environ.get("LISTEN_FDNAMES", "")
"""


class Parent:
    """A holder whose child runs a script; `lines` gives what it prints."""

    def __init__(self, script: str, folder: Path, **environ: str) -> None:
        child = [sys.executable, "-S", "-c", HEAD + textwrap.dedent(script)]
        code = "import sys; from vxlan.holder import Holder; sys.exit(Holder(sys.argv[1:]).run())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *child], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYVXLAN_RUNTIME_DIR": str(folder), "NOTIFY_SOCKET": "", **environ},
        )  # fmt: skip

    def line(self, within: float = 10.0) -> str:
        assert self.process.stdout is not None
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], within)[0], "nothing was said"
            byte = os.read(self.process.stdout.fileno(), 1)
            assert byte, f"it ended: {self.end()}"
            text += byte
        return text.decode().strip()

    def child(self) -> int:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(path.read_text().split()[0])

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=10)
        return self.process.returncode, said


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    made: list[Parent] = []

    def make(script: str, **environ: str) -> Parent:
        made.append(Parent(script, tmp_path, **environ))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
    assert all(one.process.returncode in (-9, *range(150)) for one in made)


def test_descriptors_come_back_by_name_after_a_kill(parent: Callable[..., Parent]) -> None:
    one = parent("""
        say(fds, names, os.environ.get("LISTEN_PID") in (None, str(os.getpid())))
        if fds:
            say(os.read(3, 10), os.read(4, 10), os.environ["FDSTORE"])
        else:
            for name, text in (("a.0", b"first"), ("b.0", b"second"), ("c", b"third")):
                r, w = os.pipe()
                os.write(w, text * 2)
                tell("FDSTORE=1\\nFDNAME=" + name, r)
            tell("FDSTOREREMOVE=1\\nFDNAME=b.0")
            tell("READY=1")
        say("up")
        time.sleep(99)
    """)
    assert [one.line() for _ in range(2)] == ["0  True", "up"]
    os.kill(one.child(), signal.SIGKILL)
    assert [one.line() for _ in range(3)] == [
        "2 a.0:c True",
        "b'firstfirst' b'thirdthird' 512",
        "up",
    ]
    one.process.terminate()
    status, said = one.end()
    assert status == 0
    assert said == "pyvxlan: the node was killed by SIGKILL: it is started again\n"


def test_many_lives_leak_no_descriptor(parent: Callable[..., Parent]) -> None:
    one = parent("""
        tell("FDSTOREREMOVE=1\\nFDNAME=x")
        r, w = os.pipe()
        for n in range(20):
            tell("FDSTORE=1\\nFDNAME=x", r)
        tell("READY=1")
        tell("BARRIER=1", w)
        os.close(w)
        os.read(r, 1)
        say(len(os.listdir("/proc/self/fd")), fds)
        time.sleep(99)
    """)
    counts = []
    for _ in range(6):
        said = one.line()
        counts.append((len(os.listdir(f"/proc/{one.process.pid}/fd")), said))
        os.kill(one.child(), signal.SIGKILL)
    assert len(set(counts[1:])) == 1, counts


@pytest.mark.parametrize("status", [0, 1, 2, 77])
def test_a_first_start_that_fails_is_not_tried_again(
    parent: Callable[..., Parent], status: int
) -> None:
    one = parent(f"say('once'); sys.exit({status})")
    assert one.end() == (status, "")


def test_a_failure_after_it_ran_is_tried_again_with_pauses(parent: Callable[..., Parent]) -> None:
    one = parent("""
        say(time.monotonic())
        tell("READY=1")
        time.sleep(0.02)
        sys.exit(1)
    """)
    starts = [float(one.line()) for _ in range(4)]
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert gaps[0] > 0.1
    assert gaps[1] > 0.2
    assert gaps[2] > 0.4
    began = time.monotonic()
    one.process.send_signal(signal.SIGTERM)
    assert one.end()[0] == 0
    assert time.monotonic() - began < 0.7, "the pause was waited for"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both(parent: Callable[..., Parent], number: signal.Signals) -> None:
    one = parent("""
        def end(*_):
            say("ended")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        tell("READY=1")
        say("up")
        while True: time.sleep(9)
    """)
    assert one.line() == "up"
    one.process.send_signal(number)
    assert one.line() == "ended"
    assert one.end() == (0, "")


def test_a_hangup_is_passed_on_and_ends_nothing(parent: Callable[..., Parent]) -> None:
    one = parent("""
        signal.signal(signal.SIGHUP, lambda *_: say("reload"))
        tell("READY=1")
        say("up")
        while True: time.sleep(9)
    """)
    assert one.line() == "up"
    for _ in range(2):
        one.process.send_signal(signal.SIGHUP)
        assert one.line() == "reload"
    one.process.terminate()
    assert one.end()[0] == 0


def test_the_child_ends_with_its_parent(parent: Callable[..., Parent]) -> None:
    one = parent("""
        def end(*_):
            say("ended")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        tell("READY=1")
        say("up")
        while True: time.sleep(9)
    """)
    assert one.line() == "up"
    one.process.kill()
    assert one.line() == "ended"


def test_other_lines_go_on_to_the_outer_manager(
    parent: Callable[..., Parent], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outer:
        outer.bind(str(tmp_path / "outer"))
        outer.settimeout(10)
        one = parent(
            """
            r, w = os.pipe()
            tell("FDSTORE=1\\nFDNAME=x", r)
            tell("READY=1\\nSTATUS=fine\\nMAINPID=1")
            tell("WATCHDOG=1")
            say(os.environ["WATCHDOG_PID"] == str(os.getpid()))
            time.sleep(99)
            """,
            NOTIFY_SOCKET=str(tmp_path / "outer"),
        )
        assert outer.recv(4096) == b"READY=1\nSTATUS=fine"
        assert outer.recv(4096) == b"WATCHDOG=1"
        one.process.terminate()


def test_only_the_child_is_listened_to(parent: Callable[..., Parent], tmp_path: Path) -> None:
    one = parent("""
        tell("READY=1")
        say(names)
        time.sleep(99)
    """)
    assert one.line() == ""
    (path,) = tmp_path.glob("holder-*.notify")
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect(str(path))
        socket.send_fds(stranger, [b"FDSTORE=1\nFDNAME=evil"], [0])
    os.kill(one.child(), signal.SIGKILL)
    assert one.line() == ""


def test_no_more_is_held_than_promised_and_no_bad_name(parent: Callable[..., Parent]) -> None:
    one = parent("""
        say(fds, len(set(names.split(":"))))
        r, w = os.pipe()
        for name in ("a:b", "x" * 300, "t\\tb"):
            tell("FDSTORE=1\\nFDNAME=" + name, r)
        for n in range(600 if not fds else 0):
            tell(f"FDSTORE=1\\nFDNAME=n.{n}", r)
        tell("READY=1")
        say("up")
        time.sleep(99)
    """)
    assert [one.line() for _ in range(2)] == ["0 1", "up"]
    os.kill(one.child(), signal.SIGKILL)
    assert [one.line() for _ in range(2)] == ["512 512", "up"]


def test_sockets_of_killed_parents_are_swept(parent: Callable[..., Parent], tmp_path: Path) -> None:
    script = 'tell("READY=1"); say("up"); time.sleep(99)'
    first = parent(script)
    assert first.line() == "up"
    first.process.kill()
    first.process.wait()
    second = parent(script)
    assert second.line() == "up"
    assert [path.name for path in tmp_path.glob("holder-*")] == [
        f"holder-{second.process.pid}.notify"
    ]
    second.process.terminate()
    second.end()
    assert list(tmp_path.glob("holder-*")) == []
