"""What both engines do with one frame and one datagram (RFC 7348, RFC 6040)."""

from __future__ import annotations

import pytest

from tests.contract.conftest import LOCAL, OTHER, PEER, PEER6, STRANGER, VNI, MakeEngine
from tests.frames import BROADCAST, A, B, C, ether, ipv4, ipv6, tagged, udp, vxlan
from tests.test_wire import FIGURE_4
from vxlan.drop import Count, Drop
from vxlan.engine import Datagram, Engine
from vxlan.event import EventKind
from vxlan.fdb import Remote, State


def drops(engine: Engine, vni: int | None = VNI) -> dict[tuple[str, str], int]:
    """(where, reason) -> how many, of all counters that are not zero."""
    return {
        (address, reason.name): counters.drops[reason]
        for address, counters in engine.counters(vni).items()
        for reason in Drop
        if counters.drops[reason]
    }


def count(engine: Engine, which: Count, address: str = "local") -> int:
    return engine.counters(VNI)[address].counts[which]


def receive(
    engine: Engine, payload: bytes, remote: Remote = PEER, tos: int = 0, now: float = 1.0
) -> list[bytes]:
    frames = engine.decap([Datagram(Remote(remote.address, 50123), payload, tos=tos)], now)
    assert all(frame.vni == VNI for frame in frames)
    return [frame.data for frame in frames]


# -- encap -----------------------------------------------------------------------------------


def test_an_unknown_station_is_flooded_to_every_remote_once(make: MakeEngine) -> None:
    engine = make()
    made = engine.encap(VNI, [ether()], 1.0)
    assert [datagram.remote for datagram in made] == [PEER, OTHER]
    assert {datagram.payload for datagram in made} == {vxlan(VNI, ether())}
    assert count(engine, Count.FLOODED) == 1
    assert count(engine, Count.ENCAP_PACKETS, PEER.address) == 1
    assert count(engine, Count.ENCAP_BYTES, OTHER.address) == len(ether())


def test_a_known_station_gets_one_copy(make: MakeEngine) -> None:
    engine = make()
    receive(engine, vxlan(VNI, ether(src=B)), OTHER)
    made = engine.encap(VNI, [ether(dst=B)], 1.0)
    assert [datagram.remote for datagram in made] == [OTHER]
    assert count(engine, Count.FLOODED) == 0


@pytest.mark.parametrize(
    "dst", [BROADCAST, bytes.fromhex("01005e000001")], ids=["broadcast", "multicast"]
)
def test_groups_are_flooded(make: MakeEngine, dst: bytes) -> None:
    assert len(make().encap(VNI, [ether(dst=dst)], 1.0)) == 2


def test_a_static_entry_with_two_remotes_sends_to_both(make: MakeEngine) -> None:
    engine = make(remotes=())
    engine.fdb_set(VNI, B, (PEER, PEER6), State.STATIC, "test", 0.0)
    assert [datagram.remote for datagram in engine.encap(VNI, [ether(dst=B)], 1.0)] == [PEER, PEER6]


def test_both_families_in_one_flood_list(make: MakeEngine) -> None:
    made = make(remotes=(PEER, PEER6)).encap(VNI, [ether()], 1.0)
    assert [datagram.remote for datagram in made] == [PEER, PEER6]


def test_nowhere_to_send(make: MakeEngine) -> None:
    engine = make(remotes=())
    assert engine.encap(VNI, [ether(), ether(dst=BROADCAST)], 1.0) == []
    assert drops(engine) == {("local", "NO_TX_TARGET"): 2}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "PKT_TOO_SMALL"),
        (ether()[:13], "PKT_TOO_SMALL"),
        (ether(src=BROADCAST), "MAC_INVALID_SOURCE"),
        (ether(src=bytes(6)), "MAC_INVALID_SOURCE"),
        (ether(payload=bytes(1451)), "PKT_TOO_BIG"),
        (tagged(ether(payload=bytes(1448))), "PKT_TOO_BIG"),
    ],
)
def test_frames_that_may_not_leave(make: MakeEngine, frame: bytes, reason: str) -> None:
    engine = make()
    assert engine.encap(VNI, [frame], 1.0) == []
    assert drops(engine) == {("local", reason): 1}
    assert count(engine, Count.FLOODED) == 0


def test_the_longest_frames_that_fit(make: MakeEngine) -> None:
    engine = make()
    fitting = [ether(payload=bytes(1450)), tagged(ether(payload=bytes(1446))), ether()[:14]]
    assert len(engine.encap(VNI, fitting, 1.0)) == 6
    roomy = make(mtu=1400, max_frame=1464)
    assert len(roomy.encap(VNI, [tagged(ether(payload=bytes(1400)))], 1.0)) == 2


def test_vlan_drop_refuses_tagged_frames_both_ways(make: MakeEngine) -> None:
    engine = make(vlan="drop")
    assert engine.encap(VNI, [tagged(ether()), tagged(ether(), tpid=0x88A8)], 1.0) == []
    assert receive(engine, vxlan(VNI, tagged(ether()))) == []
    assert drops(engine) == {("local", "VLAN_POLICY"): 2, (PEER.address, "VLAN_POLICY"): 1}


def test_vlan_carry_keeps_the_tag(make: MakeEngine) -> None:
    engine = make()
    assert engine.encap(VNI, [tagged(ether())], 1.0)[0].payload == vxlan(VNI, tagged(ether()))
    assert receive(engine, vxlan(VNI, tagged(ether(src=B)))) == [tagged(ether(src=B))]


def outer(engine: Engine, frame: bytes) -> tuple[int, int]:
    made = engine.encap(VNI, [frame], 1.0)
    return made[0].tos, made[0].ttl


@pytest.mark.parametrize("ecn", range(4))
@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_ecn_is_copied_out_whatever_the_policy(make: MakeEngine, ecn: int, six: bool) -> None:
    packet = ipv6(udp(), tos=0xB8 | ecn, ttl=9) if six else ipv4(udp(), tos=0xB8 | ecn, ttl=9)
    frame = ether(ethertype=0x86DD if six else 0x0800, payload=packet)
    assert outer(make(), frame) == (ecn, 64)
    assert outer(make(tos=0x28, ttl=7), frame) == (0x28 | ecn, 7)
    assert outer(make(tos=None, ttl=None), frame) == (0xB8 | ecn, 9)
    assert outer(make(tos=0xFF), frame) == (0xFC | ecn, 64)


def test_what_is_not_ip_inherits_nothing(make: MakeEngine) -> None:
    assert outer(make(tos=None, ttl=None), ether()) == (0, 64)
    assert outer(make(ttl=None), ether(ethertype=0x0800, payload=ipv4(udp(), ttl=0))) == (0, 64)


# -- decap -----------------------------------------------------------------------------------


def test_a_good_datagram_is_delivered_counted_and_learned(make: MakeEngine) -> None:
    engine = make()
    assert receive(engine, vxlan(VNI, ether())) == [ether()]
    assert count(engine, Count.DECAP_PACKETS, PEER.address) == 1
    assert count(engine, Count.DECAP_BYTES, PEER.address) == len(ether())
    entry = engine.fdb_get(VNI, A)
    assert entry is not None
    assert (entry.remotes, entry.state, entry.source) == ((PEER,), State.DYNAMIC, "data")
    assert drops(engine) == {}


def test_the_answer_goes_to_dstport_not_to_the_port_it_came_from(make: MakeEngine) -> None:
    engine = make(remotes=(Remote("192.0.2.2", 8472), OTHER))
    receive(engine, vxlan(VNI, ether(src=B)))
    receive(engine, vxlan(VNI, ether(src=C)), OTHER)
    assert engine.encap(VNI, [ether(dst=B)], 1.0)[0].remote == Remote("192.0.2.2", 8472)
    assert engine.encap(VNI, [ether(dst=C)], 1.0)[0].remote == OTHER


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "HDR_TRUNC"),
        (vxlan(VNI, b"")[:7], "HDR_TRUNC"),
        (vxlan(VNI, ether(), flags=0), "VXLAN_INVALID_HDR"),
        (vxlan(VNI, ether(), flags=0xF7), "VXLAN_INVALID_HDR"),
        (vxlan(43, ether()), "VXLAN_VNI_NOT_FOUND"),
    ],
)
def test_datagrams_that_reach_no_segment(make: MakeEngine, payload: bytes, reason: str) -> None:
    engine = make()
    assert receive(engine, payload) == []
    assert drops(engine, None) == {(PEER.address, reason): 1}
    assert drops(engine) == {}


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (b"", "PKT_TOO_SMALL"),
        (ether()[:13], "PKT_TOO_SMALL"),
        (ether(src=BROADCAST), "MAC_INVALID_SOURCE"),
        (ether(src=bytes(6)), "MAC_INVALID_SOURCE"),
        (ether(src=C), "LOCAL_MAC"),
    ],
)
def test_inner_frames_that_may_not_come_in(make: MakeEngine, inner: bytes, reason: str) -> None:
    engine = make()
    engine.set_own_macs(VNI, [C])
    assert receive(engine, vxlan(VNI, inner)) == []
    assert drops(engine) == {(PEER.address, reason): 1}
    assert engine.fdb_dump(VNI) == []


def test_a_stranger_is_refused_and_teaches_nothing(make: MakeEngine) -> None:
    engine = make()
    assert receive(engine, vxlan(VNI, ether()), STRANGER) == []
    assert drops(engine) == {(STRANGER.address, "UNKNOWN_REMOTE"): 1}
    assert engine.fdb_dump(VNI) == []
    assert STRANGER.address not in engine.peers_up()


def test_accept_any_lets_a_stranger_in(make: MakeEngine) -> None:
    engine = make(accept="any")
    assert receive(engine, vxlan(VNI, ether()), STRANGER) == [ether()]


def test_a_remote_of_a_static_entry_is_no_stranger(make: MakeEngine) -> None:
    engine = make()
    engine.fdb_set(VNI, C, (STRANGER,), State.STATIC, "test", 0.0)
    assert receive(engine, vxlan(VNI, ether()), STRANGER) == [ether()]
    engine.fdb_remove(VNI, C, 2.0)
    assert receive(engine, vxlan(VNI, ether()), STRANGER) == []


@pytest.mark.parametrize("accept", ["known", "any"])
def test_our_own_address_is_a_loop(make: MakeEngine, accept: str) -> None:
    engine = make(accept=accept)
    assert not engine.add_remote(VNI, Remote(LOCAL[0], 4789), 0.0)
    assert receive(engine, vxlan(VNI, ether()), Remote(LOCAL[0], 4789)) == []
    assert drops(engine) == {(LOCAL[0], "OWN_ADDRESS"): 1}
    assert Remote(LOCAL[0], 4789) not in engine.remotes(VNI)


RESERVED = [
    vxlan(VNI, ether(), flags=0x88),
    vxlan(VNI, ether(), reserved=b"\0\1\0"),
    vxlan(VNI, ether(), last=1),
]


@pytest.mark.parametrize("payload", RESERVED, ids=["flags", "reserved", "last"])
def test_reserved_bits_are_ignored_and_counted_or_refused(make: MakeEngine, payload: bytes) -> None:
    lenient, strict = make(), make(reserved_bits="strict")
    assert receive(lenient, payload) == [ether()]
    assert count(lenient, Count.RESERVED_BITS, PEER.address) == 1
    assert receive(strict, payload) == []
    assert drops(strict) == {(PEER.address, "VXLAN_RESERVED_BITS"): 1}
    assert receive(strict, vxlan(VNI, ether())) == [ether()]


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("inner", "outside"), FIGURE_4, ids=lambda value: str(value))
def test_ecn_on_the_way_in(make: MakeEngine, inner: int, outside: int, six: bool) -> None:
    def frame(ecn: int) -> bytes:
        packet = ipv6(udp(), tos=0xB8 | ecn) if six else ipv4(udp(), tos=0xB8 | ecn)
        return ether(ethertype=0x86DD if six else 0x0800, payload=packet)

    engine = make()
    expected = FIGURE_4[inner, outside]
    delivered = receive(engine, vxlan(VNI, frame(inner)), tos=0x40 | outside)
    if expected is None:
        assert delivered == []
        assert drops(engine) == {(PEER.address, "IP_TUNNEL_ECN"): 1}
        assert engine.fdb_dump(VNI) == []
    else:
        assert delivered == [frame(expected)]


def test_congestion_on_a_frame_that_is_not_ip_passes(make: MakeEngine) -> None:
    assert receive(make(), vxlan(VNI, ether()), tos=3) == [ether()]


def test_a_static_entry_elsewhere_refuses_the_frame(make: MakeEngine) -> None:
    engine = make()
    engine.fdb_set(VNI, A, (OTHER,), State.STATIC, "test", 0.0)
    engine.drain_events()
    assert receive(engine, vxlan(VNI, ether())) == []
    assert drops(engine) == {(PEER.address, "VXLAN_ENTRY_EXISTS"): 1}
    conflicts = [event for event in engine.drain_events() if event.kind is EventKind.CONFLICT]
    assert [(event.mac, event.remote, event.was) for event in conflicts] == [(A, OTHER, PEER)]
    assert count(engine, Count.CONFLICT) == 1


def test_a_control_plane_entry_elsewhere_lets_the_frame_pass(make: MakeEngine) -> None:
    engine = make()
    engine.fdb_set(VNI, A, (OTHER,), State.EXTERN_LEARN, "evpn", 0.0)
    assert receive(engine, vxlan(VNI, ether())) == [ether()]
    assert count(engine, Count.CONFLICT) == 1
    assert engine.encap(VNI, [ether(dst=A)], 2.0)[0].remote == OTHER


def test_without_learning_nothing_is_learned_and_nothing_refused(make: MakeEngine) -> None:
    engine = make(learning=False)
    engine.fdb_set(VNI, C, (OTHER,), State.STATIC, "test", 0.0)
    assert receive(engine, vxlan(VNI, ether())) == [ether()]
    assert receive(engine, vxlan(VNI, ether(src=C))) == [ether(src=C)]
    assert [entry.mac for entry in engine.fdb_dump(VNI)] == [C]


def test_what_is_passed_in_is_not_changed(make: MakeEngine) -> None:
    engine = make()
    frame = ether(ethertype=0x0800, payload=ipv4(udp(), tos=2))
    payload = vxlan(VNI, frame)
    copy = bytes(bytearray(payload))
    receive(engine, payload, tos=3)
    assert payload == copy
