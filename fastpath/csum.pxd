"""Checksums on (pointer, length): the Internet checksum and CRC-32.

Theory of operation
===================

The Internet checksum (RFC 1071) is the ones-complement of the ones-complement sum
of a buffer's 16-bit words.  Two properties make it cheap.  It does not depend on
byte order: words may be added as the machine loads them, and only the result is
swapped.  And carries may be deferred: 32-bit words are added into 64 bits, which no
buffer shorter than 16 GiB overflows, and folded once at the end.  The loop is plain,
so that the compiler makes vectors of it on every target.

The sum is returned as vxlan/wire.py defines it: the remainder modulo 65535, so 0
stands for 0xffff too, which ones-complement calls equal.

CRC-32 is zlib's (polynomial 0x04C11DB7, reflected), as vxlan/wire.py calls it, but
for keys of 8 to 36 bytes the call into zlib would cost more than the work.  Eight
tables take eight bytes in one step ("slicing by 8"); table k holds the CRC of one
byte followed by k zero bytes.  `crc32_init` fills them when the module is imported.

Bytes are put together with shifts, which compilers turn into one load, so nothing
here depends on the processor's byte order or on alignment.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    static uint32_t fastpath_crc[8][256];
    """
    uint32_t fastpath_crc[8][256]


# -- the Internet checksum (RFC 1071) -------------------------------------------------


cdef inline uint16_t fold(uint64_t total) noexcept nogil:
    """A deferred sum of words in network order -> its remainder modulo 65535."""
    return <uint16_t>(total % 0xFFFF)


cdef inline uint64_t native_sum(const uint8_t *data, size_t length) noexcept nogil:
    """The deferred sum of the words as the machine loads them; odd lengths padded."""
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef uint16_t half
    cdef uint8_t last[2]
    cdef size_t at, words = length >> 2
    for at in range(words):
        memcpy(&word, data + 4 * at, 4)
        total += word
    data += 4 * words
    if length & 2:
        memcpy(&half, data, 2)
        total += half
        data += 2
    if length & 1:
        last[0] = data[0]
        last[1] = 0
        memcpy(&half, last, 2)
        total += half
    return total


cdef inline uint16_t ones_sum(const uint8_t *data, size_t length) noexcept nogil:
    """The ones-complement sum of the 16-bit words, 0 to 0xfffe."""
    cdef uint16_t total = fold(native_sum(data, length))
    cdef uint8_t in_order[2]
    memcpy(in_order, &total, 2)
    return <uint16_t>(in_order[0] << 8 | in_order[1])


cdef inline uint16_t checksum(const uint8_t *data, size_t length, uint32_t start) noexcept nogil:
    """The Internet checksum, with `start` (a sum in network order) added, 0 to 0xfffe."""
    return <uint16_t>((0xFFFF - fold(<uint64_t>ones_sum(data, length) + start)) % 0xFFFF)


cdef inline uint16_t checksum_update(uint16_t check, uint16_t old, uint16_t new) noexcept nogil:
    """The checksum after a 16-bit word changed (RFC 1624, eqn. 3)."""
    cdef uint32_t total = <uint32_t>(check ^ 0xFFFF) + (old ^ 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>~((total & 0xFFFF) + (total >> 16))


# -- CRC-32 ---------------------------------------------------------------------------


cdef inline void crc32_init() noexcept nogil:
    """Fill the tables.  Call it once, before any thread computes a CRC."""
    cdef uint32_t byte, crc
    cdef int bit, table
    for byte in range(256):
        crc = byte
        for bit in range(8):
            crc = crc >> 1 ^ (0xEDB88320u if crc & 1 else 0)
        fastpath_crc[0][byte] = crc
    for table in range(1, 8):
        for byte in range(256):
            crc = fastpath_crc[table - 1][byte]
            fastpath_crc[table][byte] = crc >> 8 ^ fastpath_crc[0][crc & 0xFF]


cdef inline uint32_t load_le32(const uint8_t *data) noexcept nogil:
    return (
        <uint32_t>data[0] | <uint32_t>data[1] << 8 | <uint32_t>data[2] << 16 | <uint32_t>data[3] << 24
    )


cdef inline uint32_t crc32_step(uint32_t low, uint32_t high) noexcept nogil:
    """Eight bytes in one step; `low` has the CRC so far mixed in."""
    return (
        fastpath_crc[7][low & 0xFF]
        ^ fastpath_crc[6][low >> 8 & 0xFF]
        ^ fastpath_crc[5][low >> 16 & 0xFF]
        ^ fastpath_crc[4][low >> 24]
        ^ fastpath_crc[3][high & 0xFF]
        ^ fastpath_crc[2][high >> 8 & 0xFF]
        ^ fastpath_crc[1][high >> 16 & 0xFF]
        ^ fastpath_crc[0][high >> 24]
    )


cdef inline uint32_t crc32(const uint8_t *data, size_t length, uint32_t start) noexcept nogil:
    """zlib's crc32(data, start)."""
    cdef uint32_t crc = ~start
    while length >= 8:
        crc = crc32_step(crc ^ load_le32(data), load_le32(data + 4))
        data += 8
        length -= 8
    if length >= 4:
        crc ^= load_le32(data)
        crc = (
            fastpath_crc[3][crc & 0xFF]
            ^ fastpath_crc[2][crc >> 8 & 0xFF]
            ^ fastpath_crc[1][crc >> 16 & 0xFF]
            ^ fastpath_crc[0][crc >> 24]
        )
        data += 4
        length -= 4
    while length:
        crc = crc >> 8 ^ fastpath_crc[0][(crc ^ data[0]) & 0xFF]
        data += 1
        length -= 1
    return ~crc
