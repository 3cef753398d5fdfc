"""The forwarding tables of both engines, without an engine around them.

The compiled one takes its stations packed, 64 in one call, and looks them up as its
workers do: no Python is in the figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from implementations import PEER, VNI, compiled

from vxlan.fdb import Fdb

HELD_BY = bytes((192, 0, 2, 2)) + bytes(12)


class Table(Protocol):
    """What is measured of a table; `packed` makes what `lookup` and `learn` take."""

    def packed(self, macs: list[bytes]) -> Any: ...
    def lookup(self, macs: Any, now: float) -> int: ...
    def learn(self, macs: Any, now: float) -> int: ...
    def forget(self, macs: Iterable[bytes]) -> None: ...
    def __len__(self) -> int: ...


class PythonTable:
    """vxlan/fdb.py, one call for each station as the engine makes it."""

    def __init__(self, limit: int) -> None:
        self._fdb = Fdb(ageing=0, limit=limit)

    def packed(self, macs: list[bytes]) -> list[bytes]:
        return macs

    def lookup(self, macs: list[bytes], now: float) -> int:
        lookup, found = self._fdb.lookup, 0
        for mac in macs:
            if lookup(mac, now):
                found += 1
        return found

    def learn(self, macs: list[bytes], now: float) -> int:
        learn = self._fdb.learn
        for mac in macs:
            learn(mac, PEER, now)
        return len(macs)

    def forget(self, macs: Iterable[bytes]) -> None:
        for mac in macs:
            self._fdb.remove(mac, 0.0)

    def __len__(self) -> int:
        return len(self._fdb)


class CompiledTable:
    """fastpath/fdb.pxd and learn.pxd."""

    def __init__(self, limit: int) -> None:
        self._fast: Any = compiled()
        self._core = self._fast.Core(4789, 7)
        self._core.add_segment(VNI, limit, 0.0, 7)
        self._peer = self._core.peer(HELD_BY, 4)

    def packed(self, macs: list[bytes]) -> bytes:
        return b"".join(macs)

    def lookup(self, macs: bytes, now: float) -> int:
        return int(self._fast.fdb_lookup_many(self._core, VNI, macs, now))

    def learn(self, macs: bytes, now: float) -> int:
        return int(self._fast.fdb_learn_many(self._core, VNI, macs, self._peer, now))

    def forget(self, macs: Iterable[bytes]) -> None:
        for mac in macs:
            self._core.fdb_forget(VNI, mac)

    def __len__(self) -> int:
        return int(self._core.fdb_count(VNI))


TABLE_OF: dict[str, type[Table]] = {"python": PythonTable}
if compiled() is not None:
    TABLE_OF["fastpath"] = CompiledTable
