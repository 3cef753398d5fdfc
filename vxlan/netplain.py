"""Links, addresses and routes by rtnetlink, with the standard library alone.

Theory of operation
===================

vxlan.netdev does this and more with pyroute2, whose import takes longer than the whole
life of a CNI plugin.  Here is only what such a plugin does: it takes a link that the
node made, moves it into a container's namespace and gives it a name and addresses.

A session belongs to the namespace that its thread was in when it was opened:

    with Session() as here, Session("/run/netns/c1") as there:
        here.move(here.index("pv3f"), there, "eth0")
        there.add_address("eth0", "10.42.1.5/16")

A request is one message, and the kernel acknowledges each (rtnetlink(7)):

    nlmsghdr 16 | ifinfomsg 16, ifaddrmsg 8 or rtmsg 12 | attributes: length, kind, value

Lengths in what comes back are the kernel's, and checked all the same.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_CREATE, _REPLACE = 0x400, 0x100
_IFF_UP = 1
_CLONE_NEWNET = 0x40000000
_NODAD = 0x02
_RT_TABLE_MAIN = 254
_METRICS = 8  # RTA_METRICS
_SIZE = 1 << 17


class PlainError(Exception):
    """The kernel refused; one line.  `errno` is its answer."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: {os.strerror(code)}")
        self.errno = code


class PlainLink(NamedTuple):
    """A link as it is."""

    ifindex: int
    name: str
    mac: str
    mtu: int
    up: bool


class PlainRoute(NamedTuple):
    """A route of the main table; `gateway` is empty where the destination is on the link."""

    dst: str
    gateway: str
    ifindex: int


@contextmanager
def inside(path: str | None) -> Iterator[None]:
    """This thread is in the namespace of a file for a while; None: it stays.  Raises OSError."""
    if path is None:
        yield
        return
    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(target)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)
    finally:
        os.close(target)


def _setns(handle: int) -> None:
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(handle, _CLONE_NEWNET)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Session:
    """rtnetlink in one namespace; a context manager.  Methods raise PlainError."""

    def __init__(self, path: str | None = None) -> None:
        """`path`: of a namespace's file; None: the caller's.  Raises OSError."""
        self.path = path
        with inside(path):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    # -- links ---------------------------------------------------------------------------

    def link(self, name: str) -> PlainLink | None:
        """A link by name; None if there is none."""
        what = f"link {name}"
        try:
            messages = self._ask(what, _GETLINK, 0, _ifinfo(0) + _text(3, name))
        except PlainError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return next((_link_of(data) for kind, data in messages if kind == _NEWLINK), None)

    def index(self, name: str) -> int:
        """The number of a link.  Raises PlainError (ENODEV)."""
        found = self.link(name)
        if found is None:
            raise PlainError(f"link {name}", errno.ENODEV)
        return found.ifindex

    def move(self, index: int, to: Session, name: str) -> None:
        """Move a link into the namespace of another session, under a new name; it is down."""
        if to.path is None:
            raise ValueError("the target needs a path")
        target = os.open(to.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            wanted = _number(28, target) + _text(3, name)  # IFLA_NET_NS_FD
            self._ask(f"move link to {to.path} as {name}", _NEWLINK, 0, _ifinfo(index) + wanted)
        finally:
            os.close(target)

    def set_link(self, name: str, *, mac: str = "", mtu: int = 0, up: bool = False) -> None:
        """Change what is given."""
        attributes = _attribute(1, bytes.fromhex(mac.replace(":", ""))) if mac else b""
        attributes += _number(4, mtu) if mtu else b""
        flags = _IFF_UP if up else 0
        body = _ifinfo(self.index(name), flags, flags) + attributes
        self._ask(f"link {name}: set", _NEWLINK, 0, body)

    def delete(self, name: str) -> bool:
        """Remove a link; False if there is none."""
        found = self.link(name)
        if found is not None:
            self._ask(f"link {name}: delete", _DELLINK, 0, _ifinfo(found.ifindex))
        return found is not None

    # -- addresses and routes ---------------------------------------------------------------

    def add_address(self, name: str, cidr: str) -> None:
        """Give a link an address; IPv6 ones are usable at once (no duplicate detection)."""
        family, packed, length = _prefix(cidr)
        flags = _NODAD if family == socket.AF_INET6 else 0
        body = struct.pack("=BBBBI", family, length, flags, 0, self.index(name))
        body += _attribute(1, packed) + _attribute(2, packed)  # IFA_ADDRESS, IFA_LOCAL
        self._ask(f"link {name}: add address {cidr}", _NEWADDR, _CREATE | _REPLACE, body)

    def addresses(self, name: str) -> list[str]:
        """The addresses of a link, ADDRESS/LENGTH."""
        index, found = self.index(name), []
        body = struct.pack("=BBBBI", 0, 0, 0, 0, 0)
        for kind, data in self._ask(f"link {name}: addresses", _GETADDR, _DUMP, body):
            family, length, _, _, owner = struct.unpack_from("=BBBBI", data)
            told = dict(_attributes(data[8:]))
            packed = told.get(2, told.get(1, b""))
            if kind == _NEWADDR and owner == index and packed:
                found.append(f"{socket.inet_ntop(family, packed)}/{length}")
        return found

    def add_route(
        self, name: str, dst: str, gateway: str = "", *, mtu: int = 0, metric: int = 0
    ) -> None:
        """Route a prefix by a link; without `gateway` it is on the link.

        Of two routes for a prefix the one with the lower `metric` counts; `mtu`: bytes.
        """
        family, packed, length = _prefix(dst)
        scope = 0 if gateway else 253  # RT_SCOPE_UNIVERSE, RT_SCOPE_LINK
        body = struct.pack("=BBBBBBBBI", family, length, 0, 0, _RT_TABLE_MAIN, 3, scope, 1, 0)
        body += _attribute(1, packed) if length else b""
        body += _attribute(5, socket.inet_pton(family, gateway)) if gateway else b""
        body += _number(4, self.index(name))
        body += _number(6, metric) if metric else b""
        body += _attribute(_METRICS, _number(2, mtu)) if mtu else b""
        self._ask(f"route {dst}: add", _NEWROUTE, _CREATE | _REPLACE, body)

    def routes(self) -> list[PlainRoute]:
        """The unicast routes of the main table, IPv4 and IPv6."""
        found = []
        for kind, data in self._ask("routes", _GETROUTE, _DUMP, bytes(12)):
            family, length, _, _, table, _, _, of_kind, _ = struct.unpack_from("=BBBBBBBBI", data)
            if kind == _NEWROUTE and table == _RT_TABLE_MAIN and of_kind == 1:
                told = dict(_attributes(data[12:]))
                size = 4 if family == socket.AF_INET else 16
                dst = socket.inet_ntop(family, told.get(1, bytes(size)))
                via = socket.inet_ntop(family, told[5]) if 5 in told else ""
                oif = _value(told.get(4))
                found.append(PlainRoute(f"{dst}/{length}", via, oif))
        return found

    # -- messages --------------------------------------------------------------------------

    def _ask(self, what: str, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        self._sequence += 1
        flags |= _REQUEST | (0 if flags & _DUMP == _DUMP and not flags & _CREATE else _ACK)
        header = struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        found: list[tuple[int, bytes]] = []
        while True:
            for answer, data in _messages(self._socket.recv(_SIZE)):
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", data)[0]
                    if code:
                        raise PlainError(what, code)
                    return found
                if answer == _DONE:
                    return found
                found.append((answer, data))


def _messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(buffer) >= 16:
        length, kind = struct.unpack_from("=IH", buffer)
        if length < 16:
            return
        yield kind, buffer[16:length]
        buffer = buffer[(length + 3) & ~3 :]


def _attributes(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(buffer) >= 4:
        length, kind = struct.unpack_from("=HH", buffer)
        if length < 4:
            return
        yield kind & 0x3FFF, buffer[4:length]
        buffer = buffer[(length + 3) & ~3 :]


def _link_of(data: bytes) -> PlainLink:
    _, _, index, flags = struct.unpack_from("=BxHiI", data)
    told = dict(_attributes(data[16:]))
    return PlainLink(
        index,
        told.get(3, b"").rstrip(b"\0").decode(),
        told.get(1, b"").hex(":"),
        _value(told.get(4)),
        bool(flags & _IFF_UP),
    )


def _ifinfo(index: int, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def _attribute(kind: int, value: bytes) -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _value(data: bytes | None) -> int:
    """A 32-bit number in the machine's own order; 0 where it is missing."""
    return int(struct.unpack("=I", data)[0]) if data and len(data) == 4 else 0


def _prefix(text: str) -> tuple[int, bytes, int]:
    """Family, packed address and prefix length.  Raises ValueError."""
    address, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        packed = socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{text!r} is no IP address") from None
    longest = 8 * len(packed)
    if length and not (length.isdecimal() and int(length) <= longest):
        raise ValueError(f"{text!r} has no prefix length of 0 to {longest}")
    return family, packed, int(length or longest)
