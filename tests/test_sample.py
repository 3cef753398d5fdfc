"""Frames made from words, compared with what scapy makes of the same words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.frames import BROADCAST, A, B
from tests.test_differential import frames
from vxlan.inner import describe, sentence
from vxlan.sample import CHECKS, PROTOCOLS, Sample, frame, protocol
from vxlan.stations import Station, addresses, stand_in, station

V4, V6 = ("10.42.0.11", "10.42.0.12"), ("fd42::b", "fd42::c")
LINK = Ether(src=A.hex(":"), dst=B.hex(":"))


def sample(ends: tuple[str, str], **words: object) -> bytes:
    return frame(Sample(A, B, *ends, **words))  # type: ignore[arg-type]  # words by name


def ip(ends: tuple[str, str], **fields: object) -> Packet:
    if ends is V6:
        return IPv6(src=ends[0], dst=ends[1], hlim=64)
    return IP(src=ends[0], dst=ends[1], id=0, **fields)


@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
@given(size=st.integers(60, 3000), sport=st.integers(1, 65535), dport=st.integers(1, 65535))
def test_tcp_and_udp_of_a_size(ends: tuple[str, str], size: int, sport: int, dport: int) -> None:
    header = 40 if ends is V6 else 20
    tcp = TCP(sport=sport, dport=dport, seq=1, ack=1, flags="A", window=64240)
    for name, layer, least in (("tcp", tcp, 20), ("udp", UDP(sport=sport, dport=dport), 8)):
        made = sample(ends, protocol=name, size=size, sport=sport, dport=dport)
        assert made == bytes(LINK / ip(ends) / layer / Raw(bytes(size - header - least)))
        assert len(made) == 14 + size


@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
def test_tcp_without_a_size_is_the_syn_of_a_connection(ends: tuple[str, str]) -> None:
    mss = 1440 if ends is V6 else 1460
    tcp = TCP(sport=40000, dport=80, seq=1, flags="S", window=64240, options=[("MSS", mss)])
    assert sample(ends, protocol="tcp") == bytes(LINK / ip(ends) / tcp)


def test_icmp_is_a_ping_and_df_is_df() -> None:
    made = sample(V4, df=True)
    assert made == bytes(LINK / ip(V4, flags="DF") / ICMP(id=1, seq=1) / Raw(bytes(56)))
    six = bytes(LINK / ip(V6) / ICMPv6EchoRequest(id=1, seq=1, data=bytes(36)))
    assert sample(V6) == six
    assert Ether(sample(V4, protocol="udp", df=True))[IP].flags == "DF"


def test_arp_asks_everybody() -> None:
    asked = ARP(op=1, hwsrc=A.hex(":"), psrc=V4[0], pdst=V4[1])
    assert sample(V4, protocol="arp") == bytes(
        Ether(src=A.hex(":"), dst=BROADCAST.hex(":")) / asked
    )


@pytest.mark.parametrize(
    ("ends", "words", "text"),
    [
        (V6, {"protocol": "arp"}, "has no ARP"),
        (V4, {"protocol": "arp", "size": 100}, "one length"),
        (V4, {"size": 27}, "28 to 65535 bytes"),
        (V6, {"protocol": "udp", "size": 47}, "48 to 65535 bytes"),
    ],
)
def test_words_that_do_not_go_together(
    ends: tuple[str, str], words: dict[str, object], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        sample(ends, **words)


def test_words_are_checked_one_by_one() -> None:
    for word, wrong in (("sport", 0), ("dport", 65536), ("size", 19), ("size", "many")):
        with pytest.raises(ValueError, match="must be"):
            CHECKS[word](wrong)
    with pytest.raises(ValueError, match="tcp, udp, icmp, arp"):
        protocol("sctp")


# -- stations ------------------------------------------------------------------------------


def test_a_station_is_a_mac_an_address_or_both() -> None:
    assert station("02:00:00:00:00:0a") == Station(A, None)
    assert station("10.42.0.11") == Station(None, "10.42.0.11")
    assert station("02:00:00:00:00:0a,fd42::0:b") == Station(A, "fd42::b")
    assert station("10.42.0.11,02-00-00-00-00-0a") == Station(A, "10.42.0.11")
    for wrong in ("", "web", "10.42.0.11,10.42.0.12", "10.42.0.300", A.hex(":") + "," + A.hex(":")):
        with pytest.raises(ValueError, match="station|text"):
            station(wrong)


def test_what_was_not_named_has_a_stand_in_and_that_is_told() -> None:
    notes: list[str] = []
    assert addresses(Station(A, None), Station(B, None), notes) == ("10.42.0.1", "10.42.0.2")
    assert addresses(Station(A, "fd42::b"), Station(B, None), notes) == ("fd42::b", "fd42::2")
    assert stand_in("10.42.0.11", notes).hex(":") == "02:42:0a:2a:00:0b"
    assert len(notes) == 3
    assert addresses(Station(A, V4[0]), Station(B, V4[1]), notes) == V4
    assert len(notes) == 3
    with pytest.raises(ValueError, match="cannot talk to"):
        addresses(Station(A, V4[0]), Station(B, V6[1]), notes)


# -- in words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (sample(V4, protocol="tcp", df=True), "IPv4 10.42.0.11 -> 10.42.0.12, TCP 40000 -> 80, DF"),
        (sample(V6), "IPv6 fd42::b -> fd42::c, ICMPv6, 98 bytes"),
        (sample(V4, protocol="arp"), "ARP: 10.42.0.11 asks for 10.42.0.12, 42 bytes"),
        (bytes(LINK / ARP(op=2, psrc=V4[0], pdst=V4[1])), "ARP reply: 10.42.0.11 to 10.42.0.12"),
        (B + A + b"\x81\0\0\7\x88\xb5", "VLAN 7, type 0x88b5, 18 bytes"),
        (b"short", "5 bytes, too short for an Ethernet header"),
    ],
)
def test_a_frame_in_one_line(octets: bytes, text: str) -> None:
    assert text in sentence(describe(octets))


@given(st.one_of(st.binary(max_size=80), frames()))
def test_any_octets_have_words(octets: bytes) -> None:
    shown = describe(octets)
    assert bytes.fromhex(shown["hex"]) == octets
    assert sentence(shown)


def test_every_protocol_can_be_made() -> None:
    for one in PROTOCOLS:
        assert describe(sample(V4, protocol=one))["type"] in ("IPv4", "ARP")
