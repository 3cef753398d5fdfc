"""Both engines probe the path to a VTEP through a station behind it (vxlan/echo.py)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.contract.conftest import OTHER, PEER, PEER6, VNI, MakeEngine
from tests.contract.test_datapath import receive
from tests.frames import vxlan
from vxlan.drop import Count
from vxlan.echo import Echoes
from vxlan.engine import Datagram, Engine
from vxlan.fdb import Remote
from vxlan.mtu import max_frame

OURS = bytes.fromhex("020000000001")
THEIRS = bytes.fromhex("0200000000aa")
ADDRESSES = ("10.42.0.1/16", "2001:db8:42::1/64")
STATIONS = {4: "10.42.0.2", 6: "2001:db8:42::2"}
OUTER = {4: 28, 6: 48}


class Behind:
    """A station behind a VTEP, on a path that carries `carries` bytes."""

    def __init__(self, engine: Engine, family: int, carries: int, remote: Remote = PEER) -> None:
        self.engine, self.family, self.carries, self.remote = engine, family, carries, remote
        self.sizes: list[int] = []
        self.questions = 0

    def live(self, begin: float, end: float) -> None:
        """Let time pass, and answer whatever comes."""
        for quarter in range(int(begin * 4), int(end * 4)):
            self.engine.tick(quarter / 4)
            while sent := self.engine.take_output()[0]:
                for datagram in sent:
                    self.take(datagram, quarter / 4)

    def take(self, datagram: Datagram, now: float) -> None:
        if datagram.remote != self.remote or datagram.payload[0] != 8:
            return
        assert datagram.payload[4:7] == VNI.to_bytes(3, "big")
        asked = Ether(datagram.payload[8:])
        assert asked.src == OURS.hex(":")
        if asked.haslayer(ARP) or asked.haslayer(ICMPv6ND_NS):
            self.questions += 1
            answer = self.told(asked)
        else:
            self.sizes.append(len(datagram.payload) + OUTER[6 if ":" in self.remote.address else 4])
            check(asked)
            if self.sizes[-1] > self.carries:
                return
            answer = self.reply(asked)
        frames = receive(self.engine, vxlan(VNI, bytes(answer)), self.remote, now=now)
        assert bool(frames) == (answer.haslayer(ARP) or answer.haslayer(ICMPv6ND_NA)), frames

    def told(self, asked: Packet) -> Packet:
        link = Ether(dst=OURS.hex(":"), src=THEIRS.hex(":"))
        if asked.haslayer(ARP):
            assert (asked.dst, asked[ARP].pdst) == ("ff:ff:ff:ff:ff:ff", STATIONS[4])
            return link / ARP(
                op=2, hwsrc=THEIRS.hex(":"), psrc=STATIONS[4], hwdst=asked.src, pdst=asked[ARP].psrc
            )
        assert asked[ICMPv6ND_NS].tgt == STATIONS[6]
        assert asked[IPv6].hlim == 255
        return (
            link
            / IPv6(src=STATIONS[6], dst=asked[IPv6].src)
            / ICMPv6ND_NA(tgt=STATIONS[6], S=1)
            / ICMPv6NDOptDstLLAddr(lladdr=THEIRS.hex(":"))
        )

    def reply(self, asked: Packet) -> Packet:
        link = Ether(dst=asked.src, src=asked.dst)
        if self.family == 4:
            message = ICMP(type=0, id=asked[ICMP].id, seq=asked[ICMP].seq)
            return link / IP(src=asked[IP].dst, dst=asked[IP].src) / message / Raw(asked[Raw].load)
        request = asked[ICMPv6EchoRequest]
        message = ICMPv6EchoReply(id=request.id, seq=request.seq, data=request.data)
        return link / IPv6(src=asked[IPv6].dst, dst=asked[IPv6].src) / message


def check(asked: Packet) -> None:
    """A request is whole, its checksums are right, and it must not be fragmented."""
    assert asked.dst == THEIRS.hex(":")
    again = Ether(bytes(asked))
    if asked.haslayer(IP):
        assert asked[IP].flags == "DF"
        del again[IP].chksum, again[ICMP].chksum
    else:
        del again[ICMPv6EchoRequest].cksum
    assert bytes(Ether(bytes(again))) == bytes(asked)


def asking(make: MakeEngine, family: int, remote: Remote = PEER) -> Engine:
    engine = make(remotes=(remote,))
    engine.set_paths({remote: 1500}, 0.0)
    engine.take_output()
    engine.set_echoes(VNI, Echoes(OURS, ADDRESSES, {remote.address: STATIONS[family]}), 0.0)
    return engine


@pytest.mark.parametrize("remote", [PEER, PEER6], ids=["underlay4", "underlay6"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_narrow_path_is_found(make: MakeEngine, family: int, remote: Remote) -> None:
    engine = asking(make, family, remote)
    station = Behind(engine, family, 1400, remote)
    station.live(0, 20)
    path = engine.paths()[remote.address]
    assert (path.mtu, path.how, path.phase) == (1400, "echo", "complete")
    assert station.sizes[0] == 1500
    assert station.questions == 1
    fits = max_frame(1400, 6 if remote is PEER6 else 4)
    assert len(engine.encap(VNI, [frame_of(fits)], 21.0)) == 1
    assert engine.encap(VNI, [frame_of(fits + 1)], 21.0) == []
    assert engine.counters(None)[remote.address].counts[Count.PROBES] > 1


def frame_of(length: int) -> bytes:
    packet = IP(src="10.42.0.1", dst="10.42.0.2", flags="DF") / Raw(bytes(length - 34))
    return bytes(Ether(dst=THEIRS.hex(":"), src=OURS.hex(":")) / packet)


def test_the_remote_itself_is_not_probed_besides(make: MakeEngine) -> None:
    engine = asking(make, 4)
    engine.tick(0.5)
    assert [one.payload[0] for one in engine.take_output()[0]] == [8]


def test_a_station_that_falls_silent_costs_nothing_and_is_asked_for_anew(make: MakeEngine) -> None:
    engine = asking(make, 4)
    station = Behind(engine, 4, 1400)
    station.live(0, 20)
    station.carries = 0
    station.live(20, 40)
    path = engine.paths()[PEER.address]
    assert (path.mtu, path.phase) == (1400, "error")
    assert station.questions > 1
    station.carries = 1500
    station.live(40, 90)
    path = engine.paths()[PEER.address]
    assert (path.mtu, path.phase) == (1500, "complete")


def test_an_answer_in_fragments_proves_the_way_there(make: MakeEngine) -> None:
    engine = asking(make, 4)
    station = Behind(engine, 4, 1500)
    whole = station.reply

    def first_fragment(asked: Packet) -> Packet:
        made = Ether(bytes(whole(asked))[: 14 + 20 + 512])
        made[IP].flags = "MF"
        return made

    station.reply = first_fragment  # type: ignore[method-assign]  # one that answers otherwise
    station.live(0, 2)
    assert engine.paths()[PEER.address].how == "echo"


def test_what_is_no_answer_of_ours_goes_to_the_tap(make: MakeEngine) -> None:
    engine = asking(make, 4)
    Behind(engine, 4, 1500).live(0, 2)
    link = Ether(dst=OURS.hex(":"), src=THEIRS.hex(":")) / IP(src="10.42.0.2", dst="10.42.0.1")
    for payload in (b"PVXP" + bytes(20), b"PVXP", b"", b"abcdefgh" * 8):
        foreign = bytes(link / ICMP(type=0) / Raw(payload))
        assert receive(engine, vxlan(VNI, foreign)) == [foreign]


def test_another_remote_cannot_answer(make: MakeEngine) -> None:
    engine = make(remotes=(PEER, OTHER))
    engine.set_paths({PEER: 1500, OTHER: 1500}, 0.0)
    engine.set_echoes(VNI, Echoes(OURS, ADDRESSES, {PEER.address: STATIONS[4]}), 0.0)
    station = Behind(engine, 4, 1500)
    engine.tick(0.0)
    station.take(next(one for one in engine.take_output()[0] if one.payload[0] == 8), 0.0)
    engine.tick(0.25)
    request = next(one for one in engine.take_output()[0] if one.payload[0] == 8)
    forged = bytes(station.reply(Ether(request.payload[8:])))
    assert receive(engine, vxlan(VNI, forged), OTHER) == [forged]
    assert engine.paths()[PEER.address].how == "link"


def test_without_echoes_the_remote_is_probed_again(make: MakeEngine) -> None:
    engine = asking(make, 4)
    Behind(engine, 4, 1400).live(0, 20)
    engine.set_echoes(VNI, None, 20.0)
    assert engine.paths()[PEER.address].how == "link"
    assert [one.payload[8:12] for one in engine.take_output()[0]] == [b"PVXP"]
    engine.remove_segment(VNI)


def test_a_station_in_no_network_of_ours_is_not_asked(make: MakeEngine) -> None:
    engine = make(remotes=(PEER,))
    engine.set_paths({PEER: 1500}, 0.0)
    engine.take_output()
    engine.set_echoes(VNI, Echoes(OURS, ("10.42.0.1/24",), {PEER.address: "10.43.0.2"}), 0.0)
    engine.tick(0.5)
    assert [one.payload[8:12] for one in engine.take_output()[0]] == [b"PVXP"]
