"""Tell the service manager how we are (sd_notify(3)): datagrams to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

PATIENCE = 2.0
"""Seconds that a manager may leave a datagram unread before it counts as out of reach."""


def send(
    lines: Sequence[str],
    fds: Sequence[int] = (),
    *,
    to: str | None = None,
    patience: float = PATIENCE,
) -> bool:
    """Send state lines, and descriptors with them; False where nobody asked for them.

    `to` is an address as in $NOTIFY_SOCKET, whose value it is otherwise; `patience` the
    seconds to wait for room.  Raises OSError where the manager cannot be reached.
    """
    address = os.environ.get("NOTIFY_SOCKET", "") if to is None else to
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(patience)
        sender.connect(address)
        socket.send_fds(sender, ["\n".join(lines).encode()], list(fds))
    return True


def barrier() -> None:
    """Wait until the manager has done all that it was told (sd_notify_barrier(3))."""
    ours, its = os.pipe()
    try:
        try:
            send(("BARRIER=1",), (its,))
        finally:
            os.close(its)
        select.select([ours], [], [], PATIENCE)
    except OSError:
        pass  # it has ended, and closed what it held
    finally:
        os.close(ours)


def notify(*lines: str) -> bool:
    """Send state lines such as "READY=1"; False where nobody asked for them.

    A manager that cannot be reached is no reason to fail.
    """
    with suppress(OSError):
        return send(lines)
    return True


def reloading() -> None:
    """Say that a reload begins; `notify("READY=1")` says that it is over."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """Seconds between two signs of life, half of what is asked for; None: not asked for."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdecimal() or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 2_000_000
