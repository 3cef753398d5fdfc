# Included by _fastpath.pyx.  Split and merge: pure functions on buffers.


cdef inline uint32_t get32(const uint8_t *data) noexcept nogil:
    """A 32-bit field in network order."""
    return <uint32_t>wire.load16(data) << 16 | wire.load16(data + 2)


cdef inline uint32_t min32(uint32_t a, uint32_t b) noexcept nogil:
    return a if a < b else b


include "offload_split.pxi"
include "offload_merge.pxi"


# -- for tests and fuzzers: what the workers do, on buffers that end where their data ends ----


cdef uint8_t *exactly(bytes data) except NULL:
    """A copy in memory of its own, so that a sanitizer sees one byte read too many."""
    cdef uint8_t *made = <uint8_t *>malloc(PyBytes_GET_SIZE(data) or 1)
    if made == NULL:
        raise MemoryError("no memory for a frame")
    memcpy(made, start_of(data), PyBytes_GET_SIZE(data))
    return made


def split(
    bytes header not None, bytes frame not None, uint32_t vni, bint in_place=False
) -> list[bytes] | None:
    """The datagram payloads of a frame as a TAP hands it over, each with its VXLAN header.

    None where the virtio_net_hdr is refused.  in_place: as after a read that scattered the
    payload to its final place.  Raises ValueError for a header that is not 10 bytes.
    """
    cdef VnetHdr vnet
    cdef Super whole
    cdef uint8_t *data
    if PyBytes_GET_SIZE(header) != VNET_HLEN:
        raise ValueError(f"{len(header)} bytes are no virtio_net_hdr: it has {VNET_HLEN}")
    memcpy(&vnet, start_of(header), VNET_HLEN)
    data = exactly(frame)
    try:
        if understand(&vnet, data, <uint32_t>PyBytes_GET_SIZE(frame), &whole) < 0:
            return None
        if whole.mss == 0:
            return [vxlan_header(vni) + (<char *>data)[:whole.length]]
        return None if needed(&whole) > ARENA else cut(&whole, data, vni, in_place)
    finally:
        free(data)


cdef list cut(const Super *whole, const uint8_t *data, uint32_t vni, bint in_place):
    cdef uint64_t header = 0
    cdef uint32_t stride = wire.VXLAN_HLEN + whole.headers + whole.mss
    cdef uint32_t size = <uint32_t>needed(whole)
    cdef uint8_t *out = <uint8_t *>malloc(size)
    if out == NULL:
        raise MemoryError("no memory for the segments of a frame")
    try:
        wire.vxlan_store(<uint8_t *>&header, vni)
        if in_place:
            scatter(whole, data, out)
            data = out + wire.VXLAN_HLEN
        lay_out(whole, data, header, out, in_place)
        return [
            (<char *>out)[at : min(at + stride, size)] for at in range(0, size, stride)
        ]
    finally:
        free(out)


cdef void scatter(const Super *whole, const uint8_t *data, uint8_t *out) noexcept:
    """Lay a frame out as `offer_buffers` makes the kernel do."""
    cdef uint32_t number, rest = whole.payload, length
    memcpy(out + wire.VXLAN_HLEN, data, whole.headers)
    data += whole.headers
    for number in range(whole.count):
        length = min32(rest, whole.mss)
        out += wire.VXLAN_HLEN + whole.headers
        memcpy(out, data, length)
        out += length
        data += length
        rest -= length


cdef int collect(void *to, iovec *iov, int parts, uint32_t packets) noexcept with gil:
    """The emit of a merger that writes to a list."""
    cdef int at
    pieces = [(<char *>iov[at].iov_base)[: iov[at].iov_len] for at in range(parts)]
    (<list>to).append((pieces[0], b"".join(pieces[1:]), packets))
    return 0


def merge(list frames not None, uint32_t mtu) -> list[tuple[bytes, bytes, int]]:
    """What is written to a TAP for inner frames: (virtio_net_hdr, frame, segments) each.

    `mtu` is the overlay MTU.  Raises ValueError for a frame under 14 bytes.
    """
    if any(len(frame) < wire.ETH_HLEN for frame in frames):
        raise ValueError("a frame under 14 bytes is no Ethernet frame")
    cdef list made = []
    cdef int at, count = 0
    cdef Merger *merger = <Merger *>calloc(1, sizeof(Merger))
    cdef uint8_t **copies = <uint8_t **>calloc(len(frames) + 1, sizeof(uint8_t *))
    try:
        if merger == NULL or copies == NULL:
            raise MemoryError("no memory for frames")
        merger.emit, merger.to, merger.mtu = collect, <void *>made, mtu
        for frame in frames:
            copies[count] = exactly(frame)
            merge_in(merger, copies[count], <uint32_t>len(frame))
            count += 1
        flush_all(merger)
        return made
    finally:
        for at in range(count):
            free(copies[at])
        free(copies)
        free(merger)
