"""Questions for neighbours, made by scapy, and the answers, read by scapy."""

from __future__ import annotations

import ipaddress
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.neighbour import Question, answer_to, question_in
from vxlan.wire import mac_bytes

ASKER, STATION = "02:42:0a:2a:00:0b", "02:42:0a:2a:00:0c"
V4, V6 = ("10.42.0.11", "10.42.0.12"), ("2001:db8::b", "2001:db8::c")


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def layers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scapy import all as scapy
    return scapy


def arp_request(**fields: Any) -> bytes:
    scapy = layers()
    asks = {"op": 1, "hwsrc": ASKER, "psrc": V4[0], "pdst": V4[1]} | fields
    return bytes(scapy.Ether(src=ASKER, dst="ff:ff:ff:ff:ff:ff") / scapy.ARP(**asks))


def solicitation(src: str = V6[0], tgt: str = V6[1], dst: str = "33:33:ff:00:00:0c") -> bytes:
    scapy = layers()
    ip = scapy.IPv6(src=src, dst="ff02::1:ff00:c", hlim=255)
    asks = scapy.ICMPv6ND_NS(tgt=tgt) / scapy.ICMPv6NDOptSrcLLAddr(lladdr=ASKER)
    return bytes(scapy.Ether(src=ASKER, dst=dst) / ip / asks)


def test_an_arp_request_asks_for_an_address() -> None:
    asked = question_in(arp_request())
    assert asked == Question(packed(V4[1]), packed(V4[0]), mac_bytes(ASKER))


def test_a_solicitation_asks_for_an_address() -> None:
    asked = question_in(solicitation())
    assert asked == Question(packed(V6[1]), packed(V6[0]), mac_bytes(ASKER))


UNANSWERABLE = {
    "an ARP reply": arp_request(op=2),
    "an ARP probe (RFC 5227)": arp_request(psrc="0.0.0.0"),
    "a gratuitous ARP": arp_request(pdst=V4[0]),
    "somebody else's MAC inside": arp_request(hwsrc=STATION),
    "an ARP request to one station": mac_bytes(STATION) + arp_request()[6:],
    "a cut ARP request": arp_request()[:41],
    "another hardware": arp_request(hwtype=6),
    "duplicate address detection (RFC 4862)": solicitation(src="::"),
    "a solicitation to one station": solicitation(dst=STATION),
    "a cut solicitation": solicitation()[:77],
    "a solicitation from beyond the link": solicitation()[:21] + b"\x40" + solicitation()[22:],
    "an advertisement": solicitation()[:54] + b"\x88" + solicitation()[55:],
    "a tagged request": arp_request()[:12] + b"\x81\0\0\7" + arp_request()[12:],
    "nothing": b"",
}


@pytest.mark.parametrize("frame", UNANSWERABLE.values(), ids=UNANSWERABLE.keys())
def test_no_table_answers(frame: bytes) -> None:
    assert question_in(frame) is None


def test_the_arp_reply_is_the_stations() -> None:
    scapy = layers()
    asked = question_in(arp_request())
    assert asked
    reply = scapy.Ether(answer_to(asked, mac_bytes(STATION)))
    assert (reply.src, reply.dst, reply[scapy.ARP].op) == (STATION, ASKER, 2)
    assert (reply[scapy.ARP].hwsrc, reply[scapy.ARP].psrc) == (STATION, V4[1])
    assert (reply[scapy.ARP].hwdst, reply[scapy.ARP].pdst) == (ASKER, V4[0])


def test_the_advertisement_is_the_stations_and_its_checksum_is_right() -> None:
    scapy = layers()
    asked = question_in(solicitation())
    assert asked
    raw = answer_to(asked, mac_bytes(STATION))
    told = scapy.Ether(raw)
    advert = told[scapy.ICMPv6ND_NA]
    assert (told.src, told.dst, told[scapy.IPv6].hlim) == (STATION, ASKER, 255)
    assert (told[scapy.IPv6].src, told[scapy.IPv6].dst) == (V6[1], V6[0])
    assert (advert.tgt, advert.S, advert.R, advert.O) == (V6[1], 1, 0, 1)
    assert told[scapy.ICMPv6NDOptDstLLAddr].lladdr == STATION
    sent = advert.cksum
    del advert.cksum
    assert scapy.Ether(bytes(told))[scapy.ICMPv6ND_NA].cksum == sent


frames = st.sampled_from([arp_request(), solicitation(), *UNANSWERABLE.values()])


@given(frames, st.integers(0, 90), st.binary(max_size=4))
def test_the_workers_leave_to_python_whatever_it_may_answer(
    frame: bytes, at: int, bent: bytes
) -> None:
    fastpath: Any = pytest.importorskip("vxlan._fastpath", exc_type=ImportError)
    frame = frame[:at] + bent + frame[at + len(bent) :]
    if question_in(frame) is not None:
        assert fastpath.may_ask(frame)
