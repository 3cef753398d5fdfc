"""Many datagrams in one system call: UDP generic segmentation offload.

Theory of operation
===================

With UDP_SEGMENT (udp(7), Linux 4.18) one sendmsg carries many datagrams of one
flow.  They cross the sending stack as one packet and are cut apart at the device,
or never, if the receiver sits on the same machine and merges (UDP_GRO):

    sendmsg([VXLAN frame | VXLAN frame | ... | VXLAN frame], UDP_SEGMENT = size)

All have one size but the last, which may be shorter; together they fit one IP
packet; the oldest kernels take 64 of them.  `runs` cuts a list of datagrams into
such pieces without changing its order, so that no flow is ever reordered.

What refuses a piece as a whole says nothing of each datagram in it: then they go
one by one, and each gets an answer of its own.  A device that cannot compute
checksums answers EIO to every piece, a kernel or socket without the option
EINVAL or ENOPROTOOPT: then there are no more pieces.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from socket import IPPROTO_UDP
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vxlan.engine import Datagram
    from vxlan.portpool import Sender

UDP_SEGMENT = 103
MAX_SEGMENTS = 64
MAX_BYTES = 65000
"""Bytes of payload in one piece: an IP packet less the longest headers, and some spare."""

NOT_SUPPORTED = frozenset((errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP))
"""What a send with UDP_SEGMENT answers where the kernel or the device cannot do it."""


def runs(datagrams: Sequence[Datagram]) -> Iterator[Sequence[Datagram]]:
    """The same datagrams in order, in pieces that one sendmsg can carry."""
    start, end = 0, len(datagrams)
    while start < end:
        stop = start + 1
        head = datagrams[start]
        size = len(head.payload)
        most = start + min(MAX_SEGMENTS, MAX_BYTES // (size or 1))
        while stop < end and stop < most and _follows(head, size, datagrams[stop]):
            stop += 1
            if len(datagrams[stop - 1].payload) < size:
                break
        yield datagrams[start:stop]
        start = stop


def _follows(head: Datagram, size: int, other: Datagram) -> bool:
    return (
        other.flow == head.flow
        and 0 < len(other.payload) <= size
        and other.remote == head.remote
        and other.tos == head.tos
        and other.ttl == head.ttl
    )


def send_run(sender: Sender, run: Sequence[Datagram]) -> None:
    """One sendmsg for all datagrams of a run.  Raises OSError; then none was sent."""
    head = run[0]
    if sender.tos != head.tos or sender.ttl != head.ttl:
        sender.mark(head.tos, head.ttl)
    size = struct.pack("=H", len(head.payload))
    payloads = [datagram.payload for datagram in run]
    sender.socket.sendmsg(payloads, ((IPPROTO_UDP, UDP_SEGMENT, size),), 0, head.remote)
