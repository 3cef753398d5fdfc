"""How the cost of a frame grows with the forwarding table."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from implementations import (
    BATCH,
    PEER,
    TABLES,
    VNI,
    datagram,
    frame,
    new_engine,
    some_stations,
    station,
)

from vxlan.engine import Engine
from vxlan.fdb import Fdb

Measure = Callable[..., None]
NEW = 1 << 24  # stations from here on are in no table


@pytest.fixture(scope="module", params=TABLES, ids=lambda entries: f"{entries} entries")
def entries(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def engine(engine_name: str, entries: int) -> Engine:
    return new_engine(engine_name, entries)


@pytest.fixture(scope="module")
def table(entries: int) -> Fdb:
    made = Fdb(ageing=0, limit=entries + NEW)
    for index in range(entries):
        made.learn(station(index), PEER, 0.0)
    return made


def test_fdb_lookup(per_packet: Measure, table: Fdb, entries: int) -> None:
    wanted = some_stations(entries)

    def lookups() -> None:
        for mac in wanted:
            table.lookup(mac, 1.0)

    assert table.lookup(wanted[0], 1.0) == (PEER,)
    per_packet(BATCH, lookups)


def test_fdb_learn_again(per_packet: Measure, table: Fdb, entries: int) -> None:
    wanted = some_stations(entries)

    def refreshes() -> None:
        for mac in wanted:
            table.learn(mac, PEER, 1.0)

    per_packet(BATCH, refreshes)
    assert len(table) == entries


def test_encap_to_many(per_packet: Measure, engine: Engine, entries: int) -> None:
    frames = [frame(64, dst=mac) for mac in some_stations(entries)]
    assert [one.remote for one in engine.encap(VNI, frames, 1.0)] == [PEER] * BATCH
    per_packet(BATCH, engine.encap, VNI, frames, 1.0)


def test_decap_from_many(per_packet: Measure, engine: Engine, entries: int) -> None:
    datagrams = [datagram(frame(64, src=mac)) for mac in some_stations(entries)]
    assert len(engine.decap(datagrams, 1.0)) == BATCH
    per_packet(BATCH, engine.decap, datagrams, 1.0)


def test_decap_learns_new(per_packet: Measure, engine: Engine, entries: int) -> None:
    new = count(NEW)

    def strangers() -> tuple[tuple[Any, ...], dict[str, Any]]:
        engine.drain_events()
        return ([datagram(frame(64, src=station(next(new)))) for _ in range(BATCH)], 1.0), {}

    assert entries == len(engine.fdb_dump(VNI))
    per_packet(BATCH, engine.decap, setup=strangers)
    engine.fdb_flush(VNI, 1.0, address="192.0.2.2")
