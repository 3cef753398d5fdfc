"""Records of packets: packed and unpacked, said in words, drawn as outer packets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frames import A, B, ether, ipv4, ipv6, tagged, tcp, udp, vxlan
from vxlan import outer
from vxlan.cli.capture_text import as_json, line, summary
from vxlan.drop import Drop
from vxlan.fdb import Remote
from vxlan.recorder import Recorder
from vxlan.sight import (
    HEAD,
    Flag,
    Found,
    Seen,
    Sight,
    Where,
    each,
    lost,
    pack,
    size_at,
    unpack,
    whole,
)
from vxlan.sight_words import say

PEER = Remote("192.0.2.2", 4789)
ADDRESSES = st.sampled_from(["192.0.2.2", "2001:db8::3", "0.0.0.0", "::"])

seen_ = st.builds(
    Seen,
    where=st.sampled_from(Where),
    data=st.binary(max_size=100),
    length=st.integers(0, 1 << 17),
    when=st.integers(0, 2**63),
    vni=st.none() | st.integers(0, 0xFFFFFF),
    reason=st.none() | st.sampled_from(Drop),
    remote=st.none() | st.builds(Remote, ADDRESSES, st.integers(0, 65535)),
    targets=st.integers(0, 2**32 - 1),
    found=st.sampled_from(Found),
    age=st.none() | st.integers(0, 2**32 - 2),
    flags=st.sets(st.sampled_from(list(Flag))).map(lambda flags: Flag(sum(flags))),
    srcport=st.integers(0, 65535),
    tos=st.integers(0, 255),
    ttl=st.integers(0, 255),
)


# -- records -------------------------------------------------------------------------


@given(st.lists(seen_, max_size=4))
def test_what_was_packed_is_unpacked(some: list[Seen]) -> None:
    records = b"".join(map(pack, some))
    assert list(each(records)) == some
    assert whole(records + records[:5]) == len(records)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_record_are_refused_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(ValueError, match="begins no record"):  # noqa: PT012
        list(each(data[: whole(data)]))
        unpack(data[: HEAD.size - 1])


def test_a_size_that_no_record_has_is_refused() -> None:
    for size in (0, HEAD.size - 1, 1 << 30):
        with pytest.raises(ValueError, match="byte 0 begins no record"):
            size_at(size.to_bytes(4, "little"), 0)
    assert size_at(b"\1\2\3", 0) == 0


@given(seen_)
def test_everything_can_be_said_in_one_line(seen: Seen) -> None:
    for text in (say(seen), line(seen, {42: "vxlan42"}, 4789)):
        assert text
        assert "\n" not in text
    assert as_json(seen, 4789)["comment"] == say(seen)


# -- words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            Seen(Where.TAP_IN, b"", 0, vni=42, remote=PEER, found=Found.DYNAMIC, age=3999),
            "encap vni 42 -> 192.0.2.2, learned 3 s ago",
        ),
        (
            Seen(Where.TAP_IN, b"", 0, vni=42, remote=PEER, targets=3, found=Found.FLOOD),
            "encap vni 42 -> 3 remotes, flooded",
        ),
        (
            Seen(Where.TAP_IN, b"", 0, vni=42, remote=Remote("192.0.2.2", 8472), found=Found.STATIC,
                 flags=Flag.CHANGED),
            "encap vni 42 -> 192.0.2.2:8472, static entry, MSS lowered",
        ),
        (
            Seen(Where.UNDERLAY_IN, b"", 0, vni=99, remote=PEER, reason=Drop.VXLAN_VNI_NOT_FOUND),
            "dropped VXLAN_VNI_NOT_FOUND (vni 99 <- 192.0.2.2): no segment here has this VNI",
        ),
        (
            Seen(Where.UNDERLAY_IN, b"", 0, remote=PEER, reason=Drop.HDR_TRUNC),
            "dropped HDR_TRUNC (<- 192.0.2.2): datagram shorter than the 8-byte VXLAN header",
        ),
        (
            Seen(Where.TAP_IN, b"", 0, vni=42, reason=Drop.NO_TX_TARGET, targets=0),
            f"dropped NO_TX_TARGET (vni 42): {Drop.NO_TX_TARGET.meaning}",
        ),
        (
            Seen(Where.UNDERLAY_IN, b"", 0, vni=42, remote=Remote("192.0.2.2", 50123)),
            "decap vni 42 <- 192.0.2.2",
        ),
        (
            Seen(Where.TAP_OUT, b"", 0, vni=42, remote=PEER, targets=40),
            "decap vni 42 <- 192.0.2.2, 40 segments merged",
        ),
        (
            Seen(Where.UNDERLAY_OUT, b"", 0, remote=PEER, flags=Flag.OWN),
            "probe, acknowledgement or announcement -> 192.0.2.2",
        ),
        (
            Seen(Where.UNDERLAY_IN, b"", 0, remote=Remote("192.0.2.2", 50123), flags=Flag.OWN),
            "probe, acknowledgement or announcement <- 192.0.2.2",
        ),
        (lost(7, 0), "7 packets were seen here and not kept"),
    ],
)  # fmt: skip
def test_words(seen: Seen, words: str) -> None:
    assert say(seen) == words


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (ether(B, A, 0x0800, ipv4(udp())), "10.42.0.1:1000 > 10.42.0.2:2000 UDP"),
        (ether(B, A, 0x0800, ipv4(tcp(), protocol=6)), "10.42.0.1:1000 > 10.42.0.2:80 TCP [.]"),
        (ether(B, A, 0x0800, ipv4(b"x" * 9, protocol=1)), "10.42.0.1 > 10.42.0.2 ICMP"),
        (ether(B, A, 0x0800, ipv4(udp(), flags=5)), "10.42.0.1 > 10.42.0.2 UDP fragment"),
        (
            ether(B, A, 0x86DD, ipv6(udp())),
            "[2001:db8::1]:1000 > [2001:db8::2]:2000 UDP",
        ),
        (tagged(ether(B, A, 0x0800, ipv4(udp()))), "vlan 7 10.42.0.1:1000 > 10.42.0.2:2000 UDP"),
        (ether(B, A), "type 0x88b5"),
    ],
)
def test_a_frame_in_words(frame: bytes, words: str) -> None:
    assert " ".join(summary(frame)) == f"02:00:00:00:00:0a > 02:00:00:00:00:0b {words}"


def test_arp_in_words() -> None:
    ask = bytes.fromhex("0001080006040001") + A + bytes((10, 42, 0, 1)) + bytes(6)
    frame = ether(b"\xff" * 6, A, 0x0806, ask + bytes((10, 42, 0, 2)))
    assert " ".join(summary(frame)).endswith("ARP who-has 10.42.0.2 tell 10.42.0.1")
    assert Sight(ip=bytes((10, 42, 0, 2))).wants(Seen(Where.TAP_IN, frame, len(frame)))


@given(st.binary(max_size=120))
def test_no_frame_is_too_broken_for_words(frame: bytes) -> None:
    assert summary(frame)


# -- outer packets -------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@settings(deadline=None)  # scapy takes its time to be imported
@given(payload=st.binary(max_size=90), tos=st.integers(0, 255), ttl=st.integers(1, 255))
def test_outer_headers_are_what_scapy_makes(
    family: int, payload: bytes, tos: int, ttl: int
) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.packet import Raw

    src, dst = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    head = (
        IP(src=src, dst=dst, tos=tos, ttl=ttl, id=0, flags="DF")
        if family == 4
        else IPv6(src=src, dst=dst, tc=tos, hlim=ttl)
    )
    made = bytes(head / UDP(sport=50123, dport=4789) / Raw(payload))
    assert outer.datagram(payload, (src, 50123), (dst, 4789), tos=tos, ttl=ttl) == made


def test_a_payload_that_was_cut_keeps_its_length() -> None:
    packet = outer.datagram(b"x" * 10, ("192.0.2.1", 1), ("192.0.2.2", 2), length=1000)
    assert int.from_bytes(packet[2:4], "big") == 1028
    assert packet[20:28] == bytes.fromhex("0001000203f00000")


# -- the recorder --------------------------------------------------------------------


def test_a_full_recorder_counts_and_has_room_again() -> None:
    recorder = Recorder(Sight(), lambda: 7, limit=300)
    packet = Seen(Where.UNDERLAY_IN, vxlan(42, b"x" * 60), 68)
    for _ in range(4):
        recorder.put(packet)
    batch = recorder.take()
    assert (batch.packets, batch.lost) == (2, 2)
    assert [seen.when for seen in each(batch.records)] == [7, 7]
    recorder.put(packet)
    assert (recorder.take().packets, recorder.take().lost) == (1, 0)


def test_a_flooded_frame_is_wanted_by_each_of_its_remotes() -> None:
    seen = Seen(Where.TAP_IN, ether(), 60, remote=PEER, targets=2)
    for address in ("192.0.2.2", "192.0.2.3"):
        sight = Sight(remote=address)
        assert sight.wants(seen, (PEER, Remote("192.0.2.3", 4789)))
        assert sight.wants(unpack(pack(seen)))
    assert not Sight(remote="192.0.2.9").wants(seen, (PEER,))


def test_an_address_of_ipv4_is_none_of_ipv6() -> None:
    frame = ether(B, A, 0x86DD, ipv6(udp()))
    assert Sight(ip=ip_address("2001:db8::2").packed).wants(Seen(Where.TAP_IN, frame, len(frame)))
    assert not Sight(ip=bytes((32, 1, 13, 184))).wants(Seen(Where.TAP_IN, frame, len(frame)))
