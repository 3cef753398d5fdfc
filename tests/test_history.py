"""What is remembered and logged of events is bounded, whatever others cause."""

from __future__ import annotations

import logging

import pytest

from vxlan import history
from vxlan.event import EventKind


def event(kind: EventKind, when: float, mac: bytes | None = None) -> history.Event:
    return history.Event(kind, when, 1, mac)


def test_history_is_bounded_in_stations_and_events() -> None:
    past = history.History()
    for number in range(history.STATIONS + 1):
        past.record(event(EventKind.LEARNED, 0.0, number.to_bytes(6, "big")))
    assert past.of(1, (0).to_bytes(6, "big")) == ()
    last = history.STATIONS.to_bytes(6, "big")
    for when in range(history.PER_STATION + 5):
        past.record(event(EventKind.MOVED, float(when), last))
    assert past.of(1, last)[0].when == 5.0
    assert len(past.of(1, last)) == history.PER_STATION
    past.forget(1)
    assert past.of(1, last) == ()


def test_the_log_is_bounded_whatever_others_cause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chronicle = history.Chronicle(lambda _: None)
    for number in range(1000):
        chronicle.take(event(EventKind.CONFLICT, number / 1000, bytes(6)))
    assert len(caplog.records) == history.BURST
    chronicle.take(event(EventKind.CONFLICT, history.PERIOD + 1, bytes(6)))
    assert caplog.records[-2].getMessage() == f"conflict: {1000 - history.BURST} more"


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_of_event_has_its_level(
    kind: EventKind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[dict[str, object]] = []
    history.Chronicle(told.append).take(event(kind, 1.0, bytes(6)))
    assert [one["event"] for one in told] == [kind.value]
    assert len(caplog.records) == 1
