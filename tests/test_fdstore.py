"""The node's side of a descriptor store: offered, kept, refused; and the state in memory."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vxlan import fdstate, fdstore, sdnotify
from vxlan.fdstore import FdStore


class Told:
    """A manager's socket, and what came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def take(self) -> list[tuple[str, int]]:
        """Each message with the number of its descriptors."""
        found = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, 4096, 10)
            except BlockingIOError:
                return found
            for fd in fds:
                os.close(fd)
            found.append((data.decode(), len(fds)))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    made = Told(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
    monkeypatch.setattr(sdnotify, "PATIENCE", 0.05)
    yield made
    made.close()


def store(**environ: str) -> FdStore:
    return FdStore({"NOTIFY_SOCKET": os.environ.get("NOTIFY_SOCKET", ""), **environ})


def offered(monkeypatch: pytest.MonkeyPatch, *names: str, **environ: str) -> tuple[FdStore, Any]:
    """A store that offers pipes by these names, as if they were numbers 3, 4, ..."""
    fds = []
    for _ in names:
        end, other = os.pipe()
        os.close(other)
        fds.append(end)
    numbers = range(min(fds), min(fds) + len(fds))
    high = [os.dup2(fd, 500 + index) for index, fd in enumerate(fds)]
    for fd in fds:
        os.close(fd)
    for number, fd in zip(numbers, high, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    monkeypatch.setattr(fdstore, "FIRST", numbers[0])
    listen = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)),
              "LISTEN_FDNAMES": ":".join(names), **environ}  # fmt: skip
    return store(**listen), numbers


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_without_a_store_nothing_is_done() -> None:
    nothing = FdStore()
    assert (nothing.by, nothing.count, nothing.names(), nothing.offers) == (None, 0, [], False)
    assert nothing.put({"tap.1.0": 0}) is False
    nothing.remove(["tap.1.0"])
    assert nothing.fallbacks == []


def test_what_is_offered_is_taken_or_refused(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["tap.42.1", "tap.42.0", "tap.4.0", "tap.42.10", "udp.0"]
    made, numbers = offered(monkeypatch, *names)
    assert made.by == "the service manager"
    assert made.names("tap.42") == ["tap.42.0", "tap.42.1", "tap.42.10"]
    assert made.names("tap.4") == ["tap.4.0"]
    assert not any(os.get_inheritable(fd) for fd in numbers)
    taken = made.take("tap.42.0")
    assert taken == numbers[1]
    made.refuse(made.names(), "nobody wants them")
    assert [is_open(fd) for fd in numbers] == [False, True, False, False, False]
    assert len([one for one in caplog.records if "nobody wants them" in one.message]) == 1
    removed = {text.split("\n")[1] for text, _ in told.take() if "REMOVE" in text}
    assert removed == {f"FDNAME={name}" for name in names} - {"FDNAME=tap.42.0"}
    assert (made.count, made.offers) == (1, False)
    os.close(taken)


def test_what_is_offered_to_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "state", "HOME": "/"}
    assert FdStore(environ).names() == []
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("count", ["", "x", "-1", "5", "99999999999"])
def test_a_count_that_is_wrong_breaks_nothing(count: str) -> None:
    code = (
        "import os; from vxlan.fdstore import FdStore; "
        f"os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS={count!r}); "
        "print(FdStore(os.environ).names(), [k for k in os.environ if 'LISTEN' in k])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_a_name_that_is_there_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made, numbers = offered(monkeypatch, "state", "state", NOTIFY_SOCKET="")
    assert made.names() == ["state"]
    assert [is_open(fd) for fd in numbers] == [True, False]
    os.close(made.take("state"))


def test_what_is_put_is_told_by_name(told: Told) -> None:
    made = store(FDSTORE="3")
    with open(os.devnull) as some:
        assert made.put({"tap.1.0": some.fileno(), "tap.1.1": some.fileno()})
        assert told.take() == [(f"FDSTORE=1\nFDNAME=tap.1.{n}", 1) for n in (0, 1)]
        assert not made.put({"udp.0": some.fileno(), "udp.1": some.fileno()})
        assert not made.put({"udp.0": some.fileno(), "udp.1": some.fileno()})
    assert told.take() == []
    assert len(made.fallbacks) == 1
    assert "3 descriptors is all it keeps" in made.fallbacks[0]
    assert sorted(made.kept("tap.1")) == ["tap.1.0", "tap.1.1"]


def test_removing_waits_for_the_manager(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store(FDSTORE="3")
    with open(os.devnull) as some:
        made.put({"state": some.fileno()})
    made.remove(["state", "absent"])
    said = [text for text, _ in told.take()]
    assert said == ["FDSTORE=1\nFDNAME=state", "FDSTOREREMOVE=1\nFDNAME=state", "BARRIER=1"]
    assert made.count == 0


def test_a_store_that_is_away_is_told_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    made = store(FDSTORE="9")
    told.close()
    with open(os.devnull) as some, caplog.at_level(logging.WARNING):
        assert not made.put({"udp.0": some.fileno()})
        assert not made.put({"udp.1": some.fileno()})
    assert made.count == 0
    assert len(caplog.records) == 1
    assert "Connection refused: not everything is kept" in made.fallbacks[0]


def test_a_manager_that_keeps_nothing_is_not_asked(told: Told) -> None:
    assert store().by is None
    assert store(FDSTORE="0").by is None


# -- the state in memory ---------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[int]:
    fd = fdstate.make()
    yield fd
    os.close(fd)


def test_the_last_value_is_read(memory: int) -> None:
    long, short = {"a": ["x" * 9000]}, {"a": 1}
    for value in (long, short, long):
        assert fdstate.write(memory, value)
        assert fdstate.read(memory) == value


@pytest.mark.parametrize("length", [0, 1, 9, 60, 90, 8000])
def test_what_was_not_written_to_its_end_is_torn(memory: int, length: int) -> None:
    fdstate.write(memory, {"a": ["x" * 9000]})
    os.ftruncate(memory, length)
    with pytest.raises(fdstate.StateTorn, match="not written to its end"):
        fdstate.read(memory)


def test_a_new_head_over_an_old_body_is_torn(memory: int) -> None:
    fdstate.write(memory, {"a": "x" * 100})
    old = os.pread(memory, 10000, 0)
    fdstate.write(memory, {"a": "y" * 100})
    new = os.pread(memory, 10000, 0)
    for cut in range(1, len(new) - 4):
        torn = new[:cut] + old[cut:]
        os.pwrite(memory, torn, 0)
        if torn not in (old, new):
            with pytest.raises(fdstate.StateTorn):
                fdstate.read(memory)


def test_what_is_too_long_leaves_nothing(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fdstate.write(memory, {"a": 1})
    monkeypatch.setattr(fdstate, "MAX_SIZE", 20)
    assert not fdstate.write(memory, {"a": "x" * 20})
    with pytest.raises(fdstate.StateTorn):
        fdstate.read(memory)


def test_what_is_no_memory_is_refused() -> None:
    end, other = os.pipe()
    try:
        with pytest.raises(fdstate.StateTorn, match="no state"):
            fdstate.read(end)
    finally:
        os.close(end)
        os.close(other)
