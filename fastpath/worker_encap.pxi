"""From TAPs to the underlay.

Theory of operation
===================

    read   a frame, or up to 64 KiB of one flow, lands in the arena where it shall stay
    decide datapath.encap_one, once for all segments of a super-frame
    split  a header before each segment (offload_split.pxi)
    train  segments of one size, for one remote from one source port, side by side
    send   one sendmsg for a train (UDP_SEGMENT), one sendmmsg for a socket's trains

A super-frame is read into its final place.  The worker expects the headers and the
segment size of the last one, and gives the kernel a list of buffers with gaps: the
headers go to the first, each segment's payload behind the room for its own headers.
When the guess was right nothing is copied; when it was wrong, once.

Trains (worker_trains.pxi) are sent at the end of a batch.
"""

# -- reading -----------------------------------------------------------------------


cdef inline int offer_buffers(Encap *e, uint8_t *at, iovec *iov) noexcept nogil:
    """Where the next read shall go; how many buffers."""
    cdef uint32_t stride, offered
    cdef int count = 2
    iov[0].iov_base = &e.vnet
    iov[0].iov_len = VNET_HLEN
    iov[1].iov_base = at + wire.VXLAN_HLEN
    iov[1].iov_len = LONGEST
    if e.expect_mss == 0:
        return count
    stride = wire.VXLAN_HLEN + e.expect_headers + e.expect_mss
    offered = e.expect_headers + e.expect_mss
    iov[1].iov_len = offered
    while offered < LONGEST and count < READ_IOV:
        iov[count].iov_base = at + (count - 1) * stride + wire.VXLAN_HLEN + e.expect_headers
        iov[count].iov_len = e.expect_mss
        offered += e.expect_mss
        count += 1
    return count


cdef inline uint8_t *gather(Encap *e, const iovec *iov, int count, uint32_t length) noexcept nogil:
    """A frame that was read into pieces, in one piece."""
    cdef uint32_t at = 0, part
    cdef int which
    for which in range(1, count):
        if at >= length:
            break
        part = min32(length - at, <uint32_t>iov[which].iov_len)
        memcpy(e.spare + at, iov[which].iov_base, part)
        at += part
    return e.spare


cdef int read_frame(Encap *e, tables.Segment *segment, int tap) noexcept nogil:
    """Take one frame from a TAP: 1 taken, 0 none waits, -1 the TAP is gone."""
    cdef iovec iov[READ_IOV]
    cdef uint8_t *at = e.arena + e.used
    cdef int count = offer_buffers(e, at, iov)
    cdef ssize_t got = readv(tap, iov, count)
    cdef uint32_t length
    cdef bint scattered
    if got < VNET_HLEN:
        return -1 if got < 0 and is_lost(errno) else 0
    length = <uint32_t>got - VNET_HLEN
    if length > LONGEST:
        refuse_header(e, segment, 1)
        if sight_c.seldom(e.sight != NULL):
            see_unknown(e, segment, at + wire.VXLAN_HLEN, 0, tables.TAP_INVALID)
        return 1
    scattered = length > iov[1].iov_len
    if e.vnet.gso_type & 0x7F:
        take_super(e, segment, at, iov, count, length, scattered)
        return 1
    if scattered:
        memcpy(at + wire.VXLAN_HLEN, gather(e, iov, count, length), length)
    take_plain(e, segment, at, length)
    return 1


cdef inline void refuse_header(
    Encap *e, tables.Segment *segment, uint32_t packets
) noexcept nogil:
    """A virtio_net_hdr that contradicts its frame, or a frame that no packet can be."""
    tables.count_drop(
        e.shared.tables, &segment.tally, e.slot, tables.LOCAL, tables.TAP_INVALID, packets
    )


cdef inline uint64_t needed(const Super *whole) noexcept nogil:
    """Bytes of the arena that the segments of a super-frame take."""
    return <uint64_t>whole.count * (wire.VXLAN_HLEN + whole.headers) + whole.payload


cdef inline void take_plain(
    Encap *e, tables.Segment *segment, uint8_t *at, uint32_t length
) noexcept nogil:
    """One frame at `at` + 8, which is at most one packet."""
    cdef uint8_t *frame = at + wire.VXLAN_HLEN
    cdef datapath.Verdict verdict
    cdef int decided
    cdef uint32_t which, known = min32(length, sight_c.PEEK)
    if e.vnet.flags & NEEDS_CSUM and complete_checksum(
        frame, length, e.vnet.csum_start, e.vnet.csum_offset
    ) < 0:
        refuse_header(e, segment, 1)
        if sight_c.seldom(e.sight != NULL):
            see_unknown(e, segment, frame, length, tables.TAP_INVALID)
        return
    if sight_c.seldom(e.sight != NULL):
        memcpy(e.peek, frame, known)
    decided = datapath.encap_one(
        e.shared.tables, e.slot, segment, frame, length, length, e.now, &verdict
    )
    if decided == datapath.ASK:
        if punt(e.shared, PUNT_FRAME, segment.vni, 0, 0, frame, length):
            return
        decided = datapath.encap_further(  # nobody is free to answer: ask the others
            e.shared.tables, e.slot, segment, frame, length, length, e.now, &verdict
        )
    if decided == datapath.PUNT:
        leave_to_python(e, segment, frame, length)
    elif sight_c.seldom(e.sight != NULL):
        see_plain(
            e, segment, &verdict, verdict.reason if decided == datapath.DROPPED else -1, frame,
            length, known,
        )
    if decided != datapath.SEND:
        return
    datapath.count_sent(e.shared.tables, e.slot, segment, &verdict, 1, length)
    wire.vxlan_store(at, segment.vni)
    for which in range(verdict.count):
        put_segment(
            e, segment, &verdict, verdict.remotes[which], at, length + wire.VXLAN_HLEN
        )
    e.used += length + wire.VXLAN_HLEN


cdef inline void leave_to_python(
    Encap *e, tables.Segment *segment, const uint8_t *frame, uint32_t length
) noexcept nogil:
    if not punt(e.shared, PUNT_FRAME, segment.vni, 0, 0, frame, length):
        tables.count_drop(
            e.shared.tables, &segment.tally, e.slot, tables.LOCAL, tables.PKT_TOO_BIG, 1
        )
        if sight_c.seldom(e.sight != NULL):
            see_unknown(e, segment, frame, length, tables.PKT_TOO_BIG)


cdef void take_super(
    Encap *e, tables.Segment *segment, uint8_t *at, const iovec *iov, int count,
    uint32_t length, bint scattered,
) noexcept nogil:
    """Up to 64 KiB of one flow: decide once, split, and send all segments."""
    cdef uint8_t *frame = at + wire.VXLAN_HLEN
    cdef Super whole
    cdef datapath.Verdict verdict
    cdef int decided
    cdef uint32_t known = 0
    cdef uint64_t header = 0
    if sight_c.seldom(e.sight != NULL):
        known = peek_at(iov + 1, count - 1, length, e.peek)
    if understand(&e.vnet, frame, length, &whole) < 0 or whole.headers > iov[1].iov_len:
        refuse_super(e, segment, 1, iov, count, length, known)
        return
    if e.used + needed(&whole) > ARENA:
        refuse_super(e, segment, whole.count, iov, count, length, known)
        return
    decided = datapath.encap_further(
        e.shared.tables, e.slot, segment, frame, min32(length, whole.headers + whole.mss),
        min32(length, whole.headers + whole.mss), e.now, &verdict,
    )
    if sight_c.seldom(e.sight != NULL) and decided != datapath.PUNT:
        see_frame(
            e, segment, &verdict, verdict.reason if decided == datapath.DROPPED else -1,
            iov + 1, count - 1, length, known,
        )
    if decided == datapath.DROPPED:
        count_rest(e, segment, &whole)
        return
    wire.vxlan_store(<uint8_t *>&header, segment.vni)
    if scattered and whole.headers == e.expect_headers and whole.mss == e.expect_mss:
        lay_out(&whole, frame, header, at, True)
    else:
        if scattered:
            frame = gather(e, iov, count, length)
        else:
            memcpy(e.spare, frame, length)
            frame = e.spare
        lay_out(&whole, frame, header, at, False)
        if whole.mss >= 1000:
            e.expect_headers, e.expect_mss = whole.headers, whole.mss
    send_super(e, segment, at, &whole, &verdict, decided == datapath.PUNT)


cdef inline void refuse_super(
    Encap *e, tables.Segment *segment, uint32_t packets, const iovec *iov, int count,
    uint32_t length, uint32_t known,
) noexcept nogil:
    cdef datapath.Verdict nothing
    refuse_header(e, segment, packets)
    if sight_c.seldom(e.sight != NULL):
        see_frame(e, segment, &nothing, tables.TAP_INVALID, iov + 1, count - 1, length, known)


cdef inline void count_rest(
    Encap *e, tables.Segment *segment, const Super *whole
) noexcept nogil:
    """`encap_one` counted one discard for a super-frame; the other segments go with it."""
    cdef uint8_t *frame = e.arena + e.used + wire.VXLAN_HLEN
    cdef int reason = datapath.refuse_to_encap(segment, frame, whole.length)
    if reason < 0:
        reason = tables.NO_TX_TARGET
    tables.count_drop(
        e.shared.tables, &segment.tally, e.slot, tables.LOCAL, reason, whole.count - 1
    )


cdef inline void send_super(
    Encap *e, tables.Segment *segment, uint8_t *at, const Super *whole,
    const datapath.Verdict *verdict, bint too_big,
) noexcept nogil:
    cdef uint32_t stride = wire.VXLAN_HLEN + whole.headers + whole.mss
    cdef uint32_t number, which, length, rest = whole.payload
    for number in range(whole.count):
        length = wire.VXLAN_HLEN + whole.headers + min32(rest, whole.mss)
        rest -= min32(rest, whole.mss)
        if too_big:
            leave_to_python(
                e, segment, at + number * stride + wire.VXLAN_HLEN, length - wire.VXLAN_HLEN
            )
            continue
        for which in range(verdict.count):
            put_segment(
                e, segment, verdict, verdict.remotes[which], at + number * stride, length
            )
    if not too_big:
        datapath.count_sent(
            e.shared.tables, e.slot, segment, verdict, whole.count,
            <uint64_t>whole.count * whole.headers + whole.payload,
        )
        e.used += whole.count * (wire.VXLAN_HLEN + whole.headers) + whole.payload


# -- one batch ---------------------------------------------------------------------


cdef int drain_tap(Encap *e, uint32_t vni, int most) noexcept nogil:
    """Read and send one batch of a segment, up to `most` frames; how many."""
    cdef tables.Segment *segment = tables.segment_find(e.shared.tables, vni)
    cdef int taken = 0, outcome, tap
    if segment == NULL:
        return 0
    tap = segment.taps[e.slot // 2]
    if tap < 0:
        return 0
    while taken < most and e.used < ARENA_FULL and e.trains < SPARE_TRAINS:
        outcome = read_frame(e, segment, tap)
        if outcome < 0:
            lose_tap(e, segment)
            break
        if outcome == 0:
            break
        taken += 1
    if e.trains:
        send_trains(e)
    e.used = 0  # only here: until now trains may point anywhere into the arena
    return taken


cdef void lose_tap(Encap *e, tables.Segment *segment) noexcept nogil:
    """A TAP was deleted: let its queue go; the first worker to see it tells."""
    cdef bint known
    atomic.pthread_mutex_lock(&e.shared.tables.mutex)
    epoll_ctl(e.epoll, EPOLL_CTL_DEL, segment.taps[e.slot // 2], NULL)
    segment.taps[e.slot // 2] = -1
    known = segment.tap_lost
    segment.tap_lost = True
    if not known:
        tables.tell(
            e.shared.tables, tables.EV_TAP_LOST, e.now, segment.vni, NULL, fdb.NONE, fdb.NONE, 0
        )
    atomic.pthread_mutex_unlock(&e.shared.tables.mutex)
