# Included by _fastpath.pyx.  Captures: what is seen without input and output, and taking
# what was seen anywhere.  Slot 0 is the event loop's thread.


cdef void see_encapped(
    tables.Tables *known, tables.Segment *segment, const datapath.Verdict *verdict, int reason,
    const uint8_t *frame, const uint8_t *after, uint32_t length, double now,
) noexcept:
    """A frame of the in-memory path: as it came, and as it is `after` the decision."""
    cdef sight_c.Sight *sight = <sight_c.Sight *>known.sight
    cdef sight_c.Record record
    cdef tables.Far *far
    cdef iovec piece
    cdef uint32_t count = verdict.count if reason < 0 else 0
    cdef uint32_t peek = min32(length, sight_c.PEEK)
    if not sight_c.cares(sight, sight_c.TAP_IN, reason):
        return
    sight_c.record_begin(&record, sight_c.TAP_IN, segment.vni, reason)
    record.length = length
    record.targets = count
    if count:
        far = &known.remotes[verdict.remotes[0]]
        sight_c.name_remote(known, &record, far.peer, far.port)
        sight_c.tell_found(&record, segment.fdb, frame, verdict.flooded, now)
        record.flags = sight_c.CHANGED if memcmp(frame, after, peek) != 0 else 0
    piece.iov_base = <void *>frame
    piece.iov_len = length
    sight_c.see(
        known, sight, 0, &record, frame, peek, &piece, 1, verdict.remotes if count else NULL, count,
    )


cdef void see_decapped(
    tables.Tables *known, uint32_t peer, uint16_t port, const uint8_t *payload,
    const uint8_t *after, uint32_t length, uint8_t tos, int reason,
) noexcept:
    """A datagram of the in-memory path."""
    cdef sight_c.Sight *sight = <sight_c.Sight *>known.sight
    cdef sight_c.Record record
    cdef iovec piece
    if not sight_c.cares(sight, sight_c.UNDERLAY_IN, reason):
        return
    sight_c.record_begin(&record, sight_c.UNDERLAY_IN, sight_c.vni_in(payload, length), reason)
    sight_c.name_remote(known, &record, peer, port)
    record.length = length
    record.tos = tos
    if reason < 0 and memcmp(payload, after, length) != 0:
        record.flags = sight_c.CHANGED
    piece.iov_base = <void *>payload
    piece.iov_len = length
    sight_c.see(
        known, sight, 0, &record, payload, min32(length, sight_c.PEEK), &piece, 1, NULL, 0,
    )


def see_packets(
    Core core not None, vni: int | None, bytes mac not None, bytes ip not None,
    bytes remote not None, bint drops, int side, uint32_t snaplen,
) -> None:
    """Record packets from now on (vxlan/sight.py); an empty mac, ip or remote: any.

    Side 0 is both, 1 the TAPs, 2 the underlay.  Raises ValueError and MemoryError.
    """
    cdef sight_c.Filter filter
    if len(mac) not in (0, 6) or len(ip) not in (0, 4, 16) or len(remote) not in (0, 4, 16):
        raise ValueError("a MAC has 6 bytes, an address 4 or 16")
    memset(&filter, 0, sizeof(filter))
    filter.vni = sight_c.NO_VNI if vni is None else vni
    filter.drops, filter.side, filter.snaplen = drops, side, snaplen
    filter.has_mac = len(mac) > 0
    filter.ip_family = {0: 0, 4: 4, 16: 6}[len(ip)]
    filter.remote_family = {0: 0, 4: 4, 16: 6}[len(remote)]
    memcpy(filter.mac, start_of(mac), len(mac))
    memcpy(filter.ip, start_of(ip), len(ip))
    memcpy(filter.remote, start_of(remote), len(remote))
    made = sight_c.sight_new(&filter)
    if made == NULL:
        raise MemoryError("no memory for a capture")
    publish_sight(core, made)


def see_nothing(Core core not None) -> None:
    """Record no more; what was not taken is gone."""
    publish_sight(core, NULL)


cdef publish_sight(Core core, sight_c.Sight *made):
    cdef void *old = core.state.sight
    atomic.store_pointer(&core.state.sight, made)
    if old != NULL:
        lifecycle.retire(core.state, old, sight_c.release_sight)


def put_seen(Core core not None, bytes record not None) -> bool:
    """Keep a record that Python made; False if there is no room, or nobody watches."""
    cdef sight_c.Sight *sight = <sight_c.Sight *>core.state.sight
    cdef sight_c.Ring *ring
    cdef uint32_t size = 0
    if sight == NULL:
        return False
    if len(record) < sight_c.HEAD or len(record) % 8:
        raise ValueError(f"{len(record)} bytes are no record")
    memcpy(&size, start_of(record), 4)
    if size != len(record):
        raise ValueError(f"a record of {size} bytes has {len(record)}")
    ring = &sight.rings[0]
    if not sight_c.ring_has_room(ring, size):
        return False
    sight_c.ring_put(ring, ring.head, start_of(record), size)
    atomic.store_u64(&ring.head, ring.head + size)
    return True


def take_seen(Core core not None, uint64_t until, Py_ssize_t most) -> tuple[bytes, int, int]:
    """Records in the order of their times, none younger than `until` (nanoseconds since
    1970), at most so many bytes; how many these are; and how many found no room."""
    cdef sight_c.Sight *sight = <sight_c.Sight *>core.state.sight
    cdef uint64_t packets = 0
    cdef bytes found
    cdef size_t size
    if sight == NULL:
        return b"", 0, 0
    found = PyBytes_FromStringAndSize(NULL, most)
    size = sight_c.take(sight, until, <uint8_t *>PyBytes_AS_STRING(found), most, &packets)
    return found[:size], packets, sight_c.take_lost(sight)
