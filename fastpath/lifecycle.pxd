"""How tables come and go: made whole, replaced whole, freed when nobody sees them.

Theory of operation
===================

A worker is at work (its round is odd) or rests (even).  Memory that was unpublished is
retired together with the rounds of that moment.  It is freed when each worker that was
at work then has since rested: whoever begins later finds only what is published.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from atomic cimport (
    full_fence, load_pointer, load_u64, pthread_mutex_destroy, pthread_mutex_init,
    store_pointer, store_u64,
)
from fdb cimport Fdb, fdb_free, fdb_new
from pages cimport pages_free, pages_new
from sight cimport release_sight
from tables cimport *


# -- retiring ----------------------------------------------------------------------


cdef inline void worker_begins(Tables *tables, int slot) noexcept nogil:
    """A worker takes up a batch: from now on it may hold pointers into the tables."""
    store_u64(&tables.rounds[slot], tables.rounds[slot] + 1)
    full_fence()


cdef inline void worker_rests(Tables *tables, int slot) noexcept nogil:
    """A worker holds nothing any more."""
    store_u64(&tables.rounds[slot], tables.rounds[slot] + 1)


cdef inline void retire(
    Tables *tables, void *memory, void (*release)(void *) noexcept nogil
) noexcept nogil:
    """Free memory that was unpublished, when no worker can see it any more."""
    cdef Retired *one
    cdef int slot
    if memory == NULL:
        return
    one = <Retired *>malloc(sizeof(Retired))
    if one == NULL:
        return  # lost, rather than freed under somebody's hands
    full_fence()
    one.memory = memory
    one.release = release
    for slot in range(SLOTS):
        one.rounds[slot] = load_u64(&tables.rounds[slot])
    one.next = tables.retired
    tables.retired = one


cdef inline bint is_over(Tables *tables, const Retired *one) noexcept nogil:
    """Whether every worker that was at work then has since rested."""
    cdef int slot
    for slot in range(SLOTS):
        if one.rounds[slot] & 1 and load_u64(&tables.rounds[slot]) == one.rounds[slot]:
            return False
    return True


cdef inline void free_retired(Tables *tables, bint all_of_them) noexcept nogil:
    cdef Retired **at = &tables.retired
    cdef Retired *one
    while at[0] != NULL:
        one = at[0]
        if all_of_them or is_over(tables, one):
            at[0] = one.next
            one.release(one.memory)
            free(one)
        else:
            at = &one.next


cdef inline void release_segment(void *memory) noexcept nogil:
    cdef Segment *segment = <Segment *>memory
    fdb_free(segment.fdb)
    free(segment.flood)
    free(segment.own)
    pages_free(segment.known, MAX_PEERS)
    pages_free(segment.learn_as, MAX_PEERS * sizeof(uint32_t))
    tally_clear(&segment.tally)
    free(segment)


cdef inline void release_fdb(void *memory) noexcept nogil:
    fdb_free(<Fdb *>memory)


cdef inline void release_plain(void *memory) noexcept nogil:
    free(memory)


# -- making and unmaking -----------------------------------------------------------


cdef inline Group *group_new(uint32_t count) noexcept nogil:
    cdef Group *group = <Group *>calloc(1, sizeof(Group) + count * sizeof(uint32_t))
    if group != NULL:
        group.count = count
    return group


cdef inline Macs *macs_new(uint32_t count) noexcept nogil:
    cdef Macs *macs = <Macs *>calloc(1, sizeof(Macs) + count * 6)
    if macs != NULL:
        macs.count = count
    return macs


cdef inline Tables *tables_new(uint64_t seed) noexcept nogil:
    """Empty tables; NULL without memory."""
    cdef Tables *tables = <Tables *>calloc(1, sizeof(Tables))
    if tables == NULL:
        return NULL
    pthread_mutex_init(&tables.mutex, NULL)
    tables.seed = seed
    tables.wake = -1
    tables.peer_count = FIRST_PEER
    tables.peers = <Peer *>pages_new(MAX_PEERS * sizeof(Peer))
    tables.peer_index = <uint32_t *>pages_new(PEER_SLOTS * sizeof(uint32_t))
    tables.remotes = <Far *>pages_new(MAX_REMOTES * sizeof(Far))
    tables.groups = <Group **>pages_new(MAX_GROUPS * sizeof(void *))
    tables.segments = <Segment **>calloc(SEGMENT_SLOTS, sizeof(void *))
    tables.ring = <CEvent *>calloc(RING, sizeof(CEvent))
    if (
        tables.peers == NULL or tables.peer_index == NULL or tables.remotes == NULL
        or tables.groups == NULL or tables.segments == NULL or tables.ring == NULL
        or not tally_init(&tables.tally)
    ):
        tables_free(tables)
        return NULL
    tables.peers[LOCAL].room = tables.peers[OTHER].room = UNBOUNDED
    return tables


cdef inline void tables_free(Tables *tables) noexcept nogil:
    """Everything.  No worker may be left."""
    cdef int at
    if tables == NULL:
        return
    free_retired(tables, True)
    if tables.segments != NULL:
        for at in range(SEGMENT_SLOTS):
            if tables.segments[at] != NULL:
                release_segment(tables.segments[at])
    if tables.groups != NULL:
        for at in range(<int>tables.group_count):
            free(tables.groups[at])
    tally_clear(&tables.tally)
    release_sight(tables.sight)
    pages_free(tables.peers, MAX_PEERS * sizeof(Peer))
    pages_free(tables.peer_index, PEER_SLOTS * sizeof(uint32_t))
    pages_free(tables.remotes, MAX_REMOTES * sizeof(Far))
    pages_free(tables.groups, MAX_GROUPS * sizeof(void *))
    free(tables.segments)
    free(tables.ring)
    pthread_mutex_destroy(&tables.mutex)
    free(tables)


cdef inline bint segment_add(
    Tables *tables, uint32_t vni, uint16_t port, uint32_t limit, double ageing, uint64_t seed
) noexcept nogil:
    """Put in a segment that is not there; False without memory."""
    cdef Segment *segment = <Segment *>calloc(1, sizeof(Segment))
    cdef int at
    if segment == NULL:
        return False
    segment.vni = vni
    segment.port = port
    for at in range(MAX_WORKERS):
        segment.taps[at] = -1
    segment.fdb = fdb_new(limit, ageing, seed)
    segment.flood = group_new(0)
    segment.known = <uint8_t *>pages_new(MAX_PEERS)
    segment.learn_as = <uint32_t *>pages_new(MAX_PEERS * sizeof(uint32_t))
    if (
        not tally_init(&segment.tally) or segment.fdb == NULL or segment.flood == NULL
        or segment.known == NULL or segment.learn_as == NULL
        or not publish_segments(tables, segment, NULL)
    ):
        release_segment(segment)
        return False
    return True


cdef inline void segment_remove(Tables *tables, Segment *segment) noexcept nogil:
    """Unpublish a segment; its memory goes when no worker sees it any more."""
    if publish_segments(tables, NULL, segment):
        retire(tables, segment, release_segment)


cdef inline bint publish_segments(Tables *tables, Segment *added, Segment *removed) noexcept nogil:
    """A new table of segments, with one more or one less; False without memory."""
    cdef Segment **old = tables.segments
    cdef Segment **new = <Segment **>calloc(SEGMENT_SLOTS, sizeof(void *))
    cdef int at, count = 0
    if new == NULL:
        return False
    for at in range(SEGMENT_SLOTS):
        if old[at] != NULL and old[at] != removed:
            place_segment(new, old[at])
            count += 1
    if added != NULL:
        if count >= MAX_SEGMENTS:
            free(new)
            return False
        place_segment(new, added)
    store_pointer(&tables.segments, new)
    retire(tables, old, release_plain)
    return True


cdef inline void place_segment(Segment **table, Segment *segment) noexcept nogil:
    cdef uint32_t slot = segment_slot(segment.vni)
    while table[slot] != NULL:
        slot = (slot + 1) & (SEGMENT_SLOTS - 1)
    table[slot] = segment


cdef inline bint total_of(Tally *tally, uint32_t peer, Counters *total) noexcept nogil:
    """Add a peer's counters over all slots; whether there were any."""
    cdef Counters *part
    cdef bint found = False
    cdef int slot, at
    memset(total, 0, sizeof(Counters))
    for slot in range(SLOTS):
        part = <Counters *>load_pointer(&tally.of[slot][peer])
        if part == NULL:
            continue
        found = True
        for at in range(COUNTS):
            total.counts[at] += part.counts[at]
        for at in range(DROPS):
            total.drops[at] += part.drops[at]
    return found
