"""Partial sums of the Internet checksum (RFC 1071) over whole payloads, as fast as they go.

What csum.pxd defines exactly as vxlan/wire.py does, this computes for the walk over
every byte that is carried: with vectors where the processor has them, chosen once at
import, since a wheel must run on any processor of its architecture.

Sums are kept in native byte order: the ones-complement sum of swapped words is
the swapped sum (RFC 1071, section 2.B), so a folded result is stored as it is.
A partial sum is an unsigned 64-bit number of up to 2**32 summed words of 32 bits.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>

    /* Two lanes of 32-bit halves, which the compiler turns into vectors. */
    #define VX_SUM_BODY                                                      \\
        uint64_t low = 0, high = 0, word;                                    \\
        uint32_t four;                                                       \\
        uint16_t two;                                                        \\
        size_t i, whole = n & ~(size_t)7;                                    \\
        for (i = 0; i < whole; i += 8) {                                     \\
            memcpy(&word, p + i, 8);                                         \\
            low += word & 0xffffffffu;                                       \\
            high += word >> 32;                                              \\
        }                                                                    \\
        if (n & 4) { memcpy(&four, p + i, 4); low += four; i += 4; }         \\
        if (n & 2) { memcpy(&two, p + i, 2); low += two; i += 2; }           \\
        if (n & 1) { two = 0; memcpy(&two, p + i, 1); low += two; }          \\
        return low + high;

    static inline uint64_t vx_sum_short(const uint8_t *p, size_t n) { VX_SUM_BODY }
    static uint64_t vx_sum_any(const uint8_t *p, size_t n) { VX_SUM_BODY }
    static uint64_t (*vx_sum)(const uint8_t *, size_t) = vx_sum_any;

    #if defined(__x86_64__) && defined(__GNUC__)
    __attribute__((target("avx2")))
    static uint64_t vx_sum_avx2(const uint8_t *p, size_t n) { VX_SUM_BODY }

    static const char *vx_sum_choose(void)
    {
        if (__builtin_cpu_supports("avx2")) {
            vx_sum = vx_sum_avx2;
            return "avx2";
        }
        return "portable";
    }
    #else
    static const char *vx_sum_choose(void) { return "portable"; }
    #endif
    """
    uint64_t sum_bytes "vx_sum"(const uint8_t *, size_t)
    uint64_t sum_short "vx_sum_short"(const uint8_t *, size_t)
    const char *sum_choose "vx_sum_choose"()


cdef inline uint16_t fold16(uint64_t total) noexcept nogil:
    """A partial sum -> 16 bits, not inverted."""
    total = <uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16 & 0xFFFF) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>((total & 0xFFFF) + (total >> 16))
