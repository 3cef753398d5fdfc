"""Faults without a network: which packets they take, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.config_fault import KEYS, as_table, fault
from vxlan.drop import Drop
from vxlan.engine import Datagram, FaultRefused
from vxlan.fault import RESERVED_BITS, Kind, announcement, outer_size, vni_of
from vxlan.faults import MAX_FAULTS, MAX_HELD, Faults, Way
from vxlan.fdb import Remote
from vxlan.middleware import FaultInjector
from vxlan.patherror import PathError
from vxlan.wire import VXLAN_HLEN, parse_vxlan, vxlan_header

A, B = Remote("192.0.2.1", 4789), Remote("192.0.2.2", 4789)
SIX = Remote("2001:db8::2", 4789)
M1, M2, M3 = (bytes.fromhex(f"02420a2a000{n}") for n in (1, 2, 3))
M3_TEXT = "02:42:0a:2a:00:03"
ICMP, TCP, ARP = (bytes.fromhex(text) for text in ("0800" + "45" + "00" * 8 + "01" + "00" * 10,
                                                   "0800" + "45" + "00" * 8 + "06" + "00" * 10,
                                                   "0806" + "00" * 28))  # fmt: skip


class World:
    """Remembers what faults asked of it."""

    def __init__(self) -> None:
        self.dropped: list[tuple[int | None, str]] = []
        self.woken: list[float] = []
        self.remotes: tuple[Remote, ...] = (A, B)
        self.faults = Faults(self)

    def lose(self, side: Way, datagram: Datagram) -> None:
        self.dropped.append((vni_of(datagram.payload), datagram.remote.address))

    def lose_icmp(self, address: str) -> None:
        self.dropped.append((None, address))

    def flooded(self, vni: int) -> Sequence[Remote]:
        return self.remotes if vni == 42 else ()

    def wake(self, due: float) -> None:
        self.woken.append(due)

    def add(self, kind: str, now: float = 0.0, **keys: Any) -> int:
        return self.faults.add(fault({"kind": kind, **keys}), now)

    def sent(self, *datagrams: Datagram, now: float = 0.0) -> list[Datagram]:
        return [parcel.datagram for parcel in self.faults.pass_on("encap", datagrams, now)]

    def arrived(self, *datagrams: Datagram, now: float = 0.0) -> list[Datagram]:
        return [parcel.datagram for parcel in self.faults.pass_on("decap", datagrams, now)]


@pytest.fixture
def world() -> World:
    return World()


def datagram(vni: int = 42, remote: Remote = B, packet: bytes = ICMP, room: int = 60) -> Datagram:
    return Datagram(remote, vxlan_header(vni) + (M2 + M1 + packet).ljust(room, b"\0"), 7)


PROBE = Datagram(B, bytes(8) + b"probe".ljust(1000))
"""No I flag: no VNI can be told."""


# -- which packets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "hit"),
    [
        ({}, True),
        ({"vni": 42}, True),
        ({"vni": 7}, False),
        ({"remote": B.address}, True),
        ({"remote": A.address}, False),
        ({"mac": "02:42:0a:2a:00:01"}, True),
        ({"mac": "02:42:0a:2a:00:02"}, True),
        ({"mac": "02:42:0a:2a:00:03"}, False),
        ({"proto": "icmp"}, True),
        ({"proto": "tcp"}, False),
        ({"proto": "arp"}, False),
        ({"side": "encap"}, True),
        ({"side": "decap"}, False),
        ({"vni": 42, "remote": B.address, "proto": "tcp"}, False),
    ],
)
def test_a_fault_takes_what_it_is_meant_for(world: World, keys: dict[str, Any], hit: bool) -> None:
    world.add("drop", **keys)
    assert world.sent(datagram()) == ([] if hit else [datagram()])
    assert world.dropped == ([(42, B.address)] if hit else [])


@pytest.mark.parametrize(("packet", "proto"), [(ICMP, "icmp"), (TCP, "tcp"), (ARP, "arp")])
def test_protocols_are_told_apart(world: World, packet: bytes, proto: str) -> None:
    world.add("drop", proto=proto)
    kept = [one for one in (ICMP, TCP, ARP) if one != packet]
    assert world.sent(*(datagram(packet=one) for one in (ICMP, TCP, ARP))) == [
        datagram(packet=one) for one in kept
    ]


def test_a_probe_has_no_vni(world: World) -> None:
    number = world.add("drop", vni=42)
    assert world.sent(PROBE) == [PROBE]
    world.faults.clear(number)
    world.add("drop", proto="icmp")
    assert world.sent(PROBE) == [PROBE]
    world.add("drop")
    assert world.sent(PROBE) == []
    assert world.dropped == [(None, B.address)]


def test_a_share_comes_from_its_seed() -> None:
    outcomes = []
    for seed in (1, 1, 2):
        world = World()
        world.add("drop", share="30%", seed=seed)
        outcomes.append([len(world.sent(datagram())) for _ in range(200)])
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert 30 < 200 - sum(outcomes[0]) < 90
    (state,) = world.faults.states()
    assert (state.seen, state.hits) == (200, 200 - sum(outcomes[2]))


# -- what becomes of them -------------------------------------------------------------------


def test_a_duplicate_is_the_same_twice(world: World) -> None:
    world.add("duplicate")
    assert world.arrived(datagram()) == [datagram(), datagram()]


def test_duplicates_of_duplicates_are_bounded(world: World) -> None:
    for _ in range(MAX_FAULTS):
        world.add("duplicate")
    assert 2 <= len(world.arrived(datagram())) <= 2 * MAX_HELD


def test_what_is_late_comes_when_it_is_due(world: World) -> None:
    world.add("delay", delay="50ms", side="encap")
    world.add("delay", delay=0.02, side="decap")
    assert world.sent(datagram(), now=10.0) == []
    assert world.arrived(datagram(7), now=10.0) == []
    assert world.woken[-1] == pytest.approx(10.02)
    assert world.faults.due(10.01) == ([], [])
    out, arrived = world.faults.due(10.02)
    assert (out, [one.datagram for one in arrived]) == ([], [datagram(7)])
    assert world.woken[-1] == pytest.approx(10.05)
    out, arrived = world.faults.due(11.0)
    assert ([one.datagram for one in out], arrived) == ([datagram()], [])
    assert world.dropped == []


def test_reordering_lets_the_next_pass(world: World) -> None:
    number = world.add("reorder")
    assert world.sent(datagram(1)) == []
    world.faults.clear(number)
    assert world.sent(datagram(2)) == [datagram(2)]
    assert bool(world.faults)
    assert [one.datagram for one in world.faults.due(1.0)[0]] == [datagram(1)]
    assert not world.faults


def test_what_waits_is_bounded(world: World) -> None:
    world.add("delay", delay=1)
    for _ in range(MAX_HELD + 3):
        world.sent(datagram())
    assert len(world.dropped) == 3
    assert len(world.faults.due(2.0)[0]) == MAX_HELD


def test_the_i_flag_is_cleared(world: World) -> None:
    world.add("clear-i")
    (sent,) = world.sent(datagram())
    header = parse_vxlan(sent.payload)
    assert header is not None
    assert (header.valid, header.vni) == (False, 42)
    assert sent.payload[VXLAN_HLEN:] == datagram().payload[VXLAN_HLEN:]


def test_reserved_bits_are_set(world: World) -> None:
    world.add("reserved")
    (sent,) = world.sent(datagram())
    header = parse_vxlan(sent.payload)
    assert header is not None
    assert (header.valid, header.vni, header.reserved) == (True, 42, RESERVED_BITS)


def test_the_inner_source_is_forged(world: World) -> None:
    world.add("forge-mac", **{"as": M3_TEXT})
    (sent,) = world.sent(datagram())
    frame = sent.payload[VXLAN_HLEN:]
    assert (frame[0:6], frame[6:12]) == (M2, M3)
    assert world.sent(PROBE) == [PROBE]


def test_the_outer_source_is_forged_on_either_side(world: World) -> None:
    world.add("forge-source", source=A.address, side="both")
    (parcel,) = world.faults.pass_on("encap", [datagram()], 0.0)
    assert (parcel.source, parcel.datagram) == (A.address, datagram())
    assert world.arrived(datagram()) == [datagram(remote=A)]


@pytest.mark.parametrize(("remote", "payload"), [(B, 1472), (SIX, 1452)])
def test_a_shrunk_path_takes_what_fits(world: World, remote: Remote, payload: int) -> None:
    world.add("shrink", mtu=1500)
    fits, too_big = (Datagram(remote, bytes(size)) for size in (payload, payload + 1))
    assert outer_size(fits) == 1500
    assert world.sent(fits, too_big) == [fits]
    assert world.faults.claims == []


def test_a_shrunk_path_with_icmp_claims(world: World) -> None:
    world.add("shrink", mtu=1400, icmp=True)
    big = Datagram(B, bytes(1400))
    assert world.sent(big, now=5.0) == []
    assert world.woken == [5.0]
    (claim,) = world.faults.claims
    assert (claim.remote, claim.mtu, claim.payload) == (B, 1400, big.payload)


def test_a_flap_announces_to_everyone_again_and_again(world: World) -> None:
    world.add("flap", vni=42, period=2, now=1.0, **{"as": M3_TEXT})
    assert world.woken == [1.0]
    for now in (1.0, 3.0):
        out, _ = world.faults.due(now)
        assert [(one.datagram.remote, one.datagram.payload) for one in out] == [
            (remote, announcement(42, M3)) for remote in (A, B)
        ]
        assert world.faults.due(now + 1.9) == ([], [])
    assert world.woken[-1] == 5.0


def test_a_flap_may_claim_to_come_from_another(world: World) -> None:
    world.add("flap", vni=42, source=A.address, remote=B.address, **{"as": M3_TEXT})
    ((parcel,), _) = world.faults.due(0.0)
    assert (parcel.source, parcel.datagram.remote) == (A.address, B)


# -- how many there can be --------------------------------------------------------------------


def test_faults_are_numbered_bounded_and_ended(world: World) -> None:
    numbers = [world.add("drop", vni=index) for index in range(MAX_FAULTS)]
    assert numbers == list(range(1, MAX_FAULTS + 1))
    with pytest.raises(FaultRefused):
        world.add("drop")
    assert world.faults.clear(3) == 1
    assert world.faults.clear(3) == 0
    assert world.add("drop") == MAX_FAULTS + 1
    assert world.faults.clear(None) == MAX_FAULTS
    assert not world.faults


@given(st.binary(max_size=80), st.sampled_from(list(Kind)))
def test_no_payload_upsets_a_fault(payload: bytes, kind: Kind) -> None:
    world = World()
    keys = {"delay": 1.0, "source": A.address, "as": M3_TEXT, "vni": 42, "mtu": 100, "proto": "tcp"}
    takes = {"kind": kind.value}
    for key, value in keys.items():
        try:
            fault({**takes, key: value, **_needs(kind, keys)})
        except ValueError:
            continue
        takes = {**takes, key: value}  # type: ignore[dict-item]
    world.faults.add(fault(takes), 0.0)
    world.sent(Datagram(B, payload))
    assert len(world.faults.due(9.0)[1]) == 0


def _needs(kind: Kind, keys: dict[str, Any]) -> dict[str, Any]:
    needed = {
        Kind.DELAY: ("delay",), Kind.FORGE_SOURCE: ("source",), Kind.FORGE_MAC: ("as",),
        Kind.FLAP: ("vni", "as"), Kind.SHRINK: ("mtu",),
    }  # fmt: skip
    return {key: keys[key] for key in needed.get(kind, ())}


# -- in words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "drop", "share": "20%", "vni": 42}, "drop 20 % vni 42"),
        ({"kind": "delay", "delay": "50ms"}, "delay 50 ms"),
        ({"kind": "shrink", "mtu": 1400, "icmp": True}, "shrink to 1400 bytes with ICMP"),
        ({"kind": "clear-i", "mac": "02-42-0A-2A-00-03"}, f"clear-i mac {M3_TEXT} encap side"),
        ({"kind": "flap", "vni": 42, "as": M3_TEXT}, f"flap as {M3_TEXT} every 1 s vni 42"),
        ({"kind": "forge-source", "source": "192.0.2.9"}, "forge-source as 192.0.2.9 encap side"),
    ],
)
def test_words_and_the_table_again(table: dict[str, Any], words: str) -> None:
    found = fault(table)
    assert found.words() == words
    assert fault(as_table(found)) == found


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"kind": "drop", "share": 0}, "share: 0 is not a share"),
        ({"kind": "drop", "share": "no"}, "share: 'no' is not a share"),
        ({"kind": "drop", "share": True}, "share: True is not a share"),
        ({"kind": "drop", "share": float("nan")}, "share: nan is not a share"),
        ({"kind": "delay"}, "delay needs delay"),
        ({"kind": "delay", "delay": "1h"}, "delay: '1h' is not a time"),
        ({"kind": "delay", "delay": float("inf")}, "delay: inf is not a time"),
        ({"kind": "drop", "mtu": 1400}, "drop has no mtu: it takes vni"),
        ({"kind": "drop", "shar": 1}, "shar: no such key: did you mean share"),
        ({"kind": "shrink", "mtu": 10}, "mtu: 10 is not bytes"),
        ({"kind": "shrink", "mtu": 1400, "icmp": True, "side": "decap"}, "icmp: only the sending"),
        ({"kind": "reserved", "bits": "0800000000000000"}, "are not reserved bits"),
        ({"kind": "reserved", "bits": "80"}, "not 16 hexadecimal digits"),
        ({"kind": "flap", "as": M3_TEXT}, "flap needs vni"),
        ({"kind": "forge-mac", "as": "01:00:5e:00:00:01"}, "as: .* group address"),
        ({"kind": "forge-source", "source": "192.0.2.9", "remote": "2001:db8::1"}, "two IP "),
        ({"kind": 3}, "3 is not one of drop"),
        ({}, "it has no kind"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        fault(table)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(sorted(KEYS)), st.sampled_from(list(Kind)), st.from_type(object))
def test_any_value_is_taken_or_refused(key: str, kind: Kind, value: object) -> None:
    with suppress(ValueError):
        assert fault({"kind": kind.value, key: value}).kind is kind


# -- the port that is wrapped -------------------------------------------------------------------


class FakePort:
    """An underlay that takes everything but what goes to A."""

    def __init__(self) -> None:
        self.sent: list[Datagram] = []
        self.waiting: list[list[Datagram]] = []
        self.reports: list[PathError] = []

    def send_all(self, datagrams: Sequence[Datagram]) -> list[tuple[Datagram, Drop]]:
        self.sent += [one for one in datagrams if one.remote != A]
        return [(one, Drop.UNDERLAY_BUSY) for one in datagrams if one.remote == A]

    def receive(self, sock: Any) -> list[Datagram]:
        return self.waiting.pop(0) if self.waiting else []

    def errors(self) -> list[PathError]:
        reports, self.reports = self.reports, []
        return reports

    def take_rcvbuf_drops(self) -> int:
        return 3


def test_the_injector_hides_what_is_lost(world: World) -> None:
    port = FakePort()
    injector = FaultInjector(port, world.faults)
    world.add("drop", vni=7)
    port.waiting = [[datagram(7)], [datagram(7), datagram()], [datagram()]]
    assert injector.receive(None) == [datagram()]  # type: ignore[arg-type]
    assert injector.send_all([datagram(7), datagram(remote=A), datagram()]) == [
        (datagram(remote=A), Drop.UNDERLAY_BUSY)
    ]
    assert port.sent == [datagram()]
    assert injector.take_rcvbuf_drops() == 3


def test_a_flood_of_what_is_lost_ends(world: World) -> None:
    port = FakePort()
    world.add("drop")
    port.waiting = [[datagram()] for _ in range(1000)]
    assert FaultInjector(port, world.faults).receive(None) == []  # type: ignore[arg-type]
    assert len(port.waiting) > 900


def test_icmp_is_claimed_and_filtered(world: World) -> None:
    port = FakePort()
    injector = FaultInjector(port, world.faults)
    world.add("shrink", mtu=1400, icmp=True)
    injector.send_all([Datagram(B, bytes(1400)), Datagram(SIX, bytes(1400))])
    found = injector.errors()
    assert [(one.address, one.mtu, one.origin, one.type, one.code) for one in found] == [
        (B.address, 1400, "icmp", 3, 4),
        (SIX.address, 1400, "icmp6", 2, 0),
    ]
    world.add("filter-icmp", remote=B.address)
    local = found[0]._replace(origin="local")
    port.reports = [found[0], found[1], local]
    assert injector.errors() == [found[1], local]
    assert world.dropped[-1] == (None, B.address)
