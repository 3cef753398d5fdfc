"""Header layouts on (pointer, length): the C twin of vxlan/wire.py.

Theory of operation
===================

The layouts are drawn in vxlan/wire.py and mean the same here.  Every function takes
a pointer and the bytes that may be read behind it, trusts no length field of the
packet beyond them, touches no Python object and needs no GIL, so that workers can
call it for each packet.  tests/test_fastpath.py holds both twins together.

The key of the flow hash is never put together: addresses and ports are hashed where
they lie, in one pass where they lie side by side (no IPv4 options, IPv6) and
otherwise in two, which for a CRC is the same.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from csum cimport crc32

cdef enum:
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
    MAX_TAGS = 2

    IPPROTO_ICMP = 1
    IPPROTO_TCP = 6
    IPPROTO_UDP = 17
    IPPROTO_ICMPV6 = 58


cdef inline uint16_t load16(const uint8_t *data) noexcept nogil:
    """A 16-bit field in network order."""
    return <uint16_t>(data[0] << 8 | data[1])


cdef inline uint32_t load24(const uint8_t *data) noexcept nogil:
    return <uint32_t>data[0] << 16 | <uint32_t>data[1] << 8 | data[2]


cdef inline void store24(uint8_t *data, uint32_t value) noexcept nogil:
    data[0] = <uint8_t>(value >> 16)
    data[1] = <uint8_t>(value >> 8)
    data[2] = <uint8_t>value


# -- VXLAN (RFC 7348, section 5) ------------------------------------------------------


cdef struct VxlanHeader:
    uint8_t flags
    uint32_t vni
    uint64_t reserved  # every bit that must be 0, where it lies in the header


cdef inline void vxlan_store(uint8_t *header, uint32_t vni) noexcept nogil:
    """Write the 8 bytes for a VNI of at most 24 bits."""
    header[0] = I_FLAG
    store24(header + 1, 0)
    store24(header + 4, vni)
    header[7] = 0


cdef inline VxlanHeader vxlan_load(const uint8_t *header) noexcept nogil:
    """Read 8 bytes; whether they mean anything is for the caller to judge."""
    cdef VxlanHeader found
    found.flags = header[0]
    found.vni = load24(header + 4)
    found.reserved = (
        <uint64_t>(header[0] & ~I_FLAG) << 56 | <uint64_t>load24(header + 1) << 32 | header[7]
    )
    return found


# -- the inner frame ------------------------------------------------------------------


cdef struct Inner:
    uint32_t l3  # offset of the packet behind the Ethernet header and its tags
    uint8_t version  # 4 or 6 for a well-formed IP header, otherwise 0
    uint8_t tos
    uint8_t ttl
    uint32_t flow


cdef inline bint is_vlan(uint16_t ethertype) noexcept nogil:
    return ethertype == ETH_P_8021Q or ethertype == ETH_P_8021AD


cdef inline uint16_t ethertype_at(
    const uint8_t *frame, size_t length, uint32_t *l3
) noexcept nogil:
    """The EtherType behind at most two tags; `l3` becomes the offset behind it."""
    cdef uint16_t ethertype = load16(frame + 12)
    cdef int tag
    l3[0] = ETH_HLEN
    for tag in range(MAX_TAGS):
        if not is_vlan(ethertype) or length < l3[0] + VLAN_HLEN:
            break
        ethertype = load16(frame + l3[0] + 2)
        l3[0] += VLAN_HLEN
    return ethertype


cdef inline bint has_ports(uint8_t protocol) noexcept nogil:
    return protocol == IPPROTO_TCP or protocol == IPPROTO_UDP


cdef inline size_t within(size_t wanted, size_t offset, size_t length) noexcept nogil:
    """How many of the `wanted` bytes at `offset` the buffer holds."""
    if offset >= length:
        return 0
    return wanted if wanted <= length - offset else length - offset


cdef inline uint32_t flow_ipv4(const uint8_t *packet, size_t length) noexcept nogil:
    """Addresses and ports of at least 20 bytes of IPv4; no ports in a fragment."""
    cdef uint8_t protocol = packet[9]
    cdef bint fragment = (packet[6] & 0x3F) != 0 or packet[7] != 0
    cdef size_t l4 = (packet[0] & 0x0F) * 4
    cdef uint32_t flow
    if fragment or not has_ports(protocol):
        return crc32(packet + 12, 8, protocol)
    if l4 == IPV4_HLEN:
        return crc32(packet + 12, 8 + within(4, l4, length), protocol)
    flow = crc32(packet + 12, 8, protocol)
    return crc32(packet + l4, within(4, l4, length), flow) if l4 < length else flow


cdef inline uint32_t flow_ipv6(const uint8_t *packet, size_t length) noexcept nogil:
    """Addresses and ports of at least 40 bytes of IPv6; no extension header is walked."""
    cdef uint8_t protocol = packet[6]
    cdef size_t ports = within(4, IPV6_HLEN, length) if has_ports(protocol) else 0
    return crc32(packet + 8, 32 + ports, protocol)


cdef inline void inspect(const uint8_t *frame, size_t length, Inner *inner) noexcept nogil:
    """Look at an inner frame of at least 14 bytes.

    Handed back in place: in registers its fields, just stored as bytes, would have to be
    loaded again as words, and a processor waits for the stores then.
    """
    cdef uint16_t ethertype = ethertype_at(frame, length, &inner.l3)
    cdef const uint8_t *packet = frame + inner.l3
    cdef size_t rest = length - inner.l3
    if ethertype == ETH_P_IP and rest >= IPV4_HLEN and packet[0] >> 4 == 4:
        inner.version = 4
        inner.tos = packet[1]
        inner.ttl = packet[8]
        inner.flow = flow_ipv4(packet, rest)
    elif ethertype == ETH_P_IPV6 and rest >= IPV6_HLEN and packet[0] >> 4 == 6:
        inner.version = 6
        inner.tos = <uint8_t>(packet[0] << 4 | packet[1] >> 4)
        inner.ttl = packet[7]
        inner.flow = flow_ipv6(packet, rest)
    else:
        inner.version = inner.tos = inner.ttl = 0
        inner.flow = crc32(frame, 12, ethertype)


cdef inline uint16_t source_port(uint32_t flow, uint16_t low, uint16_t high) noexcept nogil:
    """The outer UDP source port in [low, high] for a flow (RFC 7348, section 5)."""
    return <uint16_t>(low + (<uint64_t>flow * (<uint32_t>high - low + 1) >> 32))
