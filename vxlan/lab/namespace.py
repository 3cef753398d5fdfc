"""One network namespace of a lab, and what is run in it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from vxlan import netns

P = ParamSpec("P")
R = TypeVar("R")


class Namespace:
    """A named namespace, loopback up, IPv6 off until an address asks for it.

    A quiet namespace is what makes counters in tests exact: with IPv6 on, the
    kernel sends neighbour and router solicitations whenever it likes.
    """

    def __init__(self, name: str, *, attach: bool = False) -> None:
        """Make it; `attach`: it is there already, as in a lab that another process made."""
        self.name = name
        self._sockets: WeakSet[socket.socket] = WeakSet()
        if attach:
            return
        netns.create(name)
        self.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        self.sysctl("net/ipv6/conf/all/accept_dad", "0")
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` with this thread inside the namespace."""
        with netns.inside(self.name):
            return function(*args, **kwargs)

    def socket(self, *args: int) -> socket.socket:
        """A socket of this namespace; usable everywhere, closed with the lab at the latest."""
        opened = self.call(socket.socket, *args)
        self._sockets.add(opened)
        return opened

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process in the namespace; `options` as for subprocess.Popen."""
        with netns.inside(self.name):
            return subprocess.Popen(command, **options)

    def run(self, command: Sequence[str], timeout: float = 30.0) -> str:
        """Run a command in the namespace; its output.  Raises CalledProcessError."""
        with netns.inside(self.name):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, check=True
            )
        return done.stdout

    def sysctl(self, key: str, value: str) -> None:
        """Write /proc/sys/KEY as this namespace sees it."""
        self.call(Path("/proc/sys", key).write_text, value)

    def allow_ipv6(self, interface: str) -> None:
        """Switch IPv6 on for one interface, without duplicate address detection."""
        self.sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "0")

    def remove(self) -> None:
        """Close its sockets and remove it with all its interfaces."""
        for opened in list(self._sockets):
            opened.close()
        if netns.exists(self.name):
            netns.delete(self.name)
