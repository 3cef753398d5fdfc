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

from vxlan.transport import TCP_HLEN, Transport, find_transport, unfinished
from vxlan.wire import IPPROTO_TCP, IPPROTO_UDP, IPV4_HLEN, IPV6_HLEN, UDP_HLEN

VNET_HDR = Struct("=BBHHHH")
VNET_HLEN = VNET_HDR.size
NEEDS_CSUM = 1
GSO_TCPV4 = 1
GSO_TCPV6 = 4
FINISHED = bytes(VNET_HLEN)
"""The header of a frame that needs nothing."""

_CHECK_AT = {IPPROTO_TCP: 16, IPPROTO_UDP: 6}
_HLEN = {IPPROTO_TCP: TCP_HLEN, IPPROTO_UDP: UDP_HLEN}
_GSO_TCP = {IPV4_HLEN: GSO_TCPV4, IPV6_HLEN: GSO_TCPV6}


def vnet_header(frame: bytes, mtu: int) -> bytes:
    """The header with which a decapsulated frame is written to a TAP.

    `mtu` is the overlay MTU, which a segment cut out of a longer frame must fit.
    """
    found = find_transport(frame)
    if found is None:
        return FINISHED
    check_at = _CHECK_AT.get(found.protocol)
    if check_at is None or found.end - found.l4 < _HLEN[found.protocol]:
        return FINISHED
    if not unfinished(frame, found, check_at):
        return FINISHED
    gso_type, headers, gso_size = _segmentation(frame, found, mtu)
    return VNET_HDR.pack(NEEDS_CSUM, gso_type, headers, gso_size, found.l4, check_at)


def _segmentation(frame: bytes, found: Transport, mtu: int) -> tuple[int, int, int]:
    """gso_type, hdr_len and gso_size; zeros where the packet fits or is not TCP."""
    if found.end - found.l3 <= mtu or found.protocol != IPPROTO_TCP:
        return 0, 0, 0
    headers = found.l4 + (frame[found.l4 + 12] >> 4) * 4
    gso_size = mtu - (headers - found.l3)
    if headers < found.l4 + TCP_HLEN or headers > found.end or gso_size <= 0:
        return 0, 0, 0
    return _GSO_TCP[found.ip_header], headers, gso_size
