"""Read captures: pcap and pcapng, as tcpdump, Wireshark and `pyvxlan capture` write them.

Theory of operation
===================

Both formats are a chain of records, each of which begins with its length:

    pcap     header of 24 bytes, then  [seconds, fraction, captured, length] data ...
    pcapng   blocks                    [type, length] body [length] ...

    section header  0x0A0D0D0A   byte order; forgets the interfaces of the section before
    interface       1            link type, snapshot length, name, unit of time
    enhanced packet 6            interface, time, captured, length, data, options
    packet          2            the same, older
    simple packet   3            length, data; interface 0, no time
    anything else                passed over

`packets` reads a stream from its beginning to its end and keeps one record in memory.
A capture comes from anywhere, so no length in it is believed: a packet has at most
`MAX_PACKET` bytes, what a record claims must lie within it, and what is passed over is
read in small pieces.  Where the file is cut or damaged, the packets before that place
are given first, and then PcapError says which packet could not be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

MAX_PACKET = 1 << 18
"""Bytes of the longest packet: what tcpdump takes at most."""

MAX_INTERFACES = 4096

ETHERNET, RAW_IP, COOKED, COOKED_2 = 1, 101, 113, 276
"""Link types (the registry of tcpdump.org)."""

_SECTION, _INTERFACE, _OLD, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B3C4D
_MAX_BODY = MAX_PACKET + (1 << 16)
_PIECE = 1 << 16
_COMMENT, _FLAGS = 1, 2
_NAME, _RESOLUTION, _OFFSET = 2, 9, 14
_NANO = 10**9

Direction = Literal["in", "out"]


class PcapError(ValueError):
    """No capture, or one that is cut or damaged; one line."""


class Interface(NamedTuple):
    """Where packets were captured; `units` of time to a second, `offset` in seconds."""

    linktype: int
    name: str = ""
    snaplen: int = 0
    units: int = 1_000_000
    offset: int = 0


class Packet(NamedTuple):
    """One captured packet.

    number     1 is the first of the capture
    when       nanoseconds since 1970; None where the capture does not tell
    length     bytes on the wire; `data` may have fewer
    comments   what whoever captured it wrote beside it
    """

    number: int
    when: int | None
    interface: Interface
    data: bytes
    length: int
    direction: Direction | None = None
    comments: tuple[str, ...] = ()


def packets(stream: BinaryIO) -> Iterator[Packet]:
    """All packets of a capture, in order.  Raises PcapError, also after the first packets."""
    head = stream.read(4)
    if head == b"\x0a\x0d\x0d\x0a":
        yield from _Blocks(stream).packets()
    elif head in _MAGICS:
        yield from _records(stream, *_MAGICS[head])
    elif not head:
        raise PcapError("the file is empty")
    else:
        raise PcapError("this is neither a pcap nor a pcapng file")


def packet(stream: BinaryIO, number: int) -> Packet:
    """The packet of this number, 1 or more.  Raises PcapError, also where there is none."""
    last = 0
    for found in packets(stream):
        if found.number == number:
            return found
        last = found.number
    raise PcapError(f"there is no packet {number}: the capture has {last}")


# -- pcap ----------------------------------------------------------------------------

_MAGICS: dict[bytes, tuple[Literal["<", ">"], int]] = {
    struct.pack(order + "I", magic): (order, units)
    for order in ("<", ">")
    for magic, units in ((0xA1B2C3D4, 1_000_000), (0xA1B23C4D, _NANO))
}


def _records(stream: BinaryIO, order: str, units: int) -> Iterator[Packet]:
    header = _exactly(stream, 20, 1)
    snaplen, linktype = struct.unpack_from(order + "II", header, 12)
    interface = Interface(linktype & 0xFFFF, "", snaplen, units)
    number = 0
    while head := stream.read(16):
        number += 1
        if len(head) < 16:
            raise _cut(number)
        seconds, fraction, captured, length = struct.unpack(order + "IIII", head)
        data = _exactly(stream, _bounded(captured, number), number)
        when = seconds * _NANO + fraction * (_NANO // units)
        yield Packet(number, when, interface, data, max(length, captured))


# -- pcapng --------------------------------------------------------------------------


class _Blocks:
    """The state of a pcapng stream of which the first block type was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._order = "<"
        self._interfaces: list[Interface] = []
        self._number = 0

    def packets(self) -> Iterator[Packet]:
        self._begin_section()
        while head := self._stream.read(4):
            kind = self._word(head)
            if kind == _SECTION:
                self._begin_section()
            elif kind in (_INTERFACE, _OLD, _SIMPLE, _ENHANCED):
                body = self._body(kind)
                if kind == _INTERFACE:
                    self._add_interface(body)
                else:
                    self._number += 1
                    yield self._packet(kind, body)
            else:
                self._pass_over(self._length())

    def _begin_section(self) -> None:
        head = self._read(8)
        self._order = "<" if head[4:] == struct.pack("<I", _BYTE_ORDER) else ">"
        if self._word(head[4:]) != _BYTE_ORDER:
            raise PcapError("damaged: a section header without byte order")
        length = self._word(head[:4])
        if length % 4 or length < 28:
            raise PcapError(f"damaged: a section header of {length} bytes")
        self._interfaces.clear()
        self._pass_over(length - 12)

    def _word(self, raw: bytes) -> int:
        if len(raw) < 4:
            raise self._cut()
        return int(struct.unpack(self._order + "I", raw)[0])

    def _length(self) -> int:
        """Bytes of the block that are still to come."""
        length = self._word(self._stream.read(4))
        if length % 4 or length < 12:
            raise PcapError(f"damaged: a block of {length} bytes after packet {self._number}")
        return length - 8

    def _body(self, kind: int) -> bytes:
        left = self._length()
        if left - 4 > _MAX_BODY:
            raise PcapError(f"damaged: a block of {left} bytes after packet {self._number}")
        body = self._read(left)[:-4]
        if len(body) < _LEAST[kind]:
            raise PcapError(f"damaged: a block too short after packet {self._number}")
        return body

    def _pass_over(self, left: int) -> None:
        while left:
            left -= len(self._read(min(left, _PIECE)))

    def _read(self, size: int) -> bytes:
        return _exactly(self._stream, size, self._number + 1)

    def _cut(self) -> PcapError:
        return _cut(self._number + 1)

    def _add_interface(self, body: bytes) -> None:
        linktype, _, snaplen = struct.unpack_from(self._order + "HHI", body)
        options = dict(_options(body[8:], self._order))
        raw = options.get(_RESOLUTION, b"\x06")[:1] or b"\x06"
        units = 1 << (raw[0] & 0x7F) if raw[0] & 0x80 else 10 ** raw[0]
        offset = options.get(_OFFSET, b"")
        shift = int(struct.unpack(self._order + "q", offset)[0]) if len(offset) == 8 else 0
        if len(self._interfaces) >= MAX_INTERFACES:
            raise PcapError(f"damaged: more than {MAX_INTERFACES} interfaces")
        name = options.get(_NAME, b"").decode(errors="replace")
        self._interfaces.append(Interface(linktype, name, snaplen, units, shift))

    def _packet(self, kind: int, body: bytes) -> Packet:
        if kind == _SIMPLE:
            return self._simple_packet(body)
        layout = "IIIII" if kind == _ENHANCED else "HHIIII"
        which, *rest = struct.unpack_from(self._order + layout, body)
        high, low, captured, length = rest[-4:]
        interface, data = self._interface(which), self._data(body, 20, captured)
        options = list(_options(body[20 + (captured + 3) // 4 * 4 :], self._order))
        when = (high << 32 | low) * _NANO // interface.units + interface.offset * _NANO
        return Packet(
            self._number, when, interface, data, max(length, captured),
            _direction(dict(options).get(_FLAGS, b""), self._order), _comments(options),
        )  # fmt: skip

    def _simple_packet(self, body: bytes) -> Packet:
        interface = self._interface(0)
        length = self._word(body[:4])
        captured = min(length, interface.snaplen or length)
        return Packet(self._number, None, interface, self._data(body, 4, captured), length)

    def _interface(self, which: int) -> Interface:
        if which >= len(self._interfaces):
            raise PcapError(f"damaged: packet {self._number} of an interface that is not there")
        return self._interfaces[which]

    def _data(self, body: bytes, at: int, captured: int) -> bytes:
        if len(body) < at + _bounded(captured, self._number):
            raise PcapError(f"damaged: packet {self._number} is longer than its block")
        return body[at : at + captured]


_LEAST = {_INTERFACE: 8, _SIMPLE: 4, _OLD: 20, _ENHANCED: 20}
"""Bytes of the fixed part of a block's body."""


def _options(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Code and value of each option; what is malformed ends them."""
    at = 0
    while at + 4 <= len(raw):
        code, length = struct.unpack_from(order + "HH", raw, at)
        if not code or at + 4 + length > len(raw):
            return
        yield code, raw[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4


def _comments(options: list[tuple[int, bytes]]) -> tuple[str, ...]:
    return tuple(raw.decode(errors="replace") for code, raw in options if code == _COMMENT)


def _direction(flags: bytes, order: str) -> Direction | None:
    if len(flags) != 4:
        return None
    bits = int(struct.unpack(order + "I", flags)[0]) & 3
    return "in" if bits == 1 else "out" if bits == 2 else None


# -- reading within bounds -------------------------------------------------------------


def _exactly(stream: BinaryIO, size: int, number: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _cut(number)
    return data


def _bounded(captured: int, number: int) -> int:
    if captured > MAX_PACKET:
        raise PcapError(f"damaged: packet {number} claims {captured} bytes")
    return captured


def _cut(number: int) -> PcapError:
    return PcapError(f"the file is cut off: it ends before packet {number} is whole")
