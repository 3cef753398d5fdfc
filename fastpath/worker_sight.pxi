# Included by _fastpath.pyx.  Where the workers are watched: on each side, each way.
#
# These are called only while somebody captures (`sight` is not NULL).


cdef inline uint32_t peek_at(
    const iovec *iov, int parts, uint32_t length, uint8_t *peek
) noexcept nogil:
    """The first bytes of a packet that lies in pieces; how many."""
    cdef uint32_t known = min32(length, sight_c.PEEK), at = 0, part
    cdef int which
    for which in range(parts):
        part = min32(<uint32_t>iov[which].iov_len, known - at)
        memcpy(peek + at, iov[which].iov_base, part)
        at += part
    return at


cdef void see_frame(
    Encap *e, const tables.Segment *segment, const datapath.Verdict *verdict, int reason,
    const iovec *iov, int parts, uint32_t length, uint32_t known,
) noexcept nogil:
    """A frame from a TAP, whose first bytes are in `e.peek`; -1: it goes on."""
    cdef sight_c.Record record
    cdef tables.Far *far
    cdef uint32_t count = verdict.count if reason < 0 else 0
    if not sight_c.cares(e.sight, sight_c.TAP_IN, reason):
        return
    sight_c.record_begin(&record, sight_c.TAP_IN, segment.vni, reason)
    record.length = length
    record.targets = count
    if count:
        far = &e.shared.tables.remotes[verdict.remotes[0]]
        sight_c.name_remote(e.shared.tables, &record, far.peer, far.port)
        sight_c.tell_found(
            &record, <fdb.Fdb *>atomic.load_pointer(<void *>&segment.fdb), e.peek,
            verdict.flooded, e.now,
        )
        if memcmp(e.peek, iov[0].iov_base, min32(known, <uint32_t>iov[0].iov_len)) != 0:
            record.flags = sight_c.CHANGED
    sight_c.see(
        e.shared.tables, e.sight, e.slot, &record, e.peek, known, iov, parts,
        verdict.remotes if count else NULL, count,
    )


cdef void see_plain(
    Encap *e, const tables.Segment *segment, const datapath.Verdict *verdict, int reason,
    const uint8_t *frame, uint32_t length, uint32_t known,
) noexcept nogil:
    """As `see_frame`, of a frame in one piece."""
    cdef iovec piece
    piece.iov_base = <void *>frame
    piece.iov_len = length
    see_frame(e, segment, verdict, reason, &piece, 1, length, known)


cdef void see_unknown(
    Encap *e, const tables.Segment *segment, const uint8_t *frame, uint32_t length, int reason
) noexcept nogil:
    """A frame from a TAP about which nothing was decided but that it is dropped."""
    cdef datapath.Verdict nothing
    cdef uint32_t known = min32(length, sight_c.PEEK)
    memcpy(e.peek, frame, known)
    see_plain(e, segment, &nothing, reason, frame, length, known)


cdef void see_sent(
    Encap *e, const tables.Segment *segment, uint32_t remote, uint16_t srcport, uint8_t tos,
    uint8_t ttl, uint8_t *payload, uint32_t length, int reason,
) noexcept nogil:
    """A datagram that the kernel took, or did not."""
    cdef sight_c.Record record
    cdef tables.Far *far = &e.shared.tables.remotes[remote]
    cdef iovec piece
    if not sight_c.cares(e.sight, sight_c.UNDERLAY_OUT, reason):
        return
    sight_c.record_begin(&record, sight_c.UNDERLAY_OUT, segment.vni, reason)
    sight_c.name_remote(e.shared.tables, &record, far.peer, far.port)
    record.length = length
    record.srcport, record.tos, record.ttl = srcport, tos, ttl
    piece.iov_base = payload
    piece.iov_len = length
    sight_c.see(
        e.shared.tables, e.sight, e.slot, &record, payload, min32(length, sight_c.PEEK),
        &piece, 1, NULL, 0,
    )


cdef void see_piece(
    Encap *e, const Train *train, uint8_t *payload, uint32_t length, int reason
) noexcept nogil:
    cdef int family = 1 if e.shared.tables.peers[e.shared.tables.remotes[train.remote].peer].family == 6 else 0
    see_sent(
        e, train.segment, train.remote, e.ports[family][train.slot], train.tos, train.ttl,
        payload, length, reason,
    )


cdef void see_train(Encap *e, const Train *train, int reason) noexcept nogil:
    """All datagrams of a train."""
    cdef int part
    cdef size_t at, length
    for part in range(train.parts):
        at = 0
        while at < train.iov[part].iov_len:
            length = train.iov[part].iov_len - at
            if length > train.size:
                length = train.size
            see_piece(e, train, <uint8_t *>train.iov[part].iov_base + at, <uint32_t>length, reason)
            at += length


cdef void see_trains(Encap *e, int first, int count) noexcept nogil:
    """The trains of messages that the kernel took."""
    cdef int which
    for which in range(first, first + count):
        see_train(e, &e.train[e.order[which]], -1)


cdef void see_datagram(
    Decap *d, uint32_t peer, uint8_t *payload, uint32_t length, uint8_t tos, int reason
) noexcept nogil:
    """A datagram from the underlay, whose first bytes are in `d.peek`; -1: it goes on."""
    cdef sight_c.Record record
    cdef iovec piece
    cdef uint32_t known = min32(length, sight_c.PEEK)
    if not sight_c.cares(d.sight, sight_c.UNDERLAY_IN, reason):
        return
    sight_c.record_begin(
        &record, sight_c.UNDERLAY_IN, sight_c.vni_in(d.peek, known), reason
    )
    sight_c.name_remote(d.shared.tables, &record, peer, d.port)
    record.length = length
    record.tos = tos
    if reason < 0 and memcmp(d.peek, payload, known) != 0:
        record.flags = sight_c.CHANGED
    piece.iov_base = payload
    piece.iov_len = length
    sight_c.see(
        d.shared.tables, d.sight, d.slot, &record, d.peek, known, &piece, 1, NULL, 0
    )


cdef void see_written(
    Delivery *delivery, const iovec *iov, int parts, uint32_t packets, int reason
) noexcept nogil:
    """A frame that a TAP took, or did not; `iov` without its virtio_net_hdr."""
    cdef sight_c.Record record
    cdef uint8_t peek[sight_c.PEEK]
    cdef uint32_t length = 0, known
    cdef int which
    if not sight_c.cares(delivery.sight, sight_c.TAP_OUT, reason):
        return
    for which in range(parts):
        length += <uint32_t>iov[which].iov_len
    known = peek_at(iov, parts, length, peek)
    sight_c.record_begin(&record, sight_c.TAP_OUT, delivery.segment.vni, reason)
    sight_c.name_remote(delivery.shared.tables, &record, delivery.peer, delivery.port)
    record.length = length
    record.targets = packets
    sight_c.see(
        delivery.shared.tables, delivery.sight, delivery.slot, &record, peek, known, iov, parts,
        NULL, 0,
    )
