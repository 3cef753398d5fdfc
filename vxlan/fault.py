"""One fault: which packets it takes, and what it does to one of them.

Theory of operation
===================

A fault is put between the engine and the underlay on purpose, to see what such trouble
looks like.  It knows the headers, so it can hit one VNI or one station and leave the
rest alone:

    side, remote, vni, mac, proto     which packets it may take        `takes`
    share                             how many of those it does take   vxlan/faults.py
    kind                              what becomes of a taken one

    drop, shrink                      it is discarded, FAULT_INJECTED
    delay, reorder, duplicate         it comes later, or twice
    clear-i, reserved                 a bit of the VXLAN header (RFC 7348, section 5)
    forge-source, forge-mac           the outer or the inner source is another's
    flap                              a MAC is announced from here, again and again
    filter-icmp                       what routers say of our datagrams is not heard

A probe of a path (vxlan/probe.py) carries no VNI, so a fault of one VNI leaves it
alone, and a fault without a VNI does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from vxlan import probe
from vxlan.engine import Datagram
from vxlan.mtu import family_of
from vxlan.wire import (
    BROADCAST,
    ETH_HLEN,
    ETH_P_ARP,
    ETH_P_IP,
    I_FLAG,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    VXLAN_HLEN,
    ethertype_at,
    inspect,
    mac_text,
    parse_vxlan,
    vxlan_header,
)

Side = Literal["encap", "decap", "both"]

RESERVED_BITS = (1 << 64) - 1 - (I_FLAG << 56) - (0xFFFFFF << 8)
"""All bits of the VXLAN header that must be zero."""

PROTOCOLS = {"icmp": IPPROTO_ICMP, "tcp": IPPROTO_TCP, "udp": IPPROTO_UDP, "icmp6": IPPROTO_ICMPV6}

_RARP = 0x8035


class Kind(StrEnum):
    """What a fault does; the value is its word."""

    DROP = "drop"
    DELAY = "delay"
    REORDER = "reorder"
    DUPLICATE = "duplicate"
    CLEAR_I = "clear-i"
    RESERVED = "reserved"
    FORGE_SOURCE = "forge-source"
    FORGE_MAC = "forge-mac"
    FLAP = "flap"
    SHRINK = "shrink"
    FILTER_ICMP = "filter-icmp"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to go wrong; what is None or empty selects nothing and asks for nothing.

    mac      an inner source or destination
    proto    "arp" or a key of PROTOCOLS
    share    of the packets that match, more than 0 and at most 1
    seed     of the dice: the same seed takes the same packets
    delay    seconds that a packet is held back
    mtu      bytes of the longest outer IP packet that passes
    icmp     whether the sender is told of one that does not, as by a router
    source   the outer source address of what is forged
    as_mac   the inner source MAC of what is forged, the MAC that flaps
    period   seconds between two announcements of a MAC
    bits     reserved bits to set, of the 8 bytes of the header
    """

    kind: Kind
    side: Side = "both"
    vni: int | None = None
    remote: str | None = None
    mac: bytes | None = None
    proto: str | None = None
    share: float = 1.0
    seed: int = 0
    delay: float = 0.0
    mtu: int = 0
    icmp: bool = False
    source: str = ""
    as_mac: bytes = b""
    period: float = 0.0
    bits: int = RESERVED_BITS

    def takes(self, side: Side, datagram: Datagram) -> bool:
        """Whether the fault is meant for this datagram, the dice apart."""
        return (
            self.side in (side, "both")
            and self.remote in (None, datagram.remote.address)
            and (self.vni is None or self.vni == vni_of(datagram.payload))
            and self._takes_inner(datagram.payload)
            and (self.kind is not Kind.SHRINK or outer_size(datagram) > self.mtu)
        )

    def _takes_inner(self, payload: bytes) -> bool:
        if self.mac is None and self.proto is None:
            return True
        frame = payload[VXLAN_HLEN:]
        if vni_of(payload) is None or len(frame) < ETH_HLEN:
            return False
        return (self.mac is None or self.mac in (frame[0:6], frame[6:12])) and (
            self.proto is None or _is(frame, self.proto)
        )

    def spoil(self, payload: bytes) -> bytes:
        """A UDP payload with what this fault changes in it."""
        head = int.from_bytes(payload[:VXLAN_HLEN], "big")
        rest = payload[VXLAN_HLEN:]
        if len(payload) < VXLAN_HLEN:
            return payload
        if self.kind is Kind.CLEAR_I:
            return (head & ~(I_FLAG << 56)).to_bytes(VXLAN_HLEN, "big") + rest
        if self.kind is Kind.RESERVED:
            return (head | self.bits & RESERVED_BITS).to_bytes(VXLAN_HLEN, "big") + rest
        if self.kind is Kind.FORGE_MAC and vni_of(payload) is not None and len(rest) >= ETH_HLEN:
            return payload[: VXLAN_HLEN + 6] + self.as_mac + rest[12:]
        return payload

    def words(self) -> str:
        """The fault in one line for people."""
        parts = [self.kind.value, *self._effect()]
        if self.share < 1:
            parts.append(f"{self.share * 100:g} %")
        for word, value in (("vni", self.vni), ("remote", self.remote), ("proto", self.proto)):
            if value is not None:
                parts.append(f"{word} {value}")
        if self.mac is not None:
            parts.append(f"mac {mac_text(self.mac)}")
        if self.side != "both":
            parts.append(f"{self.side} side")
        return " ".join(parts)

    def _effect(self) -> list[str]:
        parts = [f"as {mac_text(self.as_mac)}"] if self.as_mac else []
        if self.delay:
            parts.append(f"{self.delay * 1000:g} ms")
        if self.period:
            parts.append(f"every {self.period:g} s")
        if self.source:
            parts.append(f"as {self.source}")
        if self.mtu:
            parts.append(f"to {self.mtu} bytes {'with' if self.icmp else 'without'} ICMP")
        return parts


def vni_of(payload: bytes) -> int | None:
    """The VNI of a UDP payload; None where none can be told (RFC 7348, section 5)."""
    header = parse_vxlan(payload)
    return header.vni if header is not None and header.valid else None


def outer_size(datagram: Datagram) -> int:
    """Bytes of the outer IP packet that carries a datagram."""
    return probe.outer_size(datagram.payload, family_of(datagram.remote.address))


def announcement(vni: int, mac: bytes) -> bytes:
    """The UDP payload by which a station seems to have moved here.

    A broadcast RARP request (RFC 903), as hypervisors send it for a machine that they
    have just moved: every VTEP and every bridge learns the MAC anew.
    """
    rarp = b"\x00\x01\x08\x00\x06\x04\x00\x03" + mac + bytes(4) + mac + bytes(4)
    frame = BROADCAST + mac + _RARP.to_bytes(2, "big") + rarp
    return vxlan_header(vni) + frame.ljust(60, b"\0")


def _is(frame: bytes, proto: str) -> bool:
    ethertype, l3 = ethertype_at(frame)
    if proto == "arp":
        return ethertype == ETH_P_ARP
    if inspect(frame).version == 0:
        return False
    return frame[l3 + (9 if ethertype == ETH_P_IP else 6)] == PROTOCOLS[proto]
