"""VTEPs tell each other their stations: both engines, at either end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.conftest import OTHER, PEER, STRANGER, VNI, MakeEngine
from tests.test_neighbour import ASKER, STATION, V4, V6, arp_request, packed, solicitation
from vxlan.announce import HOLD, MAX_SKEW, REFRESH
from vxlan.announcement import Announcement, Kind, Station, pack
from vxlan.drop import Count, Drop
from vxlan.engine import Datagram, Engine, Frame, StationState
from vxlan.fdb import Remote, State
from vxlan.wire import mac_bytes

EPOCH = 1_000_000.0
KEY, WRONG = b"the key of sixteen", b"another of sixteen"
MAC = mac_bytes(STATION)
ADDRESSES = (packed(V4[1]), packed(V6[1]))
US = Remote("192.0.2.1", 4789)


def listening(make: MakeEngine, key: bytes | None = None) -> Engine:
    engine = make()
    engine.announce_with(key, EPOCH)
    engine.set_announcing(VNI, True, 0.0)
    engine.tick(0.0)
    engine.take_output()
    return engine


def said(
    kind: Kind = Kind.TELL,
    *,
    key: bytes | None = None,
    at: float = 1.0,
    sender: str = PEER.address,
    vni: int = VNI,
    stations: tuple[Station, ...] = (Station(MAC, ADDRESSES),),
    source: Remote = PEER,
) -> Datagram:
    when = int((EPOCH + at) * 1_000_000)
    announced = Announcement(kind, vni, when, packed(sender).ljust(16, b"\0"), stations, HOLD)
    return Datagram(source, pack(announced, key))


def remotes_of(engine: Engine, mac: bytes = MAC) -> tuple[Remote, ...] | None:
    entry = engine.fdb_get(VNI, mac)
    return entry.remotes if entry else None


def refused(engine: Engine, source: str = PEER.address) -> int:
    counters = engine.counters(None).get(source)
    return counters.drops[Drop.ANNOUNCEMENT_REFUSED] if counters else 0


def test_what_is_told_is_an_entry_of_a_control_plane(make: MakeEngine) -> None:
    engine = listening(make)
    assert engine.decap([said()], 1.0) == []
    entry = engine.fdb_get(VNI, MAC)
    assert entry
    assert (entry.remotes, entry.state, entry.source) == ((PEER,), State.EXTERN_LEARN, "announced")
    assert engine.counters(None)[PEER.address].counts[Count.ANNOUNCEMENTS] == 1
    assert engine.stations(VNI) == [StationState(MAC, ADDRESSES, PEER.address)]
    assert refused(engine) == 0


@pytest.mark.parametrize("question", [arp_request(), solicitation()], ids=["arp", "nd"])
def test_a_question_for_it_is_answered_here(make: MakeEngine, question: bytes) -> None:
    engine = listening(make)
    assert len(engine.encap(VNI, [question], 0.5)) == 2  # nobody knows: all are asked
    engine.decap([said()], 1.0)
    assert engine.encap(VNI, [question], 1.0) == []
    (answer,) = engine.take_output()[1]
    assert (answer.vni, answer.data[:12]) == (VNI, mac_bytes(ASKER) + MAC)
    assert engine.counters(VNI)["local"].counts[Count.SUPPRESSED] == 1


def test_a_question_for_another_still_asks_all(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    assert len(engine.encap(VNI, [arp_request(pdst="10.42.0.13")], 1.0)) == 2
    assert engine.take_output()[1] == []


def test_a_station_that_came_here_is_not_told_that_it_is_there(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said(stations=(Station(mac_bytes(ASKER), (packed(V4[1]),)),))], 1.0)
    assert len(engine.encap(VNI, [arp_request()], 1.0)) == 2


def test_a_refused_frame_gets_no_answer(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    nobody = arp_request()[:6] + bytes(6) + arp_request()[12:22] + bytes(6) + arp_request()[28:]
    assert engine.encap(VNI, [nobody], 1.0) == []
    assert engine.take_output()[1] == []
    assert engine.counters(VNI)["local"].drops[Drop.MAC_INVALID_SOURCE] == 1


def test_a_withdrawn_station_is_forgotten(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said(), said(Kind.WITHDRAW, at=2.0, stations=(Station(MAC),))], 2.0)
    assert remotes_of(engine) is None
    assert engine.stations(VNI) == []
    assert len(engine.encap(VNI, [arp_request()], 2.0)) == 2


def test_who_leaves_takes_all_along_and_nothing_of_others(make: MakeEngine) -> None:
    engine = listening(make)
    theirs = Station(b"\x02" + bytes(5))
    engine.decap([said(), said(source=OTHER, stations=(theirs,))], 1.0)
    engine.decap([said(Kind.LEAVE, at=2.0, stations=())], 2.0)
    assert remotes_of(engine) is None
    assert remotes_of(engine, theirs.mac) == (OTHER,)


def test_a_station_that_moved_is_not_taken_away_by_its_former_host(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said(), said(source=OTHER, at=2.0)], 2.0)
    engine.decap([said(Kind.WITHDRAW, at=3.0, stations=(Station(MAC),))], 3.0)
    assert remotes_of(engine) == (OTHER,)


def test_an_older_withdrawal_does_not_overtake(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said(at=2.0), said(Kind.WITHDRAW, at=1.0, stations=(Station(MAC),))], 2.0)
    assert remotes_of(engine) == (PEER,)


def test_who_dies_is_forgotten_in_time(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    engine.tick(HOLD)
    assert remotes_of(engine) == (PEER,)
    engine.tick(1.0 + HOLD + REFRESH)
    assert remotes_of(engine) is None


def test_a_remote_that_is_taken_away_is_forgotten_at_once(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    engine.del_remote(VNI, PEER, 1.0)
    engine.tick(1.1)
    assert remotes_of(engine) is None


def test_an_operators_entry_stands_above(make: MakeEngine) -> None:
    engine = listening(make)
    engine.fdb_set(VNI, MAC, (OTHER,), State.STATIC, "operator", 0.0)
    engine.decap([said()], 1.0)
    assert remotes_of(engine) == (OTHER,)
    engine.fdb_remove(VNI, MAC, 1.5, State.STATIC)
    assert remotes_of(engine) == (PEER,)


def test_another_control_planes_entry_is_not_withdrawn(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    engine.fdb_set(VNI, MAC, (OTHER,), State.EXTERN_LEARN, "evpn", 1.5)
    engine.decap([said(Kind.LEAVE, at=2.0, stations=())], 2.0)
    assert remotes_of(engine) == (OTHER,)


# -- what is refused ------------------------------------------------------------------------


REFUSED = {
    "malformed": (None, Datagram(PEER, said().payload[:-1])),
    "of a stranger": (None, said(source=STRANGER)),
    "of another segment": (None, said(vni=43)),
    "without a key": (KEY, said()),
    "with another key": (KEY, said(key=WRONG)),
    "recorded long ago": (KEY, said(key=KEY, at=1.0 - MAX_SKEW - 1)),
    "from the future": (KEY, said(key=KEY, at=1.0 + MAX_SKEW + 1)),
    "signed for another address": (KEY, said(key=KEY, source=OTHER)),
}


@pytest.mark.parametrize(("key", "datagram"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_and_counted(make: MakeEngine, key: bytes | None, datagram: Datagram) -> None:
    engine = listening(make, key)
    assert engine.decap([datagram], 1.0) == []
    assert refused(engine, datagram.remote.address) + refused(engine, "other") == 1
    assert remotes_of(engine) is None


def test_a_segment_that_does_not_announce_believes_nothing(make: MakeEngine) -> None:
    engine = make()
    engine.decap([said()], 1.0)
    assert refused(engine) == 1
    assert engine.stations(VNI) == []


def test_a_recorded_datagram_is_good_once(make: MakeEngine) -> None:
    engine = listening(make, KEY)
    told, gone = said(key=KEY), said(Kind.WITHDRAW, key=KEY, at=2.0, stations=(Station(MAC),))
    engine.decap([told, gone, told], 2.0)
    assert remotes_of(engine) is None
    assert refused(engine) == 1


def test_without_a_key_a_clock_that_was_set_back_is_believed(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said(at=1000.0), said(at=1.0)], 1.0)
    assert refused(engine) == 0
    engine.decap([said(at=2.0, stations=(Station(b"\x02" + bytes(5)),))], 2.0)
    assert remotes_of(engine, b"\x02" + bytes(5)) == (PEER,)


@given(st.binary(max_size=200))
def test_no_announcement_whatever_is_in_it_does_harm(tail: bytes) -> None:
    from vxlan.engine import Policy, choose_engine

    engine = choose_engine("auto", ("192.0.2.1",), 4789)
    engine.add_segment(VNI, Policy())
    engine.add_remote(VNI, PEER, 0.0)
    engine.set_announcing(VNI, True, 0.0)
    engine.decap([Datagram(PEER, bytes(8) + b"PVXA" + tail)], 1.0)
    total = engine.counters(None)[PEER.address]
    assert total.counts[Count.ANNOUNCEMENTS] + total.drops[Drop.ANNOUNCEMENT_REFUSED] == 1


# -- what is said ---------------------------------------------------------------------------


def pair(make: MakeEngine, key: bytes | None) -> tuple[Engine, Engine]:
    """Two engines, each the other's remote, of which the first has a station."""
    from vxlan.engine import Policy

    here, there = make(remotes=(PEER,)), make(remotes=())
    module = type(there)
    there = module((PEER.address,), 4789)
    there.add_segment(VNI, Policy())
    there.add_remote(VNI, US, 0.0)
    for engine in (here, there):
        engine.announce_with(key, EPOCH)
        engine.set_announcing(VNI, True, 0.0)
    here.add_station(VNI, MAC, ADDRESSES, 0.0)
    return here, there


def carry(here: Engine, there: Engine, now: float) -> None:
    """Let both say what they have to say, until nobody has."""
    for _ in range(4):
        for one, other, source in ((here, there, US), (there, here, PEER)):
            one.tick(now)
            datagrams, _ = one.take_output()
            other.decap([sent._replace(remote=source) for sent in datagrams], now)


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "keyed"])
def test_two_engines_understand_each_other(make: MakeEngine, key: bytes | None) -> None:
    here, there = pair(make, key)
    carry(here, there, 1.0)
    assert remotes_of(there) == (US,)
    here.del_station(VNI, MAC, 2.0)
    carry(here, there, 2.0)
    assert remotes_of(there) is None
    here.add_station(VNI, MAC, (), 3.0)
    carry(here, there, 3.0)
    here.leave(4.0)
    carry(here, there, 4.0)
    assert remotes_of(there) is None
    assert refused(there, US.address) == refused(here) == 0


def test_who_comes_late_asks_and_is_told(make: MakeEngine) -> None:
    here, there = pair(make, KEY)
    here.tick(1.0)
    here.take_output()  # nobody was there
    carry(here, there, 2.0)
    assert remotes_of(there) == (US,)


def test_all_is_told_again_before_it_is_forgotten(make: MakeEngine) -> None:
    here, there = pair(make, None)
    for tick in range(1, 400, 10):
        carry(here, there, float(tick))
        assert remotes_of(there) == (US,), tick


def test_what_is_not_announced_is_not_said(make: MakeEngine) -> None:
    here, there = pair(make, None)
    carry(here, there, 1.0)
    assert there.stations(VNI) == [StationState(MAC, ADDRESSES, US.address)]
    there.set_announcing(VNI, False, 2.0)
    assert remotes_of(there) is None
    assert there.stations(VNI) == []
    with pytest.raises(KeyError):
        there.add_station(VNI, MAC, (), 2.0)


def test_an_own_station_is_ours_whatever_others_say(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    engine.add_station(VNI, MAC, ADDRESSES, 1.5)
    assert remotes_of(engine) is None
    engine.decap([said(at=2.0)], 2.0)
    assert remotes_of(engine) is None
    assert Frame(VNI, b"") not in engine.take_output()[1]


# -- found in review ------------------------------------------------------------------------


def test_a_remote_of_one_segment_cannot_announce_in_another(make: MakeEngine) -> None:
    from vxlan.engine import Policy

    engine = listening(make)
    engine.add_segment(43, Policy())
    engine.set_announcing(43, True, 0.0)
    engine.decap([said(vni=43)], 1.0)
    assert refused(engine) == 1
    assert engine.fdb_get(43, MAC) is None
    assert engine.stations(43) == []


def test_who_asks_in_two_segments_is_told_in_both(make: MakeEngine) -> None:
    from vxlan.engine import Policy

    engine = listening(make)
    engine.add_segment(43, Policy())
    engine.add_remote(43, PEER, 0.0)
    engine.set_announcing(43, True, 0.0)
    for vni in (VNI, 43):
        engine.add_station(vni, MAC, (), 0.0)
    engine.tick(0.5)
    engine.take_output()
    asks = [said(Kind.ASK, vni=vni, at=1.0 + vni / 100, stations=()) for vni in (VNI, 43)]
    engine.decap(asks, 1.0)
    told = [one for one in engine.take_output()[0] if one.payload[8:12] == b"PVXA"]
    assert len(told) == 2


def test_an_entry_that_was_flushed_comes_back_when_it_is_told_again(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    engine.fdb_flush(VNI, 1.5)
    engine.decap([said(at=2.0)], 2.0)
    assert remotes_of(engine) == (PEER,)


def test_what_is_told_again_is_no_event(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([said()], 1.0)
    engine.drain_events()
    engine.decap([said(at=2.0)], 2.0)
    assert engine.drain_events() == []


def test_a_sender_whose_clock_was_set_back_is_soon_believed(make: MakeEngine) -> None:
    here, there = pair(make, KEY)
    carry(here, there, 1.0)
    for engine in (here, there):
        engine.announce_with(KEY, EPOCH - 3600)
    other = b"\x02" + bytes(5)
    here.add_station(VNI, other, (), 2.0)
    carry(here, there, 2.0)
    assert remotes_of(there, other) == (US,)
    here.del_station(VNI, MAC, 3.0)
    carry(here, there, 3.0)
    assert remotes_of(there) is None


def test_who_answered_and_ends_before_its_first_tick_says_so(make: MakeEngine) -> None:
    here, there = pair(make, KEY)
    there.tick(0.1)  # asks
    here.decap([one._replace(remote=PEER) for one in there.take_output()[0]], 0.1)
    there.decap([one._replace(remote=US) for one in here.take_output()[0]], 0.1)
    assert remotes_of(there) == (US,)
    here.leave(0.2)
    there.decap([one._replace(remote=US) for one in here.take_output()[0]], 0.2)
    assert remotes_of(there) is None
