# Included by _fastpath.pyx.  Requests and answers for the bench; see generator.pxi.

cdef enum:
    LONGEST_REQUEST = 2048
    MOST_TRIPS = 65536  # of one call


cdef class Asker(Datagrams):
    """Sends one request after the other and waits for each answer."""

    cdef readonly uint64_t lost, corrupted
    cdef uint64_t number

    def __cinit__(self, bytes block not None, Py_ssize_t size):
        if size > LONGEST_REQUEST:
            raise ValueError(f"{size} bytes: a request has {LONGEST_REQUEST} at the most")

    def ask(self, int fd, double duration) -> list:
        """Round trips in nanoseconds; one at least, unless it was lost.  Raises OSError."""
        cdef uint64_t *trips = <uint64_t *>malloc(MOST_TRIPS * sizeof(uint64_t))
        cdef int at, count = 0, error
        if trips == NULL:
            raise MemoryError("no memory for round trips")
        try:
            with nogil:
                error = self.trip_after_trip(fd, seconds() + duration, trips, &count)
            if error and error != EINTR:
                raise OSError(error, strerror(error).decode())
            return [trips[at] for at in range(count)]
        finally:
            free(trips)

    cdef int trip_after_trip(
        self, int fd, double until, uint64_t *trips, int *count
    ) noexcept nogil:
        """Until the time is over, or a request is lost; an errno that ends the test, or 0."""
        cdef uint8_t request[LONGEST_REQUEST]
        cdef uint64_t start
        cdef int error
        while count[0] < MOST_TRIPS:
            store_number(request, self.number)
            memcpy(request + NUMBER_HLEN, self.payload(self.number), self.size - NUMBER_HLEN)
            self.number += 1
            start = nanoseconds()
            error = 0 if send(fd, request, self.size, 0) >= 0 else errno
            if error == 0:
                error = self.wait(fd, request)
            if error == 0:
                trips[count[0]] = nanoseconds() - start
                count[0] += 1
            elif error == EAGAIN or error == ECONNREFUSED:
                self.lost += 1
                return 0
            else:
                return error
            if seconds() >= until:
                return 0
        return 0

    cdef int wait(self, int fd, const uint8_t *request) noexcept nogil:
        """Wait for the answer; what else comes is an answer that was given up, or spoiled."""
        cdef uint8_t answer[LONGEST_REQUEST]
        cdef ssize_t got
        while True:
            got = recv(fd, answer, LONGEST_REQUEST, 0)
            if got < 0:
                return errno
            if got == self.size and memcmp(answer, request, got) == 0:
                return 0
            if got != self.size or memcmp(
                answer + NUMBER_HLEN, self.payload(load_number(answer)), got - NUMBER_HLEN
            ):
                self.corrupted += 1


cdef class Answerer:
    """Sends every request back to whoever sent it."""

    cdef readonly uint64_t requests

    def answer(self, int fd, double duration) -> bool:
        """Answer; True when the last request has come.  Raises OSError."""
        cdef int state
        with nogil:
            state = self.serve(fd, seconds() + duration)
        if state < 0:
            raise OSError(-state, strerror(-state).decode())
        return state == 1

    cdef int serve(self, int fd, double until) noexcept nogil:
        cdef uint8_t request[LONGEST_REQUEST]
        cdef uint8_t source[128]
        cdef iovec part
        cdef msghdr message
        cdef ssize_t got
        while True:
            memset(&message, 0, sizeof(message))
            part.iov_base, part.iov_len = request, LONGEST_REQUEST
            message.msg_name, message.msg_namelen = source, sizeof(source)
            message.msg_iov, message.msg_iovlen = &part, 1
            got = recvmsg(fd, &message, 0)
            if got < 0:
                return 0 if errno == EINTR else -errno
            if got == 1:
                return 1
            part.iov_len = <size_t>got
            if sendmsg(fd, &message, 0) >= 0:
                self.requests += 1
            if seconds() >= until:
                return 0
