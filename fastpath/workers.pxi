# Included by _fastpath.pyx.


cdef void prepare_decap(Decap *d) noexcept nogil:
    cdef int which
    d.delivery.shared = d.shared
    d.merger.emit = write_to_tap
    d.merger.to = &d.delivery
    for which in range(RECEIVE_BATCH):
        d.iov[which].iov_base = d.buffers + which * BUFFER
        d.iov[which].iov_len = BUFFER
        d.msgs[which].msg_hdr.msg_iov = &d.iov[which]
        d.msgs[which].msg_hdr.msg_iovlen = 1
        d.msgs[which].msg_hdr.msg_name = d.sources[which]
        d.msgs[which].msg_hdr.msg_control = d.control[which]


cdef class Workers:
    """The two threads' state: one carries TAP -> underlay, the other underlay -> TAP.

    `encap` and `decap` are to be run by a thread each; they return after `stop`.  The
    other methods belong to the event loop's thread.  Descriptors stay the caller's;
    after `detach` and `stop` have returned no worker touches them.
    """

    cdef Core core
    cdef Shared shared
    cdef Encap e
    cdef Decap d

    def __cinit__(self, Core core not None, int wake, int stop_fd):
        self.core = core
        self.shared.tables = core.state
        self.shared.stop_fd = stop_fd
        core.state.wake = wake
        self.e.shared = self.d.shared = &self.shared
        self.e.gso = 1
        self.e.arena = <uint8_t *>malloc(ARENA)
        self.e.spare = <uint8_t *>malloc(3 * LONGEST)
        self.e.train = <Train *>calloc(MAX_TRAINS, sizeof(Train))
        self.d.buffers = <uint8_t *>malloc(RECEIVE_BATCH * BUFFER)
        self.e.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.d.epoll = epoll_create1(EPOLL_CLOEXEC)
        if (
            self.e.arena == NULL or self.e.spare == NULL or self.e.train == NULL
            or self.d.buffers == NULL or self.e.epoll < 0 or self.d.epoll < 0
        ):
            raise MemoryError("no memory or descriptors for the workers")
        for at in range(RECENT):
            self.e.recent[at] = -1
        prepare_decap(&self.d)
        self.watch(self.e.epoll, stop_fd, STOP)
        self.watch(self.d.epoll, stop_fd, STOP)

    def __dealloc__(self):
        cdef int at
        if self.core is not None and self.core.state != NULL:
            self.core.state.wake = -1
        for at in range(<int>self.shared.punt_count):
            free(self.shared.punts[(self.shared.punt_first + at) % MAX_PUNTS].data)
        free(self.e.arena)
        free(self.e.spare)
        free(self.e.train)
        free(self.d.buffers)
        if self.e.epoll > 0:
            close(self.e.epoll)
        if self.d.epoll > 0:
            close(self.d.epoll)

    cdef watch(self, int epoll, int fd, uint32_t which):
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = 0
        event.data.u32 = which
        if epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, strerror(errno).decode())

    def set_pool(self, int family, list fds not None) -> None:
        """The sending sockets of a family (4 or 6), by slot.  Before the threads begin."""
        cdef int which = 1 if family == 6 else 0
        for at, fd in enumerate(fds[:POOL]):
            self.e.fds[which][at] = fd
        self.e.fd_count[which] = min(len(fds), POOL)

    def set_gso(self, bint wanted) -> None:
        """Whether datagrams may be sent many at a time.  Before the threads begin."""
        self.e.gso = wanted

    def add_receiver(self, int fd) -> None:
        """A socket that receives.  Raises OSError."""
        self.watch(self.d.epoll, fd, fd)

    def attach(self, uint32_t vni, int fd) -> None:
        """Connect a TAP to a segment.  Raises KeyError and OSError."""
        cdef tables.Segment *segment = self.core.segment(vni)
        segment.tap = fd
        self.watch(self.e.epoll, fd, vni)

    def detach(self, uint32_t vni) -> None:
        """Let go of a segment's TAP; returns when no worker uses it any more."""
        cdef tables.Segment *segment = self.core.segment(vni)
        cdef int fd = segment.tap
        if fd < 0:
            return
        segment.tap = -1
        epoll_ctl(self.e.epoll, EPOLL_CTL_DEL, fd, NULL)
        self.settle()

    def settle(self) -> None:
        """Wait until both workers have begun a new round, or sleep; a second at most."""
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

    def encap(self) -> None:
        """Carry frames from TAPs to the underlay until `stop`."""
        with nogil:
            encap_loop(&self.e)

    def decap(self) -> None:
        """Carry datagrams from the underlay to TAPs until `stop`."""
        with nogil:
            decap_loop(&self.d)

    def stop(self) -> None:
        """Let both threads end; the caller writes to the stop descriptor and joins them."""
        atomic.store_u32(&self.shared.stopping, 1)

    def take_punts(self) -> list:
        """(kind, VNI or peer, tos, bytes) of each packet that is left to Python."""
        cdef PuntItem item
        found = []
        while True:
            atomic.pthread_mutex_lock(&self.core.state.mutex)
            if self.shared.punt_count == 0:
                atomic.pthread_mutex_unlock(&self.core.state.mutex)
                return found
            item = self.shared.punts[self.shared.punt_first]
            self.shared.punt_first = (self.shared.punt_first + 1) % MAX_PUNTS
            self.shared.punt_count -= 1
            atomic.pthread_mutex_unlock(&self.core.state.mutex)
            try:
                found.append((item.kind, item.who, item.tos, (<char *>item.data)[:item.length]))
            finally:
                free(item.data)

    def gso_refused(self) -> int:
        """The errno with which the kernel refused segmentation offload; 0 if it did not."""
        return atomic.load_u32(&self.shared.gso_refused)
