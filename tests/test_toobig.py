"""Answers and fragments, checked against the RFCs and against scapy's reading of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

from tests.frames import BROADCAST, A, B, ether, ipv4, ipv6, tagged, udp
from vxlan.toobig import AnswerBudget, fragment_ipv4, too_big_answer
from vxlan.wire import inspect


def answer(frame: bytes, mtu: int = 1450) -> bytes | None:
    return too_big_answer(frame, inspect(frame), mtu)


def big4(**fields: object) -> bytes:
    return ether(ethertype=0x0800, payload=ipv4(udp(payload=bytes(1600)), **fields))  # type: ignore[arg-type]


def big6(payload: bytes = udp(payload=bytes(1600)), **fields: int) -> bytes:
    return ether(ethertype=0x86DD, payload=ipv6(payload, **fields))


def test_the_answer_over_ipv4() -> None:
    frame = big4()
    said = answer(frame, 1400)
    assert said is not None
    packet = Ether(said)
    assert (said[:6], said[6:12]) == (A, B)
    assert (packet[IP].src, packet[IP].dst) == ("10.42.0.2", "10.42.0.1")
    assert (packet[ICMP].type, packet[ICMP].code, packet[ICMP].nexthopmtu) == (3, 4, 1400)
    assert len(said) - 14 == packet[IP].len == 576
    assert said[42:] == frame[14 : 14 + 548]
    assert_checksums(said)


def assert_checksums(said: bytes) -> None:
    packet = Ether(said)
    layer = packet[IP] if IP in packet else packet[IPv6]
    again = layer.copy()
    if IP in packet:
        del again[IP].chksum
        del again[ICMP].chksum
    else:
        del again[ICMPv6PacketTooBig].cksum
    assert bytes(layer.__class__(bytes(again))) == bytes(layer)


def test_the_answer_over_ipv6() -> None:
    frame = big6()
    said = answer(frame, 1400)
    assert said is not None
    packet = Ether(said)
    assert (packet[IPv6].src, packet[IPv6].dst) == ("2001:db8::2", "2001:db8::1")
    assert (packet[ICMPv6PacketTooBig].mtu, packet[IPv6].nh) == (1400, 58)
    assert len(said) - 14 == 1280
    assert said[62:] == frame[14 : 14 + 1232]
    assert_checksums(said)


def test_the_answer_keeps_the_tag() -> None:
    said = answer(tagged(big4(), vid=7))
    assert said is not None
    assert said[12:18] == bytes.fromhex("810000070800")


ICMP_ECHO = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + bytes(1600)
NO_ANSWER = {
    "to broadcast": ether(dst=BROADCAST, ethertype=0x0800, payload=ipv4(udp(payload=bytes(1600)))),
    "to a group address": big4(dst="224.0.0.1"),
    "to the limited broadcast": big4(dst="255.255.255.255"),
    "from a group address": big4(src="239.1.1.1"),
    "from nowhere": big4(src="0.0.0.0"),
    "from loopback": big4(src="127.0.0.1"),
    "later fragment": big4(flags=0x4001),
    "icmp error": ether(ethertype=0x0800, payload=ipv4(b"\x03\x04" + bytes(1600), protocol=1)),
    "time exceeded": ether(ethertype=0x0800, payload=ipv4(b"\x0b\0" + bytes(1600), protocol=1)),
    "icmpv6 error": big6(b"\x01\0" + bytes(1600), protocol=58),
    "icmpv6 error behind options": big6(
        bytes((58, 0)) + bytes(6) + b"\x02\0" + bytes(1600), protocol=60
    ),
    "ipv6 later fragment": big6(bytes((17, 0, 0, 8)) + bytes(1604), protocol=44),
    "not IP": ether(payload=bytes(1600)),
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_about_some_packets_nothing_is_said(name: str) -> None:
    assert answer(NO_ANSWER[name]) is None


def test_an_echo_is_no_error() -> None:
    assert answer(ether(ethertype=0x0800, payload=ipv4(ICMP_ECHO, protocol=1))) is not None
    assert answer(big6(b"\x80\0" + bytes(1600), protocol=58)) is not None
    assert answer(big6(bytes((17, 0, 0, 1)) + bytes(1604), protocol=44)) is not None


@given(st.binary(min_size=14, max_size=200), st.integers(68, 1500))
def test_anything_gives_an_answer_that_is_well_formed_or_none(frame: bytes, mtu: int) -> None:
    said = answer(frame, mtu)
    if said is not None:
        assert_checksums(said)


def test_a_budget_of_answers() -> None:
    budget = AnswerBudget(rate=10, burst=3)
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(100.05)
    assert budget.take(100.15)


# -- fragments ---------------------------------------------------------------------------


def fragments(frame: bytes, mtu: int) -> list[bytes]:
    return fragment_ipv4(frame, inspect(frame), mtu)


@settings(deadline=None)
@given(st.integers(0, 4000), st.integers(68, 1500), st.booleans())
def test_fragments_fit_and_put_together_are_the_packet(size: int, mtu: int, more: bool) -> None:
    payload = bytes(index % 251 for index in range(size))
    flags = 0x2064 if more else 0x0000
    if more:
        payload = payload[: len(payload) // 8 * 8]
    frame = tagged(ether(ethertype=0x0800, payload=ipv4(payload, protocol=17, flags=flags)))
    parts = [Ether(part) for part in fragments(frame, mtu)]
    assert all(len(part[IP]) <= mtu for part in parts)
    assert b"".join(bytes(part[IP].payload) for part in parts) == payload
    at = (flags & 0x1FFF) * 8
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        assert part[IP].frag * 8 == at
        assert bool(part[IP].flags.MF) == (more or not last)
        assert part[IP].id == 1
        raw = bytes(part)
        assert raw[:18] == frame[:18]
        again = part[IP].copy()
        del again.chksum
        assert IP(bytes(again)).chksum == part[IP].chksum
        at += len(bytes(part[IP].payload))


def test_only_copied_options_are_in_later_fragments() -> None:
    route, stamp = b"\x83\x07\x04\1\2\3\4", b"\x44\x04\x05\0"
    frame = ether(
        ethertype=0x0800, payload=ipv4(bytes(200), flags=0, options=route + b"\1" + stamp)
    )
    first, *later = fragments(frame, 100)
    assert first[34:46] == route + b"\1" + stamp
    assert {part[34:42] for part in later} == {route + b"\0"}


@pytest.mark.parametrize(
    "frame",
    [
        big4(),
        ether(ethertype=0x0800, payload=b"\x44" + ipv4(bytes(99), flags=0)[1:]),
        ether(ethertype=0x0800, payload=ipv4(bytes(99), flags=0)[:60]),
    ],
    ids=["DF", "header too short", "cut"],
)
def test_what_cannot_be_fragmented(frame: bytes) -> None:
    assert fragments(frame, 68) == []


@given(st.binary(min_size=34, max_size=120), st.integers(20, 120))
def test_anything_can_be_tried(noise: bytes, mtu: int) -> None:
    frame = noise[:12] + b"\x08\x00\x45" + noise[15:]
    for part in fragments(frame, mtu):
        assert len(part) - 14 <= mtu


def test_udp_put_together_is_read_by_scapy() -> None:
    frame = ether(ethertype=0x0800, payload=ipv4(udp(7, 9, b"z" * 3000), flags=0))
    assert Ether(fragments(frame, 1450)[0])[UDP].dport == 9
