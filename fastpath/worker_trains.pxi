"""Trains: datagrams of one size for one remote from one source port, sent in one call.

Theory of operation
===================

A train is what UDP_SEGMENT can carry: up to 64 datagrams of one size, the last one
perhaps shorter, in buffers that may lie anywhere.  A datagram goes on with the train
that last went its way, or begins a new one.

Trains are sent in the order in which they began, those of one socket together
(sendmmsg), so no flow is reordered.  What the kernel does not take is counted at once;
nothing is queued.  A kernel or device without segmentation offload answers EIO or
EINVAL: then the datagrams go one by one, from then on, and it is told.
"""


cdef enum:
    ARENA = 1 << 20
    ARENA_FULL = 180000
    MAX_TRAINS = 256
    SPARE_TRAINS = 192
    TRAIN_IOV = 64
    TRAIN_MAX = 65000
    TRAIN_SEGMENTS = 64
    READ_BATCH = 64
    READ_IOV = 80
    LONGEST = 65600
    POOL = 1024
    RECENT = 256


cdef struct Train:
    uint32_t remote
    int fd
    uint16_t slot
    uint16_t size  # of every segment but the last
    uint16_t count
    uint8_t tos
    uint8_t ttl
    uint8_t closed
    uint8_t sent
    uint32_t octets
    int parts
    tables.Segment *segment
    iovec iov[TRAIN_IOV]
    uint8_t to[28]
    uint8_t control[128]


cdef struct Encap:
    Shared *shared
    int slot
    int epoll
    int fds[2][POOL]  # by family (0 IPv4, 1 IPv6), by slot
    uint16_t ports[2][POOL]  # theirs
    uint32_t fd_count[2]
    uint8_t gso
    uint8_t *arena
    uint8_t *spare
    uint32_t used
    uint32_t trains
    int recent[RECENT]  # by hash of remote and slot: a train that may go on
    Train *train
    mmsghdr msgs[MAX_TRAINS]
    uint16_t order[MAX_TRAINS]  # by message: which train it is
    VnetHdr vnet
    uint32_t expect_headers
    uint32_t expect_mss
    double now
    sight_c.Sight *sight  # while somebody captures; loaded for each batch
    uint8_t peek[sight_c.PEEK]


# -- trains ------------------------------------------------------------------------


cdef inline void put_segment(
    Encap *e, tables.Segment *segment, const datapath.Verdict *verdict, uint32_t remote,
    uint8_t *at, uint32_t length,
) noexcept nogil:
    """Let a datagram at `at` leave for one remote."""
    cdef tables.Far *far = &e.shared.tables.remotes[remote]
    cdef int family = 1 if e.shared.tables.peers[far.peer].family == 6 else 0
    cdef uint32_t slot, hashed
    cdef Train *train
    if e.fd_count[family] == 0:
        tables.count_drop(
            e.shared.tables, &segment.tally, e.slot, far.peer, tables.UNDERLAY_UNREACHABLE, 1
        )
        if sight_c.seldom(e.sight != NULL):
            see_sent(
                e, segment, remote, 0, verdict.tos, verdict.ttl, at, length,
                tables.UNDERLAY_UNREACHABLE,
            )
        return
    slot = <uint32_t>(<uint64_t>verdict.flow * e.fd_count[family] >> 32)
    hashed = (remote * 31 + slot) % RECENT
    if e.recent[hashed] >= 0:
        train = &e.train[e.recent[hashed]]
        if may_go_on(train, segment, verdict, remote, slot, length) and extend(train, at, length):
            return
    if e.trains == MAX_TRAINS:
        send_trains(e)
    e.recent[hashed] = <int>e.trains
    train = &e.train[e.trains]
    e.trains += 1
    train.remote, train.segment = remote, segment
    train.fd, train.slot = e.fds[family][slot], <uint16_t>slot
    train.tos, train.ttl = verdict.tos, verdict.ttl
    train.size, train.count, train.octets = <uint16_t>length, 1, length
    train.closed = not e.gso
    train.sent = 0
    train.parts = 1
    train.iov[0].iov_base = at
    train.iov[0].iov_len = length


cdef inline bint may_go_on(
    const Train *train, const tables.Segment *segment, const datapath.Verdict *verdict,
    uint32_t remote, uint32_t slot, uint32_t length,
) noexcept nogil:
    return (
        not train.closed and train.remote == remote and train.slot == slot
        and train.segment == segment and length <= train.size
        and train.octets + length <= TRAIN_MAX and train.count < TRAIN_SEGMENTS
        and train.tos == verdict.tos and train.ttl == verdict.ttl
    )


cdef inline bint extend(Train *train, uint8_t *at, uint32_t length) noexcept nogil:
    cdef iovec *last = &train.iov[train.parts - 1]
    if <uint8_t *>last.iov_base + last.iov_len == at:
        last.iov_len += length
    elif train.parts < TRAIN_IOV:
        train.iov[train.parts].iov_base = at
        train.iov[train.parts].iov_len = length
        train.parts += 1
    else:
        return False
    train.count += 1
    train.octets += length
    train.closed = length < train.size
    return True


# -- sending -----------------------------------------------------------------------


cdef void send_trains(Encap *e) noexcept nogil:
    """Send everything, the trains of one socket together and in order."""
    cdef uint32_t first, at
    cdef int count
    for first in range(e.trains):
        if e.train[first].sent:
            continue
        count = 0
        for at in range(first, e.trains):
            if not e.train[at].sent and e.train[at].fd == e.train[first].fd:
                e.train[at].sent = 1
                address_train(e, &e.train[at], &e.msgs[count].msg_hdr)
                e.order[count] = <uint16_t>at
                count += 1
        send_messages(e, e.train[first].fd, count)
    e.trains = 0
    memset(e.recent, 0xFF, sizeof(e.recent))  # -1: none


cdef inline void address_train(Encap *e, Train *train, msghdr *message) noexcept nogil:
    cdef cmsghdr *control
    cdef bint six
    memset(message, 0, sizeof(msghdr))
    message.msg_name = train.to
    message.msg_namelen = socket_address(e.shared.tables, train.remote, train.to)
    message.msg_iov = train.iov
    message.msg_iovlen = train.parts
    message.msg_control = train.control
    message.msg_controllen = sizeof(train.control)
    memset(train.control, 0, sizeof(train.control))
    control = CMSG_FIRSTHDR(message)
    six = message.msg_namelen == sizeof(sockaddr_in6)
    if train.count > 1:
        control = put_control(message, control, SOL_UDP, UDP_SEGMENT, 2, train.size)
    if train.tos:
        control = put_control(
            message, control, IPPROTO_IPV6 if six else IPPROTO_IP, IPV6_TCLASS if six else IP_TOS,
            4, train.tos,
        )
    if train.ttl != datapath.DEFAULT_TTL:
        control = put_control(
            message, control, IPPROTO_IPV6 if six else IPPROTO_IP,
            IPV6_HOPLIMIT if six else IP_TTL, 4, train.ttl,
        )
    message.msg_controllen = <uint8_t *>control - <uint8_t *>train.control
    if message.msg_controllen == 0:
        message.msg_control = NULL


cdef inline cmsghdr *put_control(
    msghdr *message, cmsghdr *control, int level, int kind, int size, int value
) noexcept nogil:
    """Write a control message; where the next one goes."""
    cdef uint16_t half = <uint16_t>value
    control.cmsg_level = level
    control.cmsg_type = kind
    control.cmsg_len = CMSG_LEN(size)
    if size == 2:
        memcpy(CMSG_DATA(control), &half, 2)
    else:
        memcpy(CMSG_DATA(control), &value, 4)
    return <cmsghdr *>(<uint8_t *>control + CMSG_SPACE(size))


cdef inline socklen_t socket_address(
    const tables.Tables *known, uint32_t remote, uint8_t *to
) noexcept nogil:
    """The struct sockaddr of a remote at `to`; its length."""
    cdef const tables.Far *far = &known.remotes[remote]
    cdef const tables.Peer *peer = &known.peers[far.peer]
    cdef sockaddr_in *four = <sockaddr_in *>to
    cdef sockaddr_in6 *six = <sockaddr_in6 *>to
    memset(to, 0, sizeof(sockaddr_in6))
    if peer.family == 6:
        six.sin6_family = <sa_family_t>AF_INET6
        six.sin6_port = htons(far.port)
        memcpy(&six.sin6_addr, peer.address, 16)
        return sizeof(sockaddr_in6)
    four.sin_family = <sa_family_t>AF_INET
    four.sin_port = htons(far.port)
    memcpy(&four.sin_addr, peer.address, 4)
    return sizeof(sockaddr_in)


cdef void send_messages(Encap *e, int fd, int count) noexcept nogil:
    """Send messages by one socket; one that is refused does not keep the others back."""
    cdef int done = 0, took, code
    cdef uint32_t train
    while done < count:
        train = e.order[done]
        if count - done == 1:
            took = 1 if sendmsg(fd, &e.msgs[done].msg_hdr, MSG_DONTWAIT) >= 0 else -1
        else:
            took = sendmmsg(fd, &e.msgs[done], count - done, MSG_DONTWAIT)
        if took > 0:
            if sight_c.seldom(e.sight != NULL):
                see_trains(e, done, took)
            done += took
            continue
        code = errno
        if left_by_icmp(code) and sendmsg(fd, &e.msgs[done].msg_hdr, MSG_DONTWAIT) >= 0:
            if sight_c.seldom(e.sight != NULL):
                see_trains(e, done, 1)
            done += 1
            continue
        refused(e, &e.train[train], fd, &e.msgs[done].msg_hdr, errno if left_by_icmp(code) else code)
        done += 1


cdef void refused(Encap *e, Train *train, int fd, msghdr *message, int code) noexcept nogil:
    """The kernel did not take a train: one by one if offload is to blame, else counted."""
    if train.count > 1 and (code == EIO or code == EINVAL or code == EMSGSIZE):
        if code != EMSGSIZE:
            e.gso = 0
            atomic.store_u32(&e.shared.gso_refused, <uint32_t>code)
        one_by_one(e, train, fd, message)
    else:
        count_refused(e, train, code, train.count)
        if sight_c.seldom(e.sight != NULL):
            see_train(e, train, drop_of_send(code))


cdef void one_by_one(Encap *e, Train *train, int fd, msghdr *message) noexcept nogil:
    """Send the datagrams of a train each for itself."""
    cdef iovec piece
    cdef int part, code
    cdef size_t at, length
    message.msg_iov = &piece
    message.msg_iovlen = 1
    drop_segment_option(train, message)
    for part in range(train.parts):
        at = 0
        while at < train.iov[part].iov_len:
            length = train.iov[part].iov_len - at
            if length > train.size:
                length = train.size
            piece.iov_base = <uint8_t *>train.iov[part].iov_base + at
            piece.iov_len = length
            code = 0
            if sendmsg(fd, message, MSG_DONTWAIT) < 0:
                code = errno
                count_refused(e, train, code, 1)
            if sight_c.seldom(e.sight != NULL):
                see_piece(
                    e, train, <uint8_t *>piece.iov_base, <uint32_t>length,
                    drop_of_send(code) if code else -1,
                )
            at += length


cdef inline void drop_segment_option(Train *train, msghdr *message) noexcept nogil:
    """UDP_SEGMENT is the first control message, where there is one."""
    message.msg_control = train.control + CMSG_SPACE(2)
    message.msg_controllen -= CMSG_SPACE(2)
    if message.msg_controllen == 0:
        message.msg_control = NULL


cdef inline void count_refused(Encap *e, Train *train, int code, uint32_t packets) noexcept nogil:
    cdef uint32_t peer = e.shared.tables.remotes[train.remote].peer
    cdef int reason = drop_of_send(code)
    tables.count_drop(
        e.shared.tables, &train.segment.tally, e.slot, peer, reason, packets
    )
    if reason == tables.UNDERLAY_UNREACHABLE and e.shared.tables.peers[peer].heard != 2:
        tables.set_heard(e.shared.tables, peer, train.remote, 2, e.now)
