"""From the underlay to TAPs.

Theory of operation
===================

    receive  recvmmsg: several buffers of up to 64 KiB, each holding datagrams of one
             remote that the kernel merged (UDP_GRO)
    decide   datapath.decap_one, for each datagram
    merge    inner segments that continue each other (offload_merge.pxi)
    write    one writev for a super-frame, straight out of the receive buffer

What a TAP does not take is counted for the remote that it came from.
"""

cdef enum:
    RECEIVE_BATCH = 8
    RECEIVE_ROUNDS = 8
    BUFFER = 65536
    CONTROL = 128


cdef struct Delivery:
    # where the merger's frames go
    Shared *shared
    int slot
    tables.Segment *segment
    uint32_t peer
    uint16_t port  # that the peer sent from
    sight_c.Sight *sight


cdef struct Decap:
    Shared *shared
    int slot
    Delivery delivery
    Merger merger
    mmsghdr msgs[RECEIVE_BATCH]
    iovec iov[RECEIVE_BATCH]
    uint8_t sources[RECEIVE_BATCH][28]
    uint8_t control[RECEIVE_BATCH][CONTROL]
    uint8_t *buffers
    double now
    uint16_t port  # that the datagram came from
    sight_c.Sight *sight  # while somebody captures; loaded for each batch
    uint8_t peek[sight_c.PEEK]


cdef int write_to_tap(void *to, iovec *iov, int parts, uint32_t packets) noexcept nogil:
    """What the merger does with a frame that is complete."""
    cdef Delivery *delivery = <Delivery *>to
    cdef tables.Segment *segment = delivery.segment
    cdef int reason = -1, tap = segment.taps[(delivery.slot - 1) // 2]
    if tap < 0:
        reason = tables.TAP_DOWN
    elif writev(tap, iov, parts) < 0:
        reason = drop_of_write(errno)
    if reason >= 0:
        tables.count_drop(
            delivery.shared.tables, &segment.tally, delivery.slot, delivery.peer, reason, packets
        )
    if sight_c.seldom(delivery.sight != NULL):
        see_written(delivery, iov + 1, parts - 1, packets, reason)
    return 0


cdef inline uint16_t port_of(const uint8_t *source) noexcept nogil:
    cdef sockaddr_in *four = <sockaddr_in *>source
    cdef sockaddr_in6 *six = <sockaddr_in6 *>source
    return ntohs(six.sin6_port if four.sin_family == AF_INET6 else four.sin_port)


cdef inline uint32_t peer_of(Decap *d, const uint8_t *source) noexcept nogil:
    cdef sockaddr_in *four = <sockaddr_in *>source
    cdef sockaddr_in6 *six = <sockaddr_in6 *>source
    cdef uint8_t address[16]
    if four.sin_family == AF_INET6:
        return tables.peer_of_source(d.shared.tables, 6, <uint8_t *>&six.sin6_addr)
    memset(address, 0, 16)
    memcpy(address, &four.sin_addr, 4)
    return tables.peer_of_source(d.shared.tables, 4, address)


cdef inline void read_control(msghdr *message, uint32_t *size, uint8_t *tos) noexcept nogil:
    """The segment size of merged datagrams, and the traffic class."""
    cdef cmsghdr *control = CMSG_FIRSTHDR(message)
    cdef int value
    while control != NULL:
        if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
            memcpy(&value, CMSG_DATA(control), 4)
            if value > 0:
                size[0] = <uint32_t>value
        elif control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_TOS:
            tos[0] = CMSG_DATA(control)[0]
        elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_TCLASS:
            memcpy(&value, CMSG_DATA(control), 4)
            tos[0] = <uint8_t>value
        control = CMSG_NXTHDR(message, control)


cdef void take_message(Decap *d, int which) noexcept nogil:
    """Cut one message into its datagrams, and decide about each."""
    cdef uint8_t *at = d.buffers + which * BUFFER
    cdef uint32_t rest = d.msgs[which].msg_len, size = rest, length
    cdef uint32_t peer = peer_of(d, d.sources[which])
    cdef uint8_t tos = 0
    read_control(&d.msgs[which].msg_hdr, &size, &tos)
    d.port = port_of(d.sources[which])
    while True:
        length = min32(rest, size)
        take_datagram(d, peer, at, length, tos)
        at += length
        rest -= length
        if rest == 0:
            break


cdef inline void take_datagram(
    Decap *d, uint32_t peer, uint8_t *payload, uint32_t length, uint8_t tos
) noexcept nogil:
    cdef datapath.Verdict verdict
    cdef int decided
    if sight_c.seldom(d.sight != NULL):
        memcpy(d.peek, payload, min32(length, sight_c.PEEK))
    decided = datapath.decap_one(
        d.shared.tables, d.slot, peer, payload, length, tos, d.now, &verdict
    )
    if sight_c.seldom(d.sight != NULL) and decided != datapath.PUNT:
        see_datagram(
            d, peer, payload, length, tos, verdict.reason if decided == datapath.DROPPED else -1
        )
    if decided == datapath.PUNT:
        if not punt(d.shared, PUNT_PROBE, peer, tos, d.port, payload, length):
            tables.count_drop(
                d.shared.tables, &d.shared.tables.tally, d.slot, peer,
                tables.VXLAN_INVALID_HDR, 1,
            )
            if sight_c.seldom(d.sight != NULL):
                see_datagram(d, peer, payload, length, tos, tables.VXLAN_INVALID_HDR)
    if decided == datapath.REPLY and punt(d.shared, PUNT_REPLY, peer, tos, d.port, payload, length):
        return
    if decided != datapath.DELIVER and decided != datapath.REPLY:
        return
    if d.delivery.segment != verdict.segment or d.delivery.peer != peer:
        flush_all(&d.merger)
        d.delivery.segment = verdict.segment
        d.delivery.peer = peer
        d.merger.mtu = verdict.segment.rules.mtu
    d.delivery.port = d.port
    merge_in(&d.merger, payload + wire.VXLAN_HLEN, length - wire.VXLAN_HLEN)


cdef int receive_batch(Decap *d, int fd) noexcept nogil:
    """Receive and deliver one batch; how many messages."""
    cdef int count, which
    for which in range(RECEIVE_BATCH):
        d.msgs[which].msg_hdr.msg_controllen = CONTROL
        d.msgs[which].msg_hdr.msg_namelen = sizeof(sockaddr_in6)
    count = recvmmsg(fd, d.msgs, RECEIVE_BATCH, MSG_DONTWAIT, NULL)
    if count <= 0:
        return 0
    for which in range(count):
        take_message(d, which)
    flush_all(&d.merger)
    return count


cdef int drain_receiver(Decap *d, int fd) noexcept nogil:
    """Receive and deliver what waits at one socket, a bounded number of batches of it."""
    cdef int rounds, got, taken = 0
    d.delivery.segment = NULL
    for rounds in range(RECEIVE_ROUNDS):
        got = receive_batch(d, fd)
        taken += got
        if got < RECEIVE_BATCH:
            break
    return taken
