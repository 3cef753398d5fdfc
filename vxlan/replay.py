"""The frames of a capture, to be sent or judged once more.

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
from ipaddress import ip_address
from typing import NamedTuple

from vxlan.engine import Datagram
from vxlan.fdb import Remote
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
        datagram = datagram_in(packet, self._dstport)
        header = parse_vxlan(datagram.payload) if datagram else None
        if datagram is None or header is None or not header.valid:
            return None
        return header.vni, datagram.payload[VXLAN_HLEN:]


def datagram_in(packet: Packet, port: int) -> Datagram | None:
    """The unfragmented UDP datagram to a port that a captured packet is, as received."""
    data, link = packet.data, packet.interface.linktype
    if link not in (ETHERNET, RAW_IP) or (link == ETHERNET and len(data) < ETH_HLEN):
        return None
    ip = data[ethertype_at(data)[1] :] if link == ETHERNET else data
    if len(ip) >= IPV4_HLEN and ip[0] >> 4 == 4:
        fragment = int.from_bytes(ip[6:8], "big") & 0x3FFF
        protocol, at = 0 if fragment else ip[9], (ip[0] & 0x0F) * 4
        source, tos = ip[12:16], ip[1]
    elif len(ip) >= IPV6_HLEN and ip[0] >> 4 == 6:
        protocol, at = ip[6], IPV6_HLEN
        source, tos = ip[8:24], (ip[0] << 4 | ip[1] >> 4) & 0xFF
    else:
        return None
    udp = ip[at:]
    if protocol != IPPROTO_UDP or int.from_bytes(udp[2:4], "big") != port:
        return None
    remote = Remote(str(ip_address(source)), int.from_bytes(udp[0:2], "big"))
    return Datagram(remote, udp[UDP_HLEN : int.from_bytes(udp[4:6], "big")], tos=tos)


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
