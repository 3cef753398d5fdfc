# Included by _fastpath.pyx.  The ends of a bench's traffic, compiled: the twin of
# vxlan/bench/loops.py, where the meaning of each class stands.
#
# Each method works for `duration` seconds and returns, so that Python can look for signals; in
# between there is no Python and no GIL.  Every byte that arrives is compared with the one
# that was sent: a datagram carries its number, and what follows is the part of `block`
# that belongs to that number.

cdef enum:
    SEND_BATCH = 32
    CATCH_BATCH = 256
    NUMBER_HLEN = 8
    NUMBER_STEP = 64  # how far apart the payloads of neighbours begin in the block
    WINDOW = 1048576  # datagrams that may be overtaken


cdef inline void store_number(uint8_t *at, uint64_t number) noexcept nogil:
    cdef int byte
    for byte in range(NUMBER_HLEN):
        at[byte] = <uint8_t>(number >> (56 - 8 * byte))


cdef inline uint64_t load_number(const uint8_t *at) noexcept nogil:
    return <uint64_t>get32(at) << 32 | get32(at + 4)


cdef inline bint came_of_another(int code) noexcept nogil:
    """Whether a send was refused for what an earlier datagram met, or for want of room."""
    return code == ECONNREFUSED or code == EAGAIN or code == ENOBUFS


cdef class Datagrams:
    """Datagrams of `size` bytes cut out of `block`."""

    cdef bytes block  # kept alive for `start`
    cdef const uint8_t *start
    cdef Py_ssize_t size
    cdef uint64_t span

    def __cinit__(self, bytes block not None, Py_ssize_t size):
        if not NUMBER_HLEN < size < len(block):
            raise ValueError(f"{size} bytes: more than {NUMBER_HLEN} and less than {len(block)}")
        self.block, self.start, self.size = block, start_of(block), size
        self.span = <uint64_t>(len(block) - size)

    cdef const uint8_t *payload(self, uint64_t number) noexcept nogil:
        """What a datagram carries behind its number."""
        return self.start + number % WINDOW * NUMBER_STEP % self.span


cdef class FloodSource(Datagrams):
    """Sends numbered datagrams, as many as go."""

    cdef readonly uint64_t packets
    cdef uint8_t numbers[SEND_BATCH][NUMBER_HLEN]
    cdef iovec parts[SEND_BATCH][2]
    cdef mmsghdr messages[SEND_BATCH]

    def __cinit__(self, bytes block not None, Py_ssize_t size):
        cdef int at
        for at in range(SEND_BATCH):
            self.parts[at][0].iov_base = self.numbers[at]
            self.parts[at][0].iov_len = NUMBER_HLEN
            self.parts[at][1].iov_len = size - NUMBER_HLEN
            self.messages[at].msg_hdr.msg_iov = self.parts[at]
            self.messages[at].msg_hdr.msg_iovlen = 2

    def send(self, int fd, double duration) -> None:
        """Send on a connected socket.  Raises OSError."""
        cdef int error = 0
        with nogil:
            error = self.flood(fd, seconds() + duration)
        if error:
            raise OSError(error, strerror(error).decode())

    cdef int flood(self, int fd, double until) noexcept nogil:
        cdef int sent
        while seconds() < until:
            self.number()
            sent = sendmmsg(fd, self.messages, SEND_BATCH, 0)
            if sent >= 0:
                self.packets += <uint64_t>sent
            elif errno == EINTR:
                return 0
            elif not came_of_another(errno):
                return errno
        return 0

    cdef void number(self) noexcept nogil:
        cdef uint64_t at
        for at in range(SEND_BATCH):
            store_number(self.numbers[at], self.packets + at)
            self.parts[at][1].iov_base = <void *>self.payload(self.packets + at)


cdef class FloodSink(Datagrams):
    """Receives them and says which are missing, spoiled, or there twice."""

    cdef readonly uint64_t packets, duplicates, corrupted, reordered
    cdef readonly double last
    cdef uint64_t next
    cdef uint8_t *buffers
    cdef uint8_t *seen
    cdef iovec iov[CATCH_BATCH]
    cdef mmsghdr messages[CATCH_BATCH]

    def __cinit__(self, bytes block not None, Py_ssize_t size):
        cdef int at
        self.buffers = <uint8_t *>malloc(CATCH_BATCH * size)
        self.seen = <uint8_t *>calloc(WINDOW, 1)
        if self.buffers == NULL or self.seen == NULL:
            raise MemoryError("no memory for datagrams")
        self.last = seconds()
        for at in range(CATCH_BATCH):
            self.iov[at].iov_base = self.buffers + at * size
            self.iov[at].iov_len = size
            self.messages[at].msg_hdr.msg_iov = &self.iov[at]
            self.messages[at].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        free(self.buffers)
        free(self.seen)

    def take(self, int fd, double duration) -> bool:
        """Receive, one batch at least; True when the last datagram has come.  Raises OSError."""
        cdef int state
        with nogil:
            state = self.catch(fd, seconds() + duration)
        if state < 0:
            raise OSError(-state, strerror(-state).decode())
        return state == 1

    cdef int catch(self, int fd, double until) noexcept nogil:
        cdef int got
        while True:
            got = recvmmsg(fd, self.messages, CATCH_BATCH, MSG_WAITFORONE, NULL)
            if got < 0:
                return 0 if errno == EINTR else -errno
            if self.judge_all(got):
                return 1
            self.last = seconds()
            if self.last >= until:
                return 0

    cdef bint judge_all(self, int got) noexcept nogil:
        cdef int at
        for at in range(got):
            if self.messages[at].msg_len == 1:
                if at:
                    self.last = seconds()
                return True
            self.judge(at)
        return False

    cdef void judge(self, int at) noexcept nogil:
        cdef const uint8_t *data = self.buffers + at * self.size
        cdef uint64_t number
        cdef bint whole = (
            self.messages[at].msg_len == <size_t>self.size
            and not self.messages[at].msg_hdr.msg_flags & MSG_TRUNC
        )
        if whole:
            number = load_number(data)
            whole = memcmp(
                data + NUMBER_HLEN, self.payload(number), self.size - NUMBER_HLEN
            ) == 0
        if whole:
            self.note(number)
        else:
            self.corrupted += 1

    cdef void note(self, uint64_t number) noexcept nogil:
        cdef bint ahead = number >= self.next
        if ahead:
            self.advance(number)
        elif self.next - number > WINDOW or self.seen[number % WINDOW]:
            self.duplicates += 1
            return
        else:
            self.reordered += 1
        self.seen[number % WINDOW] = 1
        self.packets += 1

    cdef void advance(self, uint64_t number) noexcept nogil:
        """Nothing up to `number` has been seen."""
        if number - self.next >= WINDOW:
            memset(self.seen, 0, WINDOW)
        else:
            while self.next < number:
                self.seen[self.next % WINDOW] = 0
                self.next += 1
        self.next = number + 1
