"""Give up what a node does not need: all capabilities but a few, for good.

A node started by root could do anything.  It needs CAP_NET_ADMIN, to make a TAP anew
and to follow MTUs, and nothing else.  `keep_only` takes the rest from the bounding,
ambient, inheritable, permitted and effective sets, and forbids gaining any by running
another program (capabilities(7), PR_SET_NO_NEW_PRIVS).

Capabilities belong to a thread and are inherited by those it starts: call this before
any other thread is there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """Low and high 32 bits come as an array of two."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(keep: Iterable[int] = (CAP_NET_ADMIN,)) -> list[str]:
    """Drop all other capabilities of this thread; what could not be dropped, in sentences.

    Never raises: a process without capabilities has nothing to drop.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = sum(1 << capability for capability in keep)
    problems = []
    if not _drop_bounding(libc, wanted):
        problems.append("the bounding set stays: it takes CAP_SETPCAP to shrink it")
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or not _set(libc, permitted() & wanted):
        problems.append(f"capabilities stay: {os.strerror(ctypes.get_errno())}")
    return problems


def permitted() -> int:
    """The permitted set of this thread, one bit for each capability."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        found = [line for line in status if line.startswith("CapPrm:")]
    return int(found[0].split()[1], 16)


def _drop_bounding(libc: ctypes.CDLL, wanted: int) -> bool:
    capability, fine = 0, True
    while (there := libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0)) >= 0:
        if there and not wanted >> capability & 1:
            fine = libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 and fine
        capability += 1
    return fine


def _set(libc: ctypes.CDLL, mask: int) -> bool:
    """Make `mask` the effective and permitted set, and the inheritable one empty."""
    header = _Header(_VERSION_3, 0)
    halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32)]
    data = (_Data * 2)(*(_Data(half, half, 0) for half in halves))
    return int(libc.capset(ctypes.byref(header), ctypes.byref(data))) == 0
