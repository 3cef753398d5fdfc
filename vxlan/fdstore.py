"""Descriptors that outlive this process: the node's side of a file descriptor store.

Theory of operation
===================

Whoever starts the node may keep descriptors for it.  Their kernel objects live on while
the node does not, and what arrives meanwhile waits in their queues:

    node  --  FDSTORE=1, FDNAME=tap.42.0 + descriptor          -->  store
    node  --  FDSTOREREMOVE=1, FDNAME=tap.42.0                 -->  store
    node  <-- LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES, 3, 4 ... --   store, at the next start

That is systemd's protocol (sd_notify(3), sd_listen_fds(3), "File Descriptor Store").  It
has two implementers here: systemd, and `pyvxlan up --restart` (vxlan/holder.py).

A descriptor that is offered belongs to nobody until it is taken or refused.  The store
answers nothing: that it is full is known from $FDSTORE, the number that it keeps, and
that it cannot be reached from the socket.  Either is told once and fails nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Mapping, MutableMapping

from vxlan import sdnotify

FIRST = 3
"""The first descriptor that is offered (SD_LISTEN_FDS_START)."""

MAX_OFFERED = 4096
HOLDER = "PYVXLAN_HOLDER"
"""The variable with which vxlan/holder.py tells its process id."""

log = logging.getLogger(__name__)


class FdStore:
    """What a store offers, and what it keeps of us.  Without a store it does nothing.

    by         who keeps descriptors, in words; None: nobody
    fallbacks  one sentence when the store does not keep something
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Take what the environment offers; without one nothing is offered."""
        environ = {} if environ is None else environ
        self.fallbacks: list[str] = []
        self._offered = _listen_fds(environ)
        self._kept: set[str] = set(self._offered)
        self.by = _keeper(environ, bool(self._offered))
        limit = environ.get("FDSTORE", "")
        self._limit = int(limit) if limit.isdecimal() else MAX_OFFERED

    @property
    def count(self) -> int:
        """Descriptors that are kept now."""
        return len(self._kept)

    @property
    def offers(self) -> bool:
        """Whether anything is offered that was neither taken nor refused."""
        return bool(self._offered)

    def names(self, kind: str = "") -> list[str]:
        """What is offered, `kind` or `kind.SOMETHING`, in the order of the numbers at the end."""
        start = f"{kind}." if kind else ""
        found = (name for name in self._offered if f"{name}.".startswith(start))
        return sorted(found, key=lambda name: (len(name), name))

    def take(self, name: str) -> int:
        """The descriptor that is offered by this name; it belongs to the caller, and stays kept."""
        return self._offered.pop(name)

    def look(self, name: str) -> int:
        """The same, and it stays offered."""
        return self._offered[name]

    def kept(self, kind: str) -> list[str]:
        """The names that are kept now, `kind.SOMETHING`."""
        return [name for name in list(self._kept) if name.startswith(f"{kind}.")]

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Close what is offered, take it out of the store, and say why in one line."""
        gone = list(names)
        for name in gone:
            os.close(self._offered.pop(name))
        if gone:
            log.warning("kept descriptors %s: closed: %s", ", ".join(gone), why)
            self.remove(gone)

    def put(self, fds: Mapping[str, int]) -> bool:
        """Have descriptors kept, all or none of them; whether they are."""
        if self.by is None:
            return False
        if len(self._kept) + len(fds) > self._limit:
            self.fall_back(f"{self._limit} descriptors is all it keeps (FileDescriptorStoreMax=)")
            return False
        try:
            for name, fd in fds.items():
                self._kept.add(name)
                sdnotify.send(("FDSTORE=1", f"FDNAME={name}"), (fd,))
        except OSError as error:
            self.remove(fds)
            self.fall_back(str(error.strerror or error))
            return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Have them kept no more, and wait until they are closed there; it may block.

        No error if they are not kept.
        """
        gone = self._kept.intersection(names)
        self._kept -= gone
        for name in gone:
            sdnotify.notify("FDSTOREREMOVE=1", f"FDNAME={name}")
        if gone:
            sdnotify.barrier()

    def fall_back(self, why: str) -> None:
        """Tell that something is not kept; the first reason only."""
        if not self.fallbacks:
            text = f"descriptor store: {why}: not everything is kept, a restart loses packets"
            self.fallbacks.append(text)
            log.warning("%s", text)


def held_by_parent(environ: Mapping[str, str]) -> bool:
    """Whether vxlan/holder.py started this process."""
    return environ.get(HOLDER) == str(os.getppid())


def _listen_fds(environ: MutableMapping[str, str]) -> dict[str, int]:
    """What is offered to this very process, by name; the variables are gone afterwards."""
    words = [environ.pop(f"LISTEN_{word}", "") for word in ("PID", "FDS", "FDNAMES")]
    if words[0] != str(os.getpid()) or not words[1].isdecimal():
        return {}
    count = min(int(words[1]), MAX_OFFERED)
    names = words[2].split(":")
    found: dict[str, int] = {}
    for index, fd in enumerate(range(FIRST, FIRST + count)):
        name = names[index] if index < len(names) else "unknown"
        try:
            fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        except OSError:
            log.warning("kept descriptors: %s (%d) is not open: ignored", name, fd)
            continue
        if name in found:
            log.warning("kept descriptors: %s is there twice: the second one is closed", name)
            os.close(fd)
        else:
            found[name] = fd
    return found


def _keeper(environ: Mapping[str, str], offered: bool) -> str | None:
    if not environ.get("NOTIFY_SOCKET"):
        return None
    if held_by_parent(environ):
        return f"pyvxlan up --restart (pid {os.getppid()})"
    if offered or environ.get("FDSTORE", "0") != "0":
        return "the service manager"
    return None
