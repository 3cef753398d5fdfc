"""The rules for one packet: the twin of vxlan/vtep.py and vxlan/segment.py.

Theory of operation
===================

`encap_one` (for a super-frame `encap_further`) and `decap_one` decide about one packet, in the order that the head of
vxlan/vtep.py gives, and count what they decide.  Both the workers and the in-memory
entries of the engine call them, so a test of these is a test of those.

    SEND, DELIVER   go on with it; `Verdict` says how
    DROPPED         discarded and counted; forget it
    PUNT            rare: Python decides by the functions of the Python engine
                    (too big for the path; a probe, its acknowledgement, an announcement)
    REPLY           as DELIVER, but it may be the answer to an echo of Python's
    ASK             a question for neighbours, whose answer Python may know

A frame may be changed where it lies (MSS, ECN).  A super-frame from the TAP is given
once, by its headers, with the length of the longest segment that will be cut from it.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from atomic cimport load_pointer
from csum cimport checksum_update
from fdb cimport NONE, REFUSED, Fdb, fdb_lookup
from learn cimport learn, learn_remote
from mtu cimport FRAGMENT, clamp_mss, may_be_syn, store16
from tables cimport *
from wire cimport (
    ETH_HLEN, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPV6_HLEN,
    I_FLAG, VXLAN_HLEN, Inner, VxlanHeader, inspect, is_vlan, load16, vxlan_load,
)

cdef enum:
    SEND = 0
    DELIVER = 1
    DROPPED = 2
    PUNT = 3
    REPLY = 4
    ASK = 5

    DEFAULT_TTL = 64
    ECN_MASK = 3
    PROBE_HLEN = 32
    ARP_HLEN = 28
    SOLICIT = 135
    SOLICIT_HLEN = 24


cdef struct Verdict:
    const uint32_t *remotes  # encap: to whom
    uint32_t count
    uint32_t one  # where `remotes` points for a single remote
    uint32_t flow
    uint32_t l3
    int64_t limit  # the longest packet that fits, for PUNT
    uint8_t tos
    uint8_t ttl
    uint8_t flooded
    int reason  # of what is DROPPED
    Segment *segment  # decap: into which


cdef extern from *:
    """
    /* RFC 6040, figure 4: [inner][outer] -> new inner; 4 = drop */
    static const uint8_t fastpath_ecn[4][4] = {
        {0, 0, 0, 4}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3},
    };
    """
    const uint8_t fastpath_ecn[4][4]


cdef inline bint is_zero_mac(const uint8_t *mac) noexcept nogil:
    return not (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5])


# -- encap -------------------------------------------------------------------------


cdef inline int refuse_to_encap(
    const Segment *segment, const uint8_t *frame, size_t length
) noexcept nogil:
    """The reason, or -1."""
    if length < ETH_HLEN:
        return PKT_TOO_SMALL
    if frame[6] & 1 or is_zero_mac(frame + 6):
        return MAC_INVALID_SOURCE
    if segment.rules.vlan_drop and is_vlan(load16(frame + 12)):
        return VLAN_POLICY
    return -1


cdef inline void find_targets(
    Tables *tables, Segment *segment, const uint8_t *mac, double now, Verdict *verdict
) noexcept nogil:
    """The entry's remotes, else the flood list."""
    cdef Group *group
    verdict.flooded = 0
    if fdb_lookup(<Fdb *>load_pointer(&segment.fdb), mac, now, &verdict.one):
        if not verdict.one & GROUP:
            verdict.remotes = &verdict.one
            verdict.count = 1
            return
        group = tables.groups[verdict.one & ~GROUP]
    else:
        group = <Group *>load_pointer(&segment.flood)
        verdict.flooded = 1
    verdict.remotes = group.remotes
    verdict.count = group.count


cdef inline int64_t limit_of(
    Tables *tables, const Segment *segment, uint32_t l3, const uint32_t *remotes, uint32_t count
) noexcept nogil:
    """The longest inner packet that reaches all remotes (vxlan/fit.py)."""
    cdef int64_t room = segment.rules.max_frame
    cdef uint32_t at, own
    for at in range(count):
        own = tables.peers[tables.remotes[remotes[at]].peer].room
        if own < room:
            room = own
    room -= l3
    return room if room < segment.rules.mtu else segment.rules.mtu


cdef inline void clamp_in_place(
    Tables *tables, Segment *segment, int slot, uint8_t *frame, size_t length, uint32_t l3,
    const uint32_t *remotes, uint32_t count,
) noexcept nogil:
    cdef int64_t limit
    if segment.rules.mss == 0 or not may_be_syn(frame, length):
        return
    limit = limit_of(tables, segment, l3, remotes, count)
    if clamp_mss(frame, length, limit, segment.rules.mss):
        counters_of(tables, &segment.tally, slot, LOCAL).counts[CLAMPED] += 1


cdef inline bint may_ask(const uint8_t *frame, size_t length) noexcept nogil:
    """Whether a frame may ask everybody for a neighbour: Python will know (vxlan/neighbour.py)."""
    cdef uint16_t kind = load16(frame + 12)
    if not frame[0] & 1:
        return False
    if kind == ETH_P_ARP:
        return length >= ETH_HLEN + ARP_HLEN
    if kind != ETH_P_IPV6 or length < ETH_HLEN + IPV6_HLEN + SOLICIT_HLEN:
        return False
    return frame[20] == IPPROTO_ICMPV6 and frame[ETH_HLEN + IPV6_HLEN] == SOLICIT


cdef inline int encap_one(
    Tables *tables, int slot, Segment *segment, uint8_t *frame, size_t length, size_t longest,
    double now, Verdict *verdict,
) noexcept nogil:
    """Where a frame from the TAP goes: SEND, DROPPED, PUNT or ASK."""
    if segment.answers and length >= ETH_HLEN and may_ask(frame, length):
        return ASK
    return encap_further(tables, slot, segment, frame, length, longest, now, verdict)


cdef inline int encap_further(
    Tables *tables, int slot, Segment *segment, uint8_t *frame, size_t length, size_t longest,
    double now, Verdict *verdict,
) noexcept nogil:
    """The same for a frame that asks nothing which is answered here: SEND, DROPPED or PUNT.

    `longest` is the length of the longest frame that will be sent of it: `length`,
    or for a super-frame that of its segments.
    """
    cdef int reason = refuse_to_encap(segment, frame, length)
    cdef Inner inner
    if reason >= 0:
        verdict.reason = reason
        count_drop(tables, &segment.tally, slot, LOCAL, reason, 1)
        return DROPPED
    find_targets(tables, segment, frame, now, verdict)
    if verdict.count == 0:
        verdict.reason = NO_TX_TARGET
        count_drop(tables, &segment.tally, slot, LOCAL, NO_TX_TARGET, 1)
        return DROPPED
    inspect(frame, length, &inner)
    verdict.flow = inner.flow
    verdict.l3 = inner.l3
    verdict.limit = limit_of(tables, segment, inner.l3, verdict.remotes, verdict.count)
    if <int64_t>longest - inner.l3 > verdict.limit:
        return PUNT
    outer_fields(&segment.rules, &inner, verdict)
    clamp_in_place(
        tables, segment, slot, frame, length, inner.l3, verdict.remotes, verdict.count
    )
    return SEND


cdef inline void outer_fields(const Rules *rules, const Inner *inner, Verdict *verdict) noexcept nogil:
    """DSCP and TTL by policy, ECN always copied (RFC 6040, section 4.1)."""
    cdef int dscp = inner.tos if rules.tos < 0 else rules.tos
    verdict.tos = <uint8_t>((dscp & ~ECN_MASK) | (inner.tos & ECN_MASK))
    verdict.ttl = <uint8_t>rules.ttl
    if verdict.ttl == 0:
        verdict.ttl = inner.ttl if inner.ttl else DEFAULT_TTL


cdef inline void count_sent(
    Tables *tables, int slot, Segment *segment, const Verdict *verdict, uint64_t packets,
    uint64_t octets,
) noexcept nogil:
    """Count the datagrams made for every target; `octets` are those of the inner frames."""
    cdef Counters *counters
    cdef uint32_t at
    if verdict.flooded:
        counters_of(tables, &segment.tally, slot, LOCAL).counts[FLOODED] += packets
    for at in range(verdict.count):
        counters = counters_of(
            tables, &segment.tally, slot, tables.remotes[verdict.remotes[at]].peer
        )
        counters.counts[ENCAP_PACKETS] += packets
        counters.counts[ENCAP_BYTES] += octets


# -- decap -------------------------------------------------------------------------


cdef inline bint is_probe(const uint8_t *payload, size_t length) noexcept nogil:
    """Whether a datagram is a probe, its acknowledgement (vxlan/probe.py) or an announcement."""
    cdef int at
    if length < 12:
        return False
    for at in range(8):
        if payload[at]:
            return False
    if memcmp(payload + 8, b"PVXA", 4) == 0:
        return True
    if length < PROBE_HLEN or memcmp(payload + 8, b"PVXP", 4) != 0:
        return False
    return payload[12] == 1 or payload[12] == 2


cdef inline bint may_be_reply(
    const Segment *segment, const uint8_t *frame, size_t length
) noexcept nogil:
    """Whether a frame may answer an echo of ours, or tell a station's MAC: Python will know."""
    cdef uint16_t kind = load16(frame + 12)
    if memcmp(frame, segment.asks_as, 6) != 0 or length < ETH_HLEN + 28:
        return False
    if kind == ETH_P_IP:
        return frame[23] == IPPROTO_ICMP
    if kind == ETH_P_IPV6:
        return frame[20] == IPPROTO_ICMPV6 or frame[20] == FRAGMENT
    return kind == ETH_P_ARP


cdef inline int refuse_to_decap(
    const Segment *segment, const VxlanHeader *header, const uint8_t *frame, size_t length
) noexcept nogil:
    """The reason, or -1."""
    if header.reserved and segment.rules.strict:
        return VXLAN_RESERVED_BITS
    if length < ETH_HLEN:
        return PKT_TOO_SMALL
    if segment.rules.vlan_drop and is_vlan(load16(frame + 12)):
        return VLAN_POLICY
    if frame[6] & 1 or is_zero_mac(frame + 6):
        return MAC_INVALID_SOURCE
    if is_own(segment, frame + 6):
        return LOCAL_MAC
    return -1


cdef inline bint is_own(const Segment *segment, const uint8_t *mac) noexcept nogil:
    cdef Macs *own = <Macs *>load_pointer(&segment.own)
    cdef uint32_t at
    if own == NULL:
        return False
    for at in range(own.count):
        if memcmp(own.mac[at], mac, 6) == 0:
            return True
    return False


cdef inline bint pass_on_congestion(uint8_t *frame, size_t length, uint8_t outer) noexcept nogil:
    """Fold the outer ECN field in (RFC 6040, section 4.2); False if that cannot be."""
    cdef Inner inner
    cdef uint8_t ecn
    if outer == 0:
        return True
    inspect(frame, length, &inner)
    if inner.version == 0:
        return True
    ecn = fastpath_ecn[inner.tos & ECN_MASK][outer]
    if ecn > ECN_MASK:
        return False
    if ecn != inner.tos & ECN_MASK:
        set_ecn(frame + inner.l3, inner.version, <uint8_t>((inner.tos & ~ECN_MASK) | ecn))
    return True


cdef inline void set_ecn(uint8_t *packet, uint8_t version, uint8_t tos) noexcept nogil:
    cdef uint16_t before = load16(packet)
    if version == 6:
        packet[1] = <uint8_t>((packet[1] & 0x0F) | (tos & 0x0F) << 4)
        return
    packet[1] = tos
    store16(packet + 10, checksum_update(load16(packet + 10), before, load16(packet)))


cdef inline int decap_one(
    Tables *tables, int slot, uint32_t peer, uint8_t *payload, size_t length, uint8_t tos,
    double now, Verdict *verdict,
) noexcept nogil:
    """What a datagram from `peer` becomes: DELIVER or REPLY (frame at payload + 8), DROPPED or PUNT."""
    cdef VxlanHeader header
    cdef Segment *segment = NULL
    cdef int reason
    if length < VXLAN_HLEN:
        verdict.reason = HDR_TRUNC
        count_drop(tables, &tables.tally, slot, peer, HDR_TRUNC, 1)
        return DROPPED
    header = vxlan_load(payload)
    if header.flags & I_FLAG:
        segment = segment_find(tables, header.vni)
    elif is_probe(payload, length):
        return PUNT
    if segment == NULL:
        reason = VXLAN_VNI_NOT_FOUND if header.flags & I_FLAG else VXLAN_INVALID_HDR
        verdict.reason = reason
        count_drop(tables, &tables.tally, slot, peer, reason, 1)
        return DROPPED
    verdict.segment = segment
    reason = judge(tables, segment, peer, &header, payload + VXLAN_HLEN, length - VXLAN_HLEN, tos, slot, now)
    if reason >= 0:
        verdict.reason = reason
        count_drop(tables, &segment.tally, slot, peer, reason, 1)
        return DROPPED
    if segment.asks and may_be_reply(segment, payload + VXLAN_HLEN, length - VXLAN_HLEN):
        return REPLY
    return DELIVER


cdef inline int judge(
    Tables *tables, Segment *segment, uint32_t peer, const VxlanHeader *header, uint8_t *frame,
    size_t length, uint8_t tos, int slot, double now,
) noexcept nogil:
    """The reason for which a datagram of this segment is refused, or -1: learned and counted."""
    cdef Counters *counters
    cdef uint32_t remote
    cdef int reason
    if tables.peers[peer].own:
        return OWN_ADDRESS
    if not segment.rules.accept_any and segment.known[peer] == 0:
        return UNKNOWN_REMOTE
    remote = learn_remote(tables, segment, peer)
    if tables.peers[peer].heard != 1:
        set_heard(tables, peer, remote, 1, now)
    reason = refuse_to_decap(segment, header, frame, length)
    if reason >= 0:
        return reason
    if not pass_on_congestion(frame, length, tos & ECN_MASK):
        return IP_TUNNEL_ECN
    if segment.rules.learning and learn(tables, slot, segment, frame + 6, peer, remote, now) == REFUSED:
        return VXLAN_ENTRY_EXISTS
    counters = counters_of(tables, &segment.tally, slot, peer)
    counters.counts[DECAP_PACKETS] += 1
    counters.counts[DECAP_BYTES] += length
    if header.reserved:
        counters.counts[RESERVED_BITS] += 1
    if remote != NONE and may_be_syn(frame, length):
        clamp_decap(tables, segment, slot, frame, length, remote)
    return -1


cdef inline void clamp_decap(
    Tables *tables, Segment *segment, int slot, uint8_t *frame, size_t length, uint32_t remote
) noexcept nogil:
    cdef Inner inner
    inspect(frame, length, &inner)
    clamp_in_place(tables, segment, slot, frame, length, inner.l3, &remote, 1)
