"""What both engines keep: entries, remotes, counters, events, and how they age."""

from __future__ import annotations

import pytest

from tests.contract.conftest import OTHER, PEER, VNI, MakeEngine
from tests.contract.test_datapath import count, drops, receive
from tests.frames import BROADCAST, A, B, C, ether, vxlan
from vxlan.drop import Count
from vxlan.engine import Policy
from vxlan.event import EventKind
from vxlan.fdb import FdbFull, Remote, State


def mac(number: int) -> bytes:
    return b"\x02\x01" + number.to_bytes(4, "big")


def test_vni_is_added_once_and_must_be_one(make: MakeEngine) -> None:
    engine = make()
    with pytest.raises(ValueError, match="VNI 42 is there already"):
        engine.add_segment(VNI, Policy())
    with pytest.raises(ValueError, match="is not a VNI"):
        engine.add_segment(1 << 24, Policy())
    with pytest.raises(KeyError):
        engine.encap(7, [ether()], 0.0)


def test_segments_do_not_meet(make: MakeEngine) -> None:
    engine = make()
    engine.add_segment(43, Policy())
    engine.add_remote(43, PEER, 0.0)
    receive(engine, vxlan(VNI, ether(src=B)))
    assert engine.fdb_dump(43) == []
    assert [frame.vni for frame in engine.decap([_from_peer(43)], 1.0)] == [43]


def _from_peer(vni: int):  # type: ignore[no-untyped-def]  # a Datagram, built late
    from vxlan.engine import Datagram

    return Datagram(Remote(PEER.address, 5555), vxlan(vni, ether()))


def test_a_removed_segment_is_not_found(make: MakeEngine) -> None:
    engine = make()
    engine.remove_segment(VNI)
    assert engine.decap([_from_peer(VNI)], 1.0) == []
    assert drops(engine, None) == {(PEER.address, "VXLAN_VNI_NOT_FOUND"): 1}
    engine.add_segment(VNI, Policy())
    assert engine.fdb_dump(VNI) == []


def test_remotes_come_and_go(make: MakeEngine) -> None:
    engine = make(remotes=())
    assert engine.add_remote(VNI, PEER, 1.0)
    assert not engine.add_remote(VNI, PEER, 1.0)
    assert engine.add_remote(VNI, OTHER, 1.0)
    assert engine.remotes(VNI) == (PEER, OTHER)
    assert engine.del_remote(VNI, PEER, 2.0)
    assert not engine.del_remote(VNI, PEER, 2.0)
    assert engine.remotes(VNI) == (OTHER,)
    kinds = [event.kind for event in engine.drain_events()]
    assert kinds == [EventKind.REMOTE_ADDED, EventKind.REMOTE_ADDED, EventKind.REMOTE_REMOVED]


def test_with_a_remote_goes_what_was_learned_from_it(make: MakeEngine) -> None:
    engine = make()
    receive(engine, vxlan(VNI, ether(src=B)), PEER)
    receive(engine, vxlan(VNI, ether(src=C)), OTHER)
    engine.del_remote(VNI, PEER, 2.0)
    assert [entry.mac for entry in engine.fdb_dump(VNI)] == [C]
    assert receive(engine, vxlan(VNI, ether(src=B)), PEER) == []


def test_first_contact_is_remote_up_once(make: MakeEngine) -> None:
    engine = make()
    receive(engine, vxlan(VNI, ether()))
    receive(engine, vxlan(VNI, ether()))
    ups = [event for event in engine.drain_events() if event.kind is EventKind.REMOTE_UP]
    assert [event.remote for event in ups] == [PEER]
    assert engine.peers_up() == {PEER.address: True}


def test_learned_moved_aged_are_told_and_counted(make: MakeEngine) -> None:
    engine = make(ageing=300.0)
    receive(engine, vxlan(VNI, ether()), PEER, now=1.0)
    receive(engine, vxlan(VNI, ether()), OTHER, now=2.0)
    engine.tick(301.0)
    assert len(engine.fdb_dump(VNI)) == 1
    engine.tick(302.0)
    assert engine.fdb_dump(VNI) == []
    told = [event for event in engine.drain_events() if event.kind is not EventKind.REMOTE_UP]
    assert [(event.kind, event.vni, event.mac, event.remote, event.was) for event in told] == [
        (EventKind.LEARNED, VNI, A, PEER, None),
        (EventKind.MOVED, VNI, A, OTHER, PEER),
        (EventKind.AGED, VNI, A, OTHER, None),
    ]
    assert [count(engine, which) for which in (Count.LEARNED, Count.MOVED, Count.AGED)] == [1, 1, 1]


def test_a_full_table_is_fair(make: MakeEngine) -> None:
    engine = make(maxaddress=8)
    receive(engine, vxlan(VNI, ether(src=B)), OTHER)
    for number in range(50):
        receive(engine, vxlan(VNI, ether(src=mac(number))), PEER)
    held = {entry.mac for entry in engine.fdb_dump(VNI)}
    assert held == {B, *(mac(number) for number in range(43, 50))}
    assert count(engine, Count.EVICTED) == 43


def test_static_entries_fill_the_table_only_so_far(make: MakeEngine) -> None:
    engine = make(maxaddress=2)
    for number in range(2):
        engine.fdb_set(VNI, mac(number), (PEER,), State.STATIC, "test", 0.0)
    with pytest.raises(FdbFull):
        engine.fdb_set(VNI, mac(9), (PEER,), State.STATIC, "test", 0.0)
    assert receive(engine, vxlan(VNI, ether())) == [ether()]
    assert len(engine.fdb_dump(VNI)) == 2


def test_claims_are_ranked_and_come_back(make: MakeEngine) -> None:
    engine = make()
    engine.fdb_set(VNI, A, (PEER,), State.EXTERN_LEARN, "evpn", 1.0)
    engine.fdb_set(VNI, A, (OTHER,), State.STATIC, "operator", 2.0)
    entry = engine.fdb_get(VNI, A)
    assert entry is not None
    assert entry.shadowed is not None
    assert (entry.remotes, entry.state, entry.since) == ((OTHER,), State.STATIC, 2.0)
    assert (entry.shadowed.remotes, entry.shadowed.source) == ((PEER,), "evpn")
    assert engine.encap(VNI, [ether(dst=A)], 3.0)[0].remote == OTHER
    engine.fdb_remove(VNI, A, 4.0)
    assert engine.encap(VNI, [ether(dst=A)], 5.0)[0].remote == PEER


def test_flush_by_state_and_by_remote(make: MakeEngine) -> None:
    engine = make()
    receive(engine, vxlan(VNI, ether(src=B)), PEER)
    receive(engine, vxlan(VNI, ether(src=C)), OTHER)
    engine.fdb_set(VNI, A, (PEER,), State.STATIC, "test", 0.0)
    assert engine.fdb_flush(VNI, 2.0, state=State.DYNAMIC, address=PEER.address) == 1
    assert engine.fdb_flush(VNI, 2.0, state=State.DYNAMIC) == 1
    assert [entry.mac for entry in engine.fdb_dump(VNI)] == [A]
    assert engine.fdb_flush(VNI, 2.0) == 1
    assert engine.fdb_dump(VNI) == []


def test_a_policy_changes_without_losing_entries_or_counters(make: MakeEngine) -> None:
    engine = make()
    receive(engine, vxlan(VNI, ether(src=B)))
    engine.set_policy(VNI, Policy(mtu=1300, ageing=5.0, vlan="drop"), 2.0)
    assert engine.encap(VNI, [ether(dst=B, payload=bytes(1301))], 2.0) == []
    assert engine.encap(VNI, [ether(dst=B)], 2.0)[0].remote == PEER
    assert count(engine, Count.DECAP_PACKETS, PEER.address) == 1
    engine.tick(6.0)
    assert engine.fdb_dump(VNI) == []


def test_use_is_remembered(make: MakeEngine) -> None:
    engine = make()
    receive(engine, vxlan(VNI, ether(src=B)), now=1.0)
    engine.encap(VNI, [ether(dst=B)], 7.0)
    entry = engine.fdb_get(VNI, B)
    assert entry is not None
    assert (entry.updated, entry.used) == (1.0, 7.0)


def test_a_thousand_remotes_each_get_their_copy(make: MakeEngine) -> None:
    engine = make(remotes=())
    remotes = [Remote(f"198.18.{n >> 8}.{n & 255}", 4789) for n in range(1, 1001)]
    for remote in remotes:
        assert engine.add_remote(VNI, remote, 0.0)
    made = engine.encap(VNI, [ether(BROADCAST)], 1.0)
    assert [datagram.remote for datagram in made] == remotes
    assert len({datagram.payload for datagram in made}) == 1
    for remote in remotes[1:]:
        assert engine.del_remote(VNI, remote, 2.0)
    assert len(engine.encap(VNI, [ether(BROADCAST)], 3.0)) == 1
