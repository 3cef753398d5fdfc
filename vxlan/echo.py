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
from dataclasses import dataclass, field
from typing import NamedTuple

from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.icmp import ICMP_HLEN, TTL, icmpv4, icmpv6
from vxlan.mtu import OVERHEAD, family_of
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
    vxlan_header,
)

ASK_TIMER = 1.0
"""Seconds between two questions for a station's MAC."""

MAGIC = b"PVXP"
NONCE = 8
_HOPS = 255  # RFC 4861, section 7.1: what neighbour discovery must arrive with
_DF = 0x4000
_FRAGMENT, _FRAGMENT_HLEN = 44, 8  # RFC 8200, section 4.5
_ICMP = {4: IPPROTO_ICMP, 6: IPPROTO_ICMPV6}
_IP_HLEN = {4: IPV4_HLEN, 6: IPV6_HLEN}
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
    """One station that is asked in the place of its VTEP; equal if asked the same way."""

    vni: int
    address: str
    source: str
    source_mac: bytes
    mac: bytes | None = field(default=None, compare=False)
    _ask_at: float = field(default=0.0, compare=False)

    def question(self, remote: Remote, now: float) -> Datagram | None:
        """Who has the station's address; None while the last question is fresh."""
        if now < self._ask_at:
            return None
        self._ask_at = now + ASK_TIMER
        asked = self._arp_request() if family_of(self.address) == 4 else self._solicitation()
        return self._datagram(remote, asked, 0)

    def request(self, remote: Remote, size: int, nonce: bytes) -> Datagram:
        """An echo request whose outer IP packet has `size` bytes, or the fewest possible."""
        assert self.mac is not None
        family = family_of(self.address)
        room = size - OVERHEAD[family_of(remote.address)] - _IP_HLEN[family] - ICMP_HLEN
        data = MAGIC + nonce + bytes(max(0, room - len(MAGIC) - NONCE))
        message = bytes((_REQUEST[family], 0, 0, 0)) + nonce[:4] + data
        source, target = packed(self.source), packed(self.address)
        if family == 4:
            frame = self._frame(self.mac, ETH_P_IP, icmpv4(source, target, message, field=_DF))
        else:
            frame = self._frame(self.mac, ETH_P_IPV6, icmpv6(source, target, message))
        return self._datagram(remote, frame, int.from_bytes(nonce[:4], "big"))

    def _datagram(self, remote: Remote, frame: bytes, flow: int) -> Datagram:
        return Datagram(remote, vxlan_header(self.vni) + frame, flow, 0, TTL)

    def _frame(self, target: bytes, kind: int, payload: bytes) -> bytes:
        return target + self.source_mac + kind.to_bytes(2, "big") + payload

    def _arp_request(self) -> bytes:
        own = self.source_mac + packed(self.source)
        body = b"\0\1\x08\0\6\4\0\1" + own + bytes(6) + packed(self.address)
        return self._frame(BROADCAST, ETH_P_ARP, body)

    def _solicitation(self) -> bytes:
        target = packed(self.address)
        group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
        message = bytes((_SOLICIT,)) + bytes(7) + target + b"\1\1" + self.source_mac
        packet = icmpv6(packed(self.source), group, message, hops=_HOPS)
        return self._frame(b"\x33\x33" + group[12:], ETH_P_IPV6, packet)


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
        version, protocol, at = 4, frame[23], ETH_HLEN + (frame[14] & 0x0F) * 4
        later = int.from_bytes(frame[20:22], "big") & 0x1FFF
    elif frame[12:14] == b"\x86\xdd" and len(frame) > ETH_HLEN + IPV6_HLEN:
        version, protocol, at, later = 6, frame[20], ETH_HLEN + IPV6_HLEN, 0
        if protocol == _FRAGMENT:
            protocol, later = frame[at], int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF8
            at += _FRAGMENT_HLEN
    else:
        return None
    is_message = protocol == _ICMP[version] and not later and at < len(frame)
    return (version, at) if is_message else None
