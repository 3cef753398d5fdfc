"""The frames of a capture, to be sent once more.

Theory of operation
===================

    a capture  --frames-->  what came in  --send-->  an interface

A capture of `pyvxlan capture` has every packet twice, once on each side of the VTEP.
What went out is what became of something that came in, so it is left out: who replays
the cause gets the effect.  Captures of others tell no direction, and all of it is taken.
Of a datagram to the VXLAN port the frame inside is taken, of everything else on an
Ethernet link the frame itself.  Packets of which not every byte was kept are no frames.

Frames are sent as they stand, through a packet socket: by the TAP of a segment, they
come to its VTEP as if a container had sent them.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vxlan.pcap_read import ETHERNET, RAW_IP, Packet
from vxlan.wire import (
    ETH_HLEN,
    IPPROTO_UDP,
    IPV4_HLEN,
    IPV6_HLEN,
    UDP_HLEN,
    VXLAN_HLEN,
    ethertype_at,
    parse_vxlan,
)

LONGEST_WAIT = 5.0
"""Seconds between two frames, however long the capture was silent."""


class Taken(NamedTuple):
    """A frame of a capture; `vni` is None where no VXLAN header told it."""

    number: int
    when: int | None
    frame: bytes
    vni: int | None


class Replay:
    """Chooses frames, and counts why others are left out."""

    def __init__(self, dstport: int, vni: int | None = None) -> None:
        self._dstport = dstport
        self._vni = vni
        self.skipped: Counter[str] = Counter()

    def frames(self, packets: Iterable[Packet]) -> Iterator[Taken]:
        """What is to be replayed, in order.  Raises what reading a capture raises."""
        for packet in packets:
            taken = self._take(packet)
            if isinstance(taken, str):
                self.skipped[taken] += 1
            else:
                yield taken

    def _take(self, packet: Packet) -> Taken | str:
        """The frame of a packet, or why it is left out."""
        if packet.direction == "out":
            return "went out"
        if len(packet.data) < packet.length:
            return "cut"
        inside = self._inside(packet)
        if inside is None and packet.interface.linktype != ETHERNET:
            return "no frame"
        vni, frame = inside or (None, packet.data)
        if self._vni is not None and vni not in (None, self._vni):
            return "another segment"
        if len(frame) < ETH_HLEN:
            return "no frame"
        return Taken(packet.number, packet.when, frame, vni)

    def _inside(self, packet: Packet) -> tuple[int, bytes] | None:
        """VNI and frame of a datagram to the VXLAN port."""
        data, link = packet.data, packet.interface.linktype
        if link not in (ETHERNET, RAW_IP) or (link == ETHERNET and len(data) < ETH_HLEN):
            return None
        at = ethertype_at(data)[1] if link == ETHERNET else 0
        payload = udp_payload(data[at:], self._dstport)
        header = parse_vxlan(payload)
        if header is None or not header.valid:
            return None
        return header.vni, payload[VXLAN_HLEN:]


def udp_payload(packet: bytes, port: int) -> bytes:
    """What an unfragmented UDP packet to a port carries; empty for everything else."""
    if len(packet) >= IPV4_HLEN and packet[0] >> 4 == 4:
        fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
        protocol, at = 0 if fragment else packet[9], (packet[0] & 0x0F) * 4
    elif len(packet) >= IPV6_HLEN and packet[0] >> 4 == 6:
        protocol, at = packet[6], IPV6_HLEN
    else:
        return b""
    udp = packet[at:]
    if protocol != IPPROTO_UDP or int.from_bytes(udp[2:4], "big") != port:
        return b""
    return udp[UDP_HLEN : int.from_bytes(udp[4:6], "big")]


class Sent(NamedTuple):
    """What came of sending; `refused` is text of the kernel -> frames."""

    sent: int
    refused: Counter[str]


def send(link: socket.socket, frames: Iterable[Taken], speed: float) -> Sent:
    """Send frames through a packet socket that is bound to an interface.

    `speed` is how many times as fast as they were captured; 0: without a pause.  A frame
    that the kernel refuses is counted; OSError where the interface is down or gone.
    """
    sent, refused = 0, Counter[str]()
    pace = Pace(speed)
    for taken in frames:
        pace.wait(taken.when)
        try:
            link.send(taken.frame)
            sent += 1
        except OSError as error:
            if error.errno in _OF_THE_LINK:
                raise
            refused[error.strerror or str(error)] += 1
    return Sent(sent, refused)


_OF_THE_LINK = frozenset((errno.ENETDOWN, errno.ENXIO, errno.ENODEV))
"""Errors after which no frame can be sent any more."""


class Pace:
    """Waits between frames as whoever sent them did."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._last: int | None = None
        self._due = time.monotonic()

    def wait(self, when: int | None) -> None:
        """Return when the frame of that time is due."""
        if self._speed and when is not None and self._last is not None:
            gap = max(0, when - self._last) / 1e9 / self._speed
            self._due = max(self._due, time.monotonic() - LONGEST_WAIT) + min(gap, LONGEST_WAIT)
            time.sleep(max(0.0, self._due - time.monotonic()))
        self._last = when if when is not None else self._last
