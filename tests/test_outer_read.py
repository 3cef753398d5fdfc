"""Outer headers of what was captured, read as the kernel reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.outer import datagram
from vxlan.outer_read import OuterError, parse_outer

HERE4, THERE4 = "192.0.2.1", "192.0.2.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"
octets = st.integers(0, 255)


@pytest.mark.parametrize("there", [THERE4, THERE6], ids=["ipv4", "ipv6"])
@given(payload=st.binary(max_size=200), sport=st.integers(1, 65535), tos=octets, ttl=octets)
def test_what_scapy_made_is_read(
    there: str, payload: bytes, sport: int, tos: int, ttl: int
) -> None:
    udp = UDP(sport=sport, dport=4789) / Raw(payload)
    here = HERE4 if there == THERE4 else HERE6
    if there == THERE4:
        packet = bytes(IP(src=here, dst=there, flags="DF", tos=tos, ttl=ttl) / udp)
    else:
        packet = bytes(IPv6(src=here, dst=there, tc=tos, hlim=ttl) / udp)
    found = parse_outer(packet, 4789)
    assert found is not None
    assert found.target == Remote(there, 4789)
    assert found.received == Datagram(Remote(here, sport), payload, tos=tos)
    assert (found.ttl, found.summed, packet[found.at :]) == (ttl, "right", payload)


@pytest.mark.parametrize("there", [THERE4, THERE6], ids=["ipv4", "ipv6"])
def test_no_checksum_is_none(there: str) -> None:
    made = made_for(there, b"x")
    found = parse_outer(made[:-3] + b"\0\0x", 4789)
    assert found is not None
    assert found.summed == "none"


def made_for(there: str, payload: bytes) -> bytes:
    here = HERE4 if there == THERE4 else HERE6
    return datagram(payload, (here, 50000), (there, 4789))


def test_a_checksum_that_the_network_card_was_to_finish() -> None:
    made = bytearray(made_for(THERE4, b"hello"))
    made[-1] ^= 1
    assert parse_outer(bytes(made), 4789).summed == "wrong"  # type: ignore[union-attr]
    pseudo = made[12:20] + bytes((0, 17)) + made[24:26]
    total = sum(int.from_bytes(pseudo[at : at + 2], "big") for at in range(0, 12, 2))
    made[26:28] = (total % 0xFFFF).to_bytes(2, "big")
    assert parse_outer(bytes(made), 4789).summed == "unfinished"  # type: ignore[union-attr]


def test_padding_and_extension_headers_are_passed_over() -> None:
    plain = bytes(IP(src=HERE4, dst=THERE4) / UDP(sport=1, dport=4789) / Raw(b"abc")) + bytes(20)
    far = bytes(IPv6(src=HERE6, dst=THERE6) / IPv6ExtHdrDestOpt() / UDP(dport=4789) / Raw(b"abc"))
    for packet in (plain, far):
        found = parse_outer(packet, 4789)
        assert found is not None
        assert (found.payload, found.summed) == (b"abc", "right")


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (IP(flags="MF") / UDP(dport=4789) / Raw(b"abc"), "one fragment"),
        (IPv6() / IPv6ExtHdrFragment(nh=17, m=1) / Raw(b"\0\1\x12\xb5" * 4), "one fragment"),
        (IP(len=80) / UDP(dport=4789) / Raw(b"abc"), "claims 80 bytes, 31 are there"),
        (IP() / UDP(dport=4789, len=60) / Raw(b"abc"), "claims 60 bytes, 11 are there"),
        (IP() / UDP(dport=4789, len=7) / Raw(b"abc"), "claims 7 bytes"),
        (IPv6(plen=90) / UDP(dport=4789) / Raw(b"abc"), "claims 130 bytes"),
    ],
)
def test_what_the_kernel_would_not_deliver(packet: bytes, text: str) -> None:
    with pytest.raises(OuterError, match=text):
        parse_outer(bytes(packet), 4789)


WHOLE = [made_for(there, b"abc") for there in (THERE4, THERE6)]


@given(st.sampled_from(WHOLE), st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_any_octets_are_a_datagram_or_none(
    whole: bytes, noise: bytes, start: int, end: int
) -> None:
    for packet in (noise, whole[:start], whole[:start] + noise + whole[end:]):
        try:
            found = parse_outer(packet, 4789)
        except OuterError:
            continue
        assert found is None or found.payload in packet


def test_what_is_no_udp_or_for_another_port_is_none() -> None:
    dns = UDP(dport=53, len=7) / Raw(b"abc")
    later = IPv6() / IPv6ExtHdrFragment(nh=17, offset=3) / Raw(bytes(16))
    for packet in (IP(proto=6) / Raw(bytes(20)), IP(frag=3) / UDP(), IP(flags="MF") / dns, later):
        assert parse_outer(bytes(packet), 4789) is None
    assert parse_outer(b"", 4789) is None
