"""Write captures: pcapng, which tshark, Wireshark and tcpdump read.

Theory of operation
===================

A pcapng file is a row of blocks, each with its length at both ends:

    section header           byte order, who wrote it
    interface description    one for each interface: link type, snaplen, time resolution
    enhanced packet          interface, time, direction, comment, the bytes
    interface statistics     at the end: how many packets, how many were lost

    +------+--------+------------------------------+--------------+--------+
    | type | length | fixed part                   | options      | length |
    |  4   |   4    |                              | pad to 4     |   4    |
    +------+--------+------------------------------+--------------+--------+

An option is a code, a length and a value padded to four bytes.  Those used here:

    opt_comment    1   a sentence about the packet, or about the file
    epb_flags      2   bits 0 and 1: 1 inbound, 2 outbound
    epb_dropcount  4   packets lost between this one and the one before it
    if_tsresol     9   9: times are nanoseconds
    isb_ifrecv     4   packets that were seen;  isb_ifdrop  5: of these, lost

A capture that is cut off after any block is whole up to there, so a reader may sit at
the other end of a pipe.  The layout is that of draft-ietf-opsawg-pcapng, and all
numbers are in this machine's byte order, which the section header tells.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Literal

from vxlan import __version__

ETHERNET = 1
RAW_IP = 101
"""Link types: Ethernet frames; IP packets, version 4 or 6, without a link header."""

MAX_SNAPLEN = 262144
"""Bytes of the longest packet that readers accept (tcpdump's bound)."""

Direction = Literal["in", "out"]

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF

_COMMENT = 1
_USERAPPL, _OS = 4, 3
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL = 2, 3, 9
_FLAGS, _DROPCOUNT = 2, 4
_STARTTIME, _ENDTIME, _RECEIVED, _DROPPED = 2, 3, 4, 5

_HEAD, _TAIL, _OPTION = Struct("=II"), Struct("=I"), Struct("=HH")
_SECTION_HEAD, _INTERFACE_HEAD = Struct("=IHHQ"), Struct("=HHI")
_PACKET_HEAD, _STATISTICS_HEAD = Struct("=IIIII"), Struct("=III")
_U32, _U64 = Struct("=I"), Struct("=Q")
_FLAG = {None: 0, "in": 1, "out": 2}


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets of a capture were seen.

    link     ETHERNET or RAW_IP
    snaplen  bytes of the longest packet that is kept whole
    """

    name: str
    link: int
    description: str = ""
    snaplen: int = MAX_SNAPLEN


class PcapWriter:
    """A pcapng section on a binary file that somebody else opens and closes.

    Packets refer to `interfaces` by position; times are nanoseconds since 1970.  `size`
    is the number of bytes written so far.  Every method raises what the file's `write`
    does.
    """

    def __init__(self, out: BinaryIO, interfaces: Sequence[Interface], comment: str = "") -> None:
        self._out = out
        self._interfaces = 0
        self.size = 0
        self._put(_section(comment))
        for interface in interfaces:
            self.add(interface)

    def add(self, interface: Interface) -> int:
        """One more interface; its position."""
        self._put(_interface(interface))
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        when: int,
        data: bytes,
        *,
        length: int | None = None,
        direction: Direction | None = None,
        comment: str = "",
        lost: int = 0,
    ) -> None:
        """One packet of `length` bytes (None: all are in `data`).

        `lost` packets were missed since the packet before it.  IndexError for an
        interface that is not there.
        """
        if not 0 <= interface < self._interfaces:
            raise IndexError(interface)
        whole = len(data) if length is None else length
        fixed = _PACKET_HEAD.pack(interface, when >> 32, when & 0xFFFFFFFF, len(data), whole)
        options = _options(
            (_FLAGS, _U32.pack(_FLAG[direction]) if direction else b""),
            (_DROPCOUNT, _U64.pack(lost) if lost else b""),
            (_COMMENT, _text(comment)),
        )
        self._put(_block(_PACKET, fixed + _padded(data) + options))

    def statistics(
        self, interface: int, began: int, ended: int, *, seen: int, lost: int, comment: str = ""
    ) -> None:
        """How many packets of an interface there were, `lost` among them; at the end."""
        fixed = _STATISTICS_HEAD.pack(interface, ended >> 32, ended & 0xFFFFFFFF)
        options = _options(
            (_COMMENT, _text(comment)),
            (_STARTTIME, _moment(began)),
            (_ENDTIME, _moment(ended)),
            (_RECEIVED, _U64.pack(seen)),
            (_DROPPED, _U64.pack(lost)),
        )
        self._put(_block(_STATISTICS, fixed + options))

    def _put(self, block: bytes) -> None:
        self._out.write(block)
        self.size += len(block)


def _section(comment: str) -> bytes:
    fixed = _SECTION_HEAD.pack(_BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    options = _options(
        (_COMMENT, _text(comment)),
        (_OS, _text(f"{platform.system()} {platform.release()}")),
        (_USERAPPL, _text(f"pyvxlan {__version__}")),
    )
    return _block(_SECTION, fixed + options)


def _interface(interface: Interface) -> bytes:
    fixed = _INTERFACE_HEAD.pack(interface.link, 0, interface.snaplen)
    options = _options(
        (_IF_NAME, _text(interface.name)),
        (_IF_DESCRIPTION, _text(interface.description)),
        (_IF_TSRESOL, b"\x09"),
    )
    return _block(_INTERFACE, fixed + options)


def _block(kind: int, body: bytes) -> bytes:
    length = _HEAD.size + len(body) + _TAIL.size
    return _HEAD.pack(kind, length) + body + _TAIL.pack(length)


def _options(*options: tuple[int, bytes]) -> bytes:
    """Those that have a value, and the end mark if there is one at all."""
    found = b"".join(
        _OPTION.pack(code, len(value)) + _padded(value) for code, value in options if value
    )
    return found + bytes(4) if found else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _text(text: str) -> bytes:
    """As UTF-8, cut to what an option can hold."""
    return text.encode("utf-8", "replace")[:0xFFF0].decode("utf-8", "ignore").encode()


def _moment(when: int) -> bytes:
    return _U32.pack(when >> 32) + _U32.pack(when & 0xFFFFFFFF)
