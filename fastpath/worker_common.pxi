# Included by _fastpath.pyx.  What both directions need: time, errors, punts.

cdef enum:
    MAX_PUNTS = 512

    PUNT_FRAME = 0
    PUNT_PROBE = 1
    PUNT_REPLY = 2


cdef struct PuntItem:
    uint8_t *data
    uint32_t length
    uint32_t who  # a VNI, or a peer
    uint8_t kind
    uint8_t tos
    uint16_t port  # that a datagram came from


cdef struct Shared:
    # what the event loop's thread and the workers share besides the tables
    tables.Tables *tables
    uint32_t stopping
    uint32_t punt_first
    uint32_t punt_count
    PuntItem punts[MAX_PUNTS]
    uint32_t gso_refused  # errno of the first refusal, 0 = none


cdef inline double seconds() noexcept nogil:
    """Monotonic time, as Python's time.monotonic tells it."""
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <double>moment.tv_sec + <double>moment.tv_nsec * 1e-9


cdef inline uint64_t nanoseconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <uint64_t>moment.tv_sec * 1000000000u + <uint64_t>moment.tv_nsec


cdef inline bint left_by_icmp(int code) noexcept nogil:
    """Whether a failed send may be the fault of an earlier one (vxlan/underlay_errno.py)."""
    return is_unreachable(code) or code == EMSGSIZE or code == EACCES or code == EOPNOTSUPP


cdef inline bint is_unreachable(int code) noexcept nogil:
    return (
        code == ENETUNREACH or code == EHOSTUNREACH or code == ENETDOWN or code == EHOSTDOWN
        or code == ENONET or code == ENODEV or code == ECONNREFUSED or code == EADDRNOTAVAIL
        or code == EPROTO or code == ENOPROTOOPT
    )


cdef inline int drop_of_send(int code) noexcept nogil:
    if code == EAGAIN or code == ENOBUFS or code == ENOMEM or code == EINTR:
        return tables.UNDERLAY_BUSY
    if code == EMSGSIZE:
        return tables.PKT_TOO_BIG
    return tables.UNDERLAY_UNREACHABLE if is_unreachable(code) else tables.UNDERLAY_REFUSED


cdef inline int drop_of_write(int code) noexcept nogil:
    if code == EAGAIN or code == ENOBUFS or code == ENOMEM or code == EINTR:
        return tables.TAP_BUSY
    return tables.TAP_INVALID if code == EINVAL else tables.TAP_DOWN


cdef inline bint is_lost(int code) noexcept nogil:
    """Whether a TAP's descriptor is dead for ever (vxlan/tap.py)."""
    return code == EBADFD or code == ENODEV or code == EBADF or code == ENXIO


cdef bint punt(
    Shared *shared, uint8_t kind, uint32_t who, uint8_t tos, uint16_t port,
    const uint8_t *data, uint32_t length,
) noexcept nogil:
    """Leave a packet to Python; False if there is no room for it."""
    cdef uint8_t *copied = <uint8_t *>malloc(length)
    cdef PuntItem *item
    cdef bint taken = False
    if copied == NULL:
        return False
    memcpy(copied, data, length)
    atomic.pthread_mutex_lock(&shared.tables.mutex)
    if shared.punt_count < MAX_PUNTS:
        item = &shared.punts[(shared.punt_first + shared.punt_count) % MAX_PUNTS]
        item.data, item.length, item.who = copied, length, who
        item.kind, item.tos, item.port = kind, tos, port
        shared.punt_count += 1
        taken = True
    atomic.pthread_mutex_unlock(&shared.tables.mutex)
    if taken:
        tables.eventfd_write(shared.tables.wake, 1)
    else:
        free(copied)
    return taken
