"""The forwarding database in C memory: the twin of vxlan/fdb.py.

Theory of operation
===================

The rules are those of vxlan/fdb.py, to the entry that is evicted.  The layout is for
threads that look up for each packet and never wait:

    index    hash of the MAC -> number of an entry; open addressing, linear probing,
             at most half full
    entries  fixed places, 44 bytes; an entry never moves while it lives
    holders  by owner (the peer that an entry was learned from): its entries in order
             of age, a list through `older` and `newer`
    buckets  by number held: the holders that hold so many, in the order in which they
             came to it, a list through their `before` and `after`

One writer at a time: who writes holds the engine's mutex.  A reader takes none.  It
notes the table's sequence number, looks, and looks again if the number was odd or has
changed, which it does only when a station is new, moves or goes.  What refreshes an
entry (`updated`, `used`) is a plain store: nobody decides by half of it.

An entry costs 44 bytes, its place in the index 8 and its bucket 8.  All memory is
taken when the table is made; what is not used is never touched and costs nothing
(pages.pxd).

MACs are chosen by whoever forges frames, so the hash is seeded with a secret.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from atomic cimport load_u32, read_fence, store_u32, write_fence
from pages cimport pages_free, pages_new

cdef enum:
    NONE = 0xFFFFFFFF
    MAX_HOLDERS = 65536
    SPINS = 10000  # looks at a table that is being written before a reader gives up

    DYNAMIC = 0
    EXTERN_LEARN = 1
    STATIC = 2

    KNOWN = 0
    NEW = 1
    MOVED = 2
    CONTRADICTED = 3
    UNKEPT = 4
    REFUSED = 5


cdef packed struct Entry:
    double since
    double updated
    double used
    uint32_t target  # a remote, or a group of remotes (tables.pxd)
    uint32_t owner  # peer of the first remote
    uint32_t older
    uint32_t newer  # of a free place: the next free one
    uint8_t mac[6]
    uint8_t state
    uint8_t noted  # Python keeps the source and the shadowed claim of this entry


cdef struct Holder:
    uint32_t count
    uint32_t oldest
    uint32_t newest
    uint32_t before
    uint32_t after


cdef struct Bucket:
    uint32_t first
    uint32_t last


cdef struct Fdb:
    uint32_t sequence
    uint32_t limit
    uint32_t places
    uint32_t count
    uint32_t high  # places below it have been used
    uint32_t mask
    uint32_t free_list
    uint32_t most
    uint64_t seed
    double ageing
    uint32_t *index
    Entry *entries
    Holder *holders
    Bucket *buckets


# -- making -----------------------------------------------------------------------


cdef inline Fdb *fdb_new(uint32_t limit, double ageing, uint64_t seed) noexcept nogil:
    """A table for `limit` entries; NULL without memory."""
    cdef Fdb *fdb = <Fdb *>calloc(1, sizeof(Fdb))
    cdef uint64_t size = 16
    if fdb == NULL:
        return NULL
    while size < 2 * <uint64_t>limit:
        size *= 2
    fdb.limit = fdb.places = limit
    fdb.mask = <uint32_t>(size - 1)
    fdb.ageing = ageing
    fdb.seed = seed
    fdb.free_list = NONE
    fdb.index = <uint32_t *>pages_new(size * sizeof(uint32_t))
    fdb.entries = <Entry *>pages_new(entries_size(fdb))
    fdb.holders = <Holder *>pages_new(MAX_HOLDERS * sizeof(Holder))
    fdb.buckets = <Bucket *>pages_new(buckets_size(fdb))
    if fdb.index == NULL or fdb.entries == NULL or fdb.holders == NULL or fdb.buckets == NULL:
        fdb_free(fdb)
        return NULL
    return fdb


cdef inline void fdb_free(Fdb *fdb) noexcept nogil:
    if fdb != NULL:
        pages_free(fdb.index, (fdb.mask + <size_t>1) * sizeof(uint32_t))
        pages_free(fdb.entries, entries_size(fdb))
        pages_free(fdb.holders, MAX_HOLDERS * sizeof(Holder))
        pages_free(fdb.buckets, buckets_size(fdb))
        free(fdb)


cdef inline size_t entries_size(const Fdb *fdb) noexcept nogil:
    return (<size_t>fdb.limit + 1) * sizeof(Entry)


cdef inline size_t buckets_size(const Fdb *fdb) noexcept nogil:
    return (<size_t>fdb.limit + 1) * sizeof(Bucket)


# -- the index --------------------------------------------------------------------


cdef inline uint64_t mac_number(const uint8_t *mac) noexcept nogil:
    """Its bytes as one number, by two loads: six copied into eight are waited for."""
    cdef uint32_t first
    cdef uint16_t last
    memcpy(&first, mac, 4)
    memcpy(&last, mac + 4, 2)
    return <uint64_t>last << 32 | first


cdef inline uint32_t fdb_slot(const Fdb *fdb, uint64_t number) noexcept nogil:
    cdef uint64_t mixed = (number ^ fdb.seed) * 0x9E3779B97F4A7C15u
    mixed = (mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93u
    return <uint32_t>(mixed >> 32) & fdb.mask


cdef inline uint32_t fdb_find(const Fdb *fdb, const uint8_t *mac) noexcept nogil:
    """The place of an entry, or NONE.  Places in the index are stored plus one."""
    cdef uint64_t wanted = mac_number(mac)
    cdef uint32_t slot = fdb_slot(fdb, wanted)
    cdef uint32_t looked, place
    for looked in range(fdb.mask + 1):
        place = fdb.index[slot]
        if place == 0:
            return NONE
        if mac_number(fdb.entries[place - 1].mac) == wanted:
            return place - 1
        slot = (slot + 1) & fdb.mask
    return NONE


cdef inline bint fdb_lookup(Fdb *fdb, const uint8_t *mac, double now, uint32_t *target) noexcept nogil:
    """Where frames for `mac` go; any thread, no lock."""
    cdef uint32_t sequence, place
    cdef int tried
    for tried in range(SPINS):
        sequence = load_u32(&fdb.sequence)
        if sequence & 1:
            continue
        place = fdb_find(fdb, mac)
        if place != NONE:
            target[0] = fdb.entries[place].target
        read_fence()
        if load_u32(&fdb.sequence) == sequence:
            if place != NONE:
                fdb.entries[place].used = now
            return place != NONE
    return False


cdef inline bint fdb_peek(Fdb *fdb, const uint8_t *mac, Entry *entry) noexcept nogil:
    """A copy of an entry, for who only wants to know; any thread, no lock."""
    cdef uint32_t sequence, place
    cdef int tried
    for tried in range(SPINS):
        sequence = load_u32(&fdb.sequence)
        if sequence & 1:
            continue
        place = fdb_find(fdb, mac)
        if place != NONE:
            entry[0] = fdb.entries[place]
        read_fence()
        if load_u32(&fdb.sequence) == sequence:
            return place != NONE
    return False


cdef inline void fdb_begin(Fdb *fdb) noexcept nogil:
    """From here to `fdb_end` readers look again."""
    store_u32(&fdb.sequence, fdb.sequence + 1)
    write_fence()


cdef inline void fdb_end(Fdb *fdb) noexcept nogil:
    store_u32(&fdb.sequence, fdb.sequence + 1)


cdef inline void index_add(Fdb *fdb, uint32_t place) noexcept nogil:
    cdef uint32_t slot = fdb_slot(fdb, mac_number(fdb.entries[place].mac))
    while fdb.index[slot]:
        slot = (slot + 1) & fdb.mask
    fdb.index[slot] = place + 1


cdef inline void index_remove(Fdb *fdb, uint32_t place) noexcept nogil:
    """Take a place out, and move up those behind it that probed past it."""
    cdef uint32_t hole = fdb_slot(fdb, mac_number(fdb.entries[place].mac))
    cdef uint32_t at, home
    while fdb.index[hole] != place + 1:
        hole = (hole + 1) & fdb.mask
    at = hole
    while True:
        at = (at + 1) & fdb.mask
        if fdb.index[at] == 0:
            break
        home = fdb_slot(fdb, mac_number(fdb.entries[fdb.index[at] - 1].mac))
        if ((at - home) & fdb.mask) >= ((at - hole) & fdb.mask):
            fdb.index[hole] = fdb.index[at]
            hole = at
    fdb.index[hole] = 0


# -- who holds how many (vxlan/fdb.py, _Holdings) ------------------------------------


cdef inline void bucket_append(Fdb *fdb, uint32_t owner) noexcept nogil:
    cdef Holder *holder = &fdb.holders[owner]
    cdef Bucket *bucket = &fdb.buckets[holder.count]
    holder.after = NONE
    holder.before = NONE
    if holder.count == 0:
        return
    if bucket.first == 0:  # empty; owners are stored plus one
        bucket.first = owner + 1
    else:
        holder.before = bucket.last - 1
        fdb.holders[bucket.last - 1].after = owner
    bucket.last = owner + 1
    if holder.count > fdb.most:
        fdb.most = holder.count


cdef inline void bucket_take(Fdb *fdb, uint32_t owner) noexcept nogil:
    cdef Holder *holder = &fdb.holders[owner]
    cdef Bucket *bucket = &fdb.buckets[holder.count]
    if holder.count == 0:
        return
    if holder.before == NONE:
        bucket.first = 0 if holder.after == NONE else holder.after + 1
    else:
        fdb.holders[holder.before].after = holder.after
    if holder.after == NONE:
        bucket.last = 0 if holder.before == NONE else holder.before + 1
    else:
        fdb.holders[holder.after].before = holder.before


cdef inline void recount(Fdb *fdb, uint32_t owner, int change) noexcept nogil:
    bucket_take(fdb, owner)
    fdb.holders[owner].count += change
    bucket_append(fdb, owner)
    while fdb.most and fdb.buckets[fdb.most].first == 0:
        fdb.most -= 1


cdef inline void age_append(Fdb *fdb, uint32_t place) noexcept nogil:
    cdef Entry *entry = &fdb.entries[place]
    cdef Holder *holder = &fdb.holders[entry.owner]
    entry.newer = NONE
    entry.older = NONE
    if holder.newest:  # places are stored plus one
        entry.older = holder.newest - 1
        fdb.entries[holder.newest - 1].newer = place
    else:
        holder.oldest = place + 1
    holder.newest = place + 1


cdef inline void age_take(Fdb *fdb, uint32_t place) noexcept nogil:
    cdef Entry *entry = &fdb.entries[place]
    cdef Holder *holder = &fdb.holders[entry.owner]
    if entry.older == NONE:
        holder.oldest = 0 if entry.newer == NONE else entry.newer + 1
    else:
        fdb.entries[entry.older].newer = entry.newer
    if entry.newer == NONE:
        holder.newest = 0 if entry.older == NONE else entry.older + 1
    else:
        fdb.entries[entry.newer].older = entry.older


cdef inline uint32_t oldest_of_fullest(const Fdb *fdb) noexcept nogil:
    """The place that makes room; NONE if nothing was learned."""
    if fdb.most == 0:
        return NONE
    return fdb.holders[fdb.buckets[fdb.most].first - 1].oldest - 1


# -- entries; the caller holds the mutex ---------------------------------------------


cdef inline uint32_t fdb_put(
    Fdb *fdb, const uint8_t *mac, uint32_t target, uint32_t owner, uint8_t state, double now
) noexcept nogil:
    """Put in an entry that is not there; there is room.  Its place."""
    cdef uint32_t place = fdb.free_list
    cdef Entry *entry
    if place == NONE:
        place = fdb.high
        fdb.high += 1
    else:
        fdb.free_list = fdb.entries[place].newer
    entry = &fdb.entries[place]
    memcpy(entry.mac, mac, 6)
    entry.target = target
    entry.owner = owner
    entry.state = state
    entry.noted = 0
    entry.since = entry.updated = now
    entry.used = 0
    fdb.count += 1
    index_add(fdb, place)
    if state == DYNAMIC:
        age_append(fdb, place)
        recount(fdb, owner, 1)
    return place


cdef inline void fdb_forget(Fdb *fdb, uint32_t place) noexcept nogil:
    cdef Entry *entry = &fdb.entries[place]
    index_remove(fdb, place)
    if entry.state == DYNAMIC:
        age_take(fdb, place)
        recount(fdb, entry.owner, -1)
    fdb.count -= 1
    entry.newer = fdb.free_list
    fdb.free_list = place


cdef inline void fdb_refresh(Fdb *fdb, uint32_t place, double now) noexcept nogil:
    fdb.entries[place].updated = now
    if fdb.entries[place].state == DYNAMIC:
        age_take(fdb, place)
        age_append(fdb, place)


cdef inline void fdb_copy(Fdb *target, const Fdb *source) noexcept nogil:
    """Fill an empty, larger table: same entries, same order of age, same order of holders."""
    cdef uint32_t slot, count, owner, place
    for slot in range(source.mask + 1):
        if source.index[slot] and source.entries[source.index[slot] - 1].state != DYNAMIC:
            copy_entry(target, &source.entries[source.index[slot] - 1])
    for count in range(1, source.most + 1):
        owner = source.buckets[count].first - 1
        while owner != NONE:
            place = source.holders[owner].oldest - 1
            while place != NONE:
                copy_entry(target, &source.entries[place])
                place = source.entries[place].newer
            owner = source.holders[owner].after


cdef inline void copy_entry(Fdb *target, const Entry *entry) noexcept nogil:
    cdef uint32_t place = fdb_put(
        target, entry.mac, entry.target, entry.owner, entry.state, entry.since
    )
    target.entries[place].updated = entry.updated
    target.entries[place].used = entry.used
    target.entries[place].noted = entry.noted
