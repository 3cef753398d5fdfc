"""Listen to one interface of a namespace, without any tool installed.

Theory of operation
===================

A `Sniffer` is an AF_PACKET socket with a large receive buffer and no thread:
the kernel stores packets from the moment it is opened, and `packets` takes out
what has come.  Nothing is missed between two calls unless the buffer
overflowed, which `lost` tells.

An interface that goes down ends its sniffer with an error, and one that is made anew
under the same name is another one to the kernel.  A `SteadySniffer` opens itself again.

The kernel takes an 802.1Q tag out of a received frame and hands it over beside
it.  `_with_tag` puts it back, so that callers see what was on the wire.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from vxlan.lab.wait import wait_until

if TYPE_CHECKING:
    from vxlan.lab.namespace import Namespace

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_SO_RCVBUFFORCE = 33
_PACKET_OUTGOING = 4
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")  # seconds, nanoseconds
_TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_CONTROL = socket.CMSG_SPACE(_AUXDATA.size) + socket.CMSG_SPACE(_TIMESPEC.size)
_LONGEST = 1 << 17
_BUFFER = 32 << 20

RETRY = 0.5
"""Seconds until an interface that is down or not there is looked for again."""


class Captured(NamedTuple):
    """One frame with its Ethernet header, as it passed the interface.

    `when` is the kernel's time of that, in seconds since 1970.
    """

    direction: Literal["in", "out"]
    data: bytes
    when: float = 0.0


class Sniffer:
    """Frames that pass one interface, in both directions.

    Closed by `close`, by leaving its `with` block, or by the lab that owns the
    namespace.  `buffer` is how many bytes wait at most until they are taken out.
    """

    def __init__(self, namespace: Namespace, interface: str, buffer: int = _BUFFER) -> None:
        self.interface = interface
        self.lost = 0
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        try:
            self._socket.bind((interface, _ETH_P_ALL))
            self._socket.setblocking(False)
            self.clear()
        except OSError:
            self.close()
            raise

    def packets(self, most: int | None = None) -> list[Captured]:
        """Take out what came since the last call, oldest first; no more than `most` at once.

        Raises OSError where the interface is down or gone.
        """
        found: list[Captured] = []
        with suppress(BlockingIOError):
            while most is None or len(found) < most:
                found.append(self._receive())
        self._note_losses()
        return found

    def clear(self) -> None:
        """Forget what came so far."""
        self.packets()

    def wait_for(
        self, wanted: Callable[[Captured], bool], timeout: float = 5.0, what: str = "packet"
    ) -> Captured:
        """The next frame that is `wanted`.  Raises LabTimeout."""

        def first() -> Captured | None:
            return next((packet for packet in self.packets() if wanted(packet)), None)

        return wait_until(first, timeout, f"{what} on {self.interface}")

    def fileno(self) -> int:
        """The descriptor to wait for, in select and its like."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self) -> Captured:
        data, control, _, sender = self._socket.recvmsg(_LONGEST, _CONTROL)
        when = 0.0
        for level, kind, value in control:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                data = _with_tag(data, value)
            elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                when = seconds + nanoseconds / 1e9
        return Captured("out" if sender[2] == _PACKET_OUTGOING else "in", data, when)

    def _note_losses(self) -> None:
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost += int(struct.unpack("=II", raw)[1])


class SteadySniffer:
    """A sniffer that listens again when its interface comes back.

    It may be made while there is no such interface.  `lost` counts over all times.
    """

    def __init__(self, namespace: Namespace, interface: str, buffer: int = _BUFFER) -> None:
        self._where = namespace, interface, buffer
        self._sniffer: Sniffer | None = None
        self._lost = 0
        self._again = 0.0
        self._open()

    @property
    def listening(self) -> bool:
        """Whether the interface is there and up, as far as is known: only then is `fileno`."""
        return self._sniffer is not None

    @property
    def lost(self) -> int:
        """Frames that found the buffer full."""
        return self._lost + (self._sniffer.lost if self._sniffer else 0)

    def packets(self, most: int | None = None) -> list[Captured]:
        """As `Sniffer.packets`; none while the interface is down or gone.

        Raises NetdevError where its namespace is gone.
        """
        self._open()
        try:
            return self._sniffer.packets(most) if self._sniffer else []
        except OSError:
            self.close()
            return []

    def fileno(self) -> int:
        """The descriptor to wait for; -1 unless `listening`."""
        return self._sniffer.fileno() if self._sniffer else -1

    def close(self) -> None:
        """Listen no more, until `packets` is called again."""
        if self._sniffer is not None:
            self._lost = self.lost
            self._sniffer.close()
            self._sniffer = None

    def __enter__(self) -> SteadySniffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if self._sniffer is not None or time.monotonic() < self._again:
            return
        self._again = time.monotonic() + RETRY
        with suppress(OSError):
            self._sniffer = Sniffer(*self._where)


def _with_tag(data: bytes, auxdata: bytes) -> bytes:
    status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(auxdata)
    if not status & _TP_STATUS_VLAN_VALID:
        return data
    return data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
