"""What an engine knows, in C memory: peers, remotes, segments, counters, events.

Theory of operation
===================

    peer     an underlay address; a number below MAX_PEERS that never changes
    remote   a peer and a port: where datagrams go; a number below MAX_REMOTES
    target   a remote, or with GROUP set a group: several remotes for one MAC
    segment  what vxlan/segment.py calls so: FDB, flood list, rules, counters

Arrays are taken whole when the engine is made; the kernel gives memory for the parts
that are touched.  Peers, remotes and groups are only ever added, so a thread that has
a number may use it for ever.  What is replaced as a whole (a flood list, own MACs, an
FDB that grew, a segment) is published by one pointer and then retired: it is freed
when every worker has since begun a new round, or sleeps.

Counters have a copy for each slot: slot 0 is the event loop's thread, the others are
workers'.  No two threads ever write one number; who reads adds the copies.  Events
and everything that writes an FDB go under the engine's mutex.

Peers 0 and 1 are no addresses: LOCAL counts what has no remote, OTHER what strangers
beyond the bound did (vxlan/drop.py, Tally).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from atomic cimport (
    load_pointer, load_u32, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
    store_pointer, store_u32,
)
from fdb cimport NONE, Fdb
from pages cimport pages_free, pages_new

cdef extern from *:
    """
    #include <sys/eventfd.h>
    static uint64_t fastpath_nowhere[64];
    """
    uint64_t fastpath_nowhere[64]
    int eventfd_write(int fd, uint64_t value) noexcept nogil

cdef enum:
    LOCAL = 0
    OTHER = 1
    FIRST_PEER = 2
    MAX_PEERS = 65536
    MAX_STRANGERS = 32768  # beyond it strangers are OTHER; configured remotes go on
    PEER_SLOTS = 131072
    MAX_REMOTES = 65536
    MAX_GROUPS = 65536
    GROUP = 0x80000000
    MAX_SEGMENTS = 4096
    SEGMENT_SLOTS = 8192
    MAX_COUNTED = 4096
    MAX_UP = 4096
    MAX_WORKERS = 4
    SLOTS = 9  # two for each worker, and one for the event loop's thread
    RING = 4096
    UNBOUNDED = 0xFFFFFFFF

    COUNTS = 17
    DROPS = 24

    # Drop
    HDR_TRUNC = 0
    VXLAN_INVALID_HDR = 1
    VXLAN_RESERVED_BITS = 2
    VXLAN_VNI_NOT_FOUND = 3
    PKT_TOO_SMALL = 4
    OWN_ADDRESS = 5
    UNKNOWN_REMOTE = 6
    MAC_INVALID_SOURCE = 7
    LOCAL_MAC = 8
    VXLAN_ENTRY_EXISTS = 9
    IP_TUNNEL_ECN = 10
    VLAN_POLICY = 11
    SOCKET_RCVBUFF = 12
    NO_TX_TARGET = 13
    PKT_TOO_BIG = 14
    FULL_RING = 15
    UNDERLAY_BUSY = 16
    UNDERLAY_UNREACHABLE = 17
    UNDERLAY_REFUSED = 18
    TAP_BUSY = 19
    TAP_DOWN = 20
    TAP_INVALID = 21
    FAULT_INJECTED = 22
    ANNOUNCEMENT_REFUSED = 23

    # Count
    ENCAP_PACKETS = 0
    ENCAP_BYTES = 1
    DECAP_PACKETS = 2
    DECAP_BYTES = 3
    FLOODED = 4
    RESERVED_BITS = 5
    LEARNED = 6
    MOVED_COUNT = 7
    CONFLICT = 8
    AGED = 9
    EVICTED = 10
    CLAMPED = 11
    FRAGMENTED = 12
    TOO_BIG_ANSWERED = 13
    PROBES = 14
    ANNOUNCEMENTS = 15
    SUPPRESSED = 16

    # events
    EV_LEARNED = 0
    EV_MOVED = 1
    EV_AGED = 2
    EV_EVICTED = 3
    EV_CONFLICT = 4
    EV_REMOTE_UP = 5
    EV_REMOTE_DOWN = 6
    EV_TAP_LOST = 7


cdef struct Peer:
    uint8_t address[16]
    uint8_t family  # 4 or 6
    uint8_t own  # one of our own addresses
    uint8_t heard  # 0 nothing is known, 1 up, 2 down
    uint8_t spare
    uint32_t room  # the longest inner frame, UNBOUNDED while the path is not known


cdef struct Far:
    uint32_t peer
    uint16_t port
    uint16_t spare


cdef struct Group:
    uint32_t count
    uint32_t remotes[1]  # as many as `count`


cdef struct Counters:
    uint64_t counts[COUNTS]
    uint64_t drops[DROPS]


cdef struct Tally:
    Counters **of[SLOTS]  # by slot, by peer; made when first written
    uint8_t *apart  # by peer: 1 counted apart, 2 in OTHER, 0 not seen yet
    uint32_t counted


cdef struct Rules:
    uint32_t mtu
    uint32_t max_frame
    uint8_t learning
    uint8_t accept_any
    uint8_t vlan_drop
    uint8_t strict
    int ttl  # 0 = inherit
    int tos  # -1 = inherit
    int mss  # 0 = off, -1 = what fits, else a bound


cdef struct Macs:
    uint32_t count
    uint8_t mac[1][6]  # as many as `count`


cdef struct Segment:
    uint32_t vni
    uint16_t port
    Rules rules
    Fdb *fdb
    Group *flood
    Macs *own
    uint8_t *known  # by peer: how many claims make it a remote, saturating
    uint32_t *learn_as  # by peer: the remote to learn, plus one; 0 = not looked up yet
    Tally tally
    int taps[MAX_WORKERS]  # by worker: its queue of the TAP; -1 = none
    uint8_t tap_lost  # the device is gone, and that was told
    uint8_t answers  # neighbours are known: their askers go to Python (vxlan/neighbour.py)
    uint8_t asks  # echoes are sent (vxlan/echo.py): answers to them go to Python
    uint8_t asks_as[6]  # from this MAC


cdef struct CEvent:
    double when
    uint32_t vni
    uint32_t remote
    uint32_t was
    uint8_t mac[6]
    uint8_t kind
    uint8_t state


cdef struct Retired:
    void *memory
    void (*release)(void *) noexcept nogil
    uint64_t rounds[SLOTS]
    Retired *next


cdef struct Tables:
    pthread_mutex_t mutex
    uint32_t peer_count
    uint32_t strangers
    uint32_t remote_count
    uint32_t group_count
    uint32_t up_count
    Peer *peers
    uint32_t *peer_index
    uint64_t seed
    Far *remotes
    Group **groups
    Segment **segments  # by hash of the VNI
    Tally tally  # of what reached no segment
    CEvent *ring
    uint32_t ring_first
    uint32_t ring_count
    uint64_t ring_lost
    Retired *retired
    uint64_t rounds[SLOTS]  # odd while a worker is at work
    int wake  # eventfd; -1 = none
    void *sight  # a Sight (sight.pxd) while somebody captures, else NULL


# -- peers and remotes -------------------------------------------------------------


cdef inline uint32_t peer_slot(const Tables *tables, const uint8_t *address) noexcept nogil:
    cdef uint64_t high, low
    memcpy(&high, address, 8)
    memcpy(&low, address + 8, 8)
    high = (high ^ tables.seed) * 0x9E3779B97F4A7C15u
    low = (low ^ (high >> 29)) * 0xD6E8FEB86659FD93u
    return <uint32_t>((high ^ low) >> 32) & (PEER_SLOTS - 1)


cdef inline uint32_t peer_find(Tables *tables, uint8_t family, const uint8_t *address) noexcept nogil:
    """The number of an address, or NONE.  Any thread, no lock: peers are only added."""
    cdef uint32_t slot = peer_slot(tables, address)
    cdef uint32_t found
    while True:
        found = load_u32(&tables.peer_index[slot])
        if found == 0:
            return NONE
        if (
            tables.peers[found].family == family
            and memcmp(tables.peers[found].address, address, 16) == 0
        ):
            return found
        slot = (slot + 1) & (PEER_SLOTS - 1)


cdef inline uint32_t peer_add(
    Tables *tables, uint8_t family, const uint8_t *address, bint stranger
) noexcept nogil:
    """The number of an address, new if need be; OTHER beyond the bound.  Under the mutex."""
    cdef uint32_t found = peer_find(tables, family, address)
    cdef uint32_t slot
    if found != NONE:
        return found
    if tables.peer_count >= MAX_PEERS or (stranger and tables.strangers >= MAX_STRANGERS):
        return OTHER
    found = tables.peer_count
    tables.peer_count += 1
    tables.strangers += stranger
    tables.peers[found].family = family
    tables.peers[found].room = UNBOUNDED
    memcpy(tables.peers[found].address, address, 16)
    slot = peer_slot(tables, address)
    while tables.peer_index[slot]:
        slot = (slot + 1) & (PEER_SLOTS - 1)
    store_u32(&tables.peer_index[slot], found)
    return found


cdef inline uint32_t peer_of_source(
    Tables *tables, uint8_t family, const uint8_t *address
) noexcept nogil:
    """The number of whoever sent a datagram.  Takes the mutex for a new one."""
    cdef uint32_t found = peer_find(tables, family, address)
    if found != NONE:
        return found
    pthread_mutex_lock(&tables.mutex)
    found = peer_add(tables, family, address, True)
    pthread_mutex_unlock(&tables.mutex)
    return found


cdef inline uint32_t remote_add(Tables *tables, uint32_t peer, uint16_t port) noexcept nogil:
    """The number of a remote, new if need be; NONE if there is no place.  Under the mutex."""
    cdef uint32_t at
    for at in range(tables.remote_count):
        if tables.remotes[at].peer == peer and tables.remotes[at].port == port:
            return at
    if tables.remote_count >= MAX_REMOTES:
        return NONE
    at = tables.remote_count
    tables.remotes[at].peer = peer
    tables.remotes[at].port = port
    store_u32(&tables.remote_count, at + 1)
    return at


cdef inline uint32_t first_remote(const Tables *tables, uint32_t target) noexcept nogil:
    return tables.groups[target & ~GROUP].remotes[0] if target & GROUP else target


cdef inline bint target_names(const Tables *tables, uint32_t target, uint32_t peer) noexcept nogil:
    """Whether a peer is among the remotes of a target."""
    cdef Group *group
    cdef uint32_t at
    if not target & GROUP:
        return tables.remotes[target].peer == peer
    group = tables.groups[target & ~GROUP]
    for at in range(group.count):
        if tables.remotes[group.remotes[at]].peer == peer:
            return True
    return False


# -- segments ----------------------------------------------------------------------


cdef inline uint32_t segment_slot(uint32_t vni) noexcept nogil:
    return (vni * 0x9E3779B1u) >> 19  # 13 bits: SEGMENT_SLOTS


cdef inline Segment *segment_find(Tables *tables, uint32_t vni) noexcept nogil:
    """The segment of a VNI, or NULL.  Any thread, no lock."""
    cdef uint32_t slot = segment_slot(vni)
    cdef Segment **table = <Segment **>load_pointer(&tables.segments)
    cdef Segment *found
    while True:
        found = table[slot]
        if found == NULL or found.vni == vni:
            return found
        slot = (slot + 1) & (SEGMENT_SLOTS - 1)


# -- counters ----------------------------------------------------------------------


cdef inline size_t tally_size() noexcept nogil:
    return <size_t>SLOTS * MAX_PEERS * sizeof(void *)


cdef inline bint tally_init(Tally *tally) noexcept nogil:
    cdef int slot
    cdef Counters **all_of_them = <Counters **>pages_new(tally_size())
    tally.counted = 0
    tally.apart = <uint8_t *>pages_new(MAX_PEERS)
    for slot in range(SLOTS):
        tally.of[slot] = all_of_them + slot * MAX_PEERS if all_of_them != NULL else NULL
    return all_of_them != NULL and tally.apart != NULL


cdef inline void tally_clear(Tally *tally) noexcept nogil:
    cdef int slot, peer
    if tally.of[0] != NULL and tally.apart != NULL:
        for peer in range(MAX_PEERS):
            if peer < FIRST_PEER or tally.apart[peer]:
                for slot in range(SLOTS):
                    free(tally.of[slot][peer])
    pages_free(tally.of[0], tally_size())
    pages_free(tally.apart, MAX_PEERS)


cdef inline uint32_t counted_as(Tables *tables, Tally *tally, uint32_t peer) noexcept nogil:
    """Whether a peer's packets are counted apart, or with the others (Tally.of)."""
    if peer < FIRST_PEER or tally.apart[peer] == 1:
        return peer
    if tally.apart[peer] == 2 and tally.counted >= MAX_COUNTED:
        return OTHER
    pthread_mutex_lock(&tables.mutex)
    if tally.apart[peer] != 1:
        tally.apart[peer] = 1 if tally.counted < MAX_COUNTED else 2
        tally.counted += tally.apart[peer] == 1
    pthread_mutex_unlock(&tables.mutex)
    return peer if tally.apart[peer] == 1 else OTHER


cdef inline void reserve(Tables *tables, Tally *tally, uint32_t peer) noexcept nogil:
    """Count a peer apart whatever the bound."""
    pthread_mutex_lock(&tables.mutex)
    tally.counted += tally.apart[peer] != 1
    tally.apart[peer] = 1
    pthread_mutex_unlock(&tables.mutex)


cdef inline Counters *counters_of(
    Tables *tables, Tally *tally, int slot, uint32_t peer
) noexcept nogil:
    cdef Counters **at = &tally.of[slot][counted_as(tables, tally, peer)]
    cdef Counters *made = at[0]
    if made == NULL:
        made = <Counters *>calloc(1, sizeof(Counters))
        if made == NULL:
            return <Counters *>fastpath_nowhere  # without memory nothing is counted
        store_pointer(at, made)
    return made


cdef inline void count_drop(
    Tables *tables, Tally *tally, int slot, uint32_t peer, int reason, uint64_t packets
) noexcept nogil:
    """Count a discard.  The only way in which a packet may end without leaving."""
    counters_of(tables, tally, slot, peer).drops[reason] += packets


# -- events ------------------------------------------------------------------------


cdef inline void tell(
    Tables *tables, uint8_t kind, double now, uint32_t vni, const uint8_t *mac,
    uint32_t remote, uint32_t was, uint8_t state,
) noexcept nogil:
    """Append an event, or count it as lost.  Under the mutex."""
    cdef CEvent *event
    cdef uint64_t one = 1
    if tables.ring_count >= RING:
        tables.ring_lost += 1
        return
    event = &tables.ring[(tables.ring_first + tables.ring_count) % RING]
    event.kind = kind
    event.when = now
    event.vni = vni
    event.remote = remote
    event.was = was
    event.state = state
    if mac != NULL:
        memcpy(event.mac, mac, 6)
    else:
        memset(event.mac, 0, 6)
    tables.ring_count += 1
    if tables.ring_count == 1 and tables.wake >= 0:
        eventfd_write(tables.wake, one)


cdef inline void set_heard(
    Tables *tables, uint32_t peer, uint32_t remote, uint8_t heard, double now
) noexcept nogil:
    """A peer is up (1) or down (2) now; told where that is news.  Takes the mutex."""
    cdef Peer *one = &tables.peers[peer]
    pthread_mutex_lock(&tables.mutex)
    if one.heard != heard and (one.heard or tables.up_count < MAX_UP):
        tables.up_count += one.heard == 0
        one.heard = heard
        tell(tables, EV_REMOTE_UP if heard == 1 else EV_REMOTE_DOWN, now, NONE, NULL, remote, NONE, 0)
    pthread_mutex_unlock(&tables.mutex)
