"""A worker: two threads that share its work as it comes.

Theory of operation
===================

    epoll -> TAP queues that have frames     -> drain_tap        (worker_encap.pxi)
          -> sockets that have datagrams     -> drain_receivers  (worker_decap.pxi)

While there is little to do, the first thread carries both directions: an answer mostly
follows its question, and whoever has just sent the one finds the other with warm caches
and without waking anybody.  When it has found work at every look for a while, it lends
the receiving side to the second thread, which gives it back as soon as there is less to
do, though not at once: each change costs system calls.  Whoever has a side has its
buffers and its copy of the counters, so sides share nothing but the tables.

More workers share the load by flows: each has a queue of every TAP (IFF_MULTI_QUEUE)
and sockets of its own (SO_REUSEPORT).

Before it sleeps, a thread looks a while longer, since being woken costs more than most
packets.  How long is learned as the kernel's halt polling does (virt/kvm): a sleep that
ended soon doubles the time, a long one halves it.  A thread that has nothing to do thus
stops looking at once, and one that looks gives way to every other thread (sched_yield).
"""

cdef enum:
    READY = 16
    MAX_RECEIVERS = 64
    STOP = 0
    OF_TAP = 1
    OF_RECEIVERS = 2

    SPIN_FIRST = 10000  # nanoseconds
    SPIN_MOST = 100000
    BUSY = 200000  # nanoseconds, and looks, without a pause: too much for one thread
    BUSY_LOOKS = 8
    QUIET = 5  # milliseconds for which a side is lent at least


cdef struct Watch:
    # what a thread waits for
    int epoll
    uint64_t patience  # nanoseconds that it looks before it sleeps
    uint64_t busy_since
    uint32_t looks  # since then, each of which found something


cdef struct Worker:
    Shared *shared
    Watch first  # TAP queues, `second.epoll` unless lent, stop
    Watch second  # receivers
    int relief  # eventfd: the receiving side is lent
    int parked  # epoll of `relief` and stop
    uint32_t lent
    uint64_t lent_at
    int receivers[MAX_RECEIVERS]
    int receiver_count
    Encap e
    Decap d


cdef inline uint64_t watched_as(int kind, uint32_t which) noexcept nogil:
    return <uint64_t>kind << 32 | which


cdef int await_work(Watch *watch, epoll_event *ready, int timeout) noexcept nogil:
    """How many descriptors are ready: look, look a while longer, sleep up to `timeout` ms."""
    cdef int count = epoll_wait(watch.epoll, ready, READY, 0)
    cdef uint64_t since
    watch.looks += 1
    if count:
        return count
    watch.looks = 0
    watch.busy_since = since = nanoseconds()
    while count == 0 and watch.busy_since - since < watch.patience:
        sched_yield()
        count = epoll_wait(watch.epoll, ready, READY, 0)
        watch.busy_since = nanoseconds()
    return count if count else rest(watch, ready, timeout)


cdef inline int rest(Watch *watch, epoll_event *ready, int timeout) noexcept nogil:
    """Sleep, and learn from how long that took."""
    cdef uint64_t since = watch.busy_since
    cdef int count = epoll_wait(watch.epoll, ready, READY, timeout)
    watch.busy_since = nanoseconds()
    if watch.busy_since - since >= SPIN_MOST:
        watch.patience = watch.patience // 2 if watch.patience > SPIN_FIRST else 0
    elif 2 * watch.patience < SPIN_FIRST:
        watch.patience = SPIN_FIRST
    elif watch.patience < SPIN_MOST:
        watch.patience *= 2
    return count


cdef inline bint is_busy(const Watch *watch, uint64_t now) noexcept nogil:
    return watch.looks >= BUSY_LOOKS and now - watch.busy_since > BUSY


# -- the two sides, for whoever has them ---------------------------------------------


cdef inline void carry_out(Worker *w, uint32_t vni) noexcept nogil:
    """After a pause mostly one frame has come: the next look tells whether there are more."""
    lifecycle.worker_begins(w.shared.tables, w.e.slot)
    w.e.now = seconds()
    w.e.sight = <sight_c.Sight *>atomic.load_pointer(&w.shared.tables.sight)
    drain_tap(&w.e, vni, READ_BATCH if w.first.looks else 1)
    lifecycle.worker_rests(w.shared.tables, w.e.slot)


cdef inline void carry_in(Worker *w) noexcept nogil:
    cdef int at
    lifecycle.worker_begins(w.shared.tables, w.d.slot)
    w.d.now = seconds()
    w.d.sight = w.d.delivery.sight = <sight_c.Sight *>atomic.load_pointer(&w.shared.tables.sight)
    for at in range(w.receiver_count):
        drain_receiver(&w.d, w.receivers[at])
    lifecycle.worker_rests(w.shared.tables, w.d.slot)


cdef inline void lend(Worker *w) noexcept nogil:
    """Let the second thread receive."""
    cdef epoll_event nothing
    nothing.events = 0
    nothing.data.u64 = watched_as(OF_RECEIVERS, 0)
    epoll_ctl(w.first.epoll, EPOLL_CTL_MOD, w.second.epoll, &nothing)
    w.lent_at = nanoseconds()
    atomic.store_u32(&w.lent, 1)
    tables.eventfd_write(w.relief, 1)


cdef inline void give_back(Worker *w) noexcept nogil:
    """Let the first thread receive again; what waits already wakes it.

    `lent` last: until then the first thread does not lend, so the two calls of
    epoll_ctl cannot change places.
    """
    cdef epoll_event all_of_it
    all_of_it.events = EPOLLIN
    all_of_it.data.u64 = watched_as(OF_RECEIVERS, 0)
    epoll_ctl(w.first.epoll, EPOLL_CTL_MOD, w.second.epoll, &all_of_it)
    atomic.store_u32(&w.lent, 0)


# -- the two threads -----------------------------------------------------------------


cdef void work(Worker *w) noexcept nogil:
    """The first thread: frames always, datagrams unless they are lent; until stop."""
    cdef epoll_event ready[READY]
    cdef int count, at, kind
    while not atomic.load_u32(&w.shared.stopping):
        count = await_work(&w.first, ready, -1)
        for at in range(count):
            kind = <int>(ready[at].data.u64 >> 32)
            if kind == OF_TAP:
                carry_out(w, <uint32_t>ready[at].data.u64)
            elif kind == OF_RECEIVERS:
                carry_in(w)
        if not atomic.load_u32(&w.lent) and is_busy(&w.first, nanoseconds()):
            lend(w)


cdef void relieve(Worker *w) noexcept nogil:
    """The second thread: datagrams while they are lent to it, else sleep; until stop."""
    cdef epoll_event ready[READY]
    cdef uint64_t lent, now
    while not atomic.load_u32(&w.shared.stopping):
        if not atomic.load_u32(&w.lent):
            if epoll_wait(w.parked, ready, READY, -1) > 0:
                read(w.relief, &lent, 8)
            continue
        if await_work(&w.second, ready, QUIET) > 0:
            carry_in(w)
        now = nanoseconds()
        if now - w.lent_at > QUIET * 1000000u and not is_busy(&w.second, now):
            give_back(w)
