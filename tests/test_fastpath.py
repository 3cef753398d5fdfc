"""The two twins, vxlan.wire and vxlan._fastpath, give the same answer to everything.

`both` are the contract: one text, run on each.  The differential tests then let
hypothesis look for an input on which they differ, in random bytes and in frames
that are almost right.
"""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan import wire
from vxlan.engine import Policy
from vxlan.fdb import Remote

fastpath: Any = pytest.importorskip(
    "vxlan._fastpath",
    reason="the extension vxlan._fastpath is not built here",
    exc_type=ImportError,
)


@pytest.fixture(params=[wire, fastpath], ids=["python", "fastpath"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


# -- the contract, for each -----------------------------------------------------------


def ipv4_frame(protocol: int, l4: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    head = bytes((0x45 + len(options) // 4, 0xB8)) + bytes(4) + fragment.to_bytes(2, "big")
    head += bytes((61, protocol, 0, 0)) + bytes((10, 42, 0, 1, 10, 42, 0, 2)) + options
    return bytes(12) + b"\x08\x00" + head + l4


def ipv6_frame(protocol: int, l4: bytes) -> bytes:
    head = b"\x6b\x80\0\0" + bytes((0, len(l4), protocol, 61)) + bytes(range(32))
    return bytes(12) + b"\x86\xdd" + head + l4


PORTS = bytes((0x30, 0x39, 0x00, 0x50))
ADDRESSES = bytes((10, 42, 0, 1, 10, 42, 0, 2))


def test_header_is_that_of_rfc_7348(codec: ModuleType) -> None:
    assert codec.vxlan_header(0x123456) == bytes.fromhex("0800000012345600")


@pytest.mark.parametrize("vni", [-1, 1 << 24, 1 << 80])
def test_header_refuses_what_is_no_vni(codec: ModuleType, vni: int) -> None:
    with pytest.raises(ValueError, match=f"{vni} is not a VNI: it must be 0 to 16777215"):
        codec.vxlan_header(vni)


@pytest.mark.parametrize("length", range(8))
def test_short_header_is_none(codec: ModuleType, length: int) -> None:
    assert codec.parse_vxlan(bytes(length)) is None


def test_header_parts(codec: ModuleType) -> None:
    header = bytes.fromhex("ffaabbcc123456dd")
    assert codec.parse_vxlan(header) == (0xFF, 0x123456, 0xF7AABBCC000000DD)


def test_checksum_of_the_example_in_rfc_1071(codec: ModuleType) -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert codec.ones_sum(data) == 0xDDF2
    assert codec.checksum(data) == 0xDDF2 ^ 0xFFFF


@pytest.mark.parametrize(("data", "total"), [(b"", 0), (b"\xff\xff", 0), (b"\x12", 0x1200)])
def test_sum_at_the_edges(codec: ModuleType, data: bytes, total: int) -> None:
    assert codec.ones_sum(data) == total


def test_deferred_carries_of_the_longest_packet(codec: ModuleType) -> None:
    assert codec.ones_sum(b"\xff\xfe" * 32768) == 0xFFFE * 32768 % 0xFFFF


def test_flow_of_ports_is_zlib_crc_of_addresses_and_ports(codec: ModuleType) -> None:
    assert codec.flow_hash(ipv4_frame(17, PORTS)) == zlib.crc32(ADDRESSES + PORTS, 17)
    assert codec.flow_hash(ipv6_frame(6, PORTS)) == zlib.crc32(bytes(range(32)) + PORTS, 6)


def test_flow_looks_behind_options_and_tags(codec: ModuleType) -> None:
    frame = ipv4_frame(6, PORTS, options=b"\1" * 8)
    tagged = frame[:12] + b"\x88\xa8\0\1\x81\0\0\2" + frame[12:]
    assert codec.flow_hash(frame) == codec.flow_hash(tagged) == zlib.crc32(ADDRESSES + PORTS, 6)


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x00FF, 0x1FFF])
def test_fragments_hash_without_ports(codec: ModuleType, fragment: int) -> None:
    frame = ipv4_frame(17, PORTS, fragment=fragment)
    assert codec.flow_hash(frame) == zlib.crc32(ADDRESSES, 17)


def test_dont_fragment_is_no_fragment(codec: ModuleType) -> None:
    assert codec.flow_hash(ipv4_frame(17, PORTS, fragment=0x4000)) == zlib.crc32(
        ADDRESSES + PORTS, 17
    )


def test_inspect_finds_the_fields(codec: ModuleType) -> None:
    assert codec.inspect(ipv4_frame(1, PORTS))[:4] == (14, 4, 0xB8, 61)
    assert codec.inspect(ipv6_frame(58, PORTS))[:4] == (14, 6, 0xB8, 61)
    assert codec.inspect(bytes(14)) == (14, 0, 0, 0, zlib.crc32(bytes(12), 0))


def test_source_port_covers_the_range_and_no_more(codec: ModuleType) -> None:
    assert codec.source_port(0, 49152, 65535) == 49152
    assert codec.source_port(0xFFFFFFFF, 49152, 65535) == 65535
    assert codec.source_port(0xFFFFFFFF, 5000, 5000) == 5000


# -- the differences, which there are none --------------------------------------------

FRAMES_OF_IP = st.builds(
    lambda macs, tags, ethertype, first, rest: macs + tags + ethertype + first + rest,
    st.binary(min_size=12, max_size=12),
    st.lists(st.sampled_from([b"\x81\0\0\1", b"\x88\xa8\0\2"]), max_size=3).map(b"".join),
    st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x08\x06", b"\x81\0"]),
    st.sampled_from([b"", b"\x45\0", b"\x46\3", b"\x4f\0", b"\x40\0", b"\x60\0", b"\x6f\xff"]),
    st.binary(max_size=80),
)
PROTOCOLS = st.sampled_from([1, 6, 17, 44, 58])
SHORT_L4 = st.binary(max_size=6)
OPTIONS = st.integers(0, 10).map(lambda words: b"\1" * 4 * words)
FRAGMENT = st.sampled_from([0, 0, 0x4000, 0x2000, 0x8000, 0x0100, 0x0001])
FRAMES = (
    FRAMES_OF_IP
    | st.binary(min_size=14, max_size=120)
    | st.builds(ipv6_frame, PROTOCOLS, SHORT_L4)
    | st.builds(
        lambda protocol, l4, options, fragment: ipv4_frame(
            protocol, l4, options=options, fragment=fragment
        ),
        PROTOCOLS,
        SHORT_L4,
        OPTIONS,
        FRAGMENT,
    )
)
UINT16 = st.integers(0, 0xFFFF)
UINT32 = st.integers(0, 0xFFFFFFFF)


@given(FRAMES)
def test_frames_look_the_same(frame: bytes) -> None:
    assert fastpath.inspect(frame) == wire.inspect(frame)
    assert fastpath.flow_hash(frame) == wire.flow_hash(frame)


@given(st.binary(max_size=32))
def test_headers_parse_the_same(payload: bytes) -> None:
    assert fastpath.parse_vxlan(payload) == wire.parse_vxlan(payload)


@given(st.integers(0, wire.MAX_VNI))
def test_headers_build_the_same(vni: int) -> None:
    assert fastpath.vxlan_header(vni) == wire.vxlan_header(vni)


@given(st.binary(max_size=400), UINT32)
def test_checksums_agree(data: bytes, start: int) -> None:
    assert fastpath.ones_sum(data) == wire.ones_sum(data)
    assert fastpath.checksum(data, start) == wire.checksum(data, start)


@given(UINT16, UINT16, UINT16)
def test_checksum_updates_agree(check: int, old: int, new: int) -> None:
    assert fastpath.checksum_update(check, old, new) == wire.checksum_update(check, old, new)


@given(UINT32, UINT16, UINT16)
def test_source_ports_agree(flow: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert fastpath.source_port(flow, low, high) == wire.source_port(flow, low, high)


# -- what both sides hold, and what the compiled one refuses --------------------------


def test_shared_numbers_agree() -> None:
    compiled = fastpath.NUMBERS
    assert {"DSTPORT", "VXLAN_HLEN", "MAX_VNI", "MAX_TAGS"} <= compiled.keys()
    assert compiled == {name: getattr(wire, name) for name in compiled}


@pytest.mark.parametrize("look", ["inspect", "flow_hash"])
def test_less_than_an_ethernet_header_is_refused(look: str) -> None:
    with pytest.raises(ValueError, match="13 bytes are no Ethernet frame"):
        getattr(fastpath, look)(bytes(13))


@pytest.mark.parametrize("look", ["parse_vxlan", "checksum", "flow_hash"])
@pytest.mark.parametrize("value", [None, "text", bytearray(14)])
def test_only_bytes_are_taken(look: str, value: object) -> None:
    with pytest.raises(TypeError):
        getattr(fastpath, look)(value)


# -- frames in, datagrams in one buffer -----------------------------------------------


def new_core(**policy: Any) -> Any:
    from vxlan.fastengine import FastEngine

    engine: Any = FastEngine(("192.0.2.1",), 4789)
    engine.add_segment(42, Policy(**policy))
    engine.add_remote(42, Remote("192.0.2.2", 4789), 0.0)
    return engine


def encapsulated(engine: Any, frames: list[bytes]) -> bytes:
    return b"".join(one.payload for one in engine.encap(42, frames, 1.0))


SOURCE = bytes.fromhex("02000000000b02000000000a0800")
some_frames = st.lists(st.binary(max_size=80) | st.binary(max_size=80).map(SOURCE.__add__))


@given(some_frames, st.booleans())
def test_a_buffer_of_datagrams_is_what_encap_gives(frames: list[bytes], vlan_drop: bool) -> None:
    policy = {"vlan": "drop" if vlan_drop else "carry"}
    one, other = new_core(**policy), new_core(**policy)
    room = bytearray(sum(map(len, frames)) + 8 * len(frames))
    written = one.core.encap_into(42, frames, room, 1.0)
    assert room[:written] == encapsulated(other, frames)
    assert one.core.counters(42) == other.core.counters(42)


def test_a_full_buffer_ends_the_batch_before_the_frame_that_does_not_fit() -> None:
    engine = new_core()
    frames = [SOURCE + bytes(46)] * 3
    room = bytearray(2 * 68 + 67)
    assert engine.core.encap_into(42, frames, room, 1.0) == 2 * 68
    assert room[2 * 68 :] == bytes(67)


def test_a_frame_beyond_the_path_is_left_out() -> None:
    engine = new_core(mtu=1450)
    room = bytearray(4000)
    assert engine.core.encap_into(42, [SOURCE + bytes(1451), SOURCE + bytes(46)], room, 1.0) == 68


def test_only_bytes_are_frames() -> None:
    with pytest.raises(TypeError):
        new_core().core.encap_into(42, [bytearray(60)], bytearray(100), 1.0)
