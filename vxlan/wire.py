"""Header layouts and codecs: what lies where in a packet.

Theory of operation
===================

A frame of a container crosses the underlay inside four outer headers:

    +----------+---------+-----+-------+----------------------------------+
    | Ethernet | IPv4/6  | UDP | VXLAN | inner frame (Ethernet, no FCS)   |
    |    14    | 20 / 40 |  8  |   8   | 14 + [4 + [4]] + packet          |
    +----------+---------+-----+-------+----------------------------------+
    '------ made by the kernel --------'------ made and read here --------'

The VXLAN header (RFC 7348, section 5):

     0               1               2               3
    |R R R R I R R R|                   reserved                    |
    |            VXLAN Network Identifier (VNI)     |   reserved    |

The I flag says that the VNI is valid.  Reserved bits are sent as zero and
ignored on receipt.

The inner frame is looked at once, by `inspect`, which finds what the VTEP has
to know: is it tagged, is it IP, which flow is it.  Everything here works on
`bytes`, trusts no length field beyond the end of the buffer, and raises nothing
on malformed input: a frame that is not well-formed IP is simply not IP.

The flow hash is CRC-32 (the polynomial of zlib) over the addresses and ports
that lie side by side in the packet, started with the protocol number.  CRC is
linear, so flows that differ in one port never collide, and both engines can
compute it at the speed of C.  Fragments hash without ports, so that all
fragments of one packet take one path.

ECN crosses the tunnel by RFC 6040 (normal mode): copied into the outer header,
and combined with the inner one on the way out.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from zlib import crc32

DSTPORT = 4789
ETH_HLEN = 14
VLAN_HLEN = 4
IPV4_HLEN = 20
IPV6_HLEN = 40
UDP_HLEN = 8
VXLAN_HLEN = 8

I_FLAG = 0x08
MAX_VNI = 0xFFFFFF

ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
ETH_P_8021Q = 0x8100
ETH_P_8021AD = 0x88A8
VLAN_TYPES = frozenset((ETH_P_8021Q, ETH_P_8021AD))
MAX_TAGS = 2

IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMPV6 = 58
_PORTED = frozenset((IPPROTO_TCP, IPPROTO_UDP))

ZERO_MAC = bytes(6)
BROADCAST = b"\xff" * 6


# -- MAC addresses -----------------------------------------------------------------

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}")


def mac_text(mac: bytes) -> str:
    """Six bytes -> "aa:bb:cc:dd:ee:ff"."""
    return mac.hex(":")


def mac_bytes(text: str) -> bytes:
    """ "aa:bb:cc:dd:ee:ff" (or with dashes) -> six bytes.  Raises ValueError."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address such as 02:00:00:00:00:01")
    return bytes.fromhex(text.replace("-", "").replace(":", ""))


# -- VXLAN -------------------------------------------------------------------------


class VxlanHeader(NamedTuple):
    """The 8 bytes of RFC 7348, section 5.  `reserved` holds all bits that must be 0."""

    flags: int
    vni: int
    reserved: int

    @property
    def valid(self) -> bool:
        """Whether the I flag is set, without which the VNI means nothing."""
        return bool(self.flags & I_FLAG)


def vxlan_header(vni: int) -> bytes:
    """The header of every datagram of this VNI.  Raises ValueError if it is none."""
    if not 0 <= vni <= MAX_VNI:
        raise ValueError(f"{vni} is not a VNI: it must be 0 to {MAX_VNI}")
    return (I_FLAG << 56 | vni << 8).to_bytes(VXLAN_HLEN, "big")


_RESERVED = (1 << 64) - 1 - (I_FLAG << 56) - (MAX_VNI << 8)


def parse_vxlan(payload: bytes) -> VxlanHeader | None:
    """The header at the start of a UDP payload; None where it is too short."""
    if len(payload) < VXLAN_HLEN:
        return None
    word = int.from_bytes(payload[:VXLAN_HLEN], "big")
    return VxlanHeader(word >> 56, word >> 8 & MAX_VNI, word & _RESERVED)


# -- the Internet checksum (RFC 1071) ----------------------------------------------


def ones_sum(data: bytes) -> int:
    """The ones-complement sum of the 16-bit words, odd lengths padded with zero.

    2**16 = 1 (mod 65535), so the remainder of the whole buffer read as one number
    is the folded sum; 0 stands for 0xffff too, which ones-complement calls equal.
    """
    if len(data) & 1:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


def checksum(data: bytes, start: int = 0) -> int:
    """The Internet checksum of `data`, with `start` added to the sum."""
    return (0xFFFF - (ones_sum(data) + start) % 0xFFFF) % 0xFFFF


def checksum_update(check: int, old: int, new: int) -> int:
    """The checksum after a 16-bit word changed from `old` to `new` (RFC 1624, eqn. 3)."""
    total = (~check & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


# -- the inner frame ---------------------------------------------------------------


class Inner(NamedTuple):
    """What the VTEP needs to know of an inner frame.

    l3       offset of the packet behind the Ethernet header and its tags
    version  4 or 6 for a well-formed IP header, otherwise 0
    tos      traffic class octet (DSCP and ECN) of IP, otherwise 0
    ttl      TTL or hop limit of IP, otherwise 0
    flow     32-bit hash of the flow
    """

    l3: int
    version: int
    tos: int
    ttl: int
    flow: int


def is_tagged(frame: bytes) -> bool:
    """Whether the frame carries an 802.1Q or 802.1ad tag."""
    return int.from_bytes(frame[12:14], "big") in VLAN_TYPES


def ethertype_at(frame: bytes) -> tuple[int, int]:
    """The EtherType behind at most two tags, and the offset of the packet behind it."""
    ethertype, offset = int.from_bytes(frame[12:14], "big"), ETH_HLEN
    for _ in range(MAX_TAGS):
        if ethertype not in VLAN_TYPES or len(frame) < offset + VLAN_HLEN:
            break
        ethertype = int.from_bytes(frame[offset + 2 : offset + 4], "big")
        offset += VLAN_HLEN
    return ethertype, offset


def inspect(frame: bytes) -> Inner:
    """Look at an inner frame of at least 14 bytes."""
    ethertype, l3 = ethertype_at(frame)
    if ethertype == ETH_P_IP and len(frame) >= l3 + IPV4_HLEN and frame[l3] >> 4 == 4:
        return Inner(l3, 4, frame[l3 + 1], frame[l3 + 8], _flow_ipv4(frame, l3))
    if ethertype == ETH_P_IPV6 and len(frame) >= l3 + IPV6_HLEN and frame[l3] >> 4 == 6:
        tos = (frame[l3] << 4 | frame[l3 + 1] >> 4) & 0xFF
        return Inner(l3, 6, tos, frame[l3 + 7], _flow_ipv6(frame, l3))
    return Inner(l3, 0, 0, 0, crc32(frame[0:12], ethertype))


def _flow_ipv4(frame: bytes, l3: int) -> int:
    protocol = frame[l3 + 9]
    key = frame[l3 + 12 : l3 + 20]
    fragment = frame[l3 + 6] & 0x3F or frame[l3 + 7]
    if protocol in _PORTED and not fragment:
        l4 = l3 + (frame[l3] & 0x0F) * 4
        key += frame[l4 : l4 + 4]
    return crc32(key, protocol)


def _flow_ipv6(frame: bytes, l3: int) -> int:
    protocol = frame[l3 + 6]
    key = frame[l3 + 8 : l3 + 40]
    if protocol in _PORTED:
        key += frame[l3 + 40 : l3 + 44]
    return crc32(key, protocol)


def flow_hash(frame: bytes) -> int:
    """The 32-bit hash of the flow that a frame of at least 14 bytes belongs to."""
    return inspect(frame).flow


def source_port(flow: int, low: int, high: int) -> int:
    """The outer UDP source port in [low, high] for a flow (RFC 7348, section 5)."""
    return low + (flow * (high - low + 1) >> 32)


# -- ECN (RFC 6040) ----------------------------------------------------------------

NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
ECN_MASK = 0x03

ECN_DECAP: tuple[tuple[int | None, ...], ...] = (
    # outer: Not-ECT  ECT(1)   ECT(0)   CE          inner:
    (NOT_ECT, NOT_ECT, NOT_ECT, None),  #            Not-ECT; None = drop
    (ECT_1, ECT_1, ECT_1, CE),  #                    ECT(1)
    (ECT_0, ECT_1, ECT_0, CE),  #                    ECT(0)
    (CE, CE, CE, CE),  #                             CE
)
"""RFC 6040, figure 4: ECN_DECAP[inner][outer] is the new inner field."""


def set_ecn(frame: bytes, inner: Inner, ecn: int) -> bytes:
    """The frame with the ECN field of its IP header set, checksum updated."""
    l3, tos = inner.l3, inner.tos & ~ECN_MASK | ecn
    if inner.version == 6:
        low = frame[l3 + 1] & 0x0F | (tos & 0x0F) << 4
        return frame[: l3 + 1] + bytes((low,)) + frame[l3 + 2 :]
    old = frame[l3] << 8 | inner.tos
    new = frame[l3] << 8 | tos
    check = checksum_update(int.from_bytes(frame[l3 + 10 : l3 + 12], "big"), old, new)
    changed = bytearray(frame)
    changed[l3 + 1] = tos
    changed[l3 + 10 : l3 + 12] = check.to_bytes(2, "big")
    return bytes(changed)
