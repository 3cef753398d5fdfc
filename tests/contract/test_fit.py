"""What both engines do with a frame that does not fit, and how they learn what fits."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.conftest import OTHER, PEER, PEER6, STRANGER, VNI, MakeEngine
from tests.contract.test_datapath import count, drops, receive
from tests.frames import BROADCAST, A, B, ether, ipv4, ipv6, tagged, udp, vxlan
from tests.test_clamp import SYN_ACK, mss, syn
from vxlan.drop import Count
from vxlan.engine import Datagram, Engine
from vxlan.event import EventKind
from vxlan.fdb import Remote
from vxlan.probe import ANSWER, PROBE, ProbeHeader, pack_probe, parse_probe
from vxlan.toobig import fragment_ipv4, too_big_answer
from vxlan.wire import inspect


def big(*, df: bool = True, six: bool = False, size: int = 1600, **fields: object) -> bytes:
    if six:
        return ether(ethertype=0x86DD, payload=ipv6(udp(payload=bytes(size))))
    packet = ipv4(udp(payload=bytes(size)), flags=0x4000 if df else 0, **fields)  # type: ignore[arg-type]
    return ether(ethertype=0x0800, payload=packet)


def answers(engine: Engine) -> list[bytes]:
    return [frame.data for frame in engine.take_output()[1]]


@pytest.mark.parametrize(
    "frame", [big(), big(six=True), tagged(big())], ids=["ipv4", "ipv6", "tagged"]
)
def test_a_packet_too_big_is_answered_and_counted(make: MakeEngine, frame: bytes) -> None:
    engine = make()
    limit = 1464 - (18 if frame[12:14] == b"\x81\0" else 14)
    assert engine.encap(VNI, [frame], 1.0) == []
    assert answers(engine) == [too_big_answer(frame, inspect(frame), limit)]
    assert drops(engine) == {("local", "PKT_TOO_BIG"): 1}
    assert count(engine, Count.TOO_BIG_ANSWERED) == 1


def test_ipv4_without_df_is_fragmented_inside(make: MakeEngine) -> None:
    engine = make(remotes=(PEER,))
    frame = big(df=False, size=4000)
    made = engine.encap(VNI, [frame], 1.0)
    assert [datagram.payload[8:] for datagram in made] == fragment_ipv4(frame, inspect(frame), 1450)
    assert len({datagram.flow for datagram in made}) == 1
    assert drops(engine) == {}
    assert count(engine, Count.FRAGMENTED) == 1


def test_fragments_go_to_every_target(make: MakeEngine) -> None:
    made = make().encap(VNI, [big(df=False)], 1.0)
    assert [datagram.remote for datagram in made] == [PEER, OTHER] * 2


def test_what_nobody_can_be_told_of_is_an_event_once_a_second(make: MakeEngine) -> None:
    engine = make()
    frame = ether(dst=BROADCAST, payload=bytes(1600))
    for now in (1.0, 1.5, 2.1):
        assert engine.encap(VNI, [frame], now) == []
    told = [event for event in engine.drain_events() if event.kind is EventKind.TOO_BIG]
    assert [(event.when, event.mac) for event in told] == [(1.0, A), (2.1, A)]
    assert answers(engine) == []
    assert drops(engine) == {("local", "PKT_TOO_BIG"): 3}


def test_answers_are_rate_limited(make: MakeEngine) -> None:
    engine = make()
    engine.encap(VNI, [big()] * 150, 1.0)
    assert len(answers(engine)) == 100
    assert drops(engine) == {("local", "PKT_TOO_BIG"): 150}


@pytest.mark.parametrize("flags", [2, SYN_ACK])
@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_mss_is_clamped_both_ways(make: MakeEngine, flags: int, six: bool) -> None:
    engine = make()
    before = syn(mss(1460), six=six, flags=flags)
    after = syn(mss(1390 if six else 1410), six=six, flags=flags)
    assert engine.encap(VNI, [before], 1.0)[0].payload == vxlan(VNI, after)
    assert receive(engine, vxlan(VNI, before)) == [after]
    assert count(engine, Count.CLAMPED) == 2


def test_mss_off_and_mss_as_a_number(make: MakeEngine) -> None:
    frame = syn(mss(1460))
    assert make(mss="off").encap(VNI, [frame], 1.0)[0].payload == vxlan(VNI, frame)
    assert make(mss=1000).encap(VNI, [frame], 1.0)[0].payload == vxlan(VNI, syn(mss(1000)))
    assert make(mss=1000, mtu=900).encap(VNI, [frame], 1.0)[0].payload == vxlan(VNI, syn(mss(860)))


def test_an_unfinished_syn_stays_unfinished(make: MakeEngine) -> None:
    engine = make()
    before = syn(mss(1460), finished=False)
    assert receive(engine, vxlan(VNI, before)) == [syn(mss(1410), finished=False)]


def test_tagged_syn_leaves_room_for_the_tag(make: MakeEngine) -> None:
    made = make().encap(VNI, [tagged(syn(mss(1460)))], 1.0)
    assert made[0].payload == vxlan(VNI, tagged(syn(mss(1406))))


# -- paths -------------------------------------------------------------------------


def probes(engine: Engine) -> list[tuple[Remote, int, Datagram]]:
    sent = engine.take_output()[0]
    parsed = [(datagram, parse_probe(datagram.payload)) for datagram in sent]
    return [
        (one.remote, header.size, one) for one, header in parsed if header and header.kind == PROBE
    ]


def acknowledge(engine: Engine, probe: Datagram, now: float) -> None:
    header = parse_probe(probe.payload)
    assert header is not None
    answer = pack_probe(ProbeHeader(ANSWER, header.nonce, header.size))
    engine.decap([Datagram(Remote(probe.remote.address, 50000), answer)], now)


def test_paths_are_probed_and_acknowledged(make: MakeEngine) -> None:
    engine = make()
    engine.set_paths({PEER: 1500, PEER6: 1500}, 1.0)
    sent = probes(engine)
    assert [(remote, size) for remote, size, _ in sent] == [(PEER, 1500), (PEER6, 1500)]
    assert [len(probe.payload) for _, _, probe in sent] == [1472, 1452]
    acknowledge(engine, sent[0][2], 1.1)
    state = engine.paths()[PEER.address]
    assert (state.mtu, state.how, state.phase, state.answers) == (1500, "probe", "complete", True)
    assert engine.counters(None)[PEER.address].counts[Count.PROBES] == 1


def test_a_probe_of_a_remote_is_acknowledged_at_its_vxlan_port(make: MakeEngine) -> None:
    engine = make()
    probe = pack_probe(ProbeHeader(PROBE, b"12345678", 1400), 1372)
    assert engine.decap([Datagram(Remote(PEER.address, 50000), probe)], 1.0) == []
    sent, _ = engine.take_output()
    assert [(one.remote, parse_probe(one.payload)) for one in sent] == [
        (PEER, ProbeHeader(ANSWER, b"12345678", 1400))
    ]
    assert len(sent[0].payload) <= len(probe)
    assert drops(engine, None) == {}


def test_a_stranger_gets_no_answer_to_a_probe(make: MakeEngine) -> None:
    engine = make(accept="any")
    probe = pack_probe(ProbeHeader(PROBE, b"12345678", 1400), 1372)
    engine.decap([Datagram(Remote(STRANGER.address, 50000), probe)], 1.0)
    assert engine.take_output() == ([], [])
    assert drops(engine, None) == {(STRANGER.address, "VXLAN_INVALID_HDR"): 1}


def test_a_forged_acknowledgement_changes_nothing(make: MakeEngine) -> None:
    engine = make()
    engine.set_paths({PEER: 9000}, 1.0)
    forged = pack_probe(ProbeHeader(ANSWER, b"guessed!", 9000))
    engine.decap([Datagram(Remote(PEER.address, 50000), forged)], 1.0)
    assert engine.paths()[PEER.address].answers is None


def narrow(engine: Engine, remote: Remote, width: int) -> None:
    """Let the path to a remote carry `width` bytes, and time pass until that is known."""
    now = 10.0
    engine.set_paths({remote: 1500}, now)
    while now < 30.0:
        for _, size, probe in probes(engine):
            if size <= width:
                acknowledge(engine, probe, now)
        now += 0.1
        engine.tick(now)
    assert engine.paths()[remote.address].mtu == width


def test_a_narrow_path_bounds_what_goes_to_its_remote_only(make: MakeEngine) -> None:
    engine = make()
    narrow(engine, PEER, 1400)
    receive(engine, vxlan(VNI, ether(src=A)), PEER, now=30.0)
    receive(engine, vxlan(VNI, ether(src=B)), OTHER, now=30.0)
    long = ipv4(udp(payload=bytes(1380)))
    assert engine.encap(VNI, [ether(A, B, 0x0800, long)], 31.0) == []
    assert len(engine.encap(VNI, [ether(B, A, 0x0800, long)], 31.0)) == 1
    to_peer = ether(A, B, 0x0800, long)
    assert answers(engine) == [too_big_answer(to_peer, inspect(to_peer), 1350)]
    clamped = engine.encap(VNI, [A + B + syn(mss(1460))[12:]], 31.0)
    assert clamped[0].payload[8:] == A + B + syn(mss(1310))[12:]
    changes = [event for event in engine.drain_events() if event.kind is EventKind.PATH_MTU]
    assert {event.remote for event in changes} == {PEER}


def test_ping_measures_the_way_there_and_back(make: MakeEngine) -> None:
    engine = make()
    nonce = engine.ping(PEER, 1000, 1 << 31, 5.0)
    (_, size, probe), *_ = probes(engine)
    assert (size, len(probe.payload), probe.flow) == (1000, 972, 1 << 31)
    assert engine.echo(nonce) is None
    acknowledge(engine, probe, 5.25)
    assert engine.echo(nonce) == pytest.approx(0.25)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_frame_leaves_or_is_answered_or_counted(
    make: MakeEngine, data: st.DataObject
) -> None:
    engine = make(remotes=(PEER,), mtu=data.draw(st.sampled_from([576, 1280, 1450])))
    frame = data.draw(
        st.one_of(
            st.binary(max_size=64),
            st.builds(big, df=st.booleans(), six=st.booleans(), size=st.integers(0, 3000)),
            st.builds(
                lambda value, six: syn(mss(value), six=six), st.integers(0, 65535), st.booleans()
            ),
            st.builds(lambda size: tagged(big(size=size)), st.integers(0, 3000)),
        )
    )
    made = engine.encap(VNI, [frame], 1.0)
    dropped = sum(drops(engine).values())
    said = answers(engine)
    limit = count(engine, Count.CLAMPED) + count(engine, Count.FRAGMENTED)
    assert (dropped == 1) == (not made)
    assert len(said) == count(engine, Count.TOO_BIG_ANSWERED) <= dropped
    if made and not limit:
        assert [datagram.payload for datagram in made] == [vxlan(VNI, frame)]
