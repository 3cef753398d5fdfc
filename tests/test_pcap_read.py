"""Captures read back: formats of others, cut files, and any octets at all."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vxlan.pcap_read import ETHERNET, MAX_PACKET, Packet, PcapError, packet, packets

FRAME = bytes(range(60))
NANO = 10**9


def pcap(*frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, fraction: int = 5) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    records = (struct.pack(order + "IIII", 7, fraction, len(one), 1500) + one for one in frames)
    return head + b"".join(records)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack(order + "HH", code, len(value)) + padded


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(options: bytes = b"", snaplen: int = 0, order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", 1, 0, snaplen) + options, order)


def enhanced(
    data: bytes,
    options: bytes = b"",
    *,
    when: int = 7_000_005,
    length: int = 1500,
    order: str = "<",
) -> bytes:
    words = (0, when >> 32, when & 0xFFFFFFFF, len(data), length)
    padded = data + bytes(-len(data) % 4)
    return block(6, struct.pack(order + "IIIII", *words) + padded + options, order)


NG = section() + interface() + enhanced(FRAME)


def read(raw: bytes) -> list[Packet]:
    return list(packets(io.BytesIO(raw)))


def complaint(raw: bytes, number: int = 1) -> str:
    with pytest.raises(PcapError) as caught:
        packet(io.BytesIO(raw), number)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is in them ---------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_in_both_byte_orders_and_units(order: str, magic: int, unit: int) -> None:
    first, second = read(pcap(FRAME, b"x", order=order, magic=magic))
    assert (first.number, first.data, first.length) == (1, FRAME, 1500)
    assert first.when == 7 * NANO + 5 * unit
    assert (first.interface.linktype, first.direction, first.comments) == (ETHERNET, None, ())
    assert (second.number, second.data) == (2, b"x")


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_in_both_byte_orders(order: str) -> None:
    options = option(1, b"dropped HDR_TRUNC", order) + option(2, struct.pack(order + "I", 2), order)
    name = option(2, b"vxlan42", order)
    raw = section(order) + interface(name, order=order) + enhanced(FRAME, options, order=order)
    (found,) = read(raw)
    assert (found.data, found.length, found.when) == (FRAME, 1500, 7_000_005_000)
    assert (found.interface.name, found.direction) == ("vxlan42", "out")
    assert found.comments == ("dropped HDR_TRUNC",)


@pytest.mark.parametrize(
    ("resolution", "when"),
    [(b"\x09", 7_000_005), (b"\x06", 7_000_005_000), (b"\x8a", 7_000_005 * NANO // 1024)],
)
def test_units_of_time(resolution: bytes, when: int) -> None:
    raw = section() + interface(option(9, resolution)) + enhanced(FRAME)
    assert read(raw)[0].when == when


def test_an_offset_of_time_is_added() -> None:
    offset = option(14, struct.pack("<q", 100))
    assert read(section() + interface(offset) + enhanced(FRAME))[0].when == 107_000_005_000


def test_simple_and_old_packets() -> None:
    old = struct.pack("<HHIIII", 0, 0, 0, 9, len(FRAME), len(FRAME)) + FRAME
    simple = struct.pack("<I", 1500) + FRAME[:40]
    raw = section() + interface(snaplen=40) + block(2, old) + block(3, simple)
    first, second = read(raw)
    assert (first.data, first.when) == (FRAME, 9000)
    assert (second.data, second.length, second.when) == (FRAME[:40], 1500, None)


def test_what_is_no_packet_is_passed_over_and_a_section_begins_anew() -> None:
    names = block(4, bytes(200_000))
    other = section(">") + interface(order=">") + enhanced(b"abc", order=">")
    assert [(one.number, one.data) for one in read(NG + names + other)] == [
        (1, FRAME),
        (2, b"abc"),
    ]


def test_scapy_writes_what_is_read(tmp_path: Path) -> None:
    from scapy.utils import PcapNgWriter, PcapWriter

    for writer in (PcapWriter, PcapNgWriter):
        path = tmp_path / writer.__name__
        with writer(str(path)) as out:
            out.write(FRAME)
            out.write(FRAME[:30])
        with path.open("rb") as stream:
            assert [one.data for one in packets(stream)] == [FRAME, FRAME[:30]]


@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark: apt-get install tshark")
def test_tshark_sees_the_same_packets(tmp_path: Path) -> None:
    path = tmp_path / "made.pcapng"
    options = option(1, b"a comment")
    path.write_bytes(section() + interface() + enhanced(FRAME, options) + enhanced(FRAME[:20]))
    fields = [flag for name in ("time_epoch", "cap_len") for flag in ("-e", f"frame.{name}")]
    seen = subprocess.run(
        ["tshark", "-r", str(path), "-Tfields", *fields], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = read(path.read_bytes())
    assert [int(float(one) * 1e6) for one in seen[::2]] == [(one.when or 0) // 1000 for one in ours]
    assert [int(one) for one in seen[1::2]] == [len(one.data) for one in ours]


# -- what is wrong with them ---------------------------------------------------------------


def test_a_number_out_of_range_says_how_many_there_are() -> None:
    assert complaint(pcap(FRAME, FRAME), 3) == "there is no packet 3: the capture has 2"
    assert complaint(NG, 2) == "there is no packet 2: the capture has 1"


@pytest.mark.parametrize("whole", [pcap(FRAME, FRAME), NG + enhanced(FRAME)], ids=["pcap", "ng"])
def test_a_capture_that_is_cut_gives_what_is_before_the_cut(whole: bytes) -> None:
    raw = whole[:-20]
    assert packet(io.BytesIO(raw), 1).data == FRAME
    assert complaint(raw, 2) == "the file is cut off: it ends before packet 2 is whole"


def test_every_cut_is_noticed_or_falls_between_packets() -> None:
    for whole in (pcap(FRAME, FRAME), NG + enhanced(FRAME)):
        for end in range(len(whole)):
            try:
                found = read(whole[:end])
            except PcapError:
                continue
            assert len(found) < 2


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08\x00", "neither a pcap nor a pcapng"),
        (pcap(FRAME)[:24] + struct.pack("<IIII", 0, 0, MAX_PACKET + 1, 0), "packet 1 claims"),
        (section()[:8] + bytes(20), "without byte order"),
        (section() + struct.pack("<II", 6, 10), "a block of 10 bytes"),
        (section() + struct.pack("<II", 6, 1 << 31), "a block of 2147483640 bytes"),
        (section() + enhanced(FRAME), "an interface that is not there"),
        (section() + interface() + block(6, bytes(8)), "too short"),
        (section() + interface() + block(6, struct.pack("<5I", 0, 0, 0, 80, 80)), "longer than"),
    ],
)
def test_damage_is_told_in_one_line(raw: bytes, text: str) -> None:
    assert text in complaint(raw)


@given(st.binary(max_size=200), st.integers(0, len(NG)), st.integers(0, len(NG)))
@example(b"", 0, 0)
def test_any_octets_are_packets_or_an_error(noise: bytes, start: int, end: int) -> None:
    bent = NG[:start] + noise + NG[end:]
    for raw in (noise, bent, pcap()[:24] + noise, section() + noise):
        try:
            found = read(raw)
        except PcapError:
            continue
        assert all(len(one.data) <= one.length for one in found)
