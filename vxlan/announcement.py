"""Announcements on the wire: datagrams in which a VTEP tells others its stations.

Theory of operation
===================

An announcement goes where data goes, to the VXLAN port of each remote of a segment:

    +-----------------------+--------+---------+------+-------+-------+-------+------+
    | VXLAN header, all zero| "PVXA" | version | kind | flags | count | hold  |  0   |
    |           8           |   4    |    1    |  1   |   1   |   1   | 2, s  |  2   |
    +-----------------------+--------+---------+------+-------+-------+-------+------+
    | VNI | when, us | sender |  count times: MAC | n4 | n6 | n4 * 4 | n6 * 16  | tag |
    |  4  |    8     |   16   |                6  | 1  | 1  |        |          | 16  |
    +-----+----------+--------+-------------------------------------------------+-----+

The I flag is clear, so whatever is no pyvxlan discards it (RFC 7348, section 4.1), as it
does a probe (vxlan/probe.py).

    TELL       these stations are here, for `hold` seconds unless told again
    WITHDRAW   these stations are here no more
    LEAVE      none is: the sender ends
    ASK        tell all: the sender has just come

With a key, `tag` is the HMAC-SHA256 (RFC 2104) of all before it, cut to 16 bytes, and
`flags` says so.  `sender` is the underlay address that it was sent from, IPv4 in the first
four bytes, and `when` the sender's wall clock: so a datagram that was recorded is good
neither from another address nor later (vxlan/announce.py).  Without a key whoever can
forge a remote's address can announce, as it can already teach MACs by data.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from vxlan.wire import VXLAN_HLEN

MAGIC = b"PVXA"
VERSION = 1
MAX_STATIONS = 32
"""In one datagram."""

MAX_ADDRESSES = 4
"""Of each kind, for one station: 32 stations with 4 and 4 fill 2.8 kB, usual ones 0.5."""

MAX_BODY = 1024
"""Bytes of stations in one datagram: it fits every path that IPv6 can use."""

TAG = 16
_KEYED = 1
_HEAD = Struct("!4sBBBBHxxIQ16s")
_COUNTS = Struct("!6sBB")


class Kind(IntEnum):
    """What an announcement says."""

    TELL = 1
    WITHDRAW = 2
    LEAVE = 3
    ASK = 4


class Station(NamedTuple):
    """A MAC of 6 bytes, and its IP addresses, 4 or 16 bytes each."""

    mac: bytes
    addresses: tuple[bytes, ...] = ()


class Announcement(NamedTuple):
    """`hold` seconds; `when` microseconds of the sender's wall clock; `sender` 16 bytes."""

    kind: Kind
    vni: int
    when: int
    sender: bytes
    stations: tuple[Station, ...] = ()
    hold: int = 0


def pack(said: Announcement, key: bytes | None) -> bytes:
    """The UDP payload.  ValueError for more stations or addresses than one can hold."""
    if len(said.stations) > MAX_STATIONS:
        raise ValueError(f"{len(said.stations)} stations: at most {MAX_STATIONS} go in one")
    flags = _KEYED if key else 0
    head = _HEAD.pack(
        *(MAGIC, VERSION, said.kind, flags, len(said.stations), said.hold),
        *(said.vni, said.when, said.sender),
    )
    signed = bytes(VXLAN_HLEN) + head + b"".join(map(_packed, said.stations))
    return signed + (_tag(key, signed) if key else b"")


def _packed(station: Station) -> bytes:
    four = [one for one in station.addresses if len(one) == 4]
    six = [one for one in station.addresses if len(one) == 16]
    if max(len(four), len(six)) > MAX_ADDRESSES:
        raise ValueError(f"a station is announced with at most {MAX_ADDRESSES} addresses")
    return _COUNTS.pack(station.mac, len(four), len(six)) + b"".join(four + six)


def _tag(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()[:TAG]


def is_announcement(payload: bytes) -> bool:
    """Whether a UDP payload claims to be one."""
    return payload[8:12] == MAGIC and not any(payload[:8])


def parse(payload: bytes, key: bytes | None) -> Announcement | None:
    """What a UDP payload announces; None where it is malformed, or fails under `key`."""
    end = VXLAN_HLEN + _HEAD.size
    if not is_announcement(payload) or len(payload) < end:
        return None
    _, version, kind, flags, count, hold, vni, when, sender = _HEAD.unpack_from(payload, VXLAN_HLEN)
    signed = payload[:-TAG] if flags & _KEYED else payload
    if key is not None and not _is_signed(key, signed, payload, flags):
        return None
    if version != VERSION or kind not in list(Kind) or count > MAX_STATIONS:
        return None
    stations = _stations(signed[end:], count)
    if stations is None:
        return None
    return Announcement(Kind(kind), vni, when, sender, stations, hold)


def _is_signed(key: bytes, signed: bytes, payload: bytes, flags: int) -> bool:
    return bool(flags & _KEYED) and hmac.compare_digest(_tag(key, signed), payload[len(signed) :])


def _stations(body: bytes, count: int) -> tuple[Station, ...] | None:
    """Exactly `count` stations that fill `body`; None for anything else."""
    found, at = [], 0
    for _ in range(count):
        if at + _COUNTS.size > len(body):
            return None
        mac, four, six = _COUNTS.unpack_from(body, at)
        begin = at + _COUNTS.size
        middle, at = begin + 4 * four, begin + 4 * four + 16 * six
        if at > len(body) or max(four, six) > MAX_ADDRESSES or mac[0] & 1 or not any(mac):
            return None
        addresses = (*_each(body[begin:middle], 4), *_each(body[middle:at], 16))
        found.append(Station(mac, addresses))
    return tuple(found) if at == len(body) else None


def _each(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def first_of_each(addresses: Iterable[bytes]) -> tuple[bytes, ...]:
    """As many IPv4 and IPv6 addresses as one station is announced with."""
    kept: list[bytes] = []
    for one in addresses:
        if sum(len(other) == len(one) for other in kept) < MAX_ADDRESSES:
            kept.append(one)
    return tuple(kept)


def in_parts(stations: Iterable[Station]) -> Iterator[tuple[Station, ...]]:
    """Stations in as many parts as datagrams are needed for them."""
    part: list[Station] = []
    size = 0
    for station in stations:
        more = len(_packed(station))
        if part and (len(part) == MAX_STATIONS or size + more > MAX_BODY):
            yield tuple(part)
            part, size = [], 0
        part.append(station)
        size += more
    if part:
        yield tuple(part)
