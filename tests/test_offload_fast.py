"""Split and merge of the compiled engine, as its workers do them.

What segmentation must give is said by scapy, which shares nothing with the code
under test, and what merging must give by vxlan.merge, its twin in Python, and by
segmentation, its reverse.  Every buffer ends where its data ends, so under the
address sanitizer (make sanitize) one byte read or written too many ends the run.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.frames import ether, ip_checksum, ipv4, ipv6, tagged
from tests.test_merge import ACK, PSH_ACK, SIZE, segment
from vxlan.merge import DATA_VALID, merge
from vxlan.offload import FINISHED, NEEDS_CSUM, VNET_HDR, vnet_header

fast: Any = pytest.importorskip(
    "vxlan._fastpath",
    reason="the extension vxlan._fastpath is not built here",
    exc_type=ImportError,
)

VNI = 0x123456
VXLAN = bytes.fromhex("0800000012345600")
TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
TCP, UDP = 6, 17
FIN, CWR = 0x01, 0x80
KINDS = ["tcp4", "tcp6", "udp4", "udp6"]
Frames = list[bytes]


def offsets(frame: bytes) -> tuple[int, int, int, bool]:
    """l3, l4, protocol of a well-formed frame of TCP or UDP, and whether it is IPv6."""
    l3 = 14
    while frame[l3 - 2 : l3] in (b"\x81\x00", b"\x88\xa8"):
        l3 += 4
    if frame[l3] >> 4 == 4:
        return l3, l3 + (frame[l3] & 15) * 4, frame[l3 + 9], False
    protocol, l4 = frame[l3 + 6], l3 + 40
    while protocol not in (TCP, UDP):
        protocol, l4 = frame[l4], l4 + (frame[l4 + 1] + 1) * 8
    return l3, l4, protocol, True


def pseudo_of(frame: bytes) -> int:
    """The sum of the pseudo-header, as a sender with offload leaves it in the field."""
    l3, l4, protocol, six = offsets(frame)
    addresses = frame[l3 + 8 : l3 + 40] if six else frame[l3 + 12 : l3 + 20]
    return ~ip_checksum(addresses + struct.pack("!IHH", len(frame) - l4, 0, protocol)) & 0xFFFF


def with_check(frame: bytes, check: int) -> bytes:
    _, l4, protocol, _ = offsets(frame)
    at = l4 + (16 if protocol == TCP else 6)
    return frame[:at] + check.to_bytes(2, "big") + frame[at + 2 :]


def completed(frame: bytes) -> bytes:
    """The frame with its transport checksum right."""
    l4 = offsets(frame)[1]
    opened = with_check(frame, pseudo_of(frame))
    return with_check(frame, ip_checksum(opened[l4:] + bytes((len(frame) - l4) % 2)) or 0xFFFF)


def numbered(frame: bytes, ident: int) -> bytes:
    """The frame with another IPv4 identification, where it has one."""
    l3, l4, _, six = offsets(frame)
    if six:
        return frame
    head = frame[l3 : l3 + 4] + struct.pack("!H", ident & 0xFFFF) + frame[l3 + 6 : l3 + 10]
    head += b"\0\0" + frame[l3 + 12 : l4]
    check = ip_checksum(head).to_bytes(2, "big")
    return frame[:l3] + head[:10] + check + head[12:] + frame[l4:]


def opened(frame: bytes, size: int, extra: int = 0) -> tuple[bytes, bytes]:
    """A super-frame as the kernel hands it over: virtio_net_hdr, and an open checksum."""
    _, l4, protocol, six = offsets(frame)
    hlen = (frame[l4 + 12] >> 4) * 4 if protocol == TCP else 8
    kind = UDP_L4 if protocol == UDP else TCPV6 if six else TCPV4
    check_at = 16 if protocol == TCP else 6
    header = VNET_HDR.pack(NEEDS_CSUM, kind | extra, l4 + hlen, size, l4, check_at)
    return header, with_check(frame, pseudo_of(frame))


def cut(header: bytes, frame: bytes) -> Frames:
    """The frames that the receiver of a super-frame makes of it."""
    made = fast.split(header, frame, VNI)
    assert made is not None
    return [one[8:] for one in made]


# -- split: known answers -----------------------------------------------------------


def by_scapy(
    kind: str, tags: int, extra: bool, number: int, sequence: int, flags: str, payload: bytes
) -> bytes:
    """One whole packet.  extra: with IPv4 options or IPv6 extension headers."""
    from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN
    from scapy.layers.l2 import Dot1Q, Ether

    packet: Any = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    for tag in range(tags):
        packet /= Dot1Q(vlan=7 + tag)
    if kind.endswith("4"):
        options = [IPOption_Router_Alert(), IPOption_NOP()] if extra else []
        packet /= IP(
            src="10.42.0.1", dst="10.42.0.2", id=(0xFFFE + number) & 0xFFFF, flags="DF", tos=0x2E,
            options=options,
        )  # fmt: skip
    else:
        packet /= IPv6(src="2001:db8::1", dst="2001:db8::2", tc=0x2E, fl=0x12345)
        if extra:
            packet /= IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(10))]) / IPv6ExtHdrDestOpt()
    if kind.startswith("tcp"):
        stamps = [("NOP", None), ("NOP", None), ("Timestamp", (11, 22))]
        packet /= TCP(
            sport=4000, dport=80, seq=sequence & 0xFFFFFFFF, ack=9, flags=flags, options=stamps
        )
    else:
        packet /= UDP(sport=4000, dport=53)
    return bytes(packet / payload)


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


# -- merge --------------------------------------------------------------------------


def datagram(payload: bytes, six: bool = False, sport: int = 1000, tos: int = 0) -> bytes:
    l4 = struct.pack("!HHHH", sport, 2000, 8 + len(payload), 0) + payload
    packet = ipv6(l4, tos=tos) if six else ipv4(l4, tos=tos)
    return completed(ether(ethertype=0x86DD if six else 0x0800, payload=packet))


UDP_TEMPLATE = datagram(bytes(4))[:42]


def frames_of(kind: str, payloads: Frames, first: int = 0xFFFE, last: int = ACK) -> Frames:
    """A flow: sequence numbers and identifications follow; `last` are the last one's flags."""
    six, made, at = kind.endswith("6"), [], -SIZE
    for number, payload in enumerate(payloads):
        if kind.startswith("udp"):
            one = datagram(payload, six)
        else:
            flags = last if number == len(payloads) - 1 else ACK
            one = segment(at, payload, six=six, flags=flags)
            at += len(payload)
        made.append(numbered(one, first + number))
    return made


NEARLY = [opened(frames_of(kind, [bytes(90)])[0], 10)[1] for kind in KINDS]
NEARLY += [tagged(one) for one in NEARLY]
RIGHT = [one for kind in KINDS for one in frames_of(kind, [bytes(9)] * 2)]


def merged(*frames: bytes) -> list[tuple[bytes, bytes, int]]:
    made: list[tuple[bytes, bytes, int]] = fast.merge(list(frames), 1450)
    return made


def apart(pieces: list[tuple[bytes, bytes, int]]) -> Frames:
    return [one for header, frame, _ in pieces for one in cut(header, frame)]


@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_becomes_one_frame_that_can_be_cut_apart_again(kind: str, tags: int) -> None:
    frames = frames_of(kind, [bytes([n]) * SIZE for n in range(10)] + [b"end"], last=PSH_ACK)
    for _ in range(tags):
        frames = [tagged(frame) for frame in frames]
    ((header, frame, segments),) = merged(*frames)
    assert (segments, len(frame)) == (11, len(frames[0]) + 9 * SIZE + 3)
    assert (header, frame) == opened(frame, SIZE)
    assert cut(header, frame) == frames


@pytest.mark.parametrize("flags", [PSH_ACK, ACK | FIN, PSH_ACK | FIN])
def test_a_push_or_fin_ends_a_run_and_stays_on_the_last(flags: int) -> None:
    frames = [*frames_of("tcp4", [bytes(SIZE)] * 3, last=flags), segment(2 * SIZE)]
    made = merged(*frames)
    assert [segments for _, _, segments in made] == [3, 1]
    assert apart(made) == frames


@pytest.mark.parametrize(
    "second",
    [
        segment(SIZE + 1),
        segment(0),
        segment(SIZE, sport=1001),
        segment(SIZE, ack=8),
        segment(SIZE, window=501),
        segment(SIZE, options=b"\1\1\1\1"),
        *(segment(SIZE, flags=ACK | flag) for flag in (0x02, 0x04, 0x20, 0x40, CWR)),
        segment(SIZE, tos=3),
        segment(SIZE, ttl=63),
        segment(SIZE, b""),
        segment(SIZE, b"q" * (SIZE + 1)),
        segment(SIZE, wrong=True),
        segment(SIZE, six=True),
        segment(SIZE) + b"\0",
        tagged(segment(SIZE)),
        segment(SIZE, fragment=0x0000),
        segment(SIZE, fragment=0x2000),
        numbered(segment(SIZE), 7),
        segment(SIZE)[:24] + b"\0\0" + segment(SIZE)[26:],
        completed(segment(SIZE)[:52] + b"\0\1" + segment(SIZE)[54:]),
        ether(),
        datagram(bytes(SIZE)),
    ],
)
def test_what_does_not_continue_the_first(second: bytes) -> None:
    made = merged(segment(0), second)
    assert sorted(frame for _, frame, _ in made) == sorted([segment(0), second])
    assert {segments for _, _, segments in made} == {1}


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_datagrams_of_another_flow_length_or_class_are_not_merged(six: bool) -> None:
    first = datagram(bytes(100), six)
    for second in (
        datagram(bytes(101), six),
        datagram(bytes(100), six, sport=1001),
        datagram(bytes(100), six, tos=1),
        datagram(b"", six),
        with_check(datagram(bytes(100), six), 0),
    ):
        assert [frame for _, frame, _ in merged(first, second)] == [first, second]


def test_packets_of_one_flow_keep_their_order() -> None:
    options = segment(SIZE)[:14] + ipv4(segment(SIZE)[34:], protocol=TCP, options=b"\1" * 4)
    frames = [segment(0), options, segment(2 * SIZE), segment(3 * SIZE, wrong=True)]
    assert [frame for _, frame, _ in merged(*frames)] == frames


def test_more_flows_than_are_kept_open_and_more_segments_than_one_frame_takes() -> None:
    frames = [segment(n * 900, bytes(900), sport=port) for n in range(80) for port in range(12)]
    made = merged(*frames)
    assert sum(segments for _, _, segments in made) == len(frames)
    assert all(len(frame) - 14 <= 65535 and segments <= 64 for _, frame, segments in made)
    one_flow = merged(*frames[::12])
    assert [segments for _, _, segments in one_flow] == [64, 16]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_checksum_passes_as_it_is(kind: str) -> None:
    right = frames_of(kind, [bytes(100)] * 3)
    wrong = right[1][:-1] + b"\1"
    made = merged(right[0], wrong, right[2])
    assert made == [(DATA_VALID, right[0], 1), (FINISHED, wrong, 1), (DATA_VALID, right[2], 1)]


@pytest.mark.parametrize("extra", [False, True], ids=["plain", "options"])
@pytest.mark.parametrize("length", [100, 3000])
@pytest.mark.parametrize("kind", KINDS)
def test_an_open_checksum_is_said_in_the_header(kind: str, length: int, extra: bool) -> None:
    _, frame = opened(by_scapy(kind, 0, extra, 0, 0, "A", b"p" * length), 1000)
    ((header, same, segments),) = merged(frame)
    assert (header, same, segments) == (vnet_header(frame, 1450), frame, 1)
    assert header != FINISHED
    if length > 1450 and kind.startswith("tcp"):
        assert all(len(one) - 14 <= 1450 and one == completed(one) for one in cut(header, frame))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_merge_then_split_gives_the_same_frames(kind: str, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.sampled_from([1, 10, 10, 10, 11]), min_size=1, max_size=80))
    payloads = [data.draw(st.binary(min_size=size, max_size=size)) for size in sizes[:4]]
    payloads += [bytes(size) for size in sizes[4:]]
    last = data.draw(st.sampled_from([ACK, PSH_ACK, ACK | FIN]))
    frames = frames_of(kind, payloads, data.draw(st.integers(0, 0xFFFF)), last)
    made = merged(*frames)
    assert apart(made) == frames
    assert sum(segments for _, _, segments in made) == len(frames)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_both_engines_give_the_receiver_the_same(data: st.DataObject) -> None:
    """With DF an identification means nothing, and Python's merging lets it go."""
    frames, sequence = [], 0
    for _ in range(data.draw(st.integers(2, 12))):
        size = data.draw(st.sampled_from([0, 1, 10, 10, 10]))
        flags = data.draw(st.sampled_from([ACK, ACK, ACK, PSH_ACK, ACK | FIN]))
        wrong = data.draw(st.integers(0, 9)) == 0
        frames.append(segment(sequence, bytes(size), flags=flags, wrong=wrong))
        sequence += data.draw(st.sampled_from([size, size, size, 5]))
    ours = [numbered(one, 1) for one in apart(merged(*frames))]
    theirs = [numbered(one, 1) for one in apart([tuple(one) for one in merge(frames, 1450)])]
    assert ours == theirs == frames


@given(st.lists(st.binary(min_size=14, max_size=100), min_size=1, max_size=5))
@example([NEARLY[0], NEARLY[1][:60]])
def test_noise_passes_as_it_is(frames: Frames) -> None:
    assert [frame for _, frame, _ in merged(*frames)] == frames


@settings(deadline=None)
@given(st.data())
def test_nearly_right_frames_lose_nothing(data: st.DataObject) -> None:
    frames = [bytearray(data.draw(st.sampled_from(NEARLY + RIGHT))) for _ in range(6)]
    for frame in frames:
        for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
            frame[at] = data.draw(st.integers(0, 255))
        del frame[data.draw(st.integers(14, len(frame))) :]
    made = merged(*map(bytes, frames))
    assert sum(segments for _, _, segments in made) == 6


def test_merge_refuses_what_is_no_frame() -> None:
    with pytest.raises(ValueError, match="a frame under 14 bytes is no Ethernet frame"):
        fast.merge([bytes(13)], 1450)
