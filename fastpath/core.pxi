# Included by _fastpath.pyx.


cdef object _numbers(const uint64_t *values, int count):
    return [values[at] for at in range(count)]


cdef class Core:
    """The tables of one engine and the rules for one packet, on plain numbers.

    Peers, remotes and segments are numbers and VNIs here; vxlan/fastengine.py gives
    them their names.  All methods belong to one thread, the event loop's; workers run
    beside it (tables.pxd says how they keep out of each other's way).
    """

    cdef tables.Tables *state
    cdef uint16_t port

    def __cinit__(self, uint16_t port, uint64_t seed):
        self.port = port
        self.state = lifecycle.tables_new(seed)
        if self.state == NULL:
            raise MemoryError("no memory for the tables of the engine")

    def __dealloc__(self):
        lifecycle.tables_free(self.state)

    cdef tables.Segment *segment(self, uint32_t vni) except NULL:
        cdef tables.Segment *found = tables.segment_find(self.state, vni)
        if found == NULL:
            raise KeyError(vni)
        return found

    cdef tables.Tally *tally(self, object vni) except NULL:
        return &self.state.tally if vni is None else &self.segment(vni).tally

    # -- peers and remotes -----------------------------------------------------------

    def peer(self, bytes address not None, uint8_t family) -> int:
        """The number of an underlay address of 16 bytes (IPv4: the first four)."""
        if len(address) != 16:
            raise ValueError("an address has 16 bytes here")
        atomic.pthread_mutex_lock(&self.state.mutex)
        found = tables.peer_add(self.state, family, start_of(address), False)
        atomic.pthread_mutex_unlock(&self.state.mutex)
        return found

    def source(self, bytes address not None, uint8_t family) -> int:
        """The number of whoever sent a datagram: a stranger, perhaps."""
        if len(address) != 16:
            raise ValueError("an address has 16 bytes here")
        return tables.peer_of_source(self.state, family, start_of(address))

    def address(self, uint32_t peer) -> tuple[int, bytes]:
        """Family and the 16 bytes of a peer."""
        if not tables.FIRST_PEER <= peer < self.state.peer_count:
            raise IndexError(peer)
        return self.state.peers[peer].family, self.state.peers[peer].address[:16]

    def remote(self, uint32_t peer, uint16_t port) -> int:
        """The number of a remote.  Raises MemoryError beyond 65 536 of them."""
        atomic.pthread_mutex_lock(&self.state.mutex)
        found = tables.remote_add(self.state, peer, port)
        atomic.pthread_mutex_unlock(&self.state.mutex)
        if found == fdb.NONE:
            raise MemoryError("no more than 65536 remotes")
        return found

    def remote_at(self, uint32_t remote) -> tuple[int, int]:
        """Peer and port of a remote."""
        if remote >= atomic.load_u32(&self.state.remote_count):
            raise IndexError(remote)
        return self.state.remotes[remote].peer, self.state.remotes[remote].port

    def set_own(self, uint32_t peer) -> None:
        """This peer is one of our own addresses."""
        self.state.peers[peer].own = 1

    def set_room(self, uint32_t peer, uint32_t room) -> None:
        """The longest inner frame that reaches a peer."""
        self.state.peers[peer].room = room

    def heard(self) -> dict[int, bool]:
        """Peers that are known to be up or down."""
        return {
            peer: self.state.peers[peer].heard == 1
            for peer in range(<uint32_t>tables.FIRST_PEER, self.state.peer_count)
            if self.state.peers[peer].heard
        }

    def set_down(self, uint32_t peer, uint32_t remote, double now) -> None:
        """The underlay says that a peer cannot be reached."""
        tables.set_heard(self.state, peer, remote, 2, now)

    # -- segments --------------------------------------------------------------------

    def add_segment(self, uint32_t vni, uint32_t limit, double ageing, uint64_t seed) -> None:
        """Begin to serve a VNI that is not there.  Raises MemoryError."""
        if not lifecycle.segment_add(self.state, vni, self.port, limit, ageing, seed):
            raise MemoryError(f"no memory for segment {vni}")

    def remove_segment(self, uint32_t vni) -> None:
        """Forget a VNI; its memory goes when no worker sees it any more."""
        lifecycle.segment_remove(self.state, self.segment(vni))

    def set_rules(
        self, uint32_t vni, uint32_t mtu, uint32_t max_frame, bint learning, bint accept_any,
        bint vlan_drop, bint strict, int ttl, int tos, int mss,
    ) -> None:
        """What a segment does; see `Rules` in tables.pxd."""
        cdef tables.Rules rules
        rules.mtu, rules.max_frame = mtu, max_frame
        rules.learning, rules.accept_any = learning, accept_any
        rules.vlan_drop, rules.strict = vlan_drop, strict
        rules.ttl, rules.tos, rules.mss = ttl, tos, mss
        self.segment(vni).rules = rules

    def resize(self, uint32_t vni, uint32_t limit, double ageing, uint64_t seed, double now) -> None:
        """Another bound and ageing time for an FDB.  Raises MemoryError."""
        if not learn.resize(self.state, self.segment(vni), limit, ageing, seed, now):
            raise MemoryError(f"no memory for {limit} entries")

    def set_flood(self, uint32_t vni, list remotes not None) -> None:
        """The flood list."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef tables.Group *group = self.group_of(remotes)
        cdef void *old = segment.flood
        atomic.store_pointer(&segment.flood, group)
        lifecycle.retire(self.state, old, lifecycle.release_plain)

    cdef tables.Group *group_of(self, list remotes) except NULL:
        cdef tables.Group *group = lifecycle.group_new(len(remotes))
        if group == NULL:
            raise MemoryError("no memory for a list of remotes")
        for at in range(len(remotes)):
            group.remotes[at] = remotes[at]
        return group

    def reserve(self, uint32_t vni, uint32_t peer) -> None:
        """Count this peer apart even where strangers have used up the bound."""
        tables.reserve(self.state, &self.segment(vni).tally, peer)

    def set_known(self, uint32_t vni, uint32_t peer, bint known) -> None:
        """Whether a peer is a remote of a segment."""
        self.segment(vni).known[peer] = known

    def set_learn_as(self, uint32_t vni, uint32_t peer, uint32_t remote_plus_one) -> None:
        """Which remote is learned for a peer; 0 = at the segment's own port."""
        self.segment(vni).learn_as[peer] = remote_plus_one

    def set_own_macs(self, uint32_t vni, list macs not None) -> None:
        """The MACs of this host's own devices."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef tables.Macs *made = lifecycle.macs_new(len(macs))
        cdef void *old = segment.own
        cdef bytes mac
        if made == NULL:
            raise MemoryError("no memory for a list of MACs")
        for at in range(len(macs)):
            mac = macs[at]
            memcpy(made.mac[at], start_of(mac), 6)
        atomic.store_pointer(&segment.own, made)
        lifecycle.retire(self.state, old, lifecycle.release_plain)

    def set_asks_as(self, uint32_t vni, bytes mac) -> None:
        """The MAC that sends echoes (vxlan/echo.py); None: nobody does."""
        cdef tables.Segment *segment = self.segment(vni)
        segment.asks = 0
        if mac is not None:
            memcpy(segment.asks_as, start_of(mac), 6)
            segment.asks = 1

    def set_answers(self, uint32_t vni, bint answers) -> None:
        """Whether Python may know the answer to a question for neighbours."""
        self.segment(vni).answers = answers

    # -- entries ---------------------------------------------------------------------

    cdef uint32_t target_of(self, list remotes) except? 0xFFFFFFFF:
        """A remote, or a group that is kept for ever."""
        if len(remotes) == 1:
            return remotes[0]
        if self.state.group_count >= tables.MAX_GROUPS:
            raise MemoryError("no more than 65536 entries with several remotes")
        self.state.groups[self.state.group_count] = self.group_of(remotes)
        self.state.group_count += 1
        return tables.GROUP | (self.state.group_count - 1)

    cdef list remotes_of(self, uint32_t target):
        cdef tables.Group *group
        if not target & tables.GROUP:
            return [target]
        group = self.state.groups[target & ~<uint32_t>tables.GROUP]
        return [group.remotes[at] for at in range(group.count)]

    def fdb_write(
        self, uint32_t vni, bytes mac not None, list remotes not None, int state, double since,
        double updated, double used, bint noted,
    ) -> bool:
        """Put an entry in, in the place of one that is there; False if there is no room."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef uint32_t target = self.target_of(remotes)
        cdef bint done
        atomic.pthread_mutex_lock(&self.state.mutex)
        done = learn.write(
            self.state, segment, start_of(mac), target, state, since, updated, used, noted
        )
        atomic.pthread_mutex_unlock(&self.state.mutex)
        return done

    def fdb_forget(self, uint32_t vni, bytes mac not None) -> bool:
        """Take an entry out; False if there is none."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef bint found
        atomic.pthread_mutex_lock(&self.state.mutex)
        found = learn.forget(segment.fdb, start_of(mac))
        atomic.pthread_mutex_unlock(&self.state.mutex)
        return found

    def fdb_find(self, uint32_t vni, bytes mac not None) -> tuple | None:
        """mac, remotes, state, since, updated, used, noted; None if there is none."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef uint32_t place
        cdef fdb.Entry entry
        atomic.pthread_mutex_lock(&self.state.mutex)
        place = fdb.fdb_find(segment.fdb, start_of(mac))
        if place != fdb.NONE:
            entry = segment.fdb.entries[place]
        atomic.pthread_mutex_unlock(&self.state.mutex)
        return None if place == fdb.NONE else self.row(&entry)

    cdef tuple row(self, const fdb.Entry *entry):
        return (
            entry.mac[:6], self.remotes_of(entry.target), entry.state, entry.since,
            entry.updated, entry.used, bool(entry.noted),
        )

    def fdb_count(self, uint32_t vni) -> int:
        """How many entries there are."""
        return self.segment(vni).fdb.count

    def fdb_dump(self, uint32_t vni) -> list:
        """All entries, as `fdb_find` gives one; a picture of one moment."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef uint32_t count, at
        cdef fdb.Entry *copied = NULL
        atomic.pthread_mutex_lock(&self.state.mutex)
        count = learn.copy_entries(segment.fdb, &copied)
        atomic.pthread_mutex_unlock(&self.state.mutex)
        try:
            return [self.row(&copied[at]) for at in range(count)]
        finally:
            free(copied)

    def tick(self, double now) -> None:
        """Age all tables, and free what no worker sees any more."""
        with nogil:
            learn.age_all(self.state, now)
            lifecycle.free_retired(self.state, False)

    # -- counters and events -----------------------------------------------------------

    def counters(self, vni: int | None) -> dict:
        """Peer (0 local, 1 others) -> counts and discards, added over all threads."""
        cdef tables.Tally *tally = self.tally(vni)
        cdef tables.Counters total
        cdef uint32_t peer
        found = {}
        for peer in range(self.state.peer_count):
            if lifecycle.total_of(tally, peer, &total) or peer < tables.FIRST_PEER:
                found[peer] = (
                    _numbers(total.counts, tables.COUNTS), _numbers(total.drops, tables.DROPS)
                )
        return found

    def drop(self, vni: int | None, uint32_t peer, int reason, uint64_t packets) -> None:
        """Count a discard that the event loop's thread decided on."""
        tables.count_drop(self.state, self.tally(vni), 0, peer, reason, packets)

    def count(self, vni: int | None, uint32_t peer, int which, uint64_t amount) -> None:
        """Count something else."""
        tables.counters_of(self.state, self.tally(vni), 0, peer).counts[which] += amount

    def take_events(self) -> tuple[list, int]:
        """kind, when, vni, mac, remote, was, state of each event; and how many were lost."""
        cdef list found = []
        cdef tables.CEvent event
        cdef uint64_t lost
        atomic.pthread_mutex_lock(&self.state.mutex)
        try:
            while self.state.ring_count:
                event = self.state.ring[self.state.ring_first]
                self.state.ring_first = (self.state.ring_first + 1) % tables.RING
                self.state.ring_count -= 1
                found.append((
                    event.kind, event.when, event.vni, event.mac[:6], event.remote, event.was,
                    event.state,
                ))
            lost = self.state.ring_lost
            self.state.ring_lost = 0
        finally:
            atomic.pthread_mutex_unlock(&self.state.mutex)
        return found, lost

    # -- the data path without input and output ------------------------------------------

    def encap(self, uint32_t vni, frames, double now) -> list:
        """For each frame that is not discarded: remotes, payload, flow, tos, ttl; or, where
        Python has to decide, remotes, the frame, the limit and None, whether it is flooded."""
        cdef tables.Segment *segment = self.segment(vni)
        cdef datapath.Verdict verdict
        cdef bytes frame, payload
        cdef uint8_t *start
        cdef Py_ssize_t length
        cdef int decided
        cdef bint watched = self.state.sight != NULL
        made = []
        for frame in frames:
            length = PyBytes_GET_SIZE(frame)
            payload = PyBytes_FromStringAndSize(NULL, length + wire.VXLAN_HLEN)
            start = <uint8_t *>PyBytes_AS_STRING(payload)
            wire.vxlan_store(start, vni)
            memcpy(start + wire.VXLAN_HLEN, start_of(frame), length)
            decided = datapath.encap_further(
                self.state, 0, segment, start + wire.VXLAN_HLEN, length, length, now, &verdict
            )
            if sight_c.seldom(watched) and decided != datapath.PUNT:
                see_encapped(
                    self.state, segment, &verdict,
                    verdict.reason if decided == datapath.DROPPED else -1,
                    start_of(frame), start + wire.VXLAN_HLEN, <uint32_t>length, now,
                )
            if decided == datapath.DROPPED:
                continue
            remotes = [verdict.remotes[at] for at in range(verdict.count)]
            if decided == datapath.PUNT:
                made.append((remotes, frame, verdict.limit, None, bool(verdict.flooded)))
                continue
            datapath.count_sent(self.state, 0, segment, &verdict, 1, length)
            made.append((remotes, payload, verdict.flow, verdict.tos, verdict.ttl))
        return made

    def encap_into(self, uint32_t vni, list frames not None, bytearray room not None, double now) -> int:
        """Encapsulate frames into `room`, one datagram behind the other; the bytes written.

        What a worker does for a frame, and nothing else: no Python object is made for it.
        Left out are frames that are discarded or do not fit the path; the room ends it.
        """
        cdef tables.Segment *segment = self.segment(vni)
        cdef datapath.Verdict verdict
        cdef uint8_t *start = <uint8_t *>PyByteArray_AS_STRING(room)
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(room), length
        cdef Py_ssize_t at = 0
        cdef int decided
        cdef bint watched = self.state.sight != NULL
        cdef bytes frame
        for frame in frames:
            length = PyBytes_GET_SIZE(frame)
            if at + length + wire.VXLAN_HLEN > size:
                break
            wire.vxlan_store(start + at, vni)
            memcpy(start + at + wire.VXLAN_HLEN, start_of(frame), length)
            decided = datapath.encap_further(
                self.state, 0, segment, start + at + wire.VXLAN_HLEN, length, length, now, &verdict
            )
            if sight_c.seldom(watched) and decided != datapath.PUNT:
                see_encapped(
                    self.state, segment, &verdict,
                    verdict.reason if decided == datapath.DROPPED else -1,
                    start_of(frame), start + at + wire.VXLAN_HLEN, <uint32_t>length, now,
                )
            if decided == datapath.SEND:
                datapath.count_sent(self.state, 0, segment, &verdict, 1, length)
                at += length + wire.VXLAN_HLEN
        return at

    def decap(
        self, uint32_t peer, bytes payload not None, uint8_t tos, double now, uint16_t port=0
    ) -> tuple | bool:
        """VNI and frame; False if it was discarded; True if it is a probe: Python decides."""
        cdef datapath.Verdict verdict
        cdef Py_ssize_t length = PyBytes_GET_SIZE(payload)
        cdef bytes copied = PyBytes_FromStringAndSize(<char *>start_of(payload), length)
        cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(copied)
        cdef int decided
        if length > 1:
            decided = datapath.decap_one(
                self.state, 0, peer, start, length, tos, now, &verdict
            )
        else:  # such objects are shared by all of Python
            decided = datapath.decap_one(self.state, 0, peer, NULL, 0, tos, now, &verdict)
        if sight_c.seldom(self.state.sight != NULL) and decided != datapath.PUNT:
            see_decapped(
                self.state, peer, port, start_of(payload), start, <uint32_t>length, tos,
                verdict.reason if decided == datapath.DROPPED else -1,
            )
        if decided == datapath.DELIVER or decided == datapath.REPLY:
            return verdict.segment.vni, copied[wire.VXLAN_HLEN:]
        return decided == datapath.PUNT
