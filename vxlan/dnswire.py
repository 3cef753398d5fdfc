"""DNS messages, as far as names of containers need them: one question, a few addresses.

    +---------------------+
    | id | flags | counts |   12 bytes                         (RFC 1035, section 4.1.1)
    +---------------------+
    | name | type | class |   the question
    +---------------------+
    | C00C | type | class | ttl | length | address |   for each answer; C00C: "the name above"
    +---------------------+

LLMNR (RFC 4795) has the same messages: what RFC 1035 calls AA, RD, RA is C, T and
reserved there, and is left zero here.

Whatever is cut short, compressed where a question is not, or longer than a name may be
is no question: None.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import NamedTuple

A, AAAA = 1, 28
_VERSIONS = {A: 4, AAAA: 6}
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 0, 2, 3
MAX_SIZE = 4096
"""Bytes of the longest message that is read."""

MAX_ANSWERS = 8
"""So that an answer fits into 512 bytes (RFC 1035, section 2.3.4)."""

_HEADER = struct.Struct("!6H")
_RESPONSE, _OPCODE, _AUTHORITATIVE, _WANTED, _AVAILABLE = 0x8000, 0x7800, 0x0400, 0x0100, 0x0080
_IN = 1


class Question(NamedTuple):
    """What is asked.  `name` is in lower case, without the dot at the end; `raw` as it came."""

    number: int
    name: str
    kind: int
    wanted: bool
    raw: bytes

    @property
    def single(self) -> bool:
        """A name of one label, which no server of the internet knows."""
        return bool(self.name) and "." not in self.name

    @property
    def version(self) -> int | None:
        """Of the addresses that are asked for: 4, 6, or None: something else is."""
        return _VERSIONS.get(self.kind)


def parse(message: bytes) -> Question | None:
    """The question of a query; None where it is none that is understood."""
    if not _HEADER.size <= len(message) <= MAX_SIZE:
        return None
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if flags & (_RESPONSE | _OPCODE) or questions != 1 or answers:
        return None
    found = _name(message, _HEADER.size)
    if found is None or len(message) < found[1] + 4:
        return None
    name, at = found
    kind, of = struct.unpack_from("!2H", message, at)
    if of != _IN:
        return None
    return Question(number, name, kind, bool(flags & _WANTED), message[_HEADER.size : at + 4])


def _name(message: bytes, at: int) -> tuple[str, int] | None:
    """The name at an offset, and where it ends."""
    labels: list[str] = []
    start = at
    while at < len(message):
        length = message[at]
        at += 1
        if length == 0:
            return ".".join(labels), at
        if length > 63 or at + length > len(message) or at + length - start > 254:
            return None
        try:
            labels.append(message[at : at + length].decode("ascii").lower())
        except UnicodeDecodeError:
            return None
        at += length
    return None


def ask(number: int, name: str, kind: int) -> bytes:
    """A query for LLMNR.  Raises ValueError for what is no name."""
    labels = [label.encode("ascii") for label in name.split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"{name!r} is no name")
    packed = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEADER.pack(number, 0, 1, 0, 0, 0) + packed + struct.pack("!2H", kind, _IN)


def answer(question: Question, addresses: Iterable[str], ttl: int, *, llmnr: bool = False) -> bytes:
    """The addresses of the family that is asked for; without any the name has none of it."""
    kept = [one for one in map(ipaddress.ip_address, addresses) if one.version == question.version]
    kept = kept[:MAX_ANSWERS]
    records = b"".join(
        struct.pack("!3HIH", 0xC00C, question.kind, _IN, ttl, len(one.packed)) + one.packed
        for one in kept
    )
    flags = _RESPONSE if llmnr else _flags(question) | _AUTHORITATIVE
    return _HEADER.pack(question.number, flags, 1, len(kept), 0, 0) + question.raw + records


def refusal(question: Question, code: int) -> bytes:
    """An answer without addresses: SERVER_FAILURE or NO_SUCH_NAME."""
    return _HEADER.pack(question.number, _flags(question) | code, 1, 0, 0, 0) + question.raw


def _flags(question: Question) -> int:
    return _RESPONSE | _AVAILABLE | (_WANTED if question.wanted else 0)


def addresses(message: bytes, asked: Question) -> list[str] | None:
    """The addresses in the answer to a query of ours; None where it is no answer to that."""
    if not _HEADER.size <= len(message) <= MAX_SIZE:
        return None
    number, flags, questions, count, _, _ = _HEADER.unpack_from(message)
    head = message[_HEADER.size : _HEADER.size + len(asked.raw)]
    if number != asked.number or not flags & _RESPONSE or flags & 0xF or questions != 1:
        return None
    if head.lower() != asked.raw.lower() or asked.version is None:
        return None
    return _records(message, _HEADER.size + len(asked.raw), min(count, MAX_ANSWERS), asked)


def _records(message: bytes, at: int, count: int, asked: Question) -> list[str] | None:
    """Each record names what was asked for, by a pointer to it or in full."""
    found = []
    for _ in range(count):
        if message[at : at + 2] == b"\xc0\x0c":
            at += 2
        else:
            named = _name(message, at)
            if named is None or named[0] != asked.name:
                return None
            at = named[1]
        if len(message) < at + 10:
            return None
        kind, of, _, length = struct.unpack_from("!2HIH", message, at)
        data, at = message[at + 10 : at + 10 + length], at + 10 + length
        if (kind, of) == (asked.kind, _IN) and len(data) == length == {4: 4, 6: 16}[
            asked.version or 4
        ]:
            found.append(str(ipaddress.ip_address(data)))
    return found
