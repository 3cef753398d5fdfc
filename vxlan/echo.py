"""Echoes: the path to a VTEP that answers no probe, tried through a station behind it.

Theory of operation
===================

A VTEP that is no pyvxlan discards our probes (vxlan/probe.py).  But whatever it is, it
carries frames, and a station behind it answers an echo request (RFC 792, RFC 4443).  So
where an operator names such a station, the probe is an ordinary frame of the segment:

    outer IP | UDP | VXLAN | Ethernet | IP, DF | ICMP echo request | "PVXP" nonce | zeros
    |<------------------------ the size that is tried --------------------------------->|

It comes from the address and the MAC that this host has in the segment, so the station
answers as it would answer `ping`.  An answer proves that the whole request came through,
however the answer itself came back, even in fragments: the first one holds the nonce.

The station's MAC is asked for first, by ARP (RFC 826) or neighbour solicitation (RFC 4861),
which only that VTEP is sent.  It is asked for anew when the station has fallen silent.

Answers are frames for this host.  Those that carry a nonce of ours end here; all others go
on to the TAP.  A packet with a nonce that was made up is a packet for the TAP, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.mtu import family_of
from vxlan.toobig import ICMP_HLEN
from vxlan.wire import (
    BROADCAST,
    ETH_HLEN,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPV4_HLEN,
    IPV6_HLEN,
    UDP_HLEN,
    VXLAN_HLEN,
    checksum,
    vxlan_header,
)

ASK_TIMER = 1.0
"""Seconds between two questions for a station's MAC."""

MAGIC = b"PVXP"
NONCE = 8
TTL = 64
_HOPS = 255  # RFC 4861, section 7.1: what neighbour discovery must arrive with
_DF = 0x4000
_OUTER = {4: IPV4_HLEN + UDP_HLEN + VXLAN_HLEN, 6: IPV6_HLEN + UDP_HLEN + VXLAN_HLEN}
_NEXT_HEADER = {4: IPPROTO_ICMP, 6: IPPROTO_ICMPV6}
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_SOLICIT, _ADVERTISE = 135, 136


class Behind(NamedTuple):
    """A VTEP, by its underlay address, and the address of a station behind it."""

    vtep: str
    station: str

    def __str__(self) -> str:
        return f"{self.vtep}={self.station}"


class Echoes(NamedTuple):
    """Which stations of a segment are asked, and as whom.

    mac       of this host's own device in the segment, 6 bytes
    address   this host's addresses in the segment, with prefix lengths
    stations  underlay address of a VTEP -> address of a station behind it
    """

    mac: bytes
    address: tuple[str, ...]
    stations: Mapping[str, str]


@dataclass(slots=True)
class Station:
    """One station that is asked in the place of its VTEP."""

    vni: int
    address: str
    source: str
    source_mac: bytes
    mac: bytes | None = None
    _ask_at: float = 0.0

    def question(self, remote: Remote, now: float) -> Datagram | None:
        """Who has the station's address; None while the last question is fresh."""
        if now < self._ask_at:
            return None
        self._ask_at = now + ASK_TIMER
        make = _arp_request if family_of(self.address) == 4 else _solicitation
        return self._datagram(remote, make(self), 0)

    def request(self, remote: Remote, size: int, nonce: bytes) -> Datagram:
        """An echo request whose outer IP packet has `size` bytes, or the fewest possible."""
        assert self.mac is not None
        family = family_of(self.address)
        room = size - _OUTER[family_of(remote.address)] - ETH_HLEN - _IP_HLEN[family] - ICMP_HLEN
        data = MAGIC + nonce + bytes(max(0, room - len(MAGIC) - NONCE))
        message = bytes((_REQUEST[family], 0, 0, 0)) + nonce[:4] + data
        frame = self._frame(self.mac, self._packet(message, self.address, TTL))
        return self._datagram(remote, frame, int.from_bytes(nonce[:4], "big"))

    def _datagram(self, remote: Remote, frame: bytes, flow: int) -> Datagram:
        return Datagram(remote, vxlan_header(self.vni) + frame, flow, 0, TTL)

    def _frame(self, target: bytes, packet: bytes) -> bytes:
        kind = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
        return target + self.source_mac + kind.to_bytes(2, "big") + packet

    def _packet(self, message: bytes, to: str, ttl: int) -> bytes:
        """An IP packet with an ICMP message whose checksum is still to be made."""
        source, target = packed(self.source), packed(to)
        if len(source) == 4:
            return _ipv4_header(source, target, len(message), ttl) + _summed(message)
        pseudo = source + target + len(message).to_bytes(4, "big") + b"\0\0\0\x3a"
        header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((IPPROTO_ICMPV6, ttl))
        return header + source + target + _summed(message, pseudo)


_IP_HLEN = {4: IPV4_HLEN, 6: IPV6_HLEN}


def stations_of(vni: int, echoes: Echoes) -> dict[str, Station]:
    """VTEP -> station.  One that no address of this host can reach directly is left out."""
    found: dict[str, Station] = {}
    for vtep, station in echoes.stations.items():
        source = source_for(station, echoes.address)
        if source is not None:
            found[vtep] = Station(vni, station, source, echoes.mac)
    return found


def source_for(station: str, own: tuple[str, ...]) -> str | None:
    """That address of this host which is in one network with a station."""
    wanted = ipaddress.ip_address(station)
    for cidr in own:
        interface = ipaddress.ip_interface(cidr)
        if wanted in interface.network and wanted != interface.ip:
            return str(interface.ip)
    return None


def packed(address: str) -> bytes:
    """An IP address in network byte order, 4 or 16 bytes."""
    return ipaddress.ip_address(address).packed


# -- what is sent ------------------------------------------------------------------


def _summed(message: bytes, pseudo: bytes = b"") -> bytes:
    return message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]


def _ipv4_header(source: bytes, target: bytes, length: int, ttl: int) -> bytes:
    total = (IPV4_HLEN + length).to_bytes(2, "big")
    header = b"\x45\0" + total + b"\0\0" + _DF.to_bytes(2, "big") + bytes((ttl, IPPROTO_ICMP))
    check = checksum(header + b"\0\0" + source + target).to_bytes(2, "big")
    return header + check + source + target


def _arp_request(station: Station) -> bytes:
    head = b"\0\1\x08\0\6\4\0\1"
    body = station.source_mac + packed(station.source) + bytes(6) + packed(station.address)
    return BROADCAST + station.source_mac + ETH_P_ARP.to_bytes(2, "big") + head + body


def _solicitation(station: Station) -> bytes:
    target = packed(station.address)
    group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
    message = bytes((_SOLICIT,)) + bytes(7) + target + b"\1\1" + station.source_mac
    packet = station._packet(message, str(ipaddress.ip_address(group)), _HOPS)
    return station._frame(b"\x33\x33" + group[12:], packet)


# -- what comes back ---------------------------------------------------------------


def nonce_in(frame: bytes, *, asked: bool = False) -> bytes | None:
    """The nonce of an echo reply (`asked`: of a request); None where a frame has none."""
    found = _icmp(frame)
    kinds = _REQUEST if asked else _REPLY
    if found is None or frame[found[1]] != kinds[found[0]]:
        return None
    data = found[1] + ICMP_HLEN
    nonce = frame[data + len(MAGIC) : data + len(MAGIC) + NONCE]
    return nonce if frame[data : data + len(MAGIC)] == MAGIC and len(nonce) == NONCE else None


def neighbour_in(frame: bytes) -> tuple[bytes, bytes] | None:
    """(address, MAC) that an ARP reply or a neighbour advertisement tells; None for others."""
    if frame[12:22] == b"\x08\x06\0\1\x08\0\6\4\0\2" and len(frame) >= 42:
        return frame[28:32], frame[22:28]
    found = _icmp(frame)
    if found is None or found[0] == 4 or frame[found[1]] != _ADVERTISE:
        return None
    target = frame[found[1] + 8 : found[1] + 24]
    return (target, frame[6:12]) if len(target) == 16 else None


def _icmp(frame: bytes) -> tuple[int, int] | None:
    """IP version, and where the ICMP message begins; None where there is none."""
    if frame[12:14] == b"\x08\0" and len(frame) > ETH_HLEN + IPV4_HLEN:
        at = ETH_HLEN + (frame[14] & 0x0F) * 4
        first = not int.from_bytes(frame[20:22], "big") & 0x1FFF
        return (4, at) if frame[23] == IPPROTO_ICMP and first and at < len(frame) else None
    if frame[12:14] == b"\x86\xdd" and len(frame) > ETH_HLEN + IPV6_HLEN:
        at = ETH_HLEN + IPV6_HLEN
        if frame[20] == 44:  # the first fragment of a reply: RFC 8200, section 4.5
            first = not int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF8
            return (6, at + 8) if frame[at] == 58 and first and at + 8 < len(frame) else None
        return (6, at) if frame[20] == IPPROTO_ICMPV6 else None
    return None
