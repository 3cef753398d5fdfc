# Included by _fastpath.pyx.  TCP streams for the bench; see generator.pxi.


cdef class StreamSource:
    """Sends `block` over and over on a stream."""

    cdef bytes block
    cdef const uint8_t *start
    cdef size_t size
    cdef readonly uint64_t count

    def __cinit__(self, bytes block not None):
        if not block:
            raise ValueError("there is nothing to send")
        self.block, self.start, self.size = block, start_of(block), len(block)

    def send(self, int fd, double duration) -> None:
        """Send.  Raises OSError."""
        cdef int error
        with nogil:
            error = self.pour(fd, seconds() + duration)
        if error:
            raise OSError(error, strerror(error).decode())

    cdef int pour(self, int fd, double until) noexcept nogil:
        cdef size_t at
        cdef ssize_t sent
        while seconds() < until:
            at = self.count % self.size
            sent = send(fd, self.start + at, self.size - at, MSG_NOSIGNAL)
            if sent < 0:
                return 0 if errno == EINTR else errno
            self.count += <uint64_t>sent
        return 0


cdef class StreamSink:
    """Receives a stream and compares it with what should come."""

    cdef bytes block
    cdef const uint8_t *start
    cdef size_t size
    cdef uint8_t *buffer
    cdef readonly uint64_t count
    cdef readonly bint intact
    cdef readonly double first, last

    def __cinit__(self, bytes block not None):
        if not block:
            raise ValueError("there is nothing to expect")
        self.block, self.start, self.size = block, start_of(block), len(block)
        self.intact = True
        self.buffer = <uint8_t *>malloc(self.size)
        if self.buffer == NULL:
            raise MemoryError("no memory for a stream")
        self.first = self.last = seconds()

    def __dealloc__(self):
        free(self.buffer)

    def take(self, int fd, double duration) -> bool:
        """Receive; True at the end of the stream.  Raises OSError."""
        cdef int state
        with nogil:
            state = self.drain(fd, seconds() + duration)
        if state < 0:
            raise OSError(-state, strerror(-state).decode())
        return state == 1

    cdef int drain(self, int fd, double until) noexcept nogil:
        cdef size_t at
        cdef ssize_t got
        while True:
            at = self.count % self.size
            got = recv(fd, self.buffer, self.size - at, 0)
            if got <= 0:
                return 1 if got == 0 else 0 if errno == EINTR else -errno
            self.last = seconds()
            if self.count == 0:
                self.first = self.last
            if memcmp(self.buffer, self.start + at, got):
                self.intact = False
            self.count += <uint64_t>got
            if self.last >= until:
                return 0
