"""Is this the packet that was seen a moment ago, at another interface?

Theory of operation
===================

The same frame is seen at many places: as it is in the overlay, wrapped in the
underlay.  What stays the same all the way is its identity.  Of a VXLAN datagram that is
the identity of the inner frame.

Not part of an identity is what changes on the way: outer headers, a TTL that routers
count down, checksums that are filled in late (a container's kernel leaves that to the
hardware), and the MSS that a VTEP lowers.  Two packets that cannot be told apart, such
as a question repeated, are told apart by time (vxlan/lab/view/journey.py).
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from vxlan import wire

_L4_WORDS = {wire.IPPROTO_TCP: 14, wire.IPPROTO_UDP: 6}  # octets before the checksum


class Outer(NamedTuple):
    """Of a UDP datagram to the VXLAN port: between whom, and the VXLAN header with what follows."""

    source: bytes
    destination: bytes
    port: int
    payload: bytes

    @property
    def header(self) -> wire.VxlanHeader | None:
        """The VXLAN header, if there is room for one."""
        return wire.parse_vxlan(self.payload)

    @property
    def inner(self) -> bytes | None:
        """The inner frame; None for what carries none, such as a path probe."""
        header = self.header
        frame = self.payload[wire.VXLAN_HLEN :]
        return frame if header and header.valid and len(frame) >= wire.ETH_HLEN else None


def outer_of(frame: bytes, ports: Container[int] = (wire.DSTPORT,)) -> Outer | None:
    """The datagram to a VTEP that an underlay frame carries, or None."""
    packet = _ip(frame)
    if packet is None or packet.protocol != wire.IPPROTO_UDP or len(packet.l4) < wire.UDP_HLEN:
        return None
    port = int.from_bytes(packet.l4[2:4], "big")
    if port not in ports:
        return None
    return Outer(packet.source, packet.destination, port, packet.l4[wire.UDP_HLEN :])


def identity(frame: bytes) -> bytes:
    """What stays of a frame while it is bridged and carried through an overlay."""
    packet = _ip(frame)
    if packet is None:
        return frame[:60]  # ARP and the like; Ethernet may have padded it to 60 octets
    return b"%b%b%b" % (frame[:14], packet.what, _transport(packet))


def routed_identity(frame: bytes) -> bytes:
    """The same for a frame of the underlay, where routers rewrite the Ethernet header."""
    packet = _ip(frame)
    return frame[:60] if packet is None else packet.what + _transport(packet)


class _Ip(NamedTuple):
    protocol: int
    source: bytes
    destination: bytes
    what: bytes
    l4: bytes


def _ip(frame: bytes) -> _Ip | None:
    ethertype, at = wire.ethertype_at(frame)
    if ethertype == wire.ETH_P_IP and len(frame) >= at + wire.IPV4_HLEN:
        l4 = at + (frame[at] & 0x0F) * 4
        protocol, source, destination = (
            frame[at + 9],
            frame[at + 12 : at + 16],
            frame[at + 16 : at + 20],
        )
        what = (
            frame[at + 4 : at + 6]
            + bytes((frame[at + 6] & 0x3F, frame[at + 7]))
            + frame[at + 9 : at + 10]
        )
        return _Ip(protocol, source, destination, what + source + destination, frame[l4:])
    if ethertype == wire.ETH_P_IPV6 and len(frame) >= at + wire.IPV6_HLEN:
        source, destination = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
        what = frame[at + 1 : at + 4] + frame[at + 4 : at + 7]
        return _Ip(
            frame[at + 6], source, destination, what + source + destination, frame[at + 40 :]
        )
    return None


def _transport(packet: _Ip) -> bytes:
    """The transport header before its checksum; of what has none the first octets."""
    return packet.l4[: _L4_WORDS.get(packet.protocol, 8)]
