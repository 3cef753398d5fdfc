"""What the kernel left undone in a frame, said in a virtio_net_hdr.

Theory of operation
===================

A TAP opened with IFF_VNET_HDR puts this header (native byte order, 10 bytes)
before each frame in both directions (VIRTIO 1.2, section 5.1.6):

    flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16

The Python engine grants the kernel no offloads, so every frame that it reads is
whole and its header can be passed over.  Frames that it writes need the header
for one reason: a peer on the same machine.

Between namespaces joined by a veth nothing ever computes an inner checksum: the
sender leaves it to a network card that never comes.  What arrives in our UDP
socket has only the sum of the pseudo-header in its checksum field, and TCP may
come as one packet much longer than the MTU.  A stack that receives this drops
it: ping works, TCP never connects.  So where the field holds exactly that sum,
the frame is written with NEEDS_CSUM, and where it is longer than the overlay
MTU as well, with the segment size, which lets the receiving kernel finish what
the sending kernel began.

A finished packet has such a field by chance once in 65536 times.  Then the
receiver trusts it without a check; the outer checksum has covered it already.
"""

from __future__ import annotations

from struct import Struct

from vxlan.wire import (
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPV4_HLEN,
    IPV6_HLEN,
    UDP_HLEN,
    ethertype_at,
)

VNET_HDR = Struct("=BBHHHH")
VNET_HLEN = VNET_HDR.size
NEEDS_CSUM = 1
GSO_TCPV4 = 1
GSO_TCPV6 = 4
FINISHED = bytes(VNET_HLEN)
"""The header of a frame that needs nothing."""

TCP_HLEN = 20
_CHECK_AT = {IPPROTO_TCP: 16, IPPROTO_UDP: 6}
_HLEN = {IPPROTO_TCP: TCP_HLEN, IPPROTO_UDP: UDP_HLEN}
_GSO_TCP = {ETH_P_IP: GSO_TCPV4, ETH_P_IPV6: GSO_TCPV6}


def vnet_header(frame: bytes, mtu: int) -> bytes:
    """The header with which a decapsulated frame is written to a TAP.

    `mtu` is the overlay MTU, which a segment cut out of a longer frame must fit.
    """
    ethertype, l3 = ethertype_at(frame)
    if ethertype == ETH_P_IP:
        l4, end, protocol, addresses = _ipv4(frame, l3)
    elif ethertype == ETH_P_IPV6:
        l4, end, protocol, addresses = _ipv6(frame, l3)
    else:
        return FINISHED
    check_at = _CHECK_AT.get(protocol)
    if check_at is None or end - l4 < _HLEN[protocol]:
        return FINISHED
    check = frame[l4 + check_at] << 8 | frame[l4 + check_at + 1]
    pseudo_sum = int.from_bytes(addresses, "big") + protocol + end - l4
    if not check or check % 0xFFFF != pseudo_sum % 0xFFFF:
        return FINISHED
    gso_type, headers, gso_size = _segmentation(frame, ethertype, protocol, l3, l4, end, mtu)
    return VNET_HDR.pack(NEEDS_CSUM, gso_type, headers, gso_size, l4, check_at)


def _ipv4(frame: bytes, l3: int) -> tuple[int, int, int, bytes]:
    """Offset of the transport header, end of the packet, protocol, addresses.

    Protocol 0 where the packet is malformed or a fragment.
    """
    if len(frame) < l3 + IPV4_HLEN:
        return 0, 0, 0, b""
    l4 = l3 + (frame[l3] & 0x0F) * 4
    end = l3 + (frame[l3 + 2] << 8 | frame[l3 + 3])
    fragment = frame[l3 + 6] & 0x3F or frame[l3 + 7]
    if frame[l3] >> 4 != 4 or l4 < l3 + IPV4_HLEN or end > len(frame) or fragment:
        return 0, 0, 0, b""
    return l4, end, frame[l3 + 9], frame[l3 + 12 : l3 + 20]


def _ipv6(frame: bytes, l3: int) -> tuple[int, int, int, bytes]:
    if len(frame) < l3 + IPV6_HLEN:
        return 0, 0, 0, b""
    end = l3 + IPV6_HLEN + (frame[l3 + 4] << 8 | frame[l3 + 5])
    if frame[l3] >> 4 != 6 or end > len(frame):
        return 0, 0, 0, b""
    return l3 + IPV6_HLEN, end, frame[l3 + 6], frame[l3 + 8 : l3 + 40]


def _segmentation(
    frame: bytes, ethertype: int, protocol: int, l3: int, l4: int, end: int, mtu: int
) -> tuple[int, int, int]:
    """gso_type, hdr_len and gso_size; zeros where the packet fits or is not TCP."""
    if end - l3 <= mtu or protocol != IPPROTO_TCP:
        return 0, 0, 0
    headers = l4 + (frame[l4 + 12] >> 4) * 4
    gso_size = mtu - (headers - l3)
    if headers < l4 + TCP_HLEN or headers > end or gso_size <= 0:
        return 0, 0, 0
    return _GSO_TCP[ethertype], headers, gso_size
