"""Split of the compiled engine, as its worker does it.

What segmentation must give is said by scapy, which shares nothing with the code
under test.  Every buffer ends where its data ends, so under the address sanitizer
(make sanitize) one byte read or written too many ends the run.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frames import ether
from tests.superframes import (
    ECN,
    KINDS,
    NEARLY,
    TCPV4,
    TCPV6,
    UDP_L4,
    Frames,
    by_scapy,
    completed,
    datagram,
    frames_of,
    opened,
)
from tests.test_merge import segment
from vxlan.offload import FINISHED, NEEDS_CSUM, VNET_HDR

fast: Any = pytest.importorskip(
    "vxlan._fastpath",
    reason="the extension vxlan._fastpath is not built here",
    exc_type=ImportError,
)

VNI = 0x123456
VXLAN = bytes.fromhex("0800000012345600")
UDP_TEMPLATE = datagram(bytes(4))[:42]


def cut(header: bytes, frame: bytes) -> Frames:
    """The frames that the receiver of a super-frame makes of it."""
    made = fast.split(header, frame, VNI)
    assert made is not None
    return [one[8:] for one in made]


# -- split: known answers -----------------------------------------------------------


def expected(kind: str, tags: int, extra: bool, payload: bytes, size: int) -> Frames:
    starts = range(0, len(payload), size)
    made = []
    for number, at in enumerate(starts):
        flags = "EA" + ("C" if number == 0 else "") + ("PF" if at == starts[-1] else "")
        one = payload[at : at + size]
        made.append(by_scapy(kind, tags, extra, number, 0xFFFFFF00 + at, flags, one))
    return made


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in-place"])
@pytest.mark.parametrize("extra", [False, True], ids=["plain", "options"])
@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_those_that_scapy_builds(
    kind: str, tags: int, extra: bool, in_place: bool
) -> None:
    for length, size in ((2501, 1000), (2000, 1000), (999, 1000), (130, 1), (5000, 1401)):
        payload = bytes(n * 7 & 0xFF for n in range(length))
        whole = by_scapy(kind, tags, extra, 0, 0xFFFFFF00, "CEAPF", payload)
        made = fast.split(*opened(whole, size), VNI, in_place)
        assert made == [VXLAN + one for one in expected(kind, tags, extra, payload, size)]


def test_the_ecn_bit_of_the_header_changes_nothing_for_tcp() -> None:
    whole = by_scapy("tcp4", 0, False, 0, 0, "CEA", bytes(3000))
    assert cut(*opened(whole, 1000, ECN)) == cut(*opened(whole, 1000))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(payload=st.binary(min_size=1, max_size=9000), size=st.integers(1, 9000))
def test_the_payload_is_intact(kind: str, payload: bytes, size: int) -> None:
    header, frame = opened(frames_of(kind, [payload])[0], size)
    at = VNET_HDR.unpack(header)[2]
    made = fast.split(header, frame, VNI)
    assert b"".join(one[8 + at :] for one in made) == payload
    assert made == fast.split(header, frame, VNI, True)
    assert all(len(one) == 8 + at + size for one in made[:-1])
    assert all(one[8:] == completed(one[8:]) for one in made)


def test_a_udp_checksum_is_never_zero() -> None:
    seen = set()
    for payload in (word.to_bytes(2, "big") + bytes(2) for word in range(0x10000)):
        (one,) = cut(*opened(UDP_TEMPLATE + payload, 100))
        seen.add(one[40:42])
    assert b"\0\0" not in seen
    assert b"\xff\xff" in seen


def test_a_frame_without_offload_passes_as_it_is() -> None:
    assert fast.split(FINISHED, segment(), VNI) == [VXLAN + segment()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_open_checksum_is_completed(kind: str) -> None:
    frame = frames_of(kind, [b"odd"])[0]
    header, left_open = opened(frame, 0)
    flags, _, _, _, start, offset = VNET_HDR.unpack(header)
    header = VNET_HDR.pack(flags, 0, 0, 0, start, offset)
    assert cut(header, left_open) == [frame]


# -- split: what is refused ---------------------------------------------------------


def header_of(frame: bytes, **changed: int) -> bytes:
    names = ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
    fields = dict(zip(names, VNET_HDR.unpack(opened(frame, 1000)[0]), strict=True))
    return VNET_HDR.pack(*(fields | changed).values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changed",
    [
        {"flags": 0},
        {"gso_size": 0},
        *({"gso_type": kind} for kind in (2, 3, 6, 7, 0x20, 0x40, 0x7F)),
        *({"csum_start": start} for start in (0, 13, 14, 33, 35, 53, 55, 3000, 0xFFFF)),
        *({"csum_offset": offset} for offset in (0, 5, 7, 15, 17, 0xFFFF)),
    ],
    ids=str,
)
def test_a_header_against_its_frame_is_refused(kind: str, changed: dict[str, int]) -> None:
    _, frame = opened(frames_of(kind, [bytes(3000)])[0], 1000)
    assert fast.split(header_of(frame), frame, VNI) is not None
    assert fast.split(header_of(frame, **changed), frame, VNI) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_of_another_version_or_protocol_is_refused(kind: str) -> None:
    _, frame = opened(frames_of(kind, [bytes(3000)])[0], 1000)
    right = VNET_HDR.unpack(header_of(frame))[1]
    for wrong in {TCPV4, TCPV6, UDP_L4, UDP_L4 | ECN} - {right}:
        assert fast.split(header_of(frame, gso_type=wrong), frame, VNI) is None


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_that_lie_are_refused(kind: str) -> None:
    header, frame = opened(frames_of(kind, [bytes(3000)])[0], 1000)
    assert fast.split(header, frame + b"\0", VNI) is None
    for length in range(len(frame)):
        assert fast.split(header, frame[:length], VNI) is None


def test_a_tcp_header_longer_than_the_frame_or_shorter_than_itself_is_refused() -> None:
    header, frame = opened(segment(payload=b"12"), 1)
    for words in (0, 4, 6, 15):
        assert fast.split(header, frame[:46] + bytes([words << 4]) + frame[47:], VNI) is None


def test_extension_headers_must_lead_to_the_transport_header() -> None:
    whole = by_scapy("tcp6", 0, True, 0, 0, "A", bytes(3000))
    header, frame = opened(whole, 1000)
    assert fast.split(header, frame, VNI) is not None
    assert fast.split(header, frame[:20] + bytes([44]) + frame[21:], VNI) is None
    assert fast.split(header, frame[:55] + bytes([200]) + frame[56:], VNI) is None


def test_more_segments_than_the_arena_holds_are_refused() -> None:
    header, frame = opened(segment(payload=bytes(60000)), 1)
    assert fast.split(header, frame, VNI) is None
    assert len(fast.split(*opened(frame, 8), VNI)) == 7500


@pytest.mark.parametrize(("start", "offset"), [(0, 0), (13, 6), (40, 0xFFFF), (0xFFFF, 2), (59, 0)])
def test_a_checksum_outside_the_frame_is_refused(start: int, offset: int) -> None:
    assert fast.split(VNET_HDR.pack(NEEDS_CSUM, 0, 0, 0, start, offset), ether(), VNI) is None


def test_what_is_no_header_is_an_error() -> None:
    with pytest.raises(ValueError, match="9 bytes are no virtio_net_hdr: it has 10"):
        fast.split(bytes(9), ether(), VNI)


@settings(deadline=None)
@given(st.data())
def test_no_header_and_no_frame_leads_outside(data: st.DataObject) -> None:
    """What the result must be is said above; here the sanitizer watches."""
    frame = bytearray(data.draw(st.sampled_from(NEARLY)))
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=4)):
        frame[at] = data.draw(st.integers(0, 255))
    fields = list(VNET_HDR.unpack(header_of(NEARLY[0])))
    for at in data.draw(st.lists(st.integers(0, 5), max_size=3)):
        top = 255 if at < 2 else 65535
        fields[at] = data.draw(st.integers(0, 100) | st.integers(0, top)) & top
    whole = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    made = fast.split(VNET_HDR.pack(*fields), whole, VNI)
    assert made == fast.split(VNET_HDR.pack(*fields), whole, VNI, True)
    assert made is None or all(one.startswith(VXLAN) for one in made)
