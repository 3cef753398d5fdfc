"""The page for the class: the same packet at several interfaces is one journey."""

from __future__ import annotations

from typing import Any, cast

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from vxlan.lab.view.identity import identity, outer_of, routed_identity
from vxlan.lab.view.journey import (
    MOST_JOURNEYS,
    MOST_NEW,
    MOST_STEPS,
    QUIET,
    REMEMBERED,
    Journeys,
    Sighting,
)
from vxlan.lab.view.scene import ContainerView, HostView, Kind, Scene, SegmentView, Stop
from vxlan.lab.view.story import Names, layers, told

C1, C2, C3 = "02:00:00:00:00:c1", "02:00:00:00:00:c2", "02:00:00:00:00:c3"
UNDERLAY = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}


def stop(key: str, kind: Kind) -> Stop:
    return Stop(*key.split("/"), kind, cast(Any, None))


STOPS = {
    one.key: one
    for host, station in zip("abc", ("c1", "c2", "c3"), strict=True)
    for one in (
        stop(f"{station}/eth0", "station"),
        stop(f"{host}/vxlan42", "tap"),
        stop(f"{host}/eth0", "underlay"),
    )
}
SCENE = Scene(
    "class",
    "Three hosts",
    ("switch",),
    tuple(
        HostView(name, (address,), "switch", "pyvxlan", name, (SegmentView(42, "vxlan42", "br0"),))
        for name, address in UNDERLAY.items()
    ),
    tuple(
        ContainerView(f"c{number}", host, "br0", (f"10.42.0.1{number}",), mac)
        for number, host, mac in ((1, "a", C1), (2, "b", C2), (3, "c", C3))
    ),
    (),
    {},
    cast(Any, None),
    {C1: "c1", C2: "c2", C3: "c3", "02:00:00:00:00:0a": "a", "02:00:00:00:00:0b": "b"},
)


def echo(number: int = 0) -> bytes:
    packet = Ether(src=C1, dst=C2) / IP(src="10.42.0.11", dst="10.42.0.12", id=number)
    return bytes(packet / ICMP(id=7, seq=number) / bytes(56))


def question() -> bytes:
    asked = ARP(hwsrc=C1, psrc="10.42.0.11", pdst="10.42.0.12")
    return bytes(Ether(src=C1, dst="ff:ff:ff:ff:ff:ff") / asked)


def wrapped(frame: bytes, to: str, ttl: int = 64, flags: int = 8) -> bytes:
    outer = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    outer /= IP(src=UNDERLAY["a"], dst=UNDERLAY[to], ttl=ttl) / UDP(sport=55555, dport=4789)
    return bytes(outer / VXLAN(vni=42, flags=flags)) + frame


def seen(*places: tuple[str, str, bytes], begin: float = 100.0) -> list[Sighting]:
    """Sightings a tenth of a millisecond apart."""
    return [
        Sighting(STOPS[key], cast(Any, direction), begin + number / 1e4, frame)
        for number, (key, direction, frame) in enumerate(places)
    ]


def way(frame: bytes) -> list[tuple[str, str, bytes]]:
    """c1 to c2."""
    return [
        ("c1/eth0", "out", frame),
        ("a/vxlan42", "out", frame),
        ("a/eth0", "out", wrapped(frame, "b")),
        ("b/eth0", "in", wrapped(frame, "b")),
        ("b/vxlan42", "in", frame),
        ("c2/eth0", "in", frame),
    ]


# -- identity ------------------------------------------------------------------------------


def test_what_is_wrapped_stays_the_same() -> None:
    outer = outer_of(wrapped(echo(), "b"))
    assert outer is not None
    assert outer.inner is not None
    assert identity(outer.inner) == identity(echo())
    assert identity(echo(1)) != identity(echo(2))


def test_what_changes_on_the_way_does_not_count() -> None:
    """A checksum that is filled in late, an MSS that a VTEP lowers."""
    plain = Ether(src=C1, dst=C2) / IP(src="10.42.0.11", dst="10.42.0.12", id=9)
    syn = [
        bytes(plain / TCP(sport=1, dport=2, flags="S", options=[("MSS", mss)], chksum=check))
        for mss, check in ((1460, 1), (1410, 2))
    ]
    assert identity(syn[0]) == identity(syn[1])
    datagram = [bytes(plain / UDP(sport=1, dport=2, chksum=check) / b"x") for check in (1, 2)]
    assert identity(datagram[0]) == identity(datagram[1])


def test_routers_change_macs_and_ttl_of_the_underlay() -> None:
    inner = IP(src="192.0.2.1", dst="198.51.100.1", id=4)
    before = bytes(Ether(src=C1, dst=C2) / inner / ICMP(id=1))
    inner.ttl = 63
    assert routed_identity(before) == routed_identity(
        bytes(Ether(src=C2, dst=C3) / inner / ICMP(id=1))
    )


def test_padding_is_no_difference() -> None:
    assert identity(question() + bytes(18)) == identity(question() + bytes(18) + bytes(4))


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_any_end_of_a_packet_is_survived(length: int) -> None:
    v6 = bytes(Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(dport=4789) / bytes(70))
    for frame in (wrapped(echo(), "b"), v6):
        cut = frame[: max(14, length)]
        identity(cut)
        routed_identity(cut)
        outer = outer_of(cut)
        assert outer is None or outer.inner is None or len(outer.inner) >= 14


def test_a_probe_carries_no_frame() -> None:
    outer = outer_of(wrapped(echo(), "b", flags=0))
    assert outer is not None
    assert outer.inner is None


# -- journeys ------------------------------------------------------------------------------


def test_a_packet_is_one_journey_from_end_to_end() -> None:
    (journey,) = Journeys().add(seen(*way(echo())))
    assert [step.before for step in journey.steps] == [None, 0, 1, 2, 3, 4]
    assert [step.rank for step in journey.steps] == [0, 1, 2, 5, 6, 7]
    assert journey.overlay


def test_it_grows_with_each_look_and_ends_when_it_is_quiet() -> None:
    journeys, sightings = Journeys(), seen(*way(echo()))
    (first,) = journeys.add(sightings[:3])
    (second,) = journeys.add(sightings[3:])
    assert first is second
    assert journeys.settle(first.last + QUIET / 2) == []
    assert journeys.settle(first.last + QUIET) == [first]
    assert journeys.settle(first.last + QUIET) == []


def test_a_delayed_packet_is_still_the_same() -> None:
    journeys = Journeys()
    (journey,) = journeys.add(seen(*way(echo())[:3]))
    journeys.settle(journey.last + QUIET)
    (again,) = journeys.add(seen(*way(echo())[3:], begin=journey.last + REMEMBERED / 2))
    assert again is journey
    assert not journey.done


def test_a_flooded_frame_branches() -> None:
    frame = question()
    (journey,) = Journeys().add(
        seen(
            ("c1/eth0", "out", frame),
            ("a/vxlan42", "out", frame),
            ("a/eth0", "out", wrapped(frame, "b")),
            ("a/eth0", "out", wrapped(frame, "c")),
            ("c/eth0", "in", wrapped(frame, "c")),
            ("b/eth0", "in", wrapped(frame, "b")),
            ("c/vxlan42", "in", frame),
            ("b/vxlan42", "in", frame),
            ("b/vxlan42", "in", frame),
        )[:-1]
    )
    assert [step.before for step in journey.steps] == [None, 0, 1, 1, 3, 2, 4, 5]


def test_the_same_question_again_is_another_packet() -> None:
    journeys = Journeys()
    (first,) = journeys.add(seen(*way(question())))
    (second,) = journeys.add(seen(*way(question()), begin=101.0))
    assert first is not second
    assert len(second.steps) == 6


def test_a_flood_of_packets_is_skipped_and_counted() -> None:
    journeys = Journeys()
    frames = [("c1/eth0", "out", echo(number)) for number in range(MOST_NEW + 5)]
    assert len(journeys.add(seen(*frames))) == MOST_NEW
    assert journeys.skipped == 5
    for batch in range(MOST_JOURNEYS):
        journeys.add(seen(*frames, begin=200.0 + batch))
    assert len(journeys.settle(1e9)) <= MOST_JOURNEYS


def test_one_journey_has_a_longest_way() -> None:
    journeys = Journeys()
    many = [
        Sighting(stop(f"h{number}/eth0", "underlay"), "in", 1.0, wrapped(echo(), "b"))
        for number in range(MOST_STEPS + 9)
    ]
    (journey,) = journeys.add(many)
    assert len(journey.steps) == MOST_STEPS


# -- in words ------------------------------------------------------------------------------


def test_each_step_is_told_and_each_frame_is_sent_once() -> None:
    (journey,) = Journeys().add(seen(*way(echo())))
    names, frames = Names(SCENE), dict[bytes, int]()
    body = told(journey, 0, frames, names)
    assert body["word"] == "ping"
    assert [step["say"] for step in body["steps"]] == [
        "c1 sends 98 bytes to c2.",
        "The bridge of a hands it to vxlan42, where the VTEP takes it.",
        "The VTEP of a wraps it: VNI 42, 50 bytes more, to b (192.0.2.2).",
        "b receives it at its link, 148 bytes.",
        "The VTEP of b takes 50 bytes of outer headers off.",
        "c2 receives it.",
    ]
    assert [step["frame"] for step in body["steps"]] == [0, 0, 1, 1, 0, 0]
    assert [step["vni"] for step in body["steps"]] == [None, None, 42, 42, None, None]
    assert len(body["frames"]) == 2
    assert told(journey, 6, frames, names)["frames"] == []


def test_who_is_meant() -> None:
    names = Names(SCENE)
    assert names.meant("c2", question())
    assert not names.meant("c3", question())
    assert names.meant("c2", echo())
    assert not names.meant("c3", echo())
    announcement = bytes(
        Ether(src=C2, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.42.0.12", pdst="10.42.0.12")
    )
    assert names.meant("c3", announcement)


def test_layers_unfold_from_the_outside_in() -> None:
    found = layers(wrapped(echo(), "b"), Names(SCENE))
    assert [(one["name"], one["depth"], one["length"]) for one in found] == [
        ("Ethernet", 0, 14), ("IPv4", 0, 20), ("UDP", 0, 8), ("VXLAN", 0, 8),
        ("Ethernet", 1, 14), ("IPv4", 1, 20), ("ICMP", 1, 8), ("payload", 1, 56),
    ]  # fmt: skip
    assert [one["brief"] for one in found if one["name"] == "Ethernet"] == ["a → b", "c1 → c2"]
    assert found[3]["brief"] == "VNI 42"
    assert found[2]["brief"] == "port 55555 → 4789"


def test_too_big_and_fragments_have_words_of_their_own() -> None:
    told_so = ICMP(type=3, code=4, nexthopmtu=1350) / bytes(28)
    answer = bytes(Ether(src=C2, dst=C1) / IP(src="10.42.0.12", dst="10.42.0.11") / told_so)
    later = Ether(src=C1, dst=C2) / IP(src="10.42.0.11", dst="10.42.0.12", frag=185, proto=1)
    for frame, word, line in (
        (answer, "too big", "too big: 1350 bytes fit"),
        (bytes(later / bytes(99)), "fragment", "10.42.0.11 → 10.42.0.12"),
    ):
        (journey,) = Journeys().add(seen(("c1/eth0", "out", frame)))
        body = told(journey, 0, {}, Names(SCENE))
        assert body["word"] == word
        assert body["line"].startswith(line)


def test_copies_are_told_with_their_reason() -> None:
    for frame, why in (
        (question(), "It is for everybody"),
        (echo(), "Its FDB does not know c2"),
    ):
        copies = [("a/eth0", "out", wrapped(frame, to)) for to in "bc"]
        (journey,) = Journeys().add(seen(("a/vxlan42", "out", frame), *copies))
        steps = told(journey, 0, {}, Names(SCENE))["steps"]
        said = f"The VTEP of a wraps it: VNI 42, 50 bytes more. {why}, so each remote gets a copy."
        assert [step["say"] for step in steps[1:]] == [said, said]
        assert [step["to"] for step in steps] == [None, "b (192.0.2.2)", "c (192.0.2.3)"]


def test_what_a_vtep_says_itself_is_told_so() -> None:
    answer = bytes(
        Ether(src=C2, dst=C1) / IP(src="10.42.0.12", dst="10.42.0.11") / ICMP(type=3, code=4)
    )
    (journey,) = Journeys().add(seen(("a/vxlan42", "in", answer), ("c1/eth0", "in", answer)))
    steps = told(journey, 0, {}, Names(SCENE))["steps"]
    assert [step["say"] for step in steps] == [
        "The VTEP of a says this itself, to c1.",
        "c1 receives it.",
    ]


@pytest.mark.parametrize(
    ("packet", "word", "quiet"),
    [
        (ARP(psrc="192.0.2.1", pdst="192.0.2.2"), "ARP?", True),
        (IP(src="192.0.2.2", dst="192.0.2.1") / ICMP(type=3, code=3) / bytes(28), "ICMP", False),
    ],
)
def test_the_underlay_is_heard_when_it_complains(packet: Any, word: str, quiet: bool) -> None:
    frame = bytes(Ether(src="02:00:00:00:00:0b", dst="02:00:00:00:00:0a") / packet)
    (journey,) = Journeys().add(seen(("b/eth0", "out", frame), ("a/eth0", "in", frame)))
    body = told(journey, 0, {}, Names(SCENE))
    assert (body["word"], body["quiet"], body["overlay"]) == (word, quiet, False)
    assert quiet or body["line"].startswith("port unreachable")
