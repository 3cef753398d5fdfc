"""Captures that are written here, as scapy and tshark read them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import ether
from vxlan.pcap import ETHERNET, MAX_SNAPLEN, RAW_IP, Interface, PcapWriter

TAP = Interface("vxlan42", ETHERNET, "inner: the TAP of segment 42")
UNDERLAY = Interface("underlay", RAW_IP)
WHEN = 1_700_000_000_123_456_789
FRAME = ether()
PACKET = bytes.fromhex("4500001c000040004011b6cdc0000201c0000202d43112b500080000")

needs_tshark = pytest.mark.skipif(
    not shutil.which("tshark"), reason="needs tshark: apt-get install tshark"
)


def written(*interfaces: Interface, comment: str = "") -> tuple[io.BytesIO, PcapWriter]:
    out = io.BytesIO()
    return out, PcapWriter(out, interfaces or (TAP, UNDERLAY), comment)


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """Fields of all packets, as tshark prints them."""
    shown = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *shown]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


@needs_tshark
def test_tshark_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with path.open("wb") as out:
        writer = PcapWriter(out, (TAP, UNDERLAY))
        writer.packet(0, WHEN, FRAME, direction="in", comment="encap vni 42 → 192.0.2.2")
        writer.packet(1, WHEN + 1, PACKET, direction="out", lost=7)
        writer.packet(0, WHEN + 2, FRAME[:20], length=len(FRAME))
        assert writer.size == out.tell()
    fields = (
        "frame.interface_name", "frame.time_epoch", "frame.packet_flags_direction",
        "frame.comment", "frame.drop_count", "frame.len", "frame.cap_len", "eth.src", "ip.dst",
    )  # fmt: skip
    first, second, third = tshark(path, *fields)
    size, src = str(len(FRAME)), FRAME[6:12].hex(":")
    said = "encap vni 42 → 192.0.2.2"
    assert first[:4] == ["vxlan42", "1700000000.123456789", "0x00000001", said]
    assert first[4:8] == ["", size, size, src]
    assert second == [
        "underlay", "1700000000.123456790", "0x00000002", "", "7", "28", "28", "", "192.0.2.2"
    ]  # fmt: skip
    assert third[1:7] == ["1700000000.123456791", "", "", "", size, "20"]


@pytest.mark.skipif(not shutil.which("capinfos"), reason="needs capinfos: apt-get install tshark")
def test_what_was_lost_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with path.open("wb") as out:
        writer = PcapWriter(out, (TAP, UNDERLAY), comment="node office")
        writer.packet(0, WHEN, FRAME)
        writer.statistics(0, WHEN - 9, WHEN + 9, seen=4, lost=3)
        writer.statistics(1, WHEN - 9, WHEN + 9, seen=0, lost=0)
    told = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True)
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert "Capture comment: node office" in lines
    assert "Number of interfaces in file: 2" in lines
    assert "Time precision = nanoseconds (9)" in lines
    assert "Number of stat entries = 1" in lines
    assert any(line.startswith("Capture application: pyvxlan ") for line in lines)


def test_scapy_reads_the_same() -> None:
    from scapy.utils import RawPcapNgReader

    out, writer = written()
    writer.packet(1, WHEN, PACKET, direction="out", comment="one")
    writer.packet(0, WHEN + 5, FRAME[:40], length=len(FRAME), direction="in", comment="two")
    out.seek(0)
    (first, told), (second, told_too) = list(RawPcapNgReader(out))  # type: ignore[arg-type]
    assert (first, second) == (PACKET, FRAME[:40])
    assert (told.linktype, told_too.linktype) == (RAW_IP, ETHERNET)
    assert (told.ifname, told_too.ifname) == (b"underlay", b"vxlan42")
    assert ((told_too.tshigh << 32) + told_too.tslow, told_too.tsresol) == (WHEN + 5, 10**9)
    assert (told_too.wirelen, told_too.direction) == (len(FRAME), 1)
    assert told_too.comments == [b"two"]


@given(
    packets=st.lists(
        st.tuples(
            st.binary(max_size=70), st.text(max_size=20), st.sampled_from(["in", "out", None]),
            st.integers(0, 2**63),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_blocks_are_whole_whatever_is_in_them(packets: list[tuple[bytes, str, str, int]]) -> None:
    out, writer = written()
    for data, comment, direction, when in packets:
        writer.packet(0, when, data, comment=comment, direction=direction)  # type: ignore[arg-type]
    data = out.getvalue()
    at, kinds = 0, []
    while at < len(data):
        kind, length = (int.from_bytes(data[at + n : at + n + 4], sys.byteorder) for n in (0, 4))
        assert length % 4 == 0
        assert int.from_bytes(data[at + length - 4 : at + length], sys.byteorder) == length
        kinds.append(kind)
        at += length
    assert kinds == [0x0A0D0D0A, 1, 1] + [6] * len(packets)
    assert at == len(data) == writer.size


def test_a_comment_longer_than_an_option_is_cut() -> None:
    out, writer = written()
    writer.packet(0, WHEN, b"", comment="é" * 40000)
    assert len(out.getvalue()) < 70000


def test_an_interface_that_is_not_there_is_refused() -> None:
    _, writer = written(TAP)
    with pytest.raises(IndexError):
        writer.packet(1, WHEN, FRAME)


def test_interfaces_have_a_snaplen_that_readers_take() -> None:
    assert TAP.snaplen == MAX_SNAPLEN
