"""What is seen of packets while somebody captures: the twin of vxlan/sight.py.

Theory of operation
===================

    worker  --see-->  ring of its slot  --take-->  the event loop's thread

A `Sight` is published by one pointer, `Tables.sight`.  Without one, which is the rule,
a worker reads NULL once for each batch and asks no more than that for each packet.
With one, it compares the packet with the filter, and copies what is wanted into the
ring of its slot, in the very layout that goes out on the control socket.

A ring has one writer, the thread that has the slot, and one reader; so it needs no
lock.  `head` and `tail` only grow; the writer publishes a record by `head`, the reader
gives its room back by `tail`.  When there is no room the record is counted as lost.
Nobody waits.  A slot's thread may change (worker_loop.pxi): it hands over with a fence.

Another filter is another Sight, and the old one is retired like everything else that
is replaced as a whole (lifecycle.pxd).

What came in is recorded when it is known what became of it.  By then its headers may
have been changed where they lie, so whoever looks keeps its first PEEK bytes before.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from atomic cimport load_u64, store_u64
from fdb cimport Entry, Fdb, fdb_peek
from linux cimport CLOCK_REALTIME, clock_gettime, iovec, timespec
from tables cimport SLOTS, Peer, Tables
from wire cimport ETH_HLEN, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, I_FLAG, VXLAN_HLEN, ethertype_at

cdef extern from *:
    """
    #define fastpath_seldom(condition) __builtin_expect(!!(condition), 0)
    """
    bint seldom "fastpath_seldom"(bint condition) noexcept nogil

cdef enum:
    RING_BYTES = 1 << 22
    RING_MASK = RING_BYTES - 1
    HEAD = 64
    PEEK = 256  # bytes in which every header that matters lies
    ARP_HLEN = 28

    NO_VNI = 0xFFFFFFFF
    NO_AGE = 0xFFFFFFFF
    CLOCK_STEP = 1000000000  # ns: records that are younger by more come from before a step back
    NO_REASON = 255

    TAP_IN = 0
    UNDERLAY_OUT = 1
    UNDERLAY_IN = 2
    TAP_OUT = 3

    FOUND_NOT = 0
    FOUND_DYNAMIC = 1  # and the states above it, each plus one
    FOUND_FLOOD = 4

    CHANGED = 1

    BOTH = 0
    INNER = 1
    OUTER = 2


cdef struct Filter:
    uint32_t vni  # NO_VNI: any
    uint32_t snaplen
    uint8_t side
    uint8_t drops
    uint8_t has_mac
    uint8_t ip_family  # 0: any
    uint8_t remote_family  # 0: any
    uint8_t mac[6]
    uint8_t ip[16]
    uint8_t remote[16]


cdef struct Record:
    uint32_t size
    uint8_t where
    uint8_t reason
    uint8_t found
    uint8_t flags
    uint64_t when
    uint32_t vni
    uint32_t length
    uint32_t kept
    uint32_t age
    uint32_t targets
    uint16_t port
    uint16_t srcport
    uint8_t family
    uint8_t tos
    uint8_t ttl
    uint8_t spare
    uint8_t address[16]
    uint32_t spare_too


cdef struct Ring:
    uint8_t *octets
    uint64_t head
    uint64_t tail
    uint64_t lost
    uint64_t told


cdef struct Sight:
    Filter filter
    Ring rings[SLOTS]


# -- making ------------------------------------------------------------------------


cdef inline Sight *sight_new(const Filter *filter) noexcept nogil:
    """An empty one; NULL without memory.  The kernel gives what is touched."""
    cdef Sight *sight = <Sight *>calloc(1, sizeof(Sight))
    cdef int slot
    if sight == NULL:
        return NULL
    sight.filter = filter[0]
    for slot in range(SLOTS):
        sight.rings[slot].octets = <uint8_t *>malloc(RING_BYTES)
        if sight.rings[slot].octets == NULL:
            release_sight(sight)
            return NULL
    return sight


cdef inline void release_sight(void *memory) noexcept nogil:
    cdef Sight *sight = <Sight *>memory
    cdef int slot
    if sight != NULL:
        for slot in range(SLOTS):
            free(sight.rings[slot].octets)
        free(sight)


# -- what is wanted ----------------------------------------------------------------


cdef inline void record_begin(Record *record, uint8_t where, uint32_t vni, int reason) noexcept nogil:
    """A record that says no more than this."""
    memset(record, 0, sizeof(Record))
    record.where = where
    record.vni = vni
    record.reason = NO_REASON if reason < 0 else <uint8_t>reason
    record.age = NO_AGE
    record.targets = 1


cdef inline void name_remote(
    const Tables *tables, Record *record, uint32_t peer, uint16_t port
) noexcept nogil:
    cdef const Peer *one = &tables.peers[peer]
    record.family = one.family
    record.port = port
    memcpy(record.address, one.address, 16)


cdef inline bint is_inner(uint8_t where) noexcept nogil:
    return where == TAP_IN or where == TAP_OUT


cdef inline bint cares(const Sight *sight, uint8_t where, int reason) noexcept nogil:
    """Whether it is worth while to look at a packet: the cheap half of `wants`, first."""
    if sight.filter.drops and reason < 0:
        return False
    return not sight.filter.side or (sight.filter.side == INNER) == is_inner(where)


cdef inline bint wants(
    const Tables *tables, const Filter *filter, const Record *record, const uint8_t *peek,
    uint32_t known, const uint32_t *remotes, uint32_t count,
) noexcept nogil:
    """Whether a packet that one cares for matches; `remotes` are all that it goes to."""
    if filter.vni != NO_VNI and filter.vni != record.vni:
        return False
    if filter.remote_family and not names(tables, filter, record, remotes, count):
        return False
    if not filter.has_mac and not filter.ip_family:
        return True
    if is_inner(record.where):
        return in_frame(filter, peek, known)
    if known < VXLAN_HLEN or not peek[0] & I_FLAG:
        return False
    return in_frame(filter, peek + VXLAN_HLEN, known - VXLAN_HLEN)


cdef inline bint names(
    const Tables *tables, const Filter *filter, const Record *record, const uint32_t *remotes,
    uint32_t count,
) noexcept nogil:
    cdef const Peer *peer
    cdef uint32_t at
    if count == 0:
        return record.family == filter.remote_family and memcmp(record.address, filter.remote, 16) == 0
    for at in range(count):
        peer = &tables.peers[tables.remotes[remotes[at]].peer]
        if peer.family == filter.remote_family and memcmp(peer.address, filter.remote, 16) == 0:
            return True
    return False


cdef inline bint in_frame(const Filter *filter, const uint8_t *frame, uint32_t length) noexcept nogil:
    """Whether the MAC and the address that are wanted are in a frame."""
    cdef uint32_t l3
    cdef uint16_t ethertype
    if length < ETH_HLEN:
        return False
    if filter.has_mac and memcmp(frame, filter.mac, 6) and memcmp(frame + 6, filter.mac, 6):
        return False
    if not filter.ip_family:
        return True
    ethertype = ethertype_at(frame, length, &l3)
    if filter.ip_family == 6:
        return (
            ethertype == ETH_P_IPV6 and length >= l3 + 40
            and one_of(frame + l3 + 8, frame + l3 + 24, filter.ip, 16)
        )
    if ethertype == ETH_P_IP:
        return length >= l3 + 20 and one_of(frame + l3 + 12, frame + l3 + 16, filter.ip, 4)
    return (
        ethertype == ETH_P_ARP and length >= l3 + ARP_HLEN
        and one_of(frame + l3 + 14, frame + l3 + 24, filter.ip, 4)
    )


cdef inline bint one_of(
    const uint8_t *one, const uint8_t *other, const uint8_t *wanted, size_t size
) noexcept nogil:
    return memcmp(one, wanted, size) == 0 or memcmp(other, wanted, size) == 0


# -- writing -----------------------------------------------------------------------


cdef inline uint64_t real_time() noexcept nogil:
    """Nanoseconds since 1970."""
    cdef timespec moment
    clock_gettime(CLOCK_REALTIME, &moment)
    return <uint64_t>moment.tv_sec * 1000000000u + <uint64_t>moment.tv_nsec


cdef inline void ring_put(Ring *ring, uint64_t at, const void *source, size_t size) noexcept nogil:
    cdef size_t place = at & RING_MASK
    cdef size_t first = size if size <= RING_BYTES - place else RING_BYTES - place
    memcpy(ring.octets + place, source, first)
    memcpy(ring.octets, <const uint8_t *>source + first, size - first)


cdef inline bint ring_has_room(Ring *ring, uint64_t size) noexcept nogil:
    return ring.head + size - load_u64(&ring.tail) <= RING_BYTES


cdef inline uint32_t see(
    const Tables *tables, Sight *sight, int slot, Record *record, const uint8_t *peek,
    uint32_t known, const iovec *iov, int parts, const uint32_t *remotes, uint32_t count,
) noexcept nogil:
    """Keep a packet if it is wanted; bytes that were kept.

    `peek` are its first `known` bytes as they came, min(length, PEEK) of them, and `iov`
    all of it, of which the first may have been changed since.  `record` says the rest.
    """
    cdef Ring *ring = &sight.rings[slot]
    cdef uint64_t at
    cdef uint32_t left, part, skip = known
    cdef int which
    if not wants(tables, &sight.filter, record, peek, known, remotes, count):
        return 0
    record.kept = min_of(record.length, sight.filter.snaplen)
    record.size = HEAD + record.kept + (8 - record.kept % 8) % 8
    if not ring_has_room(ring, record.size):
        store_u64(&ring.lost, ring.lost + 1)
        return 0
    record.when = real_time()
    ring_put(ring, ring.head, record, HEAD)
    at = ring.head + HEAD
    left = min_of(known, record.kept)
    ring_put(ring, at, peek, left)
    at += left
    left = record.kept - left
    for which in range(parts):
        if left == 0:
            break
        part = <uint32_t>iov[which].iov_len
        if skip >= part:
            skip -= part
            continue
        part = min_of(part - skip, left)
        ring_put(ring, at, <const uint8_t *>iov[which].iov_base + skip, part)
        at += part
        left -= part
        skip = 0
    store_u64(&ring.head, ring.head + record.size)
    return record.kept


cdef inline uint32_t min_of(uint32_t one, uint32_t other) noexcept nogil:
    return one if one < other else other


cdef inline void tell_found(
    Record *record, Fdb *fdb, const uint8_t *mac, bint flooded, double now
) noexcept nogil:
    """How the target of a frame was found, and since when."""
    cdef Entry entry
    cdef double age
    if flooded:
        record.found = FOUND_FLOOD
        return
    record.found = FOUND_DYNAMIC
    if fdb_peek(fdb, mac, &entry):
        record.found = FOUND_DYNAMIC + entry.state
        age = (now - entry.since) * 1000
        record.age = 0 if age <= 0 else <uint32_t>age if age < NO_AGE else NO_AGE - 1


cdef inline uint32_t vni_in(const uint8_t *payload, uint32_t length) noexcept nogil:
    """The VNI that a UDP payload names."""
    if length < VXLAN_HLEN or not payload[0] & I_FLAG:
        return NO_VNI
    return <uint32_t>payload[4] << 16 | <uint32_t>payload[5] << 8 | payload[6]


# -- reading: one thread -----------------------------------------------------------


cdef inline bint ring_peek(Ring *ring, Record *record) noexcept nogil:
    """The oldest record of a ring; False if there is none."""
    if load_u64(&ring.head) == ring.tail:
        return False
    ring_get(ring, ring.tail, record, HEAD)
    return True


cdef inline void ring_get(Ring *ring, uint64_t at, void *to, size_t size) noexcept nogil:
    cdef size_t place = at & RING_MASK
    cdef size_t first = size if size <= RING_BYTES - place else RING_BYTES - place
    memcpy(to, ring.octets + place, first)
    memcpy(<uint8_t *>to + first, ring.octets, size - first)


cdef inline size_t take(
    Sight *sight, uint64_t until, uint8_t *to, size_t room, uint64_t *packets
) noexcept nogil:
    """Records of all rings in the order of their times, none younger than `until`; bytes."""
    cdef Record oldest[SLOTS]
    cdef bint waits[SLOTS]
    cdef size_t done = 0
    cdef int slot, best
    for slot in range(SLOTS):
        waits[slot] = ring_peek(&sight.rings[slot], &oldest[slot])
    while True:
        best = -1
        for slot in range(SLOTS):
            if waits[slot] and (best < 0 or oldest[slot].when < oldest[best].when):
                best = slot
        # A wall clock that was set back must not hold up what is in the rings.
        if best < 0 or until < oldest[best].when < until + CLOCK_STEP or done + oldest[best].size > room:
            return done
        ring_get(&sight.rings[best], sight.rings[best].tail, to + done, oldest[best].size)
        done += oldest[best].size
        packets[0] += 1
        store_u64(&sight.rings[best].tail, sight.rings[best].tail + oldest[best].size)
        waits[best] = ring_peek(&sight.rings[best], &oldest[best])


cdef inline uint64_t take_lost(Sight *sight) noexcept nogil:
    """How many records found no room since the last call."""
    cdef uint64_t lost, total = 0
    cdef int slot
    for slot in range(SLOTS):
        lost = load_u64(&sight.rings[slot].lost)
        total += lost - sight.rings[slot].told
        sight.rings[slot].told = lost
    return total
