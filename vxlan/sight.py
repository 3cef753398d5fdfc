"""One packet as the dataplane saw it: where, what was decided, and its bytes.

Theory of operation
===================

A packet that crosses the VTEP is seen twice, once on each side:

    container -> TAP   TAP_IN    decide   UNDERLAY_OUT -> underlay
    container <- TAP   TAP_OUT   decide   UNDERLAY_IN  <- underlay

What comes in carries the verdict: where it goes and why, or the `Drop` reason.  What
goes out is seen after the kernel has answered, so that a packet which it refused has
its reason, too.  A `Seen` of the TAP holds a frame, one of the underlay a UDP payload:
the headers below it are the kernel's, and are made up again by vxlan/outer.py.

Both engines write the same record, which is also what the control socket carries; the
numbers are in this machine's byte order, for both ends are on one machine:

     0  u32 size of the record, padded to 8    36 u16 port of the remote
     4  u8  where                              38 u16 our source port (UNDERLAY_OUT)
     5  u8  reason, or 255                     40 u8  family of the address: 0, 4 or 6
     6  u8  how the target was found           41 u8  tos of the outer header
     7  u8  flags                              42 u8  ttl of the outer header
     8  u64 nanoseconds since 1970             43 u8  -
    16  u32 VNI, or none                       44 16  address of the remote
    20  u32 length of the packet               60 u32 -
    24  u32 bytes that are kept                64     the bytes
    28  u32 age of the entry, milliseconds
    32  u32 remotes (TAP_IN) or segments (TAP_OUT); packets (LOST)

A `Sight` says which packets are wanted.  It is asked in the engine, before anything is
copied further: looking for drops in a busy node costs no more than the drops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import ip_address
from struct import Struct
from typing import Literal, NamedTuple

from vxlan.drop import Drop
from vxlan.fdb import Remote
from vxlan.wire import (
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    I_FLAG,
    VXLAN_HLEN,
    ethertype_at,
    parse_vxlan,
)

HEAD = Struct("=IBBBBQIIIIIHHBBBx16sI")
NO_VNI = 0xFFFFFFFF
NO_AGE = 0xFFFFFFFF
MAX_AGE = NO_AGE - 1
"""Milliseconds: 49 days.  What is older is told as that."""

NO_REASON = 255
SNAPLEN = 262144
"""Bytes of a packet that are kept, unless fewer are wanted."""

_ARP_HLEN = 28


class Where(IntEnum):
    """On which side of the VTEP, in which direction."""

    TAP_IN = 0
    UNDERLAY_OUT = 1
    UNDERLAY_IN = 2
    TAP_OUT = 3
    LOST = 4  # no packet: so many were seen and could not be kept

    @property
    def inner(self) -> bool:
        """Whether this is the TAP."""
        return self in (Where.TAP_IN, Where.TAP_OUT)

    @property
    def incoming(self) -> bool:
        """Whether the VTEP took the packet in."""
        return self in (Where.TAP_IN, Where.UNDERLAY_IN)


class Found(IntEnum):
    """How the target of a frame was found."""

    NOT = 0
    DYNAMIC = 1
    EXTERN_LEARN = 2
    STATIC = 3
    FLOOD = 4


class Flag(IntFlag):
    """What else happened to a packet."""

    CHANGED = 1  # its headers were: MSS lowered, or a congestion mark passed on
    FRAGMENTED = 2
    ANSWERED = 4  # with packet-too-big
    OWN = 8  # a probe, an acknowledgement, an announcement or an answer of the VTEP itself
    SUPPRESSED = 16  # a question for a neighbour, answered here


NO_FLAGS = Flag(0)


class Seen(NamedTuple):
    """One packet.  `when` is nanoseconds since 1970, `age` milliseconds or None.

    remote   whom it goes to or comes from; of several the first
    targets  remotes of a frame, or segments merged into one
    """

    where: Where
    data: bytes
    length: int
    when: int = 0
    vni: int | None = None
    reason: Drop | None = None
    remote: Remote | None = None
    targets: int = 1
    found: Found = Found.NOT
    age: int | None = None
    flags: Flag = NO_FLAGS
    srcport: int = 0
    tos: int = 0
    ttl: int = 0

    @property
    def is_loss(self) -> bool:
        """Whether this is no packet, but says how many were not kept (`targets`)."""
        return self.where is Where.LOST


def pack(seen: Seen) -> bytes:
    """The record of a packet."""
    family, address = _packed_address(seen.remote)
    data = seen.data
    size = HEAD.size + len(data) + -len(data) % 8
    head = HEAD.pack(
        size,
        seen.where,
        NO_REASON if seen.reason is None else seen.reason,
        seen.found,
        seen.flags,
        seen.when,
        NO_VNI if seen.vni is None else seen.vni,
        seen.length,
        len(data),
        NO_AGE if seen.age is None else seen.age,
        seen.targets,
        seen.remote.port if seen.remote else 0,
        seen.srcport,
        family,
        seen.tos,
        seen.ttl,
        address,
        0,
    )
    return head + data + bytes(-len(data) % 8)


def _packed_address(remote: Remote | None) -> tuple[int, bytes]:
    if remote is None:
        return 0, b""
    try:
        address = ip_address(remote.address)
    except ValueError:  # the strangers beyond the bound have no address
        return 0, b""
    return address.version, address.packed


def unpack(records: bytes, at: int = 0) -> Seen:
    """The packet whose record begins at `at`.  Raises ValueError for what is no record."""
    try:
        head = HEAD.unpack_from(records, at)
        return _seen(head, records[at + HEAD.size : at + HEAD.size + head[8]])
    except Exception as error:
        raise ValueError(f"byte {at} begins no record of a packet: {error}") from None


def _seen(head: tuple[int, ...], data: bytes) -> Seen:
    _, where, reason, found, flags, when, vni, length, kept, age, targets, port, srcport = head[:13]
    family, tos, ttl, address = head[13:17]
    if len(data) != kept:
        raise ValueError(f"{len(data)} bytes instead of {kept}")
    packed: bytes = address[: 4 if family == 4 else 16]  # type: ignore[index]  # 16s
    return Seen(
        Where(where),
        data,
        length,
        when,
        None if vni == NO_VNI else vni,
        None if reason == NO_REASON else Drop(reason),
        Remote(str(ip_address(packed)), port) if family else None,
        targets,
        Found(found),
        None if age == NO_AGE else age,
        Flag(flags),
        srcport,
        tos,
        ttl,
    )


def size_at(records: bytes, at: int) -> int:
    """Bytes of the record at `at`, 0 if not even its size is there; at least HEAD.size.

    Raises ValueError for a size that no record has.
    """
    if at + 4 > len(records):
        return 0
    size = _SIZE.unpack_from(records, at)[0]
    if not HEAD.size <= size <= HEAD.size + SNAPLEN:
        raise ValueError(f"byte {at} begins no record of a packet: {size} bytes")
    return int(size)


_SIZE = Struct("=I")


def whole(records: bytes) -> int:
    """How many of these bytes are whole records.  Raises ValueError for what is none."""
    at = 0
    while size := size_at(records, at):
        if at + size > len(records):
            break
        at += size
    return at


def each(records: bytes) -> Iterator[Seen]:
    """All packets of whole records.  Raises ValueError like `unpack`."""
    at = 0
    while at < len(records):
        yield unpack(records, at)
        at += size_at(records, at)


def lost(packets: int, when: int) -> Seen:
    """A record that says how many were not kept."""
    return Seen(Where.LOST, b"", 0, when, targets=min(packets, 0xFFFFFFFF))


# -- which packets are wanted ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sight:
    """Which packets are wanted: those that match everything that is not None.

    mac, ip  source or destination of the inner packet; ip is packed, and in an ARP
             packet the sender's or target's
    side     "inner" or "outer"
    snaplen  bytes of each packet that are kept
    """

    vni: int | None = None
    mac: bytes | None = None
    ip: bytes | None = None
    remote: str | None = None
    drops: bool = False
    side: Literal["inner", "outer"] | None = None
    snaplen: int = SNAPLEN

    def wants(self, seen: Seen, remotes: tuple[Remote, ...] = ()) -> bool:
        """Whether a packet matches; `remotes` are all that it goes to, if several."""
        if self.side is not None and (self.side == "inner") != seen.where.inner:
            return False
        if self.drops and seen.reason is None:
            return False
        if self.vni is not None and seen.vni != self.vni:
            return False
        if self.remote is not None and not self._names_remote(seen, remotes):
            return False
        if self.mac is None and self.ip is None:
            return True
        return self._in_frame(frame_of(seen.where, seen.data))

    def _names_remote(self, seen: Seen, remotes: tuple[Remote, ...]) -> bool:
        if seen.where is Where.TAP_IN and seen.targets > 1 and not remotes:
            return True  # a record names the first of several: rather one too many
        named = remotes or ((seen.remote,) if seen.remote else ())
        return any(remote.address == self.remote for remote in named)

    def _in_frame(self, frame: bytes) -> bool:
        if len(frame) < 14:
            return False
        if self.mac is not None and self.mac not in (frame[0:6], frame[6:12]):
            return False
        return self.ip is None or self.ip in addresses_of(frame)


def frame_of(where: Where, data: bytes) -> bytes:
    """The frame in what was seen; empty where there is none."""
    if where.inner:
        return data
    return data[VXLAN_HLEN:] if data[:1] and data[0] & I_FLAG else b""


def vni_of(payload: bytes) -> int | None:
    """The VNI that a UDP payload names."""
    header = parse_vxlan(payload)
    return header.vni if header and header.valid else None


def addresses_of(frame: bytes) -> tuple[bytes, ...]:
    """The network addresses of a frame of at least 14 bytes: IPv4, IPv6, ARP."""
    ethertype, at = ethertype_at(frame)
    if ethertype == ETH_P_IP and len(frame) >= at + 20:
        return frame[at + 12 : at + 16], frame[at + 16 : at + 20]
    if ethertype == ETH_P_IPV6 and len(frame) >= at + 40:
        return frame[at + 8 : at + 24], frame[at + 24 : at + 40]
    if ethertype == ETH_P_ARP and len(frame) >= at + _ARP_HLEN:
        return frame[at + 14 : at + 18], frame[at + 24 : at + 28]
    return ()
