"""The forwarding database: which station (MAC) is behind which remote VTEP.

Theory of operation
===================

One `Fdb` belongs to one segment.  It maps a MAC to one `FdbEntry`.  What the
entry says comes from one of three kinds of claim, ranked:

    static        an operator said so                           never ages
    extern_learn  a control plane (EVPN, etcd, Docker) said so  never ages
    dynamic       a datagram's inner source MAC said so         ages

The highest rank speaks.  A lower rank never blocks a higher one and never
overrules it, and writing is always reconciling: `set` cannot fail because an
entry is there.  A control plane's claim under a static entry is kept in
`FdbEntry.shadowed` and speaks again when the static entry is deleted.  A learned
claim is not kept, since traffic will make it again if it is still true.  Claims
that contradict each other are events, never silent.

Learning follows IEEE 802.1Q clause 8.7 and RFC 7348 section 4.1.  Only frames
*from* a station keep its entry young; frames sent *to* it do not, or a station
that moved silently would be sent to its old place for ever.  The age is
refreshed at most once in `REFRESH` seconds, so a busy station costs a look-up
and a comparison for each frame and nothing else.

The table is bounded by `limit`.  When it is full, the remote that holds most
learned entries loses its oldest one, so a remote that floods us with forged
stations only throws out its own.  `_Holdings` finds that entry without a
search: for each remote it keeps the learned MACs in order of age, and it keeps
the remotes by how many they hold.

    _macs     {192.0.2.2: [oldest ... newest], 192.0.2.3: [...]}
    _by_count [{}, {192.0.2.3}, {}, {192.0.2.2}]     index = number held
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from vxlan.event import EventKind

REFRESH = 1.0
"""Seconds within which a second sighting of a station does not touch its entry."""


class Remote(NamedTuple):
    """Where datagrams go: underlay address in canonical text form, and UDP port."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class State(StrEnum):
    """Where an entry's claim comes from, in the words of bridge(8)."""

    DYNAMIC = "dynamic"
    EXTERN_LEARN = "extern_learn"
    STATIC = "static"

    @property
    def rank(self) -> int:
        """Higher overrules lower."""
        return _RANK[self]


_RANK = {State.DYNAMIC: 0, State.EXTERN_LEARN: 1, State.STATIC: 2}


class Learned(Enum):
    """What a sighting of a station did to the table."""

    KNOWN = "known"
    NEW = "new"
    MOVED = "moved"
    CONTRADICTED = "contradicted"  # a control plane says otherwise; the entry stays
    UNKEPT = "unkept"  # no room: every entry is static or extern_learn
    REFUSED = "refused"  # a static entry says otherwise; the frame is not to be trusted


class FdbFull(Exception):
    """Every place is taken by entries that no rule may throw out."""


@dataclass(slots=True)
class FdbEntry:
    """One station.  Times are monotonic seconds.

    since    when this entry began to name these remotes
    updated  when a claim last confirmed it
    used     when a frame was last sent to it
    shadowed the control plane's claim that this entry overrules
    """

    mac: bytes
    remotes: tuple[Remote, ...]
    state: State
    source: str
    since: float
    updated: float
    used: float
    shadowed: FdbEntry | None = None

    def names(self, address: str) -> bool:
        """Whether `address` is one of the entry's remotes."""
        return any(remote.address == address for remote in self.remotes)


Notify = Callable[[EventKind, float, bytes, Remote | None, Remote | None, str], None]
"""kind, now, mac, remote, was, detail"""


def _ignore(*_: object) -> None:
    return None


class _Holdings:
    """Learned MACs by the remote that holds them, and the remotes by how many."""

    __slots__ = ("_by_count", "_macs", "total")

    def __init__(self) -> None:
        self._macs: dict[str, OrderedDict[bytes, None]] = {}
        self._by_count: list[dict[str, None]] = [{}]
        self.total = 0

    def add(self, owner: str, mac: bytes) -> None:
        macs = self._macs.setdefault(owner, OrderedDict())
        macs[mac] = None
        self.total += 1
        self._recount(owner, len(macs) - 1, len(macs))

    def remove(self, owner: str, mac: bytes) -> None:
        macs = self._macs[owner]
        del macs[mac]
        self.total -= 1
        self._recount(owner, len(macs) + 1, len(macs))
        if not macs:
            del self._macs[owner]

    def touch(self, owner: str, mac: bytes) -> None:
        self._macs[owner].move_to_end(mac)

    def owners(self) -> list[str]:
        return list(self._macs)

    def oldest_of(self, owner: str) -> bytes | None:
        macs = self._macs.get(owner)
        return next(iter(macs)) if macs else None

    def oldest_of_fullest(self) -> bytes | None:
        """The oldest MAC of the remote that holds most; the first to hold so many."""
        if not self._macs:
            return None
        owner = next(iter(self._by_count[-1]))
        return next(iter(self._macs[owner]))

    def _recount(self, owner: str, before: int, after: int) -> None:
        if before:
            del self._by_count[before][owner]
        if after == len(self._by_count):
            self._by_count.append({})
        if after:
            self._by_count[after][owner] = None
        while len(self._by_count) > 1 and not self._by_count[-1]:
            self._by_count.pop()


class Fdb:
    """MAC -> remotes, bounded, ranked, ageing.

    ageing  seconds without a frame after which a dynamic entry goes; 0 = never
    limit   how many entries the table holds; at least 1
    notify  called for each change that people may want to see
    """

    def __init__(
        self, *, ageing: float = 300.0, limit: int = 65536, notify: Notify = _ignore
    ) -> None:
        self.ageing = ageing
        self.limit = limit
        self._notify = notify
        self._entries: dict[bytes, FdbEntry] = {}
        self._holdings = _Holdings()
        self.configured: dict[str, int] = {}  # address -> entries above dynamic that name it

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[FdbEntry]:
        return iter(list(self._entries.values()))

    def get(self, mac: bytes) -> FdbEntry | None:
        """The entry of a station, without marking it as used."""
        return self._entries.get(mac)

    def lookup(self, mac: bytes, now: float) -> tuple[Remote, ...]:
        """Where to send a frame for `mac`; empty where the station is unknown."""
        entry = self._entries.get(mac)
        if entry is None:
            return ()
        entry.used = now
        return entry.remotes

    # -- learning from data ------------------------------------------------------------

    def learn(self, mac: bytes, remote: Remote, now: float) -> Learned:
        """A frame from `mac` came from `remote` (RFC 7348, section 4.1)."""
        entry = self._entries.get(mac)
        if entry is None:
            return self._learn_new(mac, remote, now)
        if entry.state is not State.DYNAMIC:
            return self._compare(entry, remote, now)
        if entry.remotes[0].address == remote.address:
            self._refresh(entry, now)
            return Learned.KNOWN
        was = entry.remotes[0]
        self._forget(entry)
        self._put(FdbEntry(mac, (remote,), State.DYNAMIC, "data", now, now, entry.used))
        self._notify(EventKind.MOVED, now, mac, remote, was, "data")
        return Learned.MOVED

    def _learn_new(self, mac: bytes, remote: Remote, now: float) -> Learned:
        try:
            self._make_room(now)
        except FdbFull:
            return Learned.UNKEPT
        self._put(FdbEntry(mac, (remote,), State.DYNAMIC, "data", now, now, 0.0))
        self._notify(EventKind.LEARNED, now, mac, remote, None, "data")
        return Learned.NEW

    def _refresh(self, entry: FdbEntry, now: float) -> None:
        if now - entry.updated >= REFRESH:
            entry.updated = now
            self._holdings.touch(entry.remotes[0].address, entry.mac)

    def _compare(self, entry: FdbEntry, remote: Remote, now: float) -> Learned:
        if entry.names(remote.address):
            entry.updated = now
            return Learned.KNOWN
        self._notify(
            EventKind.CONFLICT,
            now,
            entry.mac,
            entry.remotes[0],
            remote,
            f"data against {entry.state}",
        )
        return Learned.REFUSED if entry.state is State.STATIC else Learned.CONTRADICTED

    # -- writing by operators and control planes ---------------------------------------

    def set(
        self, mac: bytes, remotes: tuple[Remote, ...], state: State, source: str, now: float
    ) -> FdbEntry:
        """Make `remotes` what the claim of this rank says, and return the entry that speaks.

        That is another entry than the one written where a higher rank is there.
        Raises FdbFull, with the table unchanged, if nothing can make room.
        """
        current = self._entries.get(mac)
        if current is not None and current.state.rank > state.rank:
            return self._shadow(current, remotes, state, source, now)
        entry = FdbEntry(mac, remotes, state, source, now, now, 0.0)
        if current is None:
            self._make_room(now)
        else:
            self._carry_over(current, entry, now)
        self._put(entry)
        was = current.remotes[0] if current else None
        self._notify(EventKind.FDB_SET, now, mac, remotes[0], was, f"{state} by {source}")
        return entry

    def _shadow(
        self, top: FdbEntry, remotes: tuple[Remote, ...], state: State, source: str, now: float
    ) -> FdbEntry:
        if state is State.EXTERN_LEARN:
            top.shadowed = FdbEntry(top.mac, remotes, state, source, now, now, 0.0)
        if set(remotes) != set(top.remotes):
            self._notify(
                EventKind.CONFLICT,
                now,
                top.mac,
                top.remotes[0],
                remotes[0],
                f"{source} against {top.state}",
            )
        return top

    def _carry_over(self, old: FdbEntry, new: FdbEntry, now: float) -> None:
        """Take `old` out and keep of it what `new` must remember."""
        new.used = old.used
        if old.remotes == new.remotes and old.state is new.state:
            new.since = old.since
        if old.state is State.EXTERN_LEARN and new.state is State.STATIC:
            new.shadowed = old
        elif old.state is new.state:
            new.shadowed = old.shadowed
        if old.state is new.state and old.source != new.source and old.remotes != new.remotes:
            self._notify(
                EventKind.CONFLICT,
                now,
                new.mac,
                new.remotes[0],
                old.remotes[0],
                f"{new.source} against {old.source}",
            )
        self._forget(old)

    def remove(self, mac: bytes, now: float, *, state: State | None = None) -> FdbEntry | None:
        """Withdraw a claim; by default the one that speaks.  None if there was none.

        `state` names the claim to withdraw, so that a control plane can take back
        its own without touching an operator's entry above it.
        """
        entry = self._entries.get(mac)
        if entry is None:
            return None
        if state is not None and entry.state is not state:
            return self._remove_shadowed(entry, state)
        self._forget(entry)
        if entry.shadowed is not None:
            self._put(entry.shadowed)
        self._notify(EventKind.FDB_DELETED, now, mac, entry.remotes[0], None, entry.state.value)
        return entry

    @staticmethod
    def _remove_shadowed(entry: FdbEntry, state: State) -> FdbEntry | None:
        below = entry.shadowed
        if below is None or below.state is not state:
            return None
        entry.shadowed = None
        return below

    def flush(self, wanted: Callable[[FdbEntry], bool], now: float) -> int:
        """Withdraw the claim of every entry that is `wanted`; how many there were."""
        doomed = [entry.mac for entry in self._entries.values() if wanted(entry)]
        for mac in doomed:
            self.remove(mac, now)
        return len(doomed)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be learned: every place is taken by higher ranks."""
        return len(self._entries) >= self.limit and not self._holdings.total

    def restore(
        self, entries: Iterable[FdbEntry], configured: Mapping[str, int], closed: bool
    ) -> None:
        """Fill an empty table with copies; the rest as the whole table has it."""
        for entry in entries:
            self._put(copy.copy(entry))
        self.configured = dict(configured)
        if closed:
            self.limit = len(self._entries)

    # -- time and space ----------------------------------------------------------------

    def age(self, now: float) -> int:
        """Throw out the dynamic entries that were silent for the ageing time."""
        if not self.ageing:
            return 0
        aged = 0
        for owner in self._holdings.owners():
            aged += self._age_holdings_of(owner, now)
        return aged

    def _age_holdings_of(self, owner: str, now: float) -> int:
        aged = 0
        while (mac := self._holdings.oldest_of(owner)) is not None:
            entry = self._entries[mac]
            if now - entry.updated < self.ageing:
                break
            self._forget(entry)
            self._notify(EventKind.AGED, now, mac, entry.remotes[0], None, "")
            aged += 1
        return aged

    def resize(self, limit: int, now: float) -> None:
        """Change the bound; learned entries beyond it go, by the same rule as when full."""
        self.limit = limit
        while len(self._entries) > limit and self._evict(now):
            pass

    def _make_room(self, now: float) -> None:
        if len(self._entries) >= self.limit and not self._evict(now):
            raise FdbFull(f"all {self.limit} entries are static or extern_learn")

    def _evict(self, now: float) -> bool:
        mac = self._holdings.oldest_of_fullest()
        if mac is None:
            return False
        entry = self._entries[mac]
        self._forget(entry)
        self._notify(EventKind.EVICTED, now, mac, entry.remotes[0], None, "table full")
        return True

    # -- the one place that keeps the table and its indices together -------------------

    def _put(self, entry: FdbEntry) -> None:
        self._entries[entry.mac] = entry
        if entry.state is State.DYNAMIC:
            self._holdings.add(entry.remotes[0].address, entry.mac)
        else:
            for address in {remote.address for remote in entry.remotes}:
                self.configured[address] = self.configured.get(address, 0) + 1

    def _forget(self, entry: FdbEntry) -> None:
        del self._entries[entry.mac]
        if entry.state is State.DYNAMIC:
            self._holdings.remove(entry.remotes[0].address, entry.mac)
        else:
            for address in {remote.address for remote in entry.remotes}:
                self.configured[address] -= 1
                if not self.configured[address]:
                    del self.configured[address]
