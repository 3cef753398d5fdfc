# Included by _fastpath.pyx.


cdef bint prepare(Worker *w, Shared *shared, int slot) noexcept:
    """Give a worker its buffers and descriptors; False where they cannot be had."""
    w.shared = w.e.shared = w.d.shared = w.d.delivery.shared = shared
    w.e.slot = slot
    w.d.slot = w.d.delivery.slot = slot + 1
    w.e.gso = 1
    w.e.arena = <uint8_t *>malloc(ARENA)
    w.e.spare = <uint8_t *>malloc(3 * LONGEST)
    w.e.train = <Train *>calloc(MAX_TRAINS, sizeof(Train))
    w.d.buffers = <uint8_t *>malloc(RECEIVE_BATCH * BUFFER)
    memset(w.e.recent, 0xFF, sizeof(w.e.recent))
    w.first.epoll = w.e.epoll = epoll_create1(EPOLL_CLOEXEC)
    w.second.epoll = epoll_create1(EPOLL_CLOEXEC)
    w.parked = epoll_create1(EPOLL_CLOEXEC)
    w.relief = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if w.e.arena == NULL or w.e.spare == NULL or w.e.train == NULL or w.d.buffers == NULL:
        return False
    prepare_messages(&w.d)
    return (
        watch(w.first.epoll, w.second.epoll, watched_as(OF_RECEIVERS, 0))
        and watch(w.parked, w.relief, 0)
    )


cdef void prepare_messages(Decap *d) noexcept:
    cdef int which
    d.merger.emit = write_to_tap
    d.merger.to = &d.delivery
    for which in range(RECEIVE_BATCH):
        d.iov[which].iov_base = d.buffers + which * BUFFER
        d.iov[which].iov_len = BUFFER
        d.msgs[which].msg_hdr.msg_iov = &d.iov[which]
        d.msgs[which].msg_hdr.msg_iovlen = 1
        d.msgs[which].msg_hdr.msg_name = d.sources[which]
        d.msgs[which].msg_hdr.msg_control = d.control[which]


cdef bint watch(int epoll, int fd, uint64_t what) noexcept:
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = what
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0


cdef void clear(Worker *w) noexcept:
    cdef int fd
    free(w.e.arena)
    free(w.e.spare)
    free(w.e.train)
    free(w.d.buffers)
    for fd in (w.first.epoll, w.second.epoll, w.parked, w.relief):
        if fd > 0:
            close(fd)


cdef uint16_t port_at(int fd) noexcept:
    """The port that a socket is bound to."""
    cdef uint8_t source[28]
    cdef socklen_t size = sizeof(source)
    memset(source, 0, sizeof(source))
    getsockname(fd, <sockaddr *>source, &size)
    return port_of(source)


cdef class Workers:
    """`count` workers of two threads each: `work(n)` and `relieve(n)`, n from 0.

    These return after `stop`.  The other methods belong to the event loop's thread.
    Descriptors stay the caller's; after `detach` and `stop` have returned no worker
    touches them.
    """

    cdef Core core
    cdef Shared shared
    cdef Worker *workers
    cdef readonly int count

    def __cinit__(self, Core core not None, int wake, int stop_fd, int count=1):
        if not 1 <= count <= tables.MAX_WORKERS:
            raise ValueError(f"{count} workers: 1 to {tables.MAX_WORKERS} are possible")
        self.core = core
        self.shared.tables = core.state
        self.workers = <Worker *>calloc(count, sizeof(Worker))
        if self.workers == NULL:
            raise MemoryError("no memory for the workers")
        self.count = count
        core.state.wake = wake
        for at in range(count):
            if not prepare(&self.workers[at], &self.shared, 2 * at + 1):
                raise MemoryError("no memory or descriptors for the workers")
            self.watch(self.workers[at].first.epoll, stop_fd, watched_as(STOP, 0))
            self.watch(self.workers[at].parked, stop_fd, watched_as(STOP, 0))

    def __dealloc__(self):
        cdef int at
        if self.core is not None and self.core.state != NULL:
            self.core.state.wake = -1
        for at in range(<int>self.shared.punt_count):
            free(self.shared.punts[(self.shared.punt_first + at) % MAX_PUNTS].data)
        if self.workers != NULL:
            for at in range(self.count):
                clear(&self.workers[at])
        free(self.workers)

    cdef watch(self, int epoll, int fd, uint64_t what):
        if not watch(epoll, fd, what):
            raise OSError(errno, strerror(errno).decode())

    def set_pool(self, int family, list fds not None) -> None:
        """The sending sockets of a family (4 or 6), by slot.  Before the threads begin."""
        cdef int which = 1 if family == 6 else 0
        cdef int worker
        for worker in range(self.count):
            for at, fd in enumerate(fds[:POOL]):
                self.workers[worker].e.fds[which][at] = fd
                self.workers[worker].e.ports[which][at] = port_at(fd)
            self.workers[worker].e.fd_count[which] = min(len(fds), POOL)

    def set_gso(self, bint wanted) -> None:
        """Whether datagrams may be sent many at a time.  Before the threads begin."""
        for at in range(self.count):
            self.workers[at].e.gso = wanted

    def add_receiver(self, int worker, int fd) -> None:
        """A socket from which a worker receives.  Before the threads begin.

        Raises IndexError for one worker or socket too many, and OSError.
        """
        cdef Worker *w
        if not 0 <= worker < self.count or self.workers[worker].receiver_count == MAX_RECEIVERS:
            raise IndexError(worker)
        w = &self.workers[worker]
        self.watch(w.second.epoll, fd, fd)
        w.receivers[w.receiver_count] = fd
        w.receiver_count += 1

    def attach(self, uint32_t vni, list fds not None) -> None:
        """Connect a TAP to a segment, a queue for each worker.  Raises KeyError and OSError."""
        cdef tables.Segment *segment = self.core.segment(vni)
        if len(fds) != self.count:
            raise ValueError(f"{len(fds)} queues for {self.count} workers")
        segment.tap_lost = False
        for at in range(self.count):
            segment.taps[at] = fds[at]
            self.watch(self.workers[at].first.epoll, fds[at], watched_as(OF_TAP, vni))

    def detach(self, uint32_t vni) -> None:
        """Let go of a segment's TAP; returns when no worker uses it any more."""
        cdef tables.Segment *segment = self.core.segment(vni)
        cdef int at
        atomic.pthread_mutex_lock(&self.core.state.mutex)
        for at in range(self.count):
            if segment.taps[at] >= 0:
                epoll_ctl(self.workers[at].first.epoll, EPOLL_CTL_DEL, segment.taps[at], NULL)
                segment.taps[at] = -1
        atomic.pthread_mutex_unlock(&self.core.state.mutex)
        self.settle()

    def settle(self) -> None:
        """Wait until every worker has begun a new round, or sleeps; a second at most."""
        cdef uint64_t seen[tables.SLOTS]
        cdef int slot, tried
        for slot in range(tables.SLOTS):
            seen[slot] = atomic.load_u64(&self.core.state.rounds[slot])
        with nogil:
            for slot in range(tables.SLOTS):
                for tried in range(10000):
                    if not seen[slot] & 1 or atomic.load_u64(&self.core.state.rounds[slot]) != seen[slot]:
                        break
                    usleep(100)

    cdef Worker *worker(self, int number, str name) except NULL:
        """A worker whose thread begins; the operating system is told its name."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        cdef bytes named = f"vxlan-{name}-{number}".encode()
        prctl(PR_SET_NAME, <char *>named, 0, 0, 0)
        return &self.workers[number]

    def work(self, int number) -> None:
        """Carry packets until `stop`.  Raises IndexError."""
        cdef Worker *w = self.worker(number, "work")
        with nogil:
            work(w)

    def relieve(self, int number) -> None:
        """Carry what comes from the underlay while there is much, until `stop`.  Raises IndexError."""
        cdef Worker *w = self.worker(number, "help")
        with nogil:
            relieve(w)

    def stop(self) -> None:
        """Let all threads end; the caller writes to the stop descriptor and joins them."""
        atomic.store_u32(&self.shared.stopping, 1)

    def take_punts(self) -> list:
        """(kind, VNI or peer, tos, port, bytes) of each packet that is left to Python."""
        cdef PuntItem item
        found = []
        for _ in range(MAX_PUNTS):  # what comes meanwhile signals again
            atomic.pthread_mutex_lock(&self.core.state.mutex)
            if self.shared.punt_count == 0:
                atomic.pthread_mutex_unlock(&self.core.state.mutex)
                return found
            item = self.shared.punts[self.shared.punt_first]
            self.shared.punt_first = (self.shared.punt_first + 1) % MAX_PUNTS
            self.shared.punt_count -= 1
            atomic.pthread_mutex_unlock(&self.core.state.mutex)
            try:
                data = (<char *>item.data)[:item.length]
                found.append((item.kind, item.who, item.tos, item.port, data))
            finally:
                free(item.data)

    def gso_refused(self) -> int:
        """The errno with which the kernel refused segmentation offload; 0 if it did not."""
        return atomic.load_u32(&self.shared.gso_refused)
