"""From many segments of the underlay to super-frames for the TAP.

Theory of operation
===================

The kernel's UDP_GRO hands over up to 64 datagrams of one remote at once.  Their
inner segments mostly follow each other in one flow, and one write of a
super-frame costs the host far less than a write for each.  So every segment
goes through `merge_in`, which keeps a few flows open:

    flow  | virtio_net_hdr | headers + payload 0 | payload 1 | payload 2 | ...

Nothing is copied: a flow is a list of places in the receive buffer, and the
headers of its first segment are made those of the super-frame in place when it
is flushed.  Two segments merge under the conditions of the kernel's own GRO
(inet_gro_receive, tcp_gro_receive, udp_gro_receive):

    Ethernet  addresses, tags and type equal
    IPv4      no options, no fragment; TOS, TTL and DF equal; identification
              counts up, or stays as it is under DF
    IPv6      no extension header; traffic class, flow label, hop limit equal
    TCP       sequence follows; acknowledgement, window, flags, options equal;
              no flag but ACK, and PSH or FIN end the super-frame
    UDP       ports equal, lengths equal
    both      a segment shorter than the first one ends the super-frame

and one more: both inner checksums have been verified, since a super-frame gets a
new IPv4 header and makes the receiver compute no sum at all.  A segment with a wrong
one goes on as it came, alone, for the receiver to judge.
"""

cdef enum:
    MAX_FLOWS = 8
    MAX_PARTS = 64
    MAX_SUPER = 65535

cdef struct Piece:
    # one inner frame, looked at
    uint8_t *frame
    uint32_t length
    uint32_t end       # where the IP packet ends in the frame
    uint16_t l3
    uint16_t l4        # 0: neither whole TCP nor whole UDP
    uint16_t headers
    uint8_t version
    uint8_t protocol
    uint8_t plain      # may be merged as far as one segment alone can tell

cdef struct Flow:
    Piece first
    VnetHdr vnet
    uint32_t payload
    uint32_t sequence
    uint32_t parts
    uint16_t mss
    uint8_t fixed_id
    uint8_t last_flags
    uint8_t is_open
    iovec iov[MAX_PARTS + 2]

ctypedef int (*Emit)(void *, iovec *, int, uint32_t) noexcept nogil

cdef struct Merger:
    # emit(to, iov, parts, packets): hand one frame to the TAP
    Emit emit
    void *to
    uint32_t mtu
    uint32_t count
    Flow flows[MAX_FLOWS]


cdef inline void look(uint8_t *frame, uint32_t length, Piece *piece) noexcept nogil:
    """Find the headers of an inner frame of at least 14 bytes."""
    cdef uint32_t l3 = 0
    cdef uint32_t ethertype = wire.ethertype_at(frame, length, &l3)
    piece.frame = frame
    piece.length = length
    piece.l3 = <uint16_t>l3
    piece.l4 = 0
    piece.plain = False
    if ethertype == wire.ETH_P_IP:
        look_ipv4(frame, length, piece)
    elif ethertype == wire.ETH_P_IPV6:
        look_ipv6(frame, length, piece)
    if piece.l4:
        look_transport(piece)


cdef inline void look_ipv4(const uint8_t *frame, uint32_t length, Piece *piece) noexcept nogil:
    cdef const uint8_t *ip = frame + piece.l3
    cdef uint32_t hlen
    if length < <uint32_t>piece.l3 + wire.IPV4_HLEN or ip[0] >> 4 != 4:
        return
    hlen = (ip[0] & 15) * 4
    piece.end = piece.l3 + wire.load16(ip + 2)
    if hlen < wire.IPV4_HLEN or piece.end > length or ip[6] & 0x3F or ip[7]:
        return
    piece.version = 4
    piece.protocol = ip[9]
    piece.l4 = <uint16_t>(piece.l3 + hlen)
    piece.plain = (
        hlen == wire.IPV4_HLEN and piece.end == length
        and fold16(sum_short(ip, wire.IPV4_HLEN)) == 0xFFFF
    )


cdef inline void look_ipv6(const uint8_t *frame, uint32_t length, Piece *piece) noexcept nogil:
    cdef const uint8_t *ip = frame + piece.l3
    cdef uint32_t at = <uint32_t>piece.l3 + wire.IPV6_HLEN
    if length < at or ip[0] >> 4 != 6:
        return
    piece.end = at + wire.load16(ip + 4)
    if piece.end > length:
        return
    piece.version = 6
    piece.plain = piece.end == length and not mtu.is_walked(ip[6])
    piece.protocol = walk_extensions(frame, piece.end, ip[6], &at)
    piece.l4 = <uint16_t>at


cdef inline void look_transport(Piece *piece) noexcept nogil:
    cdef const uint8_t *l4 = piece.frame + piece.l4
    cdef uint32_t hlen
    if piece.protocol == wire.IPPROTO_TCP and piece.end >= <uint32_t>piece.l4 + mtu.TCP_HLEN:
        hlen = (l4[12] >> 4) * 4
        piece.headers = <uint16_t>(piece.l4 + hlen)
        # flags: ACK alone, with PSH or FIN at most
        piece.plain = (
            piece.plain and hlen >= mtu.TCP_HLEN and piece.end > piece.headers
            and l4[13] & 0xF6 == 0x10 and not l4[12] & 15
        )
    elif piece.protocol == wire.IPPROTO_UDP and piece.end >= <uint32_t>piece.l4 + wire.UDP_HLEN:
        piece.headers = piece.l4 + wire.UDP_HLEN
        piece.plain = (
            piece.plain and piece.end > piece.headers
            and wire.load16(l4 + 4) == piece.end - piece.l4 and (l4[6] or l4[7])
        )
    else:
        piece.l4 = 0
        piece.plain = False


cdef inline uint64_t pseudo_sum(const Piece *piece) noexcept nogil:
    cdef const uint8_t *ip = piece.frame + piece.l3
    cdef uint64_t total = htons(piece.protocol) + <uint64_t>htons(<uint16_t>(piece.end - piece.l4))
    if piece.end - piece.l4 > 0xFFFF:
        total += htons(1)
    return total + (sum_short(ip + 12, 8) if piece.version == 4 else sum_short(ip + 8, 32))


cdef inline uint16_t check_field(const Piece *piece) noexcept nogil:
    cdef uint16_t check
    memcpy(&check, piece.frame + piece.l4 + (16 if piece.protocol == wire.IPPROTO_TCP else 6), 2)
    return check


cdef inline bint is_open_sum(uint16_t check, uint64_t pseudo) noexcept nogil:
    """Whether the field holds the sum of the pseudo-header: nobody finished it."""
    return check and check % 0xFFFF == fold16(pseudo) % 0xFFFF


cdef inline bint is_right(const Piece *piece, uint64_t pseudo) noexcept nogil:
    return fold16(pseudo + sum_bytes(piece.frame + piece.l4, piece.end - piece.l4)) == 0xFFFF


cdef inline bint same_flow(const Flow *flow, const Piece *piece) noexcept nogil:
    """Whether both are packets of one transport flow: order between them matters."""
    cdef const Piece *first = &flow.first
    cdef uint8_t *a = first.frame
    cdef uint8_t *b = piece.frame
    if first.l3 != piece.l3 or first.version != piece.version or first.protocol != piece.protocol:
        return False
    if memcmp(a + first.l4, b + piece.l4, 4):
        return False
    if piece.version == 4:
        return not memcmp(a + first.l3 + 12, b + piece.l3 + 12, 8)
    return not memcmp(a + first.l3 + 8, b + piece.l3 + 8, 32)


cdef inline bint may_follow(Flow *flow, const Piece *piece) noexcept nogil:
    cdef const Piece *first = &flow.first
    cdef uint32_t payload = piece.end - piece.headers
    if first.headers != piece.headers or payload > flow.mss:
        return False
    if flow.parts >= MAX_PARTS or flow.payload + payload + first.headers - first.l3 > MAX_SUPER:
        return False
    if memcmp(first.frame, piece.frame, first.l3):
        return False
    if not ip_follows(flow, first.frame + first.l3, piece.frame + piece.l3, piece.version):
        return False
    if piece.protocol == wire.IPPROTO_TCP:
        return tcp_follows(flow, first, piece)
    return True


cdef inline bint ip_follows(
    Flow *flow, const uint8_t *a, const uint8_t *b, int version
) noexcept nogil:
    cdef uint16_t ident
    if version == 6:
        return not memcmp(a, b, 4) and a[7] == b[7]
    if a[1] != b[1] or a[8] != b[8] or a[6] != b[6]:
        return False
    ident = wire.load16(b + 4) - wire.load16(a + 4)
    if flow.parts == 1 and ident == 0 and a[6] & 0x40:
        flow.fixed_id = True
    return ident == (0 if flow.fixed_id else flow.parts)


cdef inline bint tcp_follows(Flow *flow, const Piece *first, const Piece *piece) noexcept nogil:
    cdef const uint8_t *a = first.frame + first.l4
    cdef const uint8_t *b = piece.frame + piece.l4
    if get32(b + 4) != flow.sequence or memcmp(a + 8, b + 8, 5) or memcmp(a + 14, b + 14, 2):
        return False
    return not memcmp(a + 18, b + 18, first.headers - first.l4 - 18)


cdef inline void open_flow(Flow *flow, const Piece *piece) noexcept nogil:
    flow.first = piece[0]
    flow.is_open = True
    flow.parts = 1
    flow.fixed_id = False
    flow.payload = piece.end - piece.headers
    flow.mss = <uint16_t>flow.payload
    flow.iov[1].iov_base = piece.frame
    flow.iov[1].iov_len = piece.end
    flow.last_flags = 0
    if piece.protocol == wire.IPPROTO_TCP:
        flow.sequence = get32(piece.frame + piece.l4 + 4) + flow.payload
        flow.last_flags = piece.frame[piece.l4 + 13]


cdef inline void append(Flow *flow, const Piece *piece) noexcept nogil:
    cdef uint32_t payload = piece.end - piece.headers
    flow.parts += 1
    flow.iov[flow.parts].iov_base = piece.frame + piece.headers
    flow.iov[flow.parts].iov_len = payload
    flow.payload += payload
    flow.sequence += payload
    if piece.protocol == wire.IPPROTO_TCP:
        flow.last_flags = piece.frame[piece.l4 + 13]


cdef inline bint is_complete(const Flow *flow, const Piece *piece) noexcept nogil:
    return (
        flow.last_flags & TCP_FIN_PSH
        or piece.end - piece.headers < flow.mss
        or flow.parts == MAX_PARTS
    )


cdef void flush_flow(Merger *merger, Flow *flow) noexcept nogil:
    """Make the first segment's headers those of all, and hand the frame on."""
    cdef Piece *first = &flow.first
    memset(&flow.vnet, 0, VNET_HLEN)
    flow.vnet.flags = DATA_VALID
    if flow.parts > 1:
        super_headers(flow, first)
    flow.iov[0].iov_base = &flow.vnet
    flow.iov[0].iov_len = VNET_HLEN
    flow.is_open = False
    merger.emit(merger.to, flow.iov, flow.parts + 1, flow.parts)


cdef inline void super_headers(Flow *flow, Piece *first) noexcept nogil:
    cdef uint8_t *ip = first.frame + first.l3
    cdef uint8_t *l4 = first.frame + first.l4
    cdef uint16_t check
    first.end = first.headers + flow.payload
    if first.version == 4:
        mtu.store16(ip + 2, first.end - first.l3)
        memset(ip + 10, 0, 2)
        check = ~fold16(sum_short(ip, wire.IPV4_HLEN))
        memcpy(ip + 10, &check, 2)
    else:
        mtu.store16(ip + 4, first.end - first.l4)
    flow.vnet.flags = NEEDS_CSUM
    flow.vnet.hdr_len = first.headers
    flow.vnet.gso_size = flow.mss
    flow.vnet.csum_start = first.l4
    check = fold16(pseudo_sum(first))
    if first.protocol == wire.IPPROTO_TCP:
        l4[13] |= flow.last_flags
        flow.vnet.csum_offset = 16
        flow.vnet.gso_type = GSO_TCPV4 if first.version == 4 else GSO_TCPV6
    else:
        mtu.store16(l4 + 4, first.end - first.l4)
        flow.vnet.csum_offset = 6
        flow.vnet.gso_type = GSO_UDP_L4
    memcpy(l4 + flow.vnet.csum_offset, &check, 2)


cdef void flush_all(Merger *merger) noexcept nogil:
    cdef uint32_t k
    for k in range(merger.count):
        if merger.flows[k].is_open:
            flush_flow(merger, &merger.flows[k])
    merger.count = 0


cdef inline Flow *find_flow(Merger *merger, const Piece *piece) noexcept nogil:
    cdef uint32_t k
    for k in range(merger.count):
        if merger.flows[k].is_open and same_flow(&merger.flows[k], piece):
            return &merger.flows[k]
    return NULL


cdef inline Flow *free_flow(Merger *merger) noexcept nogil:
    cdef uint32_t k
    for k in range(merger.count):
        if not merger.flows[k].is_open:
            return &merger.flows[k]
    if merger.count == MAX_FLOWS:
        flush_all(merger)
    merger.count += 1
    return &merger.flows[merger.count - 1]


cdef inline void merge_in(Merger *merger, uint8_t *frame, uint32_t length) noexcept nogil:
    """Take one inner frame of at least 14 bytes: merge it, open a flow, or pass it on."""
    cdef Piece piece
    cdef Flow *flow = NULL
    cdef uint64_t pseudo = 0
    look(frame, length, &piece)
    if piece.l4:
        flow = find_flow(merger, &piece)
        pseudo = pseudo_sum(&piece)
    if not piece.plain or not is_right(&piece, pseudo):
        if flow:
            flush_flow(merger, flow)
        pass_on(merger, &piece, pseudo)
        return
    if flow and may_follow(flow, &piece):
        append(flow, &piece)
    else:
        if flow:
            flush_flow(merger, flow)
        else:
            flow = free_flow(merger)
        open_flow(flow, &piece)
    if is_complete(flow, &piece):
        flush_flow(merger, flow)


cdef void pass_on(Merger *merger, Piece *piece, uint64_t pseudo) noexcept nogil:
    """One frame as it came, with what its sender left undone said in the header."""
    cdef VnetHdr vnet
    cdef iovec iov[2]
    memset(&vnet, 0, VNET_HLEN)
    if piece.l4 and is_open_sum(check_field(piece), pseudo):
        vnet.flags = NEEDS_CSUM
        vnet.csum_start = piece.l4
        vnet.csum_offset = 16 if piece.protocol == wire.IPPROTO_TCP else 6
        undo_gso(piece, merger.mtu, &vnet)
    iov[0].iov_base = &vnet
    iov[0].iov_len = VNET_HLEN
    iov[1].iov_base = piece.frame
    iov[1].iov_len = piece.length
    merger.emit(merger.to, iov, 2, 1)


cdef inline void undo_gso(const Piece *piece, uint32_t fits, VnetHdr *vnet) noexcept nogil:
    """A TCP packet longer than the MTU was never segmented: say how it shall be."""
    cdef uint32_t headers = piece.headers - piece.l3
    if piece.end - piece.l3 <= fits or piece.protocol != wire.IPPROTO_TCP:
        return
    if piece.headers < piece.l4 + mtu.TCP_HLEN or piece.headers > piece.end or headers >= fits:
        return
    vnet.gso_type = GSO_TCPV4 if piece.version == 4 else GSO_TCPV6
    vnet.hdr_len = piece.headers
    vnet.gso_size = <uint16_t>(fits - headers)
