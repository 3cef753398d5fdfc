"""How a node gets a TAP that is somebody else's: its descriptors, through a unix socket.

Theory of operation
===================

A device that has to outlive the node, or lies in a namespace that the node may not enter,
is made by its owner.  The node connects to the owner's socket and asks; one message goes
each way (SOCK_SEQPACKET), each a JSON object:

    node -> owner   {"vni": 42, "queues": 2, "offload": true}
    owner -> node   {"ok": true, "granted": {"csum": true, ...}, "fallbacks": []}
                    and two descriptors (SCM_RIGHTS)
                    {"ok": false, "error": "one line with the remedy"}

Either side sees that the other is root or its own user (SO_PEERCRED).  The node believes
nothing else: what is no TAP with the header of vxlan/tap.py is closed and refused.

Everything here blocks, the node for TIMEOUT at the most.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytun

from vxlan.tap import Tap, TapError, device_of

TIMEOUT = 10.0
"""Seconds to wait for the owner."""

MAX_MESSAGE = 16384
MAX_QUEUES = 64
MAX_SENTENCES = 16

_NEEDED = pytun.IFF_TAP | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR


@dataclass(frozen=True, slots=True)
class Wish:
    """What a node asks for: so many descriptors of the TAP of a VNI."""

    vni: int
    queues: int = 1
    offload: bool = False


def trusted(connection: socket.socket) -> bool:
    """Whether the other end is root's or our own user's."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return struct.unpack("3i", credentials)[1] in (0, os.geteuid())


# -- the node ---------------------------------------------------------------------


def fetch(path: str, name: str, wish: Wish) -> Tap:
    """The TAP that the owner at `path` has for us.  Raises TapError, which begins with `name`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            if not trusted(connection):
                raise TapError(f"tap {name}: {path} is another user's: it is not asked")
            connection.send(json.dumps(asdict(wish)).encode())
            answer, fds = _receive(connection, wish.queues)
    except OSError as error:
        raise TapError(
            f"tap {name}: its owner does not answer at {path} ({error.strerror or error}): start it"
        ) from None
    try:
        return _accepted(name, answer, fds)
    except TapError:
        for fd in fds:
            os.close(fd)
        raise


def _receive(connection: socket.socket, most: int) -> tuple[bytes, list[int]]:
    answer, fds, flags, _ = socket.recv_fds(connection, MAX_MESSAGE, most)
    for fd in fds:
        os.set_inheritable(fd, False)
    return b"" if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) else answer, fds


def _accepted(name: str, answer: bytes, fds: list[int]) -> Tap:
    """What came, looked at.  Raises TapError."""
    try:
        said = json.loads(answer)
        if said["ok"] is not True:
            raise TapError(f"tap {name}: {_line(said['error'])}")
        granted = {_line(word): value is True for word, value in said["granted"].items()}
        fallbacks = [_line(sentence) for sentence in said["fallbacks"][:MAX_SENTENCES]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise TapError(f"tap {name}: its owner's answer is no answer: update both") from None
    if not fds or not all(_is_ours(fd) for fd in fds):
        raise TapError(f"tap {name}: what its owner handed over is no such TAP: update both")
    for fd in fds:
        os.set_blocking(fd, False)
    return Tap(name, tuple(fds), granted, fallbacks, adopted=True)


def _line(value: object) -> str:
    return " ".join(str(value).split())[:500]


def _is_ours(fd: int) -> bool:
    try:
        return bool(device_of(fd)[1] & _NEEDED == _NEEDED)
    except TapError:
        return False


# -- the owner --------------------------------------------------------------------


def read_wish(connection: socket.socket) -> Wish:
    """What a node asks for.  Raises ValueError, and OSError."""
    raw = connection.recv(MAX_MESSAGE)
    try:
        found: Any = json.loads(raw)
        wish = Wish(found["vni"], found["queues"], found["offload"] is True)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("this is no request for a TAP") from None
    if type(wish.vni) is not int or type(wish.queues) is not int:
        raise ValueError("vni and queues are numbers")
    if not 1 <= wish.queues <= MAX_QUEUES:
        raise ValueError(f"{wish.queues} queues: 1 to {MAX_QUEUES} are possible")
    return wish


def hand(connection: socket.socket, tap: Tap) -> None:
    """Give a TAP to the node that asked; the caller closes its own copies.  OSError."""
    said = {"ok": True, "granted": tap.granted, "fallbacks": tap.fallbacks}
    _send(connection, said, tap.fds)


def refuse(connection: socket.socket, why: str) -> None:
    """Say why it gets none.  OSError."""
    _send(connection, {"ok": False, "error": why}, ())


def _send(connection: socket.socket, said: dict[str, Any], fds: Sequence[int]) -> None:
    socket.send_fds(connection, [json.dumps(said).encode()], fds)
