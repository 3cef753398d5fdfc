"""What fits: the longest packet for a remote, and the MSS clamp.

The twin of vxlan/fit.py (`limit_of`), vxlan/clamp.py and vxlan/transport.py, on
(pointer, length).  A frame that is clamped is changed where it lies.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from csum cimport checksum_update, ones_sum
from wire cimport (
    ETH_P_IP, ETH_P_IPV6, IPPROTO_TCP, IPV4_HLEN, IPV6_HLEN, ethertype_at, load16,
)

cdef enum:
    TCP_HLEN = 20
    MIN_MSS = 64
    MAX_EXTENSIONS = 8
    SYN = 0x02
    HOP_BY_HOP = 0
    ROUTING = 43
    FRAGMENT = 44
    DESTINATION = 60
    TCP_CHECK_AT = 16


cdef struct Transport:
    uint32_t l3
    uint32_t l4
    uint32_t end  # of the IP packet
    uint8_t protocol
    uint8_t ip_header  # 20 or 40


cdef inline void store16(uint8_t *data, uint16_t value) noexcept nogil:
    data[0] = <uint8_t>(value >> 8)
    data[1] = <uint8_t>value


cdef inline bint is_walked(uint8_t protocol) noexcept nogil:
    return protocol == HOP_BY_HOP or protocol == ROUTING or protocol == DESTINATION


cdef inline bint find_ipv4(const uint8_t *frame, size_t length, Transport *found) noexcept nogil:
    cdef const uint8_t *packet = frame + found.l3
    if length < found.l3 + IPV4_HLEN or packet[0] >> 4 != 4:
        return False
    found.l4 = found.l3 + (packet[0] & 0x0F) * 4
    found.end = found.l3 + load16(packet + 2)
    found.protocol = packet[9]
    found.ip_header = IPV4_HLEN
    if packet[6] & 0x3F or packet[7]:
        return False
    return found.l4 >= found.l3 + IPV4_HLEN and found.l4 <= found.end and found.end <= length


cdef inline bint find_ipv6(const uint8_t *frame, size_t length, Transport *found) noexcept nogil:
    cdef const uint8_t *packet = frame + found.l3
    cdef int walked
    if length < found.l3 + IPV6_HLEN or packet[0] >> 4 != 6:
        return False
    found.end = found.l3 + IPV6_HLEN + load16(packet + 4)
    found.l4 = found.l3 + IPV6_HLEN
    found.protocol = packet[6]
    found.ip_header = IPV6_HLEN
    if found.end > length:
        return False
    for walked in range(MAX_EXTENSIONS):
        if not is_walked(found.protocol) or found.end < found.l4 + 8:
            break
        found.protocol = frame[found.l4]
        found.l4 += (<uint32_t>frame[found.l4 + 1] + 1) * 8
    return (
        found.l4 <= found.end and not is_walked(found.protocol) and found.protocol != FRAGMENT
    )


cdef inline bint find_transport(
    const uint8_t *frame, size_t length, Transport *found
) noexcept nogil:
    """The transport header of an unfragmented IP packet in a frame of 14 bytes or more."""
    cdef uint16_t ethertype = ethertype_at(frame, length, &found.l3)
    if ethertype == ETH_P_IP:
        return find_ipv4(frame, length, found)
    if ethertype == ETH_P_IPV6:
        return find_ipv6(frame, length, found)
    return False


cdef inline uint16_t pseudo_sum(const uint8_t *frame, const Transport *found) noexcept nogil:
    """The sum of the pseudo-header of TCP and UDP, modulo 65535."""
    cdef uint32_t at = 12 if found.ip_header == IPV4_HLEN else 8
    cdef uint32_t size = 8 if found.ip_header == IPV4_HLEN else 32
    cdef uint32_t total = ones_sum(frame + found.l3 + at, size)
    return <uint16_t>((total + found.protocol + found.end - found.l4) % 0xFFFF)


cdef inline bint unfinished(
    const uint8_t *frame, const Transport *found, uint32_t check_at
) noexcept nogil:
    """Whether a checksum field holds the pseudo-header's sum and no more."""
    cdef uint16_t check = load16(frame + found.l4 + check_at)
    return check != 0 and check % 0xFFFF == pseudo_sum(frame, found)


# -- the MSS clamp -----------------------------------------------------------------


cdef inline bint may_be_syn(const uint8_t *frame, size_t length) noexcept nogil:
    """False for nearly every frame."""
    if length < 54 or frame[12] != 8 or frame[13] or frame[14] != 0x45:
        return True
    return frame[23] == IPPROTO_TCP and frame[47] & SYN


cdef inline uint32_t mss_option(const uint8_t *frame, const Transport *found) noexcept nogil:
    """The offset of the MSS value; 0 where there is none, or options are malformed."""
    cdef uint32_t at = found.l4 + TCP_HLEN
    cdef uint32_t end = found.l4 + (frame[found.l4 + 12] >> 4) * 4
    if end > found.end:
        return 0
    while at < end and frame[at] != 0:
        if frame[at] == 1:
            at += 1
            continue
        if at + 2 > end or frame[at + 1] < 2 or at + frame[at + 1] > end:
            return 0
        if frame[at] == 2:
            return at + 2 if frame[at + 1] == 4 else 0
        at += frame[at + 1]
    return 0


cdef inline void rewrite_mss(
    uint8_t *frame, const Transport *found, uint32_t at, uint16_t mss
) noexcept nogil:
    cdef bint left_undone = unfinished(frame, found, TCP_CHECK_AT)
    cdef uint32_t first = at - (at - found.l4) % 2
    cdef uint16_t before[2]
    cdef uint16_t check
    before[0] = load16(frame + first)
    before[1] = load16(frame + first + 2) if first != at else 0
    store16(frame + at, mss)
    if left_undone:
        return
    check = checksum_update(load16(frame + found.l4 + TCP_CHECK_AT), before[0], load16(frame + first))
    if first != at:
        check = checksum_update(check, before[1], load16(frame + first + 2))
    store16(frame + found.l4 + TCP_CHECK_AT, check)


cdef inline bint clamp_mss(
    uint8_t *frame, size_t length, int64_t mtu, int most
) noexcept nogil:
    """Lower the MSS of a SYN to what `mtu` and `most` (-1 = no bound) allow; whether it was."""
    cdef Transport found
    cdef uint32_t at
    cdef int64_t limit
    if not find_transport(frame, length, &found):
        return False
    if found.protocol != IPPROTO_TCP or found.end < found.l4 + TCP_HLEN:
        return False
    if not frame[found.l4 + 13] & SYN:
        return False
    limit = mtu - found.ip_header - TCP_HLEN
    if most >= 0 and most < limit:
        limit = most
    if limit < MIN_MSS:
        limit = MIN_MSS
    at = mss_option(frame, &found)
    if at == 0 or load16(frame + at) <= limit:
        return False
    rewrite_mss(frame, &found, at, <uint16_t>limit)
    return True
