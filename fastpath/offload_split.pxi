"""From one super-frame of the TAP to segments for the underlay.

Theory of operation
===================

A TAP with segmentation offload hands over up to 64 KiB of one flow in one read:
the headers once, then the payload.  Each `mss` bytes of it become a packet of
their own, with the VXLAN header before it, all side by side in one buffer:

    frame   | headers | payload 0 | payload 1 | ...

    out     | VXLAN | headers' | payload 0 | VXLAN | headers'' | payload 1 | ...
            |<------- stride ------------->|

All strides are equal and only the last segment may be shorter, which is what
UDP_SEGMENT wants, so one sendmsg carries them.  `headers'` differs from
`headers` where the kernel's own segmentation makes it differ (inet_gso_segment,
tcp_gso_segment, __udp_gso_segment in net/ipv4):

    IPv4   total length, identification + k, header checksum
    IPv6   payload length
    TCP    sequence number + k * mss, CWR on the first only, FIN and PSH on the
           last only, checksum
    UDP    length, checksum

The sums over the parts that stay are made once.  The checksum field of the
super-frame holds the sum of its pseudo-header, from which that of a segment
follows by exchanging the length, whatever extension headers there are.

A virtio_net_hdr is not to be trusted: `understand` compares it with the headers,
which it reads itself, and refuses what does not agree.
"""

cdef enum:
    VNET_HLEN = 10
    NEEDS_CSUM = 1
    DATA_VALID = 2
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80
    MAX_HEADERS = 256
    TCP_FIN_PSH = 0x09
    TCP_CWR = 0x80

cdef struct VnetHdr:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset

cdef struct Super:
    # what a super-frame consists of; count 1 and mss 0 where it is a plain frame
    uint32_t length
    uint32_t payload
    uint32_t count
    uint16_t l3
    uint16_t l4
    uint16_t headers
    uint16_t mss
    uint8_t version
    uint8_t protocol


cdef inline int understand(
    const VnetHdr *vnet, uint8_t *frame, uint32_t length, Super *whole
) noexcept nogil:
    """What the frame is, with a checksum completed that was left open; -1: refuse it."""
    whole.length = length
    whole.count = 1
    whole.mss = 0
    if vnet.gso_type & 0x7F:
        return understand_super(vnet, frame, length, whole)
    if vnet.flags & NEEDS_CSUM:
        return complete_checksum(frame, length, vnet.csum_start, vnet.csum_offset)
    return 0


cdef inline int complete_checksum(
    uint8_t *frame, uint32_t length, uint32_t start, uint32_t offset
) noexcept nogil:
    cdef uint16_t check
    if start < wire.ETH_HLEN or start + offset + 2 > length:
        return -1
    check = ~fold16(sum_bytes(frame + start, length - start))
    if not check:
        check = 0xFFFF
    memcpy(frame + start + offset, &check, 2)
    return 0


cdef int understand_super(
    const VnetHdr *vnet, const uint8_t *frame, uint32_t length, Super *whole
) noexcept nogil:
    cdef uint32_t l3 = 0, l4 = vnet.csum_start, kind = vnet.gso_type & 0x7F
    cdef uint32_t ethertype, headers
    if not vnet.flags & NEEDS_CSUM or not vnet.gso_size or length < wire.ETH_HLEN:
        return -1
    ethertype = wire.ethertype_at(frame, length, &l3)
    whole.protocol = wire.IPPROTO_UDP if kind == GSO_UDP_L4 else wire.IPPROTO_TCP
    if ethertype == wire.ETH_P_IP and (kind == GSO_TCPV4 or kind == GSO_UDP_L4):
        whole.version = 4
        if not ipv4_agrees(frame, length, l3, l4, whole.protocol):
            return -1
    elif ethertype == wire.ETH_P_IPV6 and (kind == GSO_TCPV6 or kind == GSO_UDP_L4):
        whole.version = 6
        if not ipv6_agrees(frame, length, l3, l4, whole.protocol):
            return -1
    else:
        return -1
    headers = l4 + transport_hlen(frame, length, l4, vnet, whole.protocol)
    if headers <= l4 or headers > length or headers > MAX_HEADERS:
        return -1
    whole.l3 = <uint16_t>l3
    whole.l4 = <uint16_t>l4
    whole.headers = <uint16_t>headers
    whole.payload = length - headers
    if whole.payload > vnet.gso_size:
        whole.count = (whole.payload + vnet.gso_size - 1) // vnet.gso_size
    whole.mss = vnet.gso_size
    return 0


cdef inline bint ipv4_agrees(
    const uint8_t *frame, uint32_t length, uint32_t l3, uint32_t l4, uint32_t protocol
) noexcept nogil:
    cdef const uint8_t *ip = frame + l3
    if length < l3 + wire.IPV4_HLEN or ip[0] >> 4 != 4 or (ip[0] & 15) < 5:
        return False
    if wire.load16(ip + 2) != length - l3:
        return False
    return l4 == l3 + (ip[0] & 15) * 4 and ip[9] == protocol and not (ip[6] & 0x3F or ip[7])


cdef inline bint ipv6_agrees(
    const uint8_t *frame, uint32_t length, uint32_t l3, uint32_t l4, uint32_t protocol
) noexcept nogil:
    cdef const uint8_t *ip = frame + l3
    cdef uint32_t at = l3 + wire.IPV6_HLEN
    cdef uint8_t found
    if length < at or ip[0] >> 4 != 6 or wire.load16(ip + 4) != length - at:
        return False
    found = walk_extensions(frame, length, ip[6], &at)
    return at == l4 and found == protocol


cdef inline uint8_t walk_extensions(
    const uint8_t *frame, uint32_t end, uint8_t found, uint32_t *at
) noexcept nogil:
    """The protocol behind the extension headers that segmentation may repeat; `at`: where."""
    cdef int walked
    for walked in range(mtu.MAX_EXTENSIONS):
        if not mtu.is_walked(found) or end < at[0] + 8:
            break
        found = frame[at[0]]
        at[0] += (<uint32_t>frame[at[0] + 1] + 1) * 8
    return found


cdef inline uint32_t transport_hlen(
    const uint8_t *frame, uint32_t length, uint32_t l4, const VnetHdr *vnet, uint32_t protocol
) noexcept nogil:
    """Length of the TCP or UDP header; 0 where it is not whole or the offsets disagree."""
    cdef uint32_t hlen
    if protocol == wire.IPPROTO_UDP:
        if vnet.csum_offset != 6 or vnet.gso_type & GSO_ECN or length < l4 + wire.UDP_HLEN:
            return 0
        return wire.UDP_HLEN if wire.load16(frame + l4 + 4) == length - l4 else 0
    if vnet.csum_offset != 16 or length < l4 + mtu.TCP_HLEN:
        return 0
    hlen = (frame[l4 + 12] >> 4) * 4
    return hlen if hlen >= mtu.TCP_HLEN else 0


cdef struct Template:
    # the headers of a super-frame and the sums over what all segments share
    uint8_t bytes[wire.VXLAN_HLEN + MAX_HEADERS]
    uint64_t ip_sum
    uint64_t l4_sum
    uint32_t sequence
    uint16_t identification
    uint8_t flags


cdef void make_template(
    const Super *whole, const uint8_t *frame, uint64_t vxlan, Template *made
) noexcept nogil:
    cdef uint8_t *ip = made.bytes + wire.VXLAN_HLEN + whole.l3
    cdef uint8_t *l4 = made.bytes + wire.VXLAN_HLEN + whole.l4
    cdef uint16_t pseudo, check_at = 16 if whole.protocol == wire.IPPROTO_TCP else 6
    memcpy(made.bytes, &vxlan, wire.VXLAN_HLEN)
    memcpy(made.bytes + wire.VXLAN_HLEN, frame, whole.headers)
    memcpy(&pseudo, l4 + check_at, 2)
    mtu.store16(l4 + check_at, 0)
    made.l4_sum = pseudo + <uint16_t>~htons(<uint16_t>(whole.length - whole.l4))
    if whole.version == 4:
        made.identification = wire.load16(ip + 4)
        memset(ip + 2, 0, 4)
        memset(ip + 10, 0, 2)
        made.ip_sum = sum_short(ip, whole.l4 - whole.l3)
    if whole.protocol == wire.IPPROTO_TCP:
        made.sequence = get32(l4 + 4)
        made.flags = l4[13]
        memset(l4 + 4, 0, 4)
        l4[13] = 0
    else:
        memset(l4 + 4, 0, 2)
    made.l4_sum += sum_short(l4, whole.headers - whole.l4)


cdef inline void finish_ip(
    const Super *whole, const Template *made, uint8_t *ip, uint32_t k, uint32_t payload
) noexcept nogil:
    cdef uint32_t length = whole.headers - whole.l3 + payload
    cdef uint16_t word = htons(<uint16_t>length), ident, check
    if whole.version == 6:
        word = htons(<uint16_t>(length - wire.IPV6_HLEN))
        memcpy(ip + 4, &word, 2)
        return
    ident = htons(<uint16_t>(made.identification + k))
    check = ~fold16(made.ip_sum + word + ident)
    memcpy(ip + 2, &word, 2)
    memcpy(ip + 4, &ident, 2)
    memcpy(ip + 10, &check, 2)


cdef inline void finish_tcp(
    const Super *whole, const Template *made, uint8_t *tcp, uint32_t k, uint32_t payload, uint64_t total
) noexcept nogil:
    cdef uint32_t sequence = htonl(made.sequence + k * whole.mss)
    cdef uint16_t check
    tcp[13] = made.flags
    if k:
        tcp[13] &= ~TCP_CWR
    if k + 1 < whole.count:
        tcp[13] &= ~TCP_FIN_PSH
    total += made.l4_sum + sequence + htons(tcp[13])
    total += htons(<uint16_t>(whole.headers - whole.l4 + payload))
    check = ~fold16(total)
    memcpy(tcp + 4, &sequence, 4)
    memcpy(tcp + 16, &check, 2)


cdef inline void finish_udp(
    const Template *made, uint8_t *udp, uint32_t payload, uint64_t total
) noexcept nogil:
    cdef uint16_t length = htons(<uint16_t>(wire.UDP_HLEN + payload)), check
    check = ~fold16(total + made.l4_sum + length + length)
    if not check:
        check = 0xFFFF
    memcpy(udp + 4, &length, 2)
    memcpy(udp + 6, &check, 2)


cdef void lay_out(
    const Super *whole, const uint8_t *frame, uint64_t vxlan, uint8_t *out, bint in_place
) noexcept nogil:
    """Lay out all segments at `out`; in_place: their payloads are there already."""
    cdef Template made
    cdef uint32_t k, rest = whole.payload, length
    cdef const uint8_t *payload = frame + whole.headers
    cdef uint8_t *at = out
    make_template(whole, frame, vxlan, &made)
    for k in range(whole.count):
        length = min32(rest, whole.mss)
        memcpy(at, made.bytes, wire.VXLAN_HLEN + whole.headers)
        if not in_place:
            memcpy(at + wire.VXLAN_HLEN + whole.headers, payload, length)
        finish_segment(whole, &made, at + wire.VXLAN_HLEN, k, length)
        payload += length
        rest -= length
        at += wire.VXLAN_HLEN + whole.headers + length


cdef inline void finish_segment(
    const Super *whole, const Template *made, uint8_t *frame, uint32_t k, uint32_t payload
) noexcept nogil:
    cdef uint64_t total = sum_bytes(frame + whole.headers, payload)
    finish_ip(whole, made, frame + whole.l3, k, payload)
    if whole.protocol == wire.IPPROTO_TCP:
        finish_tcp(whole, made, frame + whole.l4, k, payload, total)
    else:
        finish_udp(made, frame + whole.l4, payload, total)
