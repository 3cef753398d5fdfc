"""Merging TCP segments before they are written to a TAP: receive offload, by hand.

Theory of operation
===================

Giving the kernel a frame costs a system call and a walk through bridge, IP and
TCP, and every second one is acknowledged.  Forty segments of one stream given as
one frame of 58 KiB cost hardly more than one.  So neighbours that continue each
other are put together, as a network card with receive offload does, and the
virtio_net_hdr says how to cut them apart again where that is needed.

A segment continues a run when everything in its headers is the same as in the
first one, but for what must differ:

    Ethernet, tags     same                   TCP ports, options   same
    IP, addresses      same                   acknowledgement, window  same
    IPv4 length, id    length free, id next   sequence             follows
                       (free with DF)         flags                ACK; PSH ends the run
    checksums          right in each          payload              as long as the first;
                                                                   a shorter one ends the run

A wrong checksum must reach its receiver as wrong, so it is verified before
anything is merged; what was verified is marked as such, which saves the receiver
the work.  Everything else is passed on alone, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vxlan.offload import GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, VNET_HDR, vnet_header
from vxlan.transport import TCP_HLEN, Transport, find_transport, pseudo_sum
from vxlan.wire import IPPROTO_TCP, IPV4_HLEN, checksum, ones_sum

DATA_VALID = VNET_HDR.pack(2, 0, 0, 0, 0, 0)
"""The header of a frame whose transport checksum was verified."""

MAX_PACKET = 65535
_ACK, _PSH = 0x10, 0x08
_CHECK_AT = 16


class Piece(NamedTuple):
    """What is written to a TAP: a virtio_net_hdr, a frame, and how many segments it holds."""

    header: bytes
    frame: bytes
    segments: int


class _Segment(NamedTuple):
    frame: bytes
    found: Transport
    payload_at: int
    sequence: int
    push: bool
    same: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return self.found.end - self.payload_at


def merge(frames: Sequence[bytes], mtu: int) -> Iterator[Piece]:
    """The frames in order, neighbours of one TCP stream put together.

    `mtu` is the overlay MTU, for frames that a peer on this machine never segmented.
    """
    if len(frames) == 1:
        yield Piece(vnet_header(frames[0], mtu), frames[0], 1)
        return
    run: list[_Segment] = []
    for frame in frames:
        segment = _segment(frame)
        if run and not (segment and _continues(run, segment)):
            yield _put_together(run)
            run = []
        if segment is None:
            yield Piece(vnet_header(frame, mtu), frame, 1)
        else:
            run.append(segment)
    if run:
        yield _put_together(run)


def _segment(frame: bytes) -> _Segment | None:
    """A TCP segment that could be merged; None for everything else."""
    found = find_transport(frame)
    if found is None or found.protocol != IPPROTO_TCP or found.end < found.l4 + TCP_HLEN:
        return None
    l3, l4 = found.l3, found.l4
    payload_at = l4 + (frame[l4 + 12] >> 4) * 4
    if l4 - l3 != found.ip_header or not l4 + TCP_HLEN <= payload_at < found.end:
        return None
    if frame[l4 + 13] & ~_PSH != _ACK or not _is_right(frame, found):
        return None
    sequence = int.from_bytes(frame[l4 + 4 : l4 + 8], "big")
    push = bool(frame[l4 + 13] & _PSH)
    return _Segment(frame, found, payload_at, sequence, push, _same(frame, found, payload_at))


def _is_right(frame: bytes, found: Transport) -> bool:
    """Whether the checksums are right: the segment's, and that of an IPv4 header."""
    if found.ip_header == IPV4_HLEN and ones_sum(frame[found.l3 : found.l4]):
        return False
    return (ones_sum(frame[found.l4 : found.end]) + pseudo_sum(frame, found)) % 0xFFFF == 0


def _same(frame: bytes, found: Transport, payload_at: int) -> tuple[bytes, ...]:
    """The parts of the headers that are the same in all segments of a run."""
    l3, l4 = found.l3, found.l4
    if found.ip_header == IPV4_HLEN:
        link_and_ip = (frame[: l3 + 2], frame[l3 + 6 : l3 + 10], frame[l3 + 12 : l4 + 4])
    else:
        link_and_ip = (frame[: l3 + 4], frame[l3 + 6 : l4 + 4], b"")
    return (
        *link_and_ip,
        frame[l4 + 8 : l4 + 13],
        frame[l4 + 14 : l4 + 16],
        frame[l4 + 18 : payload_at],
    )


def _continues(run: list[_Segment], segment: _Segment) -> bool:
    first, last = run[0], run[-1]
    if last.push or last.size < first.size or not 0 < segment.size <= first.size:
        return False
    if segment.sequence != (last.sequence + last.size) & 0xFFFFFFFF or segment.same != first.same:
        return False
    whole = first.found.end - first.found.l3 + first.size * len(run)
    return whole <= MAX_PACKET and _id_follows(last, segment)


def _id_follows(last: _Segment, segment: _Segment) -> bool:
    """Whether cutting the run apart again gives the same IPv4 identifications, or none counts."""
    l3 = segment.found.l3
    if segment.found.ip_header != IPV4_HLEN or segment.frame[l3 + 6] & 0x40:
        return True
    before = int.from_bytes(last.frame[l3 + 4 : l3 + 6], "big")
    return int.from_bytes(segment.frame[l3 + 4 : l3 + 6], "big") == (before + 1) & 0xFFFF


def _put_together(run: list[_Segment]) -> Piece:
    first = run[0]
    if len(run) == 1:
        return Piece(DATA_VALID, first.frame, 1)
    found = first.found
    payloads = [one.frame[one.payload_at : one.found.end] for one in run]
    headers = bytearray(first.frame[: first.payload_at])
    length = first.payload_at - found.l3 + sum(map(len, payloads))
    _set_ip_length(headers, found, length)
    headers[found.l4 + 13] |= _PSH if run[-1].push else 0
    whole = found._replace(end=found.l3 + length)
    check = pseudo_sum(bytes(headers), whole)
    headers[found.l4 + _CHECK_AT : found.l4 + _CHECK_AT + 2] = check.to_bytes(2, "big")
    kind = GSO_TCPV4 if found.ip_header == IPV4_HLEN else GSO_TCPV6
    offload = VNET_HDR.pack(NEEDS_CSUM, kind, first.payload_at, first.size, found.l4, _CHECK_AT)
    return Piece(offload, b"".join((headers, *payloads)), len(run))


def _set_ip_length(headers: bytearray, found: Transport, length: int) -> None:
    l3 = found.l3
    if found.ip_header == IPV4_HLEN:
        headers[l3 + 2 : l3 + 4] = length.to_bytes(2, "big")
        headers[l3 + 10 : l3 + 12] = b"\0\0"
        check = checksum(bytes(headers[l3 : l3 + IPV4_HLEN]))
        headers[l3 + 10 : l3 + 12] = check.to_bytes(2, "big")
    else:
        headers[l3 + 4 : l3 + 6] = (length - found.ip_header).to_bytes(2, "big")
