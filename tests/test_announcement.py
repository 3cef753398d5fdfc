"""What stands in an announcement, comes out of it; what is no announcement is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.announcement import (
    MAX_ADDRESSES,
    MAX_BODY,
    MAX_STATIONS,
    Announcement,
    Kind,
    Station,
    in_parts,
    is_announcement,
    pack,
    parse,
)

KEY = b"sixteen bytes of"
macs = st.binary(min_size=5, max_size=5).map(b"\x02".__add__)
v4 = st.lists(st.binary(min_size=4, max_size=4), max_size=MAX_ADDRESSES)
v6 = st.lists(st.binary(min_size=16, max_size=16), max_size=MAX_ADDRESSES)
stations = st.builds(lambda mac, four, six: Station(mac, (*four, *six)), macs, v4, v6)
announcements = st.builds(
    Announcement,
    st.sampled_from(Kind),
    st.integers(0, 0xFFFFFF),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
    st.lists(stations, max_size=MAX_STATIONS).map(tuple),
    st.integers(0, 0xFFFF),
)


@given(announcements, st.sampled_from([None, KEY]))
def test_what_is_packed_is_parsed(said: Announcement, key: bytes | None) -> None:
    payload = pack(said, key)
    assert is_announcement(payload)
    assert parse(payload, key) == said
    assert parse(payload, None) == said


def test_the_i_flag_is_clear() -> None:
    payload = pack(Announcement(Kind.ASK, 42, 1, bytes(16)), None)
    assert payload[:8] == bytes(8)


@given(announcements, st.data())
def test_under_a_key_no_bit_can_be_changed(said: Announcement, data: st.DataObject) -> None:
    payload = bytearray(pack(said, KEY))
    at = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[at // 8] ^= 1 << at % 8
    assert parse(bytes(payload), KEY) is None


@given(announcements)
def test_a_key_is_no_other_key_and_not_none(said: Announcement) -> None:
    assert parse(pack(said, b"another key of sixteen bytes"), KEY) is None
    assert parse(pack(said, None), KEY) is None


@given(announcements, st.integers(0, 2000), st.binary(max_size=40))
def test_what_is_cut_or_bent_is_refused_or_read_without_error(
    said: Announcement, at: int, bent: bytes
) -> None:
    payload = pack(said, None)
    found = parse(payload[:at] + bent + payload[at + len(bent) :], None)
    assert found is None or len(found.stations) <= MAX_STATIONS


@given(announcements, st.integers(1, 200))
def test_a_tail_is_refused(said: Announcement, more: int) -> None:
    assert parse(pack(said, None) + bytes(more), None) is None


@pytest.mark.parametrize("mac", [bytes(6), b"\xff" * 6, b"\x01\0\x5e\0\0\1"])
def test_what_cannot_be_a_station_is_refused(mac: bytes) -> None:
    said = Announcement(Kind.TELL, 42, 1, bytes(16), (Station(mac),))
    assert parse(pack(said, None), None) is None


@given(st.lists(stations, max_size=100))
def test_parts_are_all_of_it_and_each_fits(many: list[Station]) -> None:
    parts = list(in_parts(many))
    assert [one for part in parts for one in part] == many
    for part in parts:
        size = len(pack(Announcement(Kind.TELL, 42, 1, bytes(16), part), KEY))
        assert len(part) == 1 or size <= MAX_BODY + 68


def test_too_many_are_an_error_of_the_caller() -> None:
    many = (Station(b"\x02" + bytes(5)),) * (MAX_STATIONS + 1)
    with pytest.raises(ValueError, match="at most 32"):
        pack(Announcement(Kind.TELL, 42, 1, bytes(16), many), None)
    wordy = Station(b"\x02" + bytes(5), (bytes(4),) * (MAX_ADDRESSES + 1))
    with pytest.raises(ValueError, match="at most 4"):
        pack(Announcement(Kind.TELL, 42, 1, bytes(16), (wordy,)), None)
