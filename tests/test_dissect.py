"""A packet taken apart for people: names, octets, meanings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.lab.dissect import Header, dissect, draw
from vxlan.wire import BROADCAST, vxlan_header

ETHER = bytes.fromhex("020000000002 020000000001")
IPV4 = bytes.fromhex("45b8 0000 0001 4000 40 11 0000 c0000201 c0000202")
IPV6 = bytes.fromhex("6b800000 0000 11 40") + bytes.fromhex("20010db8" + "00" * 11 + "01") * 2
UDP = bytes.fromhex("c001 12b5 0000 0000")
ECHO = bytes.fromhex("0800 0000 0001 0002")
INNER = ETHER + b"\x08\x00" + IPV4[:9] + b"\x01" + IPV4[10:] + ECHO + b"ping"
IN_V4 = ETHER + b"\x08\x00" + IPV4 + UDP + vxlan_header(42) + INNER
IN_V6 = ETHER + b"\x86\xdd" + IPV6 + UDP + vxlan_header(42) + INNER
ARP = bytes.fromhex("000108000604 0001 020000000001 0a2a000b 000000000000 0a2a000c")


def names(headers: list[Header]) -> list[tuple[str, int]]:
    return [(header.name, header.depth) for header in headers]


def meanings(header: Header) -> dict[str, str]:
    return {field.name: field.meaning for field in header.fields}


@pytest.mark.parametrize(("packet", "ip"), [(IN_V4, "IPv4"), (IN_V6, "IPv6")])
def test_headers_from_the_outside_in(packet: bytes, ip: str) -> None:
    assert names(dissect(packet)) == [
        ("Ethernet", 0),
        (ip, 0),
        ("UDP", 0),
        ("VXLAN", 0),
        ("Ethernet", 1),
        ("IPv4", 1),
        ("ICMP", 1),
        ("payload", 1),
    ]


def test_what_the_fields_mean() -> None:
    _, ip, udp, vxlan, _, _, echo, payload = dissect(IN_V4)
    assert meanings(ip)["tos"] == "DSCP 46, not ECN-capable"
    assert meanings(ip)["flags, offset"] == "don't fragment"
    assert meanings(ip)["source"] == "192.0.2.1"
    assert meanings(udp)["destination port"] == "4789"
    assert meanings(vxlan)["VNI"] == "42"
    assert meanings(vxlan)["flags"] == "I: the VNI is valid"
    assert meanings(echo)["type"] == "echo request"
    assert payload.fields[0].raw == b"ping"


def test_another_port_is_no_vxlan_unless_it_is_named() -> None:
    packet = ETHER + b"\x08\x00" + IPV4 + b"\xc0\x01\x21\x18" + UDP[4:] + vxlan_header(42) + INNER
    assert ("VXLAN", 0) not in names(dissect(packet))
    assert ("VXLAN", 0) in names(dissect(packet, 8472))


def test_arp_says_who_asks_for_whom() -> None:
    arp = dissect(BROADCAST + ETHER[:6] + b"\x08\x06" + ARP)[1]
    assert meanings(arp)["operation"] == "who has?"
    assert meanings(arp)["target address"] == "10.42.0.12"


def test_drawing_shows_every_octet_of_the_headers() -> None:
    lines = list(draw(IN_V4))
    assert "  VXLAN, 8 bytes" in lines
    assert any("08 00 00" not in line and "00 00 2a" in line for line in lines)
    assert any(line.endswith("42") and line.lstrip().startswith("VNI") for line in lines)


@given(st.binary(max_size=160), st.integers(0, len(IN_V6)))
def test_any_octets_come_apart_without_loss(noise: bytes, cut: int) -> None:
    for packet in (noise, IN_V4[:cut] + noise, IN_V6[:cut] + noise):
        raw = b"".join(field.raw for header in dissect(packet) for field in header.fields)
        assert raw == packet
        assert list(draw(packet)) or not packet
