"""Header codecs: known values, and properties over random input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.frames import A, B, ether, ip_checksum, ipv4, ipv6, tagged, tcp, udp
from vxlan import wire


def test_vxlan_header_is_the_drawing_of_rfc_7348() -> None:
    assert wire.vxlan_header(0x123456).hex() == "0800000012345600"


@pytest.mark.parametrize("vni", [-1, 1 << 24])
def test_vni_out_of_range_is_refused(vni: int) -> None:
    with pytest.raises(ValueError, match="is not a VNI: it must be 0 to 16777215"):
        wire.vxlan_header(vni)


@given(st.integers(0, wire.MAX_VNI))
def test_vxlan_header_round_trip(vni: int) -> None:
    assert wire.parse_vxlan(wire.vxlan_header(vni)) == wire.VxlanHeader(wire.I_FLAG, vni, 0)


@given(st.binary(max_size=16))
def test_parse_vxlan_takes_anything(payload: bytes) -> None:
    header = wire.parse_vxlan(payload)
    if len(payload) < 8:
        assert header is None
    else:
        assert header is not None
        assert header.vni == int.from_bytes(payload[4:7], "big")
        assert header.valid == bool(payload[0] & 8)
        clean = payload[0] & ~8 == 0 and not any(payload[1:4]) and not payload[7]
        assert bool(header.reserved) == (not clean)


@pytest.mark.parametrize("text", ["02:00:00:00:00:0a", "02-00-00-00-00-0A"])
def test_mac_text(text: str) -> None:
    assert wire.mac_bytes(text) == A
    assert wire.mac_text(A) == "02:00:00:00:00:0a"


@pytest.mark.parametrize(
    "text", ["", "02:00:00:00:00", "02:00-00:00:00:0a", "0g:00:00:00:00:0a", "02000000000a"]
)
def test_what_is_no_mac(text: str) -> None:
    with pytest.raises(ValueError, match="is not a MAC address"):
        wire.mac_bytes(text)


@given(st.binary(max_size=100).filter(lambda data: len(data) % 2 == 0 and any(data)))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    expected = ip_checksum(data)
    assert wire.checksum(data) % 0xFFFF == expected % 0xFFFF


@given(
    st.binary(min_size=2, max_size=60).filter(lambda data: len(data) % 2 == 0),
    st.integers(0, 0xFFFF),
)
def test_checksum_update_equals_a_new_sum(data: bytes, word: int) -> None:
    before = ip_checksum(data)
    after = ip_checksum(word.to_bytes(2, "big") + data[2:])
    updated = wire.checksum_update(before, int.from_bytes(data[:2], "big"), word)
    assert updated % 0xFFFF == after % 0xFFFF


def test_inspect_finds_ip_behind_tags() -> None:
    packet = ipv4(udp(), tos=0x2E, ttl=7)
    plain = ether(ethertype=0x0800, payload=packet)
    assert wire.inspect(plain)[:4] == (14, 4, 0x2E, 7)
    assert wire.inspect(tagged(plain))[:4] == (18, 4, 0x2E, 7)
    assert wire.inspect(tagged(tagged(plain), tpid=0x88A8))[:4] == (22, 4, 0x2E, 7)
    assert wire.inspect(ether(ethertype=0x86DD, payload=ipv6(udp(), tos=0xB9, ttl=3)))[:4] == (
        14,
        6,
        0xB9,
        3,
    )


@pytest.mark.parametrize(
    "frame",
    [
        ether(ethertype=0x0800, payload=b"\x45" + b"\0" * 18),
        ether(ethertype=0x0800, payload=b"\x65" + b"\0" * 40),
        ether(ethertype=0x86DD, payload=b"\x60" + b"\0" * 38),
        ether(ethertype=0x8100, payload=b"\0\x07\x08"),
        ether(payload=b""),
    ],
    ids=["ipv4 cut", "version 6 in IPv4", "ipv6 cut", "tag cut", "no payload"],
)
def test_what_is_not_well_formed_is_not_ip(frame: bytes) -> None:
    assert wire.inspect(frame).version == 0


@given(st.binary(min_size=14, max_size=120))
def test_inspect_takes_anything(frame: bytes) -> None:
    inner = wire.inspect(frame)
    assert inner.version in (0, 4, 6)
    assert 0 <= inner.flow < 1 << 32
    assert inner.l3 <= max(len(frame), 14)


def flow(**fields: object) -> int:
    return wire.flow_hash(ether(ethertype=0x0800, payload=ipv4(**fields)))  # type: ignore[arg-type]


def test_one_flow_has_one_hash_whatever_it_carries() -> None:
    assert flow(payload=udp(payload=b"a")) == flow(payload=udp(payload=b"bcd"), tos=4, ttl=9)


def test_options_do_not_hide_the_ports() -> None:
    assert flow(payload=udp(), options=b"\1\1\1\1") == flow(payload=udp())


def test_all_fragments_of_a_packet_hash_alike() -> None:
    first = flow(payload=udp(payload=b"z" * 40), flags=0x2000)
    later = flow(payload=b"q" * 40, flags=0x0006)
    assert first == later


def test_tcp_and_udp_are_other_flows() -> None:
    assert flow(payload=udp(1, 2)) != flow(payload=tcp(sport=1, dport=2), protocol=6)


def test_300_flows_spread_over_at_least_100_ports() -> None:
    hashes = [flow(payload=udp(sport, 80)) for sport in range(40000, 40300)]
    ports = {wire.source_port(value, 49152, 65535) for value in hashes}
    assert len(ports) >= 290
    assert all(49152 <= port <= 65535 for port in ports)
    assert len({value * 256 >> 32 for value in hashes}) >= 100


def test_source_port_reaches_both_ends() -> None:
    assert wire.source_port(0, 10, 20) == 10
    assert wire.source_port(0xFFFFFFFF, 10, 20) == 20


# RFC 6040, figure 4, written out: (inner, outer) -> new inner, None = drop
FIGURE_4 = {
    (0, 0): 0, (0, 2): 0, (0, 1): 0, (0, 3): None,
    (2, 0): 2, (2, 2): 2, (2, 1): 1, (2, 3): 3,
    (1, 0): 1, (1, 2): 1, (1, 1): 1, (1, 3): 3,
    (3, 0): 3, (3, 2): 3, (3, 1): 3, (3, 3): 3,
}  # fmt: skip


def test_ecn_table_is_figure_4_of_rfc_6040() -> None:
    assert {(i, o): wire.ECN_DECAP[i][o] for i in range(4) for o in range(4)} == FIGURE_4


@given(st.integers(0, 255), st.integers(0, 3), st.booleans())
def test_set_ecn_changes_ecn_only_and_keeps_the_checksum_right(
    tos: int, ecn: int, six: bool
) -> None:
    packet = ipv6(udp(), tos=tos) if six else ipv4(udp(), tos=tos)
    frame = ether(ethertype=0x86DD if six else 0x0800, payload=packet)
    inner = wire.inspect(frame)
    changed = wire.set_ecn(frame, inner, ecn)
    new_tos = tos & ~3 | ecn
    expected = ipv6(udp(), tos=new_tos) if six else ipv4(udp(), tos=new_tos)
    assert changed == ether(ethertype=0x86DD if six else 0x0800, payload=expected)


def test_a_tagged_frame_is_known_by_either_tpid() -> None:
    assert wire.is_tagged(tagged(ether()))
    assert wire.is_tagged(tagged(ether(), tpid=0x88A8))
    assert not wire.is_tagged(ether())
    assert wire.mac_text(B) == "02:00:00:00:00:0b"
