"""How the cost of a frame grows with the forwarding table.

scapy and `struct` have no such table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle
from typing import Any

import pytest
from implementations import (
    BATCH,
    PEER,
    SPREAD,
    TABLES,
    VNI,
    datagram,
    frame,
    new_engine,
    some_stations,
    station,
)
from tables import TABLE_OF, Table

from vxlan.engine import Engine

Measure = Callable[..., None]
NEW = 1 << 24  # stations from here on are in no table
ROOM = 1 << 16  # for these


@pytest.fixture(scope="module", params=TABLES, ids=lambda entries: f"{entries} entries")
def entries(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def engine(engine_name: str, entries: int) -> Engine:
    return new_engine(engine_name, entries)


@pytest.fixture(scope="module", params=TABLE_OF)
def table(request: pytest.FixtureRequest, entries: int) -> Table:
    made: Table = TABLE_OF[request.param](entries + ROOM)
    made.learn(made.packed([station(index) for index in range(entries)]), 0.0)
    return made


def test_fdb_lookup(per_packet: Measure, table: Table, entries: int) -> None:
    wanted = table.packed(some_stations(entries, SPREAD))
    assert table.lookup(wanted, 1.0) == SPREAD
    per_packet(SPREAD, table.lookup, wanted, 1.0)


def test_fdb_learn_again(per_packet: Measure, table: Table, entries: int) -> None:
    wanted = table.packed(some_stations(entries, SPREAD))
    per_packet(SPREAD, table.learn, wanted, 1.0)
    assert len(table) == entries


def test_fdb_learn_new(per_packet: Measure, table: Table, entries: int) -> None:
    new = count(NEW)

    def strangers() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (table.packed([station(next(new)) for _ in range(BATCH)]), 1.0), {}

    per_packet(BATCH, table.learn, setup=strangers)
    last = next(new)
    assert len(table) == entries + last - NEW
    table.forget(station(number) for number in range(NEW, last))


def batches(made_of: Callable[[bytes], Any], entries: int) -> Iterator[list[Any]]:
    """Stations all over the table in turn, so that no entry is always at hand."""
    packets = [made_of(mac) for mac in some_stations(entries, SPREAD)]
    return cycle([packets[at : at + BATCH] for at in range(0, SPREAD, BATCH)])


def test_encap_to_many(per_packet: Measure, engine: Engine, entries: int) -> None:
    frames = batches(lambda mac: frame(64, dst=mac), entries)
    assert [one.remote for one in engine.encap(VNI, next(frames), 1.0)] == [PEER] * BATCH
    per_packet(BATCH, lambda: engine.encap(VNI, next(frames), 1.0))


def test_decap_from_many(per_packet: Measure, engine: Engine, entries: int) -> None:
    datagrams = batches(lambda mac: datagram(frame(64, src=mac)), entries)
    assert len(engine.decap(next(datagrams), 1.0)) == BATCH
    per_packet(BATCH, lambda: engine.decap(next(datagrams), 1.0))


def test_decap_learns_new(per_packet: Measure, engine: Engine, entries: int) -> None:
    new = count(NEW)

    def strangers() -> tuple[tuple[Any, ...], dict[str, Any]]:
        engine.drain_events()
        return ([datagram(frame(64, src=station(next(new)))) for _ in range(BATCH)], 1.0), {}

    assert entries == len(engine.fdb_dump(VNI))
    per_packet(BATCH, engine.decap, setup=strangers)
    engine.fdb_flush(VNI, 1.0, address="192.0.2.2")
