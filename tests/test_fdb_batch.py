"""Many stations at once: the extension's lookup and learning, beside vxlan/fdb.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.fdb import Fdb, Remote

fast: Any = pytest.importorskip(
    "vxlan._fastpath",
    reason="the extension vxlan._fastpath is not built here",
    exc_type=ImportError,
)

VNI = 42
LIMIT = 16
PEER = Remote("192.0.2.2", 4789)
STATIONS = st.integers(0, 40).map(lambda number: b"\2\1" + number.to_bytes(4, "big"))


def a_core() -> tuple[Any, int]:
    core = fast.Core(4789, 7)
    core.add_segment(VNI, LIMIT, 300.0, 7)
    return core, core.peer(bytes((192, 0, 2, 2)) + bytes(12), 4)


@given(st.lists(STATIONS, max_size=60), st.lists(STATIONS, max_size=60))
def test_both_tables_learn_and_know_the_same(heard: list[bytes], wanted: list[bytes]) -> None:
    core, peer = a_core()
    table = Fdb(ageing=300.0, limit=LIMIT)
    for mac in heard:
        table.learn(mac, PEER, 1.0)
    fast.fdb_learn_many(core, VNI, b"".join(heard), peer, 1.0)
    known = sum(bool(table.lookup(mac, 2.0)) for mac in wanted)
    assert fast.fdb_lookup_many(core, VNI, b"".join(wanted), 2.0) == known
    assert core.fdb_count(VNI) == len(table)


def test_only_new_stations_count_as_new() -> None:
    core, peer = a_core()
    macs = b"".join(b"\2\1\0\0\0" + bytes((number,)) for number in range(8))
    assert fast.fdb_learn_many(core, VNI, macs, peer, 1.0) == 8
    assert fast.fdb_learn_many(core, VNI, macs, peer, 3.0) == 0


def test_what_is_no_list_of_stations_is_refused() -> None:
    core, peer = a_core()
    with pytest.raises(ValueError, match="7 bytes are no list of MACs"):
        fast.fdb_lookup_many(core, VNI, bytes(7), 1.0)
    with pytest.raises(KeyError):
        fast.fdb_lookup_many(core, 7, bytes(6), 1.0)
    with pytest.raises(IndexError):
        fast.fdb_learn_many(core, VNI, bytes(6), peer + 1, 1.0)
