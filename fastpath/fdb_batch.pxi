# Included by _fastpath.pyx.  Lookup and learning as a worker does them, on many stations at
# once: what they cost can be measured, and nothing of Python is in the figure.


cdef Py_ssize_t stations_in(bytes macs) except -1:
    """How many MACs stand behind each other."""
    if PyBytes_GET_SIZE(macs) % 6:
        raise ValueError(f"{len(macs)} bytes are no list of MACs: each has 6")
    return PyBytes_GET_SIZE(macs) // 6


def fdb_lookup_many(Core core not None, uint32_t vni, bytes macs not None, double now) -> int:
    """How many of these stations, 6 bytes each, have an entry; it is marked as used.

    Raises KeyError for a VNI that is not there, and ValueError.
    """
    cdef tables.Segment *segment = core.segment(vni)
    cdef Py_ssize_t count = stations_in(macs), at
    cdef const uint8_t *start = start_of(macs)
    cdef uint32_t target
    cdef int found = 0
    with nogil:
        for at in range(count):
            found += fdb.fdb_lookup(segment.fdb, start + 6 * at, now, &target)
    return found


def fdb_learn_many(
    Core core not None, uint32_t vni, bytes macs not None, uint32_t peer, double now
) -> int:
    """Learn stations, 6 bytes each, behind a peer; how many were new.

    Raises KeyError for a VNI that is not there, IndexError for no peer, and ValueError.
    """
    cdef tables.Segment *segment = core.segment(vni)
    cdef Py_ssize_t count = stations_in(macs), at
    cdef const uint8_t *start = start_of(macs)
    cdef uint32_t remote
    cdef int new = 0
    if not tables.FIRST_PEER <= peer < core.state.peer_count:
        raise IndexError(peer)
    with nogil:
        remote = learn.learn_remote(core.state, segment, peer)
        for at in range(count):
            new += learn.learn(core.state, 0, segment, start + 6 * at, peer, remote, now) == fdb.NEW
    return new
