"""Merge of the compiled engine, as its worker does it.

What it must give is said by vxlan.merge, its twin in Python, and by segmentation,
its reverse, which tests/test_offload_fast.py holds to scapy.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.frames import ether, ipv4, tagged
from tests.superframes import (
    KINDS,
    NEARLY,
    RIGHT,
    TCP,
    Frames,
    by_scapy,
    completed,
    datagram,
    frames_of,
    numbered,
    opened,
    with_check,
)
from tests.test_merge import ACK, PSH_ACK, SIZE, segment
from vxlan.merge import DATA_VALID, merge
from vxlan.offload import FINISHED, vnet_header

fast: Any = pytest.importorskip(
    "vxlan._fastpath",
    reason="the extension vxlan._fastpath is not built here",
    exc_type=ImportError,
)

FIN, CWR = 0x01, 0x80


def cut(header: bytes, frame: bytes) -> Frames:
    """The frames that the receiver of a super-frame makes of it."""
    made = fast.split(header, frame, 42)
    assert made is not None
    return [one[8:] for one in made]


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
