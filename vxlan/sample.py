"""A frame made from words: who sends to whom, by which protocol, how long.

`pyvxlan explain --from ... --to ...` asks about a packet that nobody has captured.  This
makes one that a station could have sent: lengths and checksums are right, the payload is
zeros.  Of TCP it is the SYN of a connection, unless a size is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from vxlan import config_values as values
from vxlan.icmp import TTL, icmpv4, icmpv6
from vxlan.transport import TCP_HLEN
from vxlan.wire import (
    BROADCAST,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPV4_HLEN,
    IPV6_HLEN,
    UDP_HLEN,
    ZERO_MAC,
    checksum,
    ones_sum,
)

Protocol = Literal["tcp", "udp", "icmp", "arp"]
PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp", "icmp", "arp")

SIZE = 84
"""Bytes of an IP packet whose size nobody named: that of `ping`."""

MAX_SIZE = 65535
SPORT, DPORT = 40000, 80
_DF = 0x4000
_ICMP_HLEN = 8
_SYN, _ACK = 0x02, 0x10
_WINDOW = 64240


@dataclass(frozen=True, slots=True)
class Sample:
    """The words, checked one by one; whether they go together `frame` finds out.

    size  bytes of the IP packet, headers counted; None: what is usual
    df    whether an IPv4 packet must not be fragmented
    """

    source_mac: bytes
    target_mac: bytes
    source: str
    target: str
    protocol: Protocol = "icmp"
    sport: int = SPORT
    dport: int = DPORT
    size: int | None = None
    df: bool = False


CHECKS: Mapping[str, Callable[[object], int]] = {
    "sport": values.port,
    "dport": values.port,
    "size": lambda value: values.whole(value, IPV4_HLEN, MAX_SIZE, "the size of an IP packet"),
}
"""The words that are numbers."""


def protocol(value: object) -> Protocol:
    """One of the protocols.  Raises ValueError."""
    found: Protocol = values.one_of(*PROTOCOLS)(value)  # type: ignore[assignment]
    return found


def frame(sample: Sample) -> bytes:
    """The Ethernet frame; both addresses are of one family.  Raises ValueError where other
    words do not go together."""
    here, there = ip_address(sample.source), ip_address(sample.target)
    if sample.protocol == "arp":
        return _arp(sample, here)
    packet = _packet(sample, here, there)
    ethertype = ETH_P_IP if here.version == 4 else ETH_P_IPV6
    return sample.target_mac + sample.source_mac + ethertype.to_bytes(2, "big") + packet


def _arp(sample: Sample, here: IPv4Address | IPv6Address) -> bytes:
    """Who has the target's address (RFC 826)?"""
    if here.version == 6:
        raise ValueError("IPv6 has no ARP: name IPv4 addresses, or another protocol")
    if sample.size is not None:
        raise ValueError("an ARP question has one length: leave the size out")
    question = bytes.fromhex("0001080006040001") + sample.source_mac + here.packed
    question += ZERO_MAC + ip_address(sample.target).packed
    return BROADCAST + sample.source_mac + ETH_P_ARP.to_bytes(2, "big") + question


def _packet(
    sample: Sample, here: IPv4Address | IPv6Address, there: IPv4Address | IPv6Address
) -> bytes:
    header = IPV4_HLEN if here.version == 4 else IPV6_HLEN
    if sample.protocol == "icmp":
        room = _room(sample, header + _ICMP_HLEN)
        kind = b"\x08\0\0\0\0\x01\0\x01" if here.version == 4 else b"\x80\0\0\0\0\x01\0\x01"
        if here.version == 4:
            field = _DF if sample.df else 0
            return icmpv4(here.packed, there.packed, kind + bytes(room), field=field)
        return icmpv6(here.packed, there.packed, kind + bytes(room))
    protocol = IPPROTO_TCP if sample.protocol == "tcp" else IPPROTO_UDP
    segment = _tcp(sample, header) if sample.protocol == "tcp" else _udp(sample, header)
    segment = _summed(segment, protocol, here.packed + there.packed)
    return _ip(sample, protocol, here.packed, there.packed, len(segment)) + segment


def _room(sample: Sample, headers: int) -> int:
    """Bytes of payload behind `headers`."""
    size = SIZE if sample.size is None else sample.size
    if not headers <= size <= MAX_SIZE:
        raise ValueError(f"size {size}: such a packet has {headers} to {MAX_SIZE} bytes")
    return size - headers


def _tcp(sample: Sample, header: int) -> bytes:
    ports = sample.sport.to_bytes(2, "big") + sample.dport.to_bytes(2, "big")
    options, flags, room = b"", _ACK, 0
    if sample.size is None:
        mss = 1500 - header - TCP_HLEN
        options, flags = b"\x02\x04" + mss.to_bytes(2, "big"), _SYN
    else:
        room = _room(sample, header + TCP_HLEN)
    start = ports + bytes((0, 0, 0, 1, 0, 0, 0, 0 if flags == _SYN else 1))
    start += bytes(((TCP_HLEN + len(options)) << 2, flags)) + _WINDOW.to_bytes(2, "big")
    return start + b"\0\0\0\0" + options + bytes(room)


def _udp(sample: Sample, header: int) -> bytes:
    room = _room(sample, header + UDP_HLEN)
    ports = sample.sport.to_bytes(2, "big") + sample.dport.to_bytes(2, "big")
    return ports + (UDP_HLEN + room).to_bytes(2, "big") + b"\0\0" + bytes(room)


def _summed(segment: bytes, protocol: int, addresses: bytes) -> bytes:
    """With the checksum, which covers addresses, protocol and length too."""
    at = 16 if protocol == IPPROTO_TCP else 6
    pseudo = ones_sum(addresses) + protocol + len(segment)
    check = checksum(segment, pseudo) or 0xFFFF
    return segment[:at] + check.to_bytes(2, "big") + segment[at + 2 :]


def _ip(sample: Sample, protocol: int, source: bytes, target: bytes, length: int) -> bytes:
    if len(source) == 16:
        start = b"\x60\0\0\0" + length.to_bytes(2, "big") + bytes((protocol, TTL))
        return start + source + target
    total = (IPV4_HLEN + length).to_bytes(2, "big")
    field = (_DF if sample.df else 0).to_bytes(2, "big")
    start = b"\x45\0" + total + b"\0\0" + field + bytes((TTL, protocol))
    check = checksum(start + b"\0\0" + source + target)
    return start + check.to_bytes(2, "big") + source + target
