"""What an engine records of the packets that it decides about, in memory."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.conftest import LOCAL, OTHER, PEER, PEER6, STRANGER, VNI, MakeEngine
from tests.contract.test_announce import listening, said
from tests.frames import A, B, C, ether, ipv4, tagged, udp, vxlan
from tests.test_differential import datagrams, frames, policies
from tests.test_neighbour import arp_request
from vxlan.drop import Count, Drop
from vxlan.engine import Datagram, Engine, Policy
from vxlan.fdb import Remote, State
from vxlan.sight import Flag, Found, Seen, Sight, Where, each

EVERYTHING = Sight()


def taken(engine: Engine) -> list[Seen]:
    batch = engine.take_captured()
    found = list(each(batch.records))
    assert (batch.packets, batch.lost) == (len(found), 0)
    assert [seen.when for seen in found] == sorted(seen.when for seen in found)
    return [seen._replace(when=0) for seen in found]


def watched(make: MakeEngine, sight: Sight = EVERYTHING, **policy: object) -> Engine:
    engine = make(**policy)
    engine.capture(sight)
    return engine


def receive(engine: Engine, payload: bytes, remote: Remote = PEER, tos: int = 0) -> None:
    engine.decap([Datagram(Remote(remote.address, 50123), payload, tos=tos)], 1.0)


# -- what is decided -----------------------------------------------------------------


def test_a_flooded_frame_names_how_many_it_goes_to(make: MakeEngine) -> None:
    engine = watched(make)
    engine.encap(VNI, [ether()], 1.0)
    assert taken(engine) == [
        Seen(Where.TAP_IN, ether(), 60, vni=VNI, remote=PEER, targets=2, found=Found.FLOOD)
    ]


def test_a_learned_station_is_told_with_its_age(make: MakeEngine) -> None:
    engine = watched(make)
    receive(engine, vxlan(VNI, ether(src=B)), OTHER)
    engine.encap(VNI, [ether(dst=B)], 4.5)
    came, went = taken(engine)
    source = Remote(OTHER.address, 50123)
    assert came == Seen(Where.UNDERLAY_IN, vxlan(VNI, ether(src=B)), 68, vni=VNI, remote=source)
    assert went == Seen(
        Where.TAP_IN, ether(dst=B), 60, vni=VNI, remote=OTHER, found=Found.DYNAMIC, age=3500
    )


@pytest.mark.parametrize(
    ("state", "found"),
    [(State.STATIC, Found.STATIC), (State.EXTERN_LEARN, Found.EXTERN_LEARN)],
)
def test_an_entry_is_told_with_its_state(make: MakeEngine, state: State, found: Found) -> None:
    engine = watched(make)
    engine.fdb_set(VNI, B, (PEER6, OTHER), state, "test", 0.0)
    engine.encap(VNI, [ether(dst=B)], 1.0)
    (seen,) = taken(engine)
    assert (seen.found, seen.remote, seen.targets, seen.age) == (found, PEER6, 2, 1000)


@pytest.mark.parametrize(
    ("frame", "policy", "why"),
    [
        (ether()[:13], {}, Drop.PKT_TOO_SMALL),
        (ether(src=b"\1" * 6), {}, Drop.MAC_INVALID_SOURCE),
        (tagged(ether()), {"vlan": "drop"}, Drop.VLAN_POLICY),
        (ether(), {"remotes": ()}, Drop.NO_TX_TARGET),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_frame_that_is_dropped_has_its_reason(
    make: MakeEngine, frame: bytes, policy: dict[str, object], why: Drop
) -> None:
    engine = watched(make, **policy)
    engine.encap(VNI, [frame], 1.0)
    assert taken(engine) == [Seen(Where.TAP_IN, frame, len(frame), vni=VNI, reason=why, targets=0)]


@pytest.mark.parametrize(
    ("payload", "remote", "vni", "why"),
    [
        (vxlan(VNI, ether())[:7], PEER, None, Drop.HDR_TRUNC),
        (vxlan(VNI, ether(), flags=0), PEER, None, Drop.VXLAN_INVALID_HDR),
        (vxlan(99, ether()), PEER, 99, Drop.VXLAN_VNI_NOT_FOUND),
        (vxlan(VNI, ether()), STRANGER, VNI, Drop.UNKNOWN_REMOTE),
        (vxlan(VNI, ether()), Remote(LOCAL[0], 4789), VNI, Drop.OWN_ADDRESS),
        (vxlan(VNI, ether()[:13]), PEER, VNI, Drop.PKT_TOO_SMALL),
        (b"", PEER, None, Drop.HDR_TRUNC),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_datagram_that_is_dropped_has_its_reason(
    make: MakeEngine, payload: bytes, remote: Remote, vni: int | None, why: Drop
) -> None:
    engine = watched(make)
    receive(engine, payload, remote, tos=2)
    assert taken(engine) == [
        Seen(
            Where.UNDERLAY_IN, payload, len(payload), vni=vni, reason=why,
            remote=Remote(remote.address, 50123), tos=2,
        )
    ]  # fmt: skip


def test_what_is_too_big_names_the_target_and_the_answer(make: MakeEngine) -> None:
    engine = watched(make, remotes=(PEER,), mtu=600)
    big = ether(payload=ipv4(b"x" * 900), ethertype=0x0800)
    engine.encap(VNI, [big], 1.0)
    (seen,) = taken(engine)
    assert (seen.reason, seen.remote, seen.targets) == (Drop.PKT_TOO_BIG, PEER, 1)
    assert seen.flags == Flag.ANSWERED
    assert seen.data == big


def test_a_packet_that_was_fragmented_says_so(make: MakeEngine) -> None:
    engine = watched(make, remotes=(PEER,), mtu=600)
    engine.encap(VNI, [ether(payload=ipv4(b"x" * 900, flags=0), ethertype=0x0800)], 1.0)
    (seen,) = taken(engine)
    assert (seen.reason, seen.flags) == (None, Flag.FRAGMENTED)


def test_a_header_that_was_changed_is_kept_as_it_came(make: MakeEngine) -> None:
    engine = watched(make)
    inner = ether(src=B, payload=ipv4(b"x" * 9, tos=2), ethertype=0x0800)
    receive(engine, vxlan(VNI, inner), tos=3)
    (seen,) = taken(engine)
    assert (seen.flags, seen.tos, seen.data) == (Flag.CHANGED, 3, vxlan(VNI, inner))


def test_a_question_that_is_answered_here_goes_nowhere(make: MakeEngine) -> None:
    engine = listening(make)
    engine.capture(EVERYTHING)
    told = said()
    engine.decap([told], 1.0)
    engine.encap(VNI, [arp_request()], 1.5)
    came, asked = taken(engine)
    assert (came.where, came.flags, came.reason) == (Where.UNDERLAY_IN, Flag.OWN, None)
    assert (came.data, came.remote) == (told.payload, told.remote)
    assert (asked.where, asked.flags, asked.targets) == (Where.TAP_IN, Flag.SUPPRESSED, 0)
    assert (asked.data, asked.remote) == (arp_request(), None)


def test_an_announcement_that_is_refused_has_its_reason(make: MakeEngine) -> None:
    engine = listening(make, b"the key of sixteen")
    engine.capture(Sight(drops=True))
    engine.decap([said(key=b"another of sixteen")], 1.0)
    (seen,) = taken(engine)
    assert seen.reason is Drop.ANNOUNCEMENT_REFUSED


# -- what is wanted ------------------------------------------------------------------

SIGHTS = [
    (Sight(vni=VNI), {"tap", "came", "dropped"}),
    (Sight(vni=99), {"unknown"}),
    (Sight(mac=B), {"tap", "came"}),
    (Sight(mac=C), {"dropped"}),
    (Sight(ip=bytes((10, 42, 0, 2))), {"tap"}),
    (Sight(ip=bytes((10, 42, 0, 9))), set()),
    (Sight(remote=OTHER.address), {"tap", "came"}),
    (Sight(remote=PEER6.address), set()),
    (Sight(drops=True), {"unknown", "dropped"}),
    (Sight(side="inner"), {"tap"}),
    (Sight(side="outer"), {"came", "unknown", "dropped"}),
    (Sight(vni=VNI, drops=True, remote=STRANGER.address), {"dropped"}),
]


@pytest.mark.parametrize(("sight", "names"), SIGHTS, ids=str)
def test_only_what_is_wanted_is_recorded(make: MakeEngine, sight: Sight, names: set[str]) -> None:
    packets = {
        "tap": ether(src=A, dst=B, payload=udp(), ethertype=0x0800),
        "came": vxlan(VNI, ether(src=B)),
        "unknown": vxlan(99, b""),
        "dropped": vxlan(VNI, ether(dst=A, src=C)),
    }
    packets["tap"] = ether(src=A, dst=B, payload=ipv4(udp()), ethertype=0x0800)
    engine = watched(make, sight)
    engine.encap(VNI, [packets["tap"]], 1.0)
    receive(engine, packets["came"], OTHER)
    receive(engine, packets["unknown"])
    receive(engine, packets["dropped"], STRANGER)
    assert [seen.data for seen in taken(engine)] == [
        packet for name, packet in packets.items() if name in names
    ]


def test_the_rest_of_a_long_packet_is_not_kept(make: MakeEngine) -> None:
    engine = watched(make, Sight(snaplen=20))
    engine.encap(VNI, [ether()], 1.0)
    (seen,) = taken(engine)
    assert (seen.data, seen.length) == (ether()[:20], 60)


def test_nothing_is_recorded_before_and_after(make: MakeEngine) -> None:
    engine = make()
    engine.encap(VNI, [ether()], 1.0)
    engine.capture(EVERYTHING)
    assert taken(engine) == []
    engine.encap(VNI, [ether()], 1.0)
    engine.capture(None)
    engine.encap(VNI, [ether()], 1.0)
    assert taken(engine) == []


def test_what_has_no_room_is_counted_and_the_packets_go_on(make: MakeEngine) -> None:
    engine = watched(make)
    frame = ether(payload=b"x" * 1400)
    for _ in range(200):
        assert len(engine.encap(VNI, [frame] * 20, 1.0)) == 40
    found = lost = 0
    while (batch := engine.take_captured()).packets or batch.lost:
        found += batch.packets
        lost += batch.lost
    assert found + lost == 4000
    assert 0 < lost < 4000
    engine.encap(VNI, [frame], 1.0)
    assert len(taken(engine)) == 1


def test_being_watched_counts_nobody_apart(make: MakeEngine) -> None:
    plain, seen = make(), watched(make)
    for engine in (plain, seen):
        receive(engine, vxlan(99, ether()), STRANGER)
    assert plain.counters(VNI).keys() == seen.counters(VNI).keys()
    assert plain.counters(None).keys() == seen.counters(None).keys()


# -- any input -----------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(frame=frames(), policy=policies)
def test_a_record_agrees_with_the_counters_and_with_what_is_sent(
    make: MakeEngine, frame: bytes, policy: Policy
) -> None:
    engine = watched(make)
    engine.set_policy(VNI, policy, 0.0)
    made = engine.encap(VNI, [frame], 1.0)
    (seen,) = taken(engine)
    local = engine.counters(VNI)["local"]
    assert [why for why in Drop if local.drops[why]] == [seen.reason] * (seen.reason is not None)
    assert bool(made) == (seen.reason is None)
    assert (seen.where, seen.vni, seen.data) == (Where.TAP_IN, VNI, frame)
    if made:
        assert seen.remote == made[0].remote
        assert (seen.found is Found.FLOOD) == bool(local.counts[Count.FLOODED])
    assert bool(seen.flags & Flag.CHANGED) == bool(local.counts[Count.CLAMPED])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(datagram=datagrams(), policy=policies)
def test_a_datagram_is_recorded_once_with_what_became_of_it(
    make: MakeEngine, datagram: Datagram, policy: Policy
) -> None:
    engine = watched(make)
    engine.set_policy(VNI, policy, 0.0)
    frames = engine.decap([datagram], 1.0)
    (seen,) = taken(engine)
    assert (seen.where, seen.data, seen.remote) == (
        Where.UNDERLAY_IN, datagram.payload, datagram.remote
    )  # fmt: skip
    assert bool(frames) == (seen.reason is None and not seen.flags & Flag.OWN)
    if frames:
        assert bool(seen.flags & Flag.CHANGED) == (frames[0].data != datagram.payload[8:])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rounds=st.lists(
        st.tuples(st.integers(14, 60_000), st.integers(1, 120)), min_size=1, max_size=12
    ),
    snaplen=st.sampled_from([16, 96, 1500, 262144]),
)
def test_what_is_recorded_is_whole_wherever_it_lies(
    make: MakeEngine, rounds: list[tuple[int, int]], snaplen: int
) -> None:
    """A ring is written and read round and round."""
    engine = watched(make, Sight(snaplen=snaplen), remotes=())
    count = 0
    for size, packets in rounds:
        frames = [numbered(count + at, size) for at in range(packets)]
        engine.encap(VNI, frames, 1.0)
        found, lost = [], 0
        while (batch := engine.take_captured()).packets or batch.lost:
            found += list(each(batch.records))
            lost += batch.lost
        assert len(found) + lost == packets
        assert [seen.data for seen in found] == [one[:snaplen] for one in frames[: len(found)]]
        assert all(seen.length == size for seen in found)
        count += packets


def numbered(number: int, size: int) -> bytes:
    """A frame that is no other's."""
    return (ether()[:14] + number.to_bytes(4, "big") * (size // 4))[:size]


@given(st.binary(max_size=200))
def test_no_sight_stumbles_over_a_frame(data: bytes) -> None:
    sight = Sight(mac=A, ip=bytes(16))
    for where in Where:
        sight.wants(Seen(where, data, len(data)))
