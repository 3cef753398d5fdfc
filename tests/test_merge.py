"""Merging TCP segments: what goes together, what must not, and that nothing is changed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frames import ether, ip_checksum, ipv4, ipv6, tagged
from vxlan.merge import DATA_VALID, Piece, merge
from vxlan.offload import FINISHED

ACK, PSH_ACK = 0x10, 0x18
SIZE = 1000


def segment(
    sequence: int = 0, payload: bytes = b"p" * SIZE, *, six: bool = False, flags: int = ACK,
    sport: int = 1000, ack: int = 7, window: int = 500, options: bytes = b"", wrong: bool = False,
    tos: int = 0, ttl: int = 64, fragment: int = 0x4000,
) -> bytes:  # fmt: skip
    head = struct.pack(
        "!HHIIBBHHH", sport, 80, sequence & 0xFFFFFFFF, ack, (5 + len(options) // 4) << 4, flags,
        window, 0, 0,
    ) + options  # fmt: skip
    wrap = (
        ipv6(head + payload, protocol=6, tos=tos, ttl=ttl)
        if six
        else ipv4(head + payload, protocol=6, tos=tos, ttl=ttl, flags=fragment)
    )
    addresses = wrap[8:40] if six else wrap[12:20]
    whole = head + payload
    pseudo = addresses + struct.pack("!IHH", len(whole), 0, 6)
    check = ip_checksum(pseudo + whole + bytes(len(whole) % 2)) ^ (0x5555 if wrong else 0)
    at = len(wrap) - len(whole) + 16
    packet = wrap[:at] + check.to_bytes(2, "big") + wrap[at + 2 :]
    return ether(ethertype=0x86DD if six else 0x0800, payload=packet)


def pieces(*frames: bytes) -> list[Piece]:
    return list(merge(frames, 1450))


def counts(*frames: bytes) -> list[int]:
    return [piece.segments for piece in pieces(*frames)]


def cut_apart(piece: Piece) -> list[bytes]:
    """What the receiving kernel makes of a super-frame, written without the code under test."""
    flags, kind, hdr_len, size, start, offset = struct.unpack("=BBHHHH", piece.header)
    if kind == 0:
        return [piece.frame]
    assert (flags, offset, kind) == (1, 16, 4 if piece.frame[12:14] == b"\x86\xdd" else 1)
    frame = piece.frame
    sequence = struct.unpack_from("!I", frame, start + 4)[0]
    ack, window = (
        struct.unpack_from("!I", frame, start + 8)[0],
        struct.unpack_from("!H", frame, start + 14)[0],
    )
    payload, made = frame[hdr_len:], []
    for at in range(0, len(payload), size):
        last = at + size >= len(payload)
        made.append(
            segment(
                sequence + at,
                payload[at : at + size],
                six=kind == 4,
                flags=frame[start + 13] if last else frame[start + 13] & ~0x08,
                ack=ack,
                window=window,
                options=frame[start + 20 : hdr_len],
            )
        )
    return made


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("options", [b"", b"\1\1\x08\x0a" + bytes(8)], ids=["plain", "timestamps"])
def test_a_stream_becomes_one_frame_that_can_be_cut_apart_again(six: bool, options: bytes) -> None:
    frames = [segment(n * SIZE, bytes([n]) * SIZE, six=six, options=options) for n in range(10)]
    frames.append(segment(10 * SIZE, b"end", six=six, options=options, flags=PSH_ACK))
    (piece,) = pieces(*frames)
    assert piece.segments == 11
    assert cut_apart(piece) == frames


def test_the_super_frame_is_well_formed() -> None:
    (piece,) = pieces(segment(0), segment(SIZE))
    packet = piece.frame[14:]
    assert int.from_bytes(packet[2:4], "big") == len(packet) == 40 + 2 * SIZE
    assert ip_checksum(packet[:20]) == 0
    pseudo = packet[12:20] + struct.pack("!IHH", 20 + 2 * SIZE, 0, 6)
    assert packet[36:38] == (~ip_checksum(pseudo) & 0xFFFF).to_bytes(2, "big")


def test_sequence_numbers_wrap() -> None:
    assert counts(segment(-SIZE), segment(0), segment(SIZE)) == [3]


@pytest.mark.parametrize(
    "second",
    [
        segment(SIZE + 1),
        segment(0),
        segment(SIZE, sport=1001),
        segment(SIZE, ack=8),
        segment(SIZE, window=501),
        segment(SIZE, options=b"\1\1\1\1"),
        segment(SIZE, flags=ACK | 0x01),
        segment(SIZE, flags=ACK | 0x80),
        segment(SIZE, tos=3),
        segment(SIZE, ttl=63),
        segment(SIZE, b""),
        segment(SIZE, b"q" * (SIZE + 1)),
        segment(SIZE, wrong=True),
        segment(SIZE)[:24] + b"\0\0" + segment(SIZE)[26:],  # the IPv4 header's checksum
        segment(SIZE, six=True),
        tagged(segment(SIZE)),
        segment(SIZE, fragment=0x0000),
        ether(),
    ],
)
def test_what_does_not_continue_the_first(second: bytes) -> None:
    made = pieces(segment(0), second)
    assert [piece.frame for piece in made] == [segment(0), second]


def test_a_push_ends_a_run_and_so_does_a_short_segment() -> None:
    frames = [segment(0), segment(SIZE, flags=PSH_ACK), segment(2 * SIZE), segment(3 * SIZE, b"s")]
    assert counts(*frames, segment(3 * SIZE + 1)) == [2, 2, 1]


def test_without_df_the_identifications_must_follow() -> None:
    same_id = [segment(n * SIZE, fragment=0) for n in range(2)]
    assert counts(*same_id) == [1, 1]


def test_a_wrong_checksum_passes_as_it_is() -> None:
    wrong = segment(0, wrong=True)
    assert pieces(wrong, segment(SIZE))[0] == Piece(FINISHED, wrong, 1)


def test_a_right_one_is_marked_as_verified() -> None:
    assert pieces(segment(0), ether())[0] == Piece(DATA_VALID, segment(0), 1)


def test_no_packet_grows_beyond_ip() -> None:
    made = pieces(*(segment(n * 1400, bytes(1400)) for n in range(60)))
    assert all(len(piece.frame) - 14 <= 65535 for piece in made)
    assert sum(piece.segments for piece in made) == 60


@settings(deadline=None)
@given(st.data())
def test_any_mixture_comes_out_complete_and_in_order(data: st.DataObject) -> None:
    frames, sequence = [], 0
    for _ in range(data.draw(st.integers(1, 12))):
        size = data.draw(st.sampled_from([0, 1, 10, 10, 10]))
        flags = data.draw(st.sampled_from([ACK, ACK, ACK, PSH_ACK, 0x11]))
        frames.append(segment(sequence, bytes(size), flags=flags))
        sequence += data.draw(st.sampled_from([size, size, size, 5]))
    made = pieces(*frames)
    assert [frame for piece in made for frame in cut_apart(piece)] == frames
    assert sum(piece.segments for piece in made) == len(frames)


@given(st.lists(st.binary(min_size=14, max_size=100), min_size=1, max_size=5))
def test_noise_passes_as_it_is(frames: list[bytes]) -> None:
    assert [piece.frame for piece in pieces(*frames)] == frames
