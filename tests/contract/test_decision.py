"""`pyvxlan explain` cannot disagree with the engines: it says what they then do.

A history makes tables; then an engine's twin is asked about a packet, the engine is given
it, and both must have the same verdict, reason, octets, remotes, answer and learning.
The engine that was asked must be as if it had not been.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from tests.contract.conftest import LOCAL, OTHER, PEER, STRANGER, VNI, MakeEngine, _engine
from tests.contract.test_announce import listening
from tests.contract.test_announce import said as announced
from tests.contract.test_echo import Behind, asking
from tests.frames import BROADCAST, A, B, C, ether, ipv4, udp, vxlan
from tests.test_clamp import mss, syn
from tests.test_differential import VNIS, Runner, datagrams, frames, policies, steps
from tests.test_neighbour import arp_request, solicitation
from vxlan import vtep
from vxlan.announcement import Kind
from vxlan.decision import (
    DECAP_RULES,
    ENCAP_RULES,
    Decision,
    decide_decap,
    decide_encap,
    inner_of,
    macs_of,
)
from vxlan.drop import Count, Drop
from vxlan.engine import Datagram, Engine, Policy
from vxlan.event import EventKind
from vxlan.fdb import State
from vxlan.probe import ANSWER, PROBE, ProbeHeader, pack_probe

BIG = ether(ethertype=0x0800, payload=ipv4(udp(payload=bytes(1600))))


neighbourly = st.one_of(
    st.sampled_from([arp_request(), solicitation()]),
    st.builds(
        announced,
        st.sampled_from(list(Kind)),
        at=st.sampled_from([1.0, 2.0]),
        source=st.sampled_from([PEER, STRANGER]),
    ),
)
"""Questions for a neighbour, and announcements of it."""


def ask(engine: Engine, packet: bytes | Datagram, now: float, vni: int = VNI) -> Decision:
    """As a node does it."""
    if isinstance(packet, bytes):
        return decide_encap(engine.twin(macs_of(packet)), vni, packet, now)
    twin = engine.twin(macs_of(inner_of(packet)), packet.remote.address)
    return decide_decap(twin, packet, now)


def counted(engine: Engine) -> dict[str, int]:
    """All counters of an engine by name."""
    totals: dict[str, int] = {}
    for vni in (None, *engine.twin(()).segments):
        for part in engine.counters(vni).values():
            for name, number in [
                *((one.name, part.drops[one]) for one in Drop),
                *((one.name, part.counts[one]) for one in Count),
            ]:
                totals[name] = totals.get(name, 0) + number
    return totals


def fate_of(grown: set[str]) -> str:
    if "PKT_TOO_BIG" in grown:
        return "answered" if "TOO_BIG_ANSWERED" in grown else "unanswered"
    return "fragmented" if "FRAGMENTED" in grown else "clamped" if "CLAMPED" in grown else "fits"


def hold_together(engine: Engine, packet: bytes | Datagram, now: float, vni: int) -> None:
    """What is said of a packet is what happens to it."""
    said = ask(engine, packet, now, vni)
    before = counted(engine)
    engine.take_output()
    engine.drain_events()
    sent, delivered = [], []
    if isinstance(packet, bytes):
        sent = engine.encap(vni, [packet], now)
    else:
        delivered = engine.decap([packet], now)
    after = counted(engine)
    grown = {name for name in after if after[name] > before[name]}
    dropped = grown & {one.name for one in Drop}
    assert said.drop == (Drop[dropped.pop()] if dropped else None)
    asides = {"SUPPRESSED": "suppress", "PROBES": "probe", "ANNOUNCEMENTS": "announcement"}
    aside = next((word for name, word in asides.items() if name in grown), said.side)
    assert said.verdict == ("drop" if said.drop is not None else aside)
    assert list(said.sent) == sent
    assert [said.delivered] == ([one.data for one in delivered] or [None])
    assert [said.answer] == ([one.data for one in engine.take_output()[1]] or [None])
    if said.fate is not None or "CLAMPED" in grown:
        assert said.fate == fate_of(grown)
    hold_targets(said, sent)
    hold_learning(said, grown, [event.kind for event in engine.drain_events()])


def hold_targets(said: Decision, sent: list[Datagram]) -> None:
    if sent:
        assert list(dict.fromkeys(one.remote for one in sent)) == list(said.targets)
        assert said.limit is not None
    if said.verdict == "encap":
        assert said.flooded == (said.reason == "flood_list") == (said.entry is None)
    if said.drop is not None:
        assert said.reason == said.drop.name


def hold_learning(said: Decision, grown: set[str], events: list[EventKind]) -> None:
    if said.learning in ("learned", "moved", "conflict"):
        assert said.learning.upper() in grown
        assert EventKind(said.learning) in events
    else:
        assert not grown & {"LEARNED", "MOVED", "CONFLICT"}


def test_a_table_that_is_closed_learns_nothing(make: MakeEngine) -> None:
    engine = make(maxaddress=2)
    heard = vxlan(VNI, ether(BROADCAST, A))
    engine.decap([Datagram(PEER, vxlan(VNI, ether(BROADCAST, B)))], 1.0)
    engine.fdb_set(VNI, C, (PEER,), State.STATIC, "test", 1.0)
    assert ask(engine, Datagram(PEER, heard), 2.0).learning == "learned", "B makes room"
    engine.fdb_set(VNI, B, (PEER,), State.STATIC, "test", 1.0)
    assert ask(engine, Datagram(PEER, heard), 2.0).learning == "unkept"
    engine.decap([Datagram(PEER, heard)], 2.0)
    assert engine.fdb_get(VNI, A) is None


@pytest.mark.parametrize("name", ["python", "fastpath"])
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    policy=policies,
    history=st.lists(steps, max_size=12),
    packets=st.lists(st.one_of(frames(), datagrams(), neighbourly), min_size=1, max_size=6),
    vni=st.sampled_from(VNIS),
    announcing=st.booleans(),
)
def test_what_is_said_is_what_happens(
    name: str,
    policy: Policy,
    history: list[tuple[Any, ...]],
    packets: list[Any],
    vni: int,
    announcing: bool,
) -> None:
    runner = Runner(_engine(name), policy)
    runner.engine.set_announcing(vni, announcing, 0.0)
    for step in history:
        runner.do(step)
    for packet in packets:
        runner.now += 0.01
        hold_together(runner.engine, packet, runner.now, vni)


@pytest.mark.parametrize("name", ["python", "fastpath"])
@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(history=st.lists(steps, max_size=8), packet=st.one_of(frames(), datagrams()))
def test_who_was_asked_is_as_before(name: str, history: list[Any], packet: Any) -> None:
    runner, twin = Runner(_engine(name), Policy()), Runner(_engine(name), Policy())
    for step in history:
        runner.do(step)
        twin.do(step)
        ask(runner.engine, packet, runner.now)
    assert runner.books() == twin.books()
    assert runner.events() == twin.events()
    assert runner.engine.take_output() == twin.engine.take_output()


# -- each rule ----------------------------------------------------------------------------


def test_an_entry_and_the_flood_list(make: MakeEngine) -> None:
    engine = make()
    engine.decap([Datagram(PEER, vxlan(VNI, ether(BROADCAST, B)))], 1.0)
    entry = ask(engine, ether(B, A), 3.0)
    assert (entry.reason, entry.targets, entry.flooded) == ("fdb_entry", (PEER,), False)
    assert entry.entry is not None
    assert (entry.entry.state, entry.entry.source, entry.entry.since) == ("dynamic", "data", 1.0)
    flood = ask(engine, ether(A, B), 3.0)
    assert (flood.reason, flood.targets, flood.flooded) == ("flood_list", (PEER, OTHER), True)


def test_the_budget_of_answers_counts(make: MakeEngine) -> None:
    engine = make()
    assert ask(engine, BIG, 1.0).fate == "answered"
    engine.encap(VNI, [BIG] * 100, 1.0)
    assert ask(engine, BIG, 1.0).fate == "unanswered"


def test_a_clamped_syn_on_both_sides(make: MakeEngine) -> None:
    engine = make()
    frame = syn(mss(1460))
    assert ask(engine, frame, 1.0).fate == "clamped"
    taken = ask(engine, Datagram(PEER, vxlan(VNI, frame)), 1.0)
    assert (taken.verdict, taken.fate, taken.reason) == ("decap", "clamped", "known_remote")
    assert taken.delivered == syn(mss(1410))


def test_what_a_source_teaches(make: MakeEngine) -> None:
    engine = make()
    heard = vxlan(VNI, ether(BROADCAST, B))
    assert ask(engine, Datagram(PEER, heard), 1.0).learning == "learned"
    engine.decap([Datagram(PEER, heard)], 1.0)
    assert ask(engine, Datagram(PEER, heard), 2.0).learning == "known"
    assert ask(engine, Datagram(OTHER, heard), 2.0).learning == "moved"
    off = make(learning=False)
    assert ask(off, Datagram(PEER, heard), 1.0).learning == "off"


def test_probes_and_their_answers_are_no_frames(make: MakeEngine) -> None:
    engine = make()
    for kind, reason in ((PROBE, "probe"), (ANSWER, "probe_answer")):
        payload = pack_probe(ProbeHeader(kind, b"12345678", 1400), 100)
        said = ask(engine, Datagram(PEER, payload), 1.0)
        assert (said.verdict, said.reason) == ("probe", reason)
        assert ask(engine, Datagram(STRANGER, payload), 1.0).drop is Drop.VXLAN_INVALID_HDR


def test_the_answer_to_an_echo_ends_here(make: MakeEngine) -> None:
    engine = asking(make, 4)
    station = Behind(engine, 4, 1500)
    station.take(next_question(engine, 0.0), 0.0)
    answer = bytes(station.reply(Ether(next_question(engine, 0.25).payload[8:])))
    came = Datagram(PEER, vxlan(VNI, answer))
    said = ask(engine, came, 0.3)
    assert (said.verdict, said.reason) == ("probe", "echo_reply")
    assert engine.decap([came], 0.3) == [], "the engine still waits for it"
    assert ask(engine, came, 0.4).verdict == "decap", "it waits for it once"


def next_question(engine: Engine, now: float) -> Datagram:
    engine.tick(now)
    return next(one for one in engine.take_output()[0] if one.payload[0] == 8)


def test_a_question_that_is_answered_here(make: MakeEngine) -> None:
    engine = listening(make)
    engine.decap([announced()], 1.0)
    engine.take_output()
    asked = arp_request()
    said = ask(engine, asked, 2.0)
    assert (said.verdict, said.reason, said.targets) == ("suppress", "neighbour", ())
    hold_together(engine, asked, 2.0, VNI)
    unknown = arp_request(pdst="10.42.0.99")
    assert ask(engine, unknown, 2.0).reason == "flood_list"
    hold_together(engine, unknown, 2.0, VNI)


def test_announcements_are_believed_or_refused_once(make: MakeEngine) -> None:
    engine = listening(make)
    news = announced()
    for _ in range(2):
        assert ask(engine, news, 1.0).verdict == "announcement"
    hold_together(engine, news, 1.0, VNI)
    again = ask(engine, news, 1.0)
    assert (again.verdict, again.drop) == ("drop", Drop.ANNOUNCEMENT_REFUSED)
    hold_together(engine, news, 1.0, VNI)


def test_anybody_where_anybody_is_accepted(make: MakeEngine) -> None:
    engine = make(accept="any")
    said = ask(engine, Datagram(STRANGER, vxlan(VNI, ether())), 1.0)
    assert (said.verdict, said.reason) == ("decap", "anybody")
    assert ask(engine, Datagram(PEER, vxlan(VNI, ether())), 1.0).reason == "known_remote"


def test_own_macs_and_own_addresses(make: MakeEngine) -> None:
    engine = make()
    engine.set_own_macs(VNI, [A])
    assert ask(engine, Datagram(PEER, vxlan(VNI, ether(B, A))), 1.0).drop is Drop.LOCAL_MAC
    own = Datagram(PEER._replace(address=LOCAL[0]), vxlan(VNI, ether()))
    assert ask(engine, own, 1.0).drop is Drop.OWN_ADDRESS


def test_the_rules_are_those_of_the_core_in_its_order() -> None:
    words = (vtep.__doc__ or "").replace(",", " ").split()
    rules = [one.name for rule in ENCAP_RULES + DECAP_RULES for one in rule.reasons]
    rules.remove(Drop.ANNOUNCEMENT_REFUSED.name)  # of what is no VXLAN frame at all
    assert [word for word in words if word in Drop.__members__] == rules
