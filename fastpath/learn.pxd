"""What changes a forwarding database: data, an operator, time (vxlan/fdb.py).

Theory of operation
===================

A worker learns from each datagram.  Mostly there is nothing to do: the station is
known, where it was, and was seen within the last second.  `recently_seen` finds that
out without the mutex.  For everything else the mutex is taken, the table is looked at
again, and readers are kept away by its sequence number while an entry comes or goes.

What the event loop's thread writes goes the same way.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc

from atomic cimport (
    load_pointer, load_u32, pthread_mutex_lock, pthread_mutex_unlock, read_fence, store_pointer,
)
from fdb cimport (
    CONTRADICTED, DYNAMIC, KNOWN, MOVED, NEW, NONE, REFUSED, STATIC, UNKEPT, Entry, Fdb,
    fdb_begin, fdb_copy, fdb_end, fdb_find, fdb_forget, fdb_new, fdb_put, fdb_refresh,
    oldest_of_fullest,
)
from lifecycle cimport release_fdb, retire
from tables cimport *


cdef inline uint32_t learn_remote(Tables *tables, Segment *segment, uint32_t peer) noexcept nogil:
    """The remote at a peer: as the flood list has it, else at the segment's own port."""
    cdef uint32_t remote = segment.learn_as[peer]
    if remote:
        return remote - 1
    pthread_mutex_lock(&tables.mutex)
    remote = remote_add(tables, peer, segment.port)
    if remote != NONE:
        segment.learn_as[peer] = remote + 1
    pthread_mutex_unlock(&tables.mutex)
    return remote


# -- learning (vxlan/fdb.py, Fdb.learn) ----------------------------------------------


cdef inline int learn(
    Tables *tables, int slot, Segment *segment, const uint8_t *mac, uint32_t peer,
    uint32_t remote, double now,
) noexcept nogil:
    """A frame from `mac` came from a peer.  Takes the mutex if anything has to change."""
    cdef Fdb *fdb = <Fdb *>load_pointer(&segment.fdb)
    cdef uint32_t target
    cdef int outcome
    if remote == NONE or peer < FIRST_PEER:
        return UNKEPT
    if recently_seen(tables, fdb, mac, peer, now):
        return KNOWN
    pthread_mutex_lock(&tables.mutex)
    outcome = learn_locked(tables, slot, segment, segment.fdb, mac, peer, remote, now)
    pthread_mutex_unlock(&tables.mutex)
    return outcome


cdef inline bint recently_seen(
    Tables *tables, Fdb *fdb, const uint8_t *mac, uint32_t peer, double now
) noexcept nogil:
    """Whether there is nothing to do: the usual case, without a lock."""
    cdef uint32_t sequence = load_u32(&fdb.sequence)
    cdef uint32_t place
    cdef bint seen = False
    if sequence & 1:
        return False
    place = fdb_find(fdb, mac)
    if place != NONE:
        seen = (
            fdb.entries[place].state == DYNAMIC
            and fdb.entries[place].owner == peer
            and now - fdb.entries[place].updated < 1.0
        )
    read_fence()
    return seen and load_u32(&fdb.sequence) == sequence


cdef inline int learn_locked(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, const uint8_t *mac, uint32_t peer,
    uint32_t remote, double now,
) noexcept nogil:
    cdef uint32_t place = fdb_find(fdb, mac)
    cdef Entry *entry
    if place == NONE:
        return learn_new(tables, slot, segment, fdb, mac, peer, remote, now)
    entry = &fdb.entries[place]
    if entry.state != DYNAMIC:
        return compare(tables, slot, segment, entry, peer, remote, now)
    if entry.owner == peer:
        if now - entry.updated >= 1.0:
            fdb_refresh(fdb, place, now)
        return KNOWN
    return move(tables, slot, segment, fdb, place, peer, remote, now)


cdef inline int learn_new(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, const uint8_t *mac, uint32_t peer,
    uint32_t remote, double now,
) noexcept nogil:
    if not make_room(tables, slot, segment, fdb, now):
        return UNKEPT
    fdb_begin(fdb)
    fdb_put(fdb, mac, remote, peer, DYNAMIC, now)
    fdb_end(fdb)
    note(tables, slot, segment, LEARNED, EV_LEARNED, now, mac, remote, NONE, 0)
    return NEW


cdef inline int move(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, uint32_t place, uint32_t peer,
    uint32_t remote, double now,
) noexcept nogil:
    cdef Entry old = fdb.entries[place]
    fdb_begin(fdb)
    fdb_forget(fdb, place)
    place = fdb_put(fdb, old.mac, remote, peer, DYNAMIC, now)
    fdb.entries[place].used = old.used
    fdb_end(fdb)
    note(
        tables, slot, segment, MOVED_COUNT, EV_MOVED, now, old.mac, remote,
        first_remote(tables, old.target), 0,
    )
    return MOVED


cdef inline int compare(
    Tables *tables, int slot, Segment *segment, Entry *entry, uint32_t peer, uint32_t remote,
    double now,
) noexcept nogil:
    """Data against a claim of higher rank."""
    if target_names(tables, entry.target, peer):
        entry.updated = now
        return KNOWN
    note(
        tables, slot, segment, CONFLICT, EV_CONFLICT, now, entry.mac,
        first_remote(tables, entry.target), remote, entry.state,
    )
    return REFUSED if entry.state == STATIC else CONTRADICTED


cdef inline void note(
    Tables *tables, int slot, Segment *segment, int which, uint8_t kind, double now,
    const uint8_t *mac, uint32_t remote, uint32_t was, uint8_t state,
) noexcept nogil:
    counters_of_local(tables, segment, slot).counts[which] += 1
    tell(tables, kind, now, segment.vni, mac, remote, was, state)


cdef inline Counters *counters_of_local(Tables *tables, Segment *segment, int slot) noexcept nogil:
    return counters_of(tables, &segment.tally, slot, LOCAL)


cdef inline bint make_room(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, double now
) noexcept nogil:
    return fdb.count < fdb.limit or evict(tables, slot, segment, fdb, now)


cdef inline bint evict(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, double now
) noexcept nogil:
    """The remote that holds most loses its oldest entry; False if nothing was learned."""
    cdef uint32_t place = oldest_of_fullest(fdb)
    if place == NONE:
        return False
    throw_out(tables, slot, segment, fdb, place, EVICTED, EV_EVICTED, now)
    return True


cdef inline void throw_out(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, uint32_t place, int which,
    uint8_t kind, double now,
) noexcept nogil:
    cdef Entry old = fdb.entries[place]
    fdb_begin(fdb)
    fdb_forget(fdb, place)
    fdb_end(fdb)
    note(
        tables, slot, segment, which, kind, now, old.mac, first_remote(tables, old.target), NONE, 0
    )


cdef inline void age(
    Tables *tables, int slot, Segment *segment, Fdb *fdb, uint32_t owner, double now
) noexcept nogil:
    """Throw out what one owner holds and has not shown for the ageing time."""
    cdef uint32_t place
    while fdb.holders[owner].oldest:
        place = fdb.holders[owner].oldest - 1
        if now - fdb.entries[place].updated < fdb.ageing:
            break
        throw_out(tables, slot, segment, fdb, place, AGED, EV_AGED, now)


cdef inline void age_all(Tables *tables, double now) noexcept nogil:
    """Age every table.  Takes the mutex for one segment at a time."""
    cdef Segment *segment
    cdef uint32_t owner
    cdef int at
    for at in range(SEGMENT_SLOTS):
        segment = tables.segments[at]
        if segment == NULL or segment.fdb.ageing == 0 or segment.fdb.most == 0:
            continue
        pthread_mutex_lock(&tables.mutex)
        for owner in range(<uint32_t>FIRST_PEER, tables.peer_count):
            age(tables, 0, segment, segment.fdb, owner, now)
        pthread_mutex_unlock(&tables.mutex)


# -- written by the event loop's thread -----------------------------------------------


cdef inline bint write(
    Tables *tables, Segment *segment, const uint8_t *mac, uint32_t target, uint8_t state,
    double since, double updated, double used, bint noted,
) noexcept nogil:
    """An entry, in the place of one that is there; False if there is no room.  Under the mutex."""
    cdef Fdb *fdb = segment.fdb
    cdef uint32_t place = fdb_find(fdb, mac)
    cdef uint32_t owner = tables.remotes[first_remote(tables, target)].peer
    if place == NONE and not make_room(tables, 0, segment, fdb, updated):
        return False
    fdb_begin(fdb)
    if place != NONE:
        fdb_forget(fdb, place)
    place = fdb_put(fdb, mac, target, owner, state, updated)
    fdb.entries[place].since = since
    fdb.entries[place].used = used
    fdb.entries[place].noted = noted
    fdb_end(fdb)
    return True


cdef inline bint forget(Fdb *fdb, const uint8_t *mac) noexcept nogil:
    """Take an entry out; False if there is none.  Under the mutex."""
    cdef uint32_t place = fdb_find(fdb, mac)
    if place == NONE:
        return False
    fdb_begin(fdb)
    fdb_forget(fdb, place)
    fdb_end(fdb)
    return True


cdef inline uint32_t copy_entries(const Fdb *fdb, Entry **copied) noexcept nogil:
    """A copy of all entries, which the caller frees; how many.  Under the mutex."""
    cdef uint32_t slot, count = 0
    copied[0] = <Entry *>malloc((fdb.count + 1) * sizeof(Entry))
    if copied[0] == NULL:
        return 0
    for slot in range(fdb.mask + 1):
        if fdb.index[slot]:
            copied[0][count] = fdb.entries[fdb.index[slot] - 1]
            count += 1
    return count


cdef inline bint resize(
    Tables *tables, Segment *segment, uint32_t limit, double ageing, uint64_t seed, double now
) noexcept nogil:
    """Another bound and ageing time; learned entries beyond the bound go."""
    cdef Fdb *old = segment.fdb
    cdef Fdb *new
    cdef bint more = True
    pthread_mutex_lock(&tables.mutex)
    old.ageing = ageing
    if limit > old.places:
        new = fdb_new(limit, ageing, seed)
        if new == NULL:
            pthread_mutex_unlock(&tables.mutex)
            return False
        fdb_copy(new, old)
        store_pointer(&segment.fdb, new)
        retire(tables, old, release_fdb)
    else:
        old.limit = limit
        while old.count > limit and more:
            more = evict(tables, 0, segment, old, now)
    pthread_mutex_unlock(&tables.mutex)
    return True
