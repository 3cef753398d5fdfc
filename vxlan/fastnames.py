"""What the slow side of the compiled engine keeps: names of numbers, and notes on entries.

C knows peers, remotes and segments by numbers (fastpath/tables.pxd).  `Names` translates
them.  `Side` is what Python keeps of one segment.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from vxlan import _fastpath
from vxlan.fdb import FdbEntry, Remote
from vxlan.segment import Segment

LOCAL, OTHER = 0, 1
"""Peers that are no addresses: what has no remote, and strangers beyond the bound."""


class Names:
    """Underlay addresses and remotes, and the numbers by which C knows them."""

    def __init__(self, core: _fastpath.Core) -> None:
        self._core = core
        self._addresses: dict[int, str] = {LOCAL: "local", OTHER: "other"}
        self._remotes: dict[int, Remote] = {}

    def peer(self, address: str) -> int:
        return self._core.peer(*packed(address))

    def source(self, address: str) -> int:
        return self._core.source(*packed(address))

    def address(self, peer: int) -> str:
        found = self._addresses.get(peer)
        if found is None:
            family, raw = self._core.address(peer)
            found = self._addresses[peer] = (
                socket.inet_ntop(socket.AF_INET, raw[:4])
                if family == 4
                else socket.inet_ntop(socket.AF_INET6, raw)
            )
        return found

    def number(self, remote: Remote) -> int:
        return self._core.remote(self.peer(remote.address), remote.port)

    def remote(self, number: int) -> Remote:
        found = self._remotes.get(number)
        if found is None:
            peer, port = self._core.remote_at(number)
            found = self._remotes[number] = Remote(self.address(peer), port)
        return found


def packed(address: str) -> tuple[bytes, int]:
    """An address as 16 bytes (IPv4: the first four), and its family, 4 or 6."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address), 6
    return socket.inet_pton(socket.AF_INET, address) + bytes(12), 4


class Side:
    """What Python keeps of a segment: its rules and flood list, and notes on entries.

    `segment` serves for what the functions of the Python engine count and remember; its
    own FDB stays empty.  `notes` has the source and the shadowed claim of each entry
    that was written by somebody; `configured` how many entries above dynamic name an
    underlay address.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.notes: dict[bytes, tuple[str, FdbEntry | None]] = {}
        self.configured: dict[str, int] = {}

    def knows(self, address: str) -> bool:
        return self.segment.knows(address) or address in self.configured

    def configure(self, remotes: Iterable[Remote], change: int) -> set[str]:
        """Count an entry that comes or goes; the addresses that it names."""
        addresses = {remote.address for remote in remotes}
        for address in addresses:
            self.configured[address] = self.configured.get(address, 0) + change
            if not self.configured[address]:
                del self.configured[address]
        return addresses
