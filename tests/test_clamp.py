"""The MSS clamp: lowered where it must be, untouched everywhere else, never made invalid.

Each test runs on both: vxlan/clamp.py, and its twin in the extension.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import ether, ip_checksum, ipv4, ipv6, tagged
from vxlan import clamp
from vxlan.transport import find_transport

try:
    from vxlan import _fastpath
except ImportError:
    TWINS: dict[str, Any] = {"python": clamp}
else:
    TWINS = {"python": clamp, "fastpath": _fastpath}

Clamp = Callable[..., bytes]

NOP, END = b"\1", b"\0"
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10


@pytest.fixture(params=TWINS, scope="module")
def clamp_mss(request: pytest.FixtureRequest) -> Clamp:
    made: Clamp = TWINS[request.param].clamp_mss
    return made


def mss(value: int) -> bytes:
    return struct.pack("!BBH", 2, 4, value)


def pseudo(packet: bytes, length: int, offset: int) -> bytes:
    addresses = packet[8:40] if packet[0] >> 4 == 6 else packet[12:20]
    return addresses + struct.pack("!IHH", length, 0, 6)


def syn(
    options: bytes = b"", *, six: bool = False, flags: int = SYN, payload: bytes = b"",
    extensions: bytes = b"", first: int = 6, finished: bool = True, fragment: int = 0x4000,
) -> bytes:  # fmt: skip
    options += bytes(-len(options) % 4)
    segment = bytearray(
        struct.pack("!HHIIBBHHH", 1000, 80, 7, 0, (5 + len(options) // 4) << 4, flags, 64240, 0, 0)
    )
    segment += options + payload
    if six:
        packet = ipv6(extensions + bytes(segment), protocol=first)
    else:
        packet = ipv4(bytes(segment), protocol=6, flags=fragment)
    whole = pseudo(packet, len(segment), 0) + bytes(segment) + bytes(len(segment) % 2)
    check = (
        ip_checksum(whole) if finished else ~ip_checksum(pseudo(packet, len(segment), 0)) & 0xFFFF
    )
    at = len(packet) - len(segment) + 16
    packet = packet[:at] + check.to_bytes(2, "big") + packet[at + 2 :]
    return ether(ethertype=0x86DD if six else 0x0800, payload=packet)


@pytest.mark.parametrize("flags", [SYN, SYN_ACK], ids=["SYN", "SYN-ACK"])
@pytest.mark.parametrize(("six", "expected"), [(False, 1410), (True, 1390)], ids=["ipv4", "ipv6"])
def test_the_mss_is_lowered_and_the_checksum_right(
    clamp_mss: Clamp, flags: int, six: bool, expected: int
) -> None:
    before = syn(mss(1460), six=six, flags=flags)
    assert clamp_mss(before, 1450) == syn(mss(expected), six=six, flags=flags)


def test_inside_tags(clamp_mss: Clamp) -> None:
    assert clamp_mss(tagged(syn(mss(1460))), 1450) == tagged(syn(mss(1410)))
    twice = tagged(tagged(syn(mss(1460))), tpid=0x88A8)
    assert clamp_mss(twice, 1450) == tagged(tagged(syn(mss(1410))), tpid=0x88A8)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (NOP + NOP + b"\4\2", b""),
        (NOP, NOP + b"\4\2"),
        (b"\x08\x0a" + bytes(8), NOP + b"\3\3\7"),
        (b"", b"\x08\x0a" + bytes(8) + NOP * 2),
    ],
    ids=["after sack", "odd offset", "after timestamps", "before timestamps"],
)
def test_options_in_any_order(clamp_mss: Clamp, before: bytes, after: bytes) -> None:
    assert clamp_mss(syn(before + mss(1460) + after), 1450) == syn(before + mss(1410) + after)


def test_extension_headers_are_walked(clamp_mss: Clamp) -> None:
    extensions = bytes((60, 0)) + bytes(6) + bytes((43, 1)) + bytes(14) + bytes((6, 0)) + bytes(6)
    before = syn(mss(1440), six=True, extensions=extensions, first=0)
    assert clamp_mss(before, 1450) == syn(mss(1390), six=True, extensions=extensions, first=0)


def test_a_bound_of_the_operator(clamp_mss: Clamp) -> None:
    assert clamp_mss(syn(mss(1460)), 1450, 1200) == syn(mss(1200))
    assert clamp_mss(syn(mss(1460)), 1450, 9000) == syn(mss(1410))
    assert clamp_mss(syn(mss(1460)), 90, None) == syn(mss(64))


def test_a_checksum_left_to_the_card_stays_as_it_is(clamp_mss: Clamp) -> None:
    assert clamp_mss(syn(mss(1460), finished=False), 1450) == syn(mss(1410), finished=False)


UNTOUCHED = {
    "small enough": syn(mss(1410)),
    "no option": syn(),
    "no SYN": syn(mss(1460), flags=ACK),
    "after the end of options": syn(END + bytes(3) + mss(1460)),
    "wrong length": syn(b"\2\3\5" + NOP),
    "option of length 0": syn(b"\5\0" + mss(1460)),
    "option beyond the header": syn(NOP * 2 + b"\2\4"),
    "first fragment": syn(mss(1460), fragment=0x2000),
    "later fragment": syn(mss(1460), fragment=0x0001),
    "not IP": ether(payload=syn(mss(1460))[14:]),
    "udp": ether(ethertype=0x0800, payload=ipv4(syn(mss(1460))[34:], protocol=17)),
    "ipv6 fragment": syn(mss(1460), six=True, first=44, extensions=bytes((6, 0)) + bytes(6)),
    "cut": syn(mss(1460))[:-2],
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_is_not_a_whole_syn_passes_as_it_is(clamp_mss: Clamp, name: str) -> None:
    frame = UNTOUCHED[name]
    assert clamp_mss(frame, 1450) is frame


@given(st.binary(min_size=14, max_size=120), st.integers(0, 9000))
def test_anything_keeps_its_length(clamp_mss: Clamp, frame: bytes, mtu: int) -> None:
    assert len(clamp_mss(frame, mtu)) == len(frame)


@given(st.binary(max_size=40).filter(lambda data: len(data) % 4 == 0), st.booleans())
def test_only_the_mss_and_the_checksum_ever_change(
    clamp_mss: Clamp, options: bytes, six: bool
) -> None:
    frame = syn(options, six=six, payload=b"early data")
    found = find_transport(frame)
    assert found is not None
    changed = clamp_mss(frame, 576)
    different = [at for at in range(len(frame)) if frame[at] != changed[at]]
    in_check = {found.l4 + 16, found.l4 + 17}
    in_mss = [at for at in different if at not in in_check]
    assert len(in_mss) <= 2
    if in_mss:
        assert max(in_mss) - min(in_mss) <= 1
        segment = changed[found.l4 : found.end]
        assert ip_checksum(
            pseudo(changed[14:], len(segment), 0) + segment + bytes(len(segment) % 2)
        ) in (0, 0xFFFF)


@given(st.data())
def test_a_bent_syn_is_never_read_or_written_outside(clamp_mss: Clamp, data: st.DataObject) -> None:
    frame = bytearray(syn(NOP + mss(1460) + b"\4\2\1", six=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 5))):
        frame[data.draw(st.integers(12, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(14, len(frame)))])
    assert len(clamp_mss(cut, 1450)) == len(cut)
