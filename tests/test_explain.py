"""`pyvxlan explain` without a node: captures, octets and words, judged by defaults."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap, wrpcapng

from tests.clirun import complaint, run
from tests.test_pcap_read import enhanced, interface, option, section
from vxlan.cli import cli
from vxlan.drop import Drop
from vxlan.explain import Defaults, alone, subject_of
from vxlan.outer_read import OuterError
from vxlan.pcap_read import PcapError

OUTER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
    src="192.0.2.1", dst="192.0.2.2", flags="DF"
)
OUTER6 = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IPv6(
    src="2001:db8::1", dst="2001:db8::2"
)
TO = UDP(sport=50000, dport=4789)
INNER = (
    Ether(src="02:42:0a:2a:00:0b", dst="02:42:0a:2a:00:0c")
    / IP(src="10.42.0.11", dst="10.42.0.12")
    / ICMP()
    / Raw(b"ping")
)
GOOD = OUTER / TO / VXLAN(vni=42, flags=8) / INNER


@pytest.fixture(autouse=True)
def nobody_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYVXLAN_RUNTIME_DIR", str(tmp_path / "run"))


def capture(tmp_path: Path, *packets: Packet, ng: bool = False) -> str:
    path = str(tmp_path / "made.pcap")
    (wrpcapng if ng else wrpcap)(path, list(packets))
    return path


def explained(*args: str) -> dict[str, Any]:
    result = run("explain", *args, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def judged(tmp_path: Path, packet: Packet, *args: str) -> dict[str, Any]:
    return explained("--pcap", capture(tmp_path, packet), "--packet", "1", *args)


# -- a received datagram -------------------------------------------------------------------


@pytest.mark.parametrize("ng", [False, True], ids=["pcap", "pcapng"])
def test_the_keys_that_scripts_rely_on(tmp_path: Path, ng: bool) -> None:
    path = capture(tmp_path, OUTER, GOOD, ng=ng)
    found = explained("--pcap", path, "--packet", "2")
    assert found["vni"] == 42
    assert (found["outer"]["src"], found["outer"]["dst"]) == ("192.0.2.1", "192.0.2.2")
    assert (found["inner"]["src"], found["inner"]["dst"]) == (
        "02:42:0a:2a:00:0b",
        "02:42:0a:2a:00:0c",
    )
    assert (found["verdict"], found["reason"]) == ("decap", "known_remote")
    assert (found["side"], found["node"], found["version"]) == ("decap", None, 1)
    assert found["delivered"] == bytes(INNER).hex()
    assert found["outer"]["hex"] == bytes(GOOD)[14:50].hex()
    assert found["inner"]["ip"]["dst"] == "10.42.0.12"
    assert {rule["result"] for rule in found["rules"]} == {"ok"}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (OUTER / TO / VXLAN(vni=42, flags=0) / INNER, Drop.VXLAN_INVALID_HDR),
        (OUTER / TO / Raw(b"abc"), Drop.HDR_TRUNC),
        (OUTER / TO / VXLAN(vni=42, flags=8) / Raw(b"short"), Drop.PKT_TOO_SMALL),
        (OUTER / TO / VXLAN(flags=8) / Ether(src="ff:ff:ff:ff:ff:ff"), Drop.MAC_INVALID_SOURCE),
        (
            Ether() / IP(src="192.0.2.2", dst="192.0.2.2") / TO / Raw(bytes(GOOD)[42:]),
            Drop.OWN_ADDRESS,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Drop) else "",
)
def test_a_datagram_that_is_dropped_has_its_reason(
    tmp_path: Path, packet: Packet, reason: Drop
) -> None:
    found = judged(tmp_path, packet)
    assert (found["verdict"], found["reason"]) == ("drop", reason.name)
    assert (found["meaning"], found["remedy"]) == (reason.meaning, reason.remedy)
    results = [rule["result"] for rule in found["rules"]]
    at = results.index("refused")
    assert set(results[:at]) <= {"ok"}
    assert set(results[at + 1 :]) <= {"not asked"}


def test_another_vni_may_be_what_is_served(tmp_path: Path) -> None:
    found = judged(tmp_path, GOOD, "--vni", "7")
    assert (found["verdict"], found["reason"], found["vni"]) == ("drop", "VXLAN_VNI_NOT_FOUND", 42)
    stranger = judged(tmp_path, GOOD, "--remote", "192.0.2.9")
    assert stranger["reason"] == "UNKNOWN_REMOTE"


def test_ipv6_tags_outside_and_another_port(tmp_path: Path) -> None:
    six = judged(tmp_path, OUTER6 / TO / VXLAN(vni=7, flags=8) / INNER)
    assert (six["vni"], six["outer"]["src"], six["verdict"]) == (7, "2001:db8::1", "decap")
    tagged = Ether(src=OUTER.src, dst=OUTER.dst) / Dot1Q(vlan=5) / GOOD[IP]
    assert judged(tmp_path, tagged)["verdict"] == "decap"
    other = OUTER / UDP(dport=8472) / VXLAN(vni=7, flags=8) / INNER
    assert judged(tmp_path, other)["verdict"] == "none"
    assert judged(tmp_path, other, "--dstport", "8472")["vni"] == 7


def test_what_the_capture_says_is_a_note_fit_for_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "said.pcapng"
    comment = option(1, b"dropped \x1b[31mHDR_TRUNC\n")
    path.write_bytes(section() + interface() + enhanced(bytes(GOOD), comment, length=len(GOOD)))
    notes = explained("--pcap", str(path), "--packet", "1")["notes"]
    assert "the capture says: dropped  [31mHDR_TRUNC " in notes
    path.write_bytes(section() + interface() + enhanced(bytes(INNER), comment, length=len(INNER)))
    for segment in ([], ["--vni", "42"]):
        notes = explained("--pcap", str(path), "--packet", "1", *segment)["notes"]
        assert any("the capture says" in note for note in notes)


def test_a_cooked_capture_has_no_ethernet_outside(tmp_path: Path) -> None:
    found = judged(tmp_path, CookedLinux(proto=0x0800) / GOOD[IP])
    assert (found["vni"], found["verdict"]) == (42, "decap")


def test_what_is_no_vxlan_says_so(tmp_path: Path) -> None:
    found = judged(tmp_path, INNER)
    assert (found["verdict"], found["reason"], found["vni"]) == ("none", "not_vxlan", None)
    assert found["outer"]["src"] is None
    assert found["inner"]["src"] == "02:42:0a:2a:00:0b"


def test_a_wrong_checksum_is_noted(tmp_path: Path) -> None:
    bad = GOOD.copy()
    bad[UDP].chksum = 0x1234
    assert any("checksum is wrong" in note for note in judged(tmp_path, bad)["notes"])
    assert not any("checksum" in note for note in judged(tmp_path, GOOD)["notes"])


# -- a frame -------------------------------------------------------------------------------


def test_a_frame_with_a_flood_list(tmp_path: Path) -> None:
    remotes = ["--vni", "7", "--remote", "192.0.2.2", "--remote", "192.0.2.3:8472"]
    found = judged(tmp_path, INNER, *remotes, "--local", "192.0.2.9")
    assert (found["side"], found["verdict"], found["reason"]) == ("encap", "encap", "flood_list")
    assert [(one["dst"], one["dport"]) for one in found["datagrams"]] == [
        ("192.0.2.2", 4789),
        ("192.0.2.3", 8472),
    ]
    assert (found["outer"]["src"], found["outer"]["dst"]) == ("192.0.2.9", "192.0.2.2")
    headers = bytes.fromhex(found["outer"]["hex"])
    again = IP(headers[:28] + bytes.fromhex(found["payloads"][0]))
    del again.chksum, again[UDP].chksum
    assert bytes(IP(bytes(again)))[:28] == headers[:28]
    assert headers[28:] == bytes(VXLAN(vni=7, flags=8))


def test_without_a_remote_nobody_is_to_have_it(tmp_path: Path) -> None:
    found = judged(tmp_path, INNER, "--vni", "7")
    assert (found["verdict"], found["reason"]) == ("drop", "NO_TX_TARGET")


WORDS = ["--from", "02:00:00:00:00:0a", "--to", "02:00:00:00:00:0b", "--remote", "192.0.2.2"]


@pytest.mark.parametrize(
    ("words", "verdict", "fate"),
    [
        (["--size", "1450", "--proto", "udp"], "encap", "fits"),
        (["--size", "1451", "--proto", "udp"], "encap", "fragmented"),
        (["--size", "1451", "--proto", "udp", "--df"], "drop", "answered"),
        (["--proto", "tcp"], "encap", "clamped"),
        (["--proto", "arp"], "encap", "fits"),
    ],
)
def test_words_and_the_mtu(words: list[str], verdict: str, fate: str) -> None:
    found = explained(*WORDS, *words)
    assert (found["verdict"], found["mtu"]["fate"]) == (verdict, fate)
    assert found["mtu"]["limit"] == 1450
    if fate == "fragmented":
        assert (found["mtu"]["fragments"], len(found["payloads"])) == (2, 2)
    if fate == "answered":
        assert Ether(bytes.fromhex(found["answer"]))[ICMP].nexthopmtu == 1450


def test_octets_as_an_argument_and_on_standard_input() -> None:
    octets = bytes(GOOD)
    for text in (octets.hex(), octets.hex(":"), "0x" + octets.hex().upper()):
        assert explained(text)["vni"] == 42
    result = CliRunner().invoke(cli, ["explain", "-", "--json"], input=octets.hex(" ", 4) + "\n")
    assert json.loads(result.stdout)["vni"] == 42


def test_a_capture_on_standard_input(tmp_path: Path) -> None:
    raw = Path(capture(tmp_path, INNER, GOOD)).read_bytes()
    args = ["explain", "--pcap", "-", "--packet", "2", "--json"]
    assert json.loads(CliRunner().invoke(cli, args, input=raw).stdout)["vni"] == 42


# -- for people ----------------------------------------------------------------------------


def shown(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_the_text_has_the_verdict_first_and_every_octet(tmp_path: Path) -> None:
    text = shown(run("explain", "--pcap", capture(tmp_path, GOOD), "--packet", "1"))
    assert text.splitlines()[0] == "datagram for VNI 42 from 192.0.2.1, no node: decap"
    assert "192.0.2.1 port 50000 -> 192.0.2.2 port 4789" in text
    assert "    VNI                00 00 2a                 42" in text
    refused = shown(run("explain", (bytes(OUTER / TO) + b"abc").hex()))
    assert "HDR_TRUNC: datagram shorter" in refused
    assert "10 more" in refused


def test_hex_draws_every_octet_with_its_name(tmp_path: Path) -> None:
    args = ["explain", "--pcap", capture(tmp_path, GOOD), "--packet", "1"]
    plain = shown(run(*args))
    drawn = shown(run(*args, "--hex")).removeprefix(plain).splitlines()
    octets = "".join(
        line.partition("|")[2].replace("|", "").replace(" ", "")
        for before, line in pairwise(drawn)
        if before[:6].strip().isdigit()
    )
    assert octets == bytes(GOOD)[14:].hex()
    assert all(len(line) <= 80 for line in drawn)
    borders = [line for line in drawn if "+--" in line]
    assert all(set(line.strip()) <= {"+", "-"} for line in borders)
    for name in ("version, IHL", "VNI", "total length", "source port", "sequence"):
        assert any(name in line for line in drawn)


# -- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "name one packet"),
        (["zz"], "'zz' is no packet in hexadecimal"),
        (["abc"], "no packet in hexadecimal"),
        ([""], "no octets"),
        (["00", "--pcap", "x"], "name one packet"),
        (["--packet", "3"], "name one packet"),
        (["00", "--packet", "3"], "goes with --pcap"),
        (["--pcap", "x"], "add --packet N"),
        (["--pcap", "x", "--packet", "0"], "1 is the first"),
        (["--pcap", "x", "--packet", "x"], "not a valid integer"),
        (["--from", "02:00:00:00:00:0a"], "both ends"),
        ([*WORDS, "--proto", "sctp"], "tcp, udp, icmp, arp"),
        ([*WORDS, "--size", "3"], "must be 20 to 65535"),
        ([*WORDS, "--vni", "16777216"], "not a VNI"),
        (["--from", "web", "--to", "10.42.0.1", "--remote", "192.0.2.2"], "no station"),
        (["00", "--remote", "here"], "not an IP address"),
        (["00", "--remote", "192.0.2.2", "-n", "a"], "leave them or -n out"),
    ],
)
def test_wrong_usage_is_one_line(args: list[str], text: str) -> None:
    assert text in complaint(run("explain", *args), 2)


def test_a_capture_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = Path(capture(tmp_path, GOOD))
    one = ("explain", "--pcap", str(path), "--packet")
    assert "made.pcap: there is no packet 3: the capture has 1" in complaint(run(*one, "3"), 1)
    path.write_bytes(path.read_bytes()[:-5])
    assert "made.pcap: the file is cut off" in complaint(run(*one, "1"), 1)
    path.write_bytes(b"nonsense")
    assert "neither a pcap nor a pcapng" in complaint(run(*one, "1"), 1)
    path.unlink()
    assert "made.pcap: No such file" in complaint(run(*one, "1"), 1)
    assert "Is a directory" in complaint(
        run("explain", "--pcap", str(tmp_path), "--packet", "1"), 1
    )


def snapped(tmp_path: Path, kept: int) -> str:
    """The good datagram, of which a capture kept the first octets."""
    octets = bytes(GOOD / Raw(bytes(1000)))
    path = tmp_path / "snapped.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, kept, 1)
    path.write_bytes(head + struct.pack("<IIII", 0, 0, kept, len(octets)) + octets[:kept])
    return str(path)


def test_a_packet_of_which_only_the_head_was_captured(tmp_path: Path) -> None:
    found = explained("--pcap", snapped(tmp_path, 120), "--packet", "1")
    assert (found["verdict"], found["inner"]["length"]) == ("decap", len(INNER) + 1000)
    assert any("120 of 1096 bytes were captured" in note for note in found["notes"])
    result = run("explain", "--pcap", snapped(tmp_path, 60), "--packet", "1")
    assert "too few to judge" in complaint(result, 1)


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (OUTER / UDP(dport=4789, len=90) / Raw(b"abc"), "claims 90 bytes"),
        (Ether() / IP(flags="MF") / TO / Raw(b"abc"), "fragment"),
    ],
)
def test_what_the_kernel_would_not_deliver_is_one_line(
    tmp_path: Path, packet: Packet, text: str
) -> None:
    result = run("explain", "--pcap", capture(tmp_path, packet), "--packet", "1")
    assert text in complaint(result, 1)


def test_nobody_to_ask_at_the_other_end_is_one_line(tmp_path: Path) -> None:
    path = capture(tmp_path, GOOD, OUTER / TO / Raw(b"abc"))
    (end,) = explained("--pcap", path, "--packet", "1", "--both-ends")["other_ends"]
    assert "no node that runs on this machine has 192.0.2.1" in end["why"]
    (end,) = explained("--pcap", path, "--packet", "2", "--both-ends")["other_ends"]
    assert (end["address"], end["why"]) == (None, "no frame came from there")
    text = shown(run("explain", "--pcap", path, "--packet", "1", "--both-ends"))
    assert "the other end: 192.0.2.1" in text


def test_without_a_node_words_and_frames_have_nobody_to_ask() -> None:
    for args in ([bytes(INNER).hex()], WORDS[:4], ["00" * 20, "-n", "gone"]):
        complaint(run("explain", *args), 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(noise=st.binary(max_size=120), start=st.integers(0, 100), end=st.integers(0, 100))
def test_any_octets_are_explained_or_refused(noise: bytes, start: int, end: int) -> None:
    whole = bytes(GOOD)
    for octets in (noise, whole[:start] + noise + whole[end:]):
        for link in (1, 101, 113, 276):
            try:
                subject = subject_of(octets, linktype=link)
            except (OuterError, PcapError):
                continue
            json.dumps(alone(subject, Defaults(vni=42)))
