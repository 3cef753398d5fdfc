# Included by _fastpath.pyx.  Split and merge: pure functions on buffers.


cdef inline uint32_t get32(const uint8_t *data) noexcept nogil:
    """A 32-bit field in network order."""
    return <uint32_t>wire.load16(data) << 16 | wire.load16(data + 2)


cdef inline uint32_t min32(uint32_t a, uint32_t b) noexcept nogil:
    return a if a < b else b


include "offload_split.pxi"
include "offload_merge.pxi"
