"""Announcing: VTEPs tell each other their stations, so that nothing is flooded to find them.

Theory of operation
===================

    own    stations that a container engine or an operator named here
             TELL at once, to whoever joins the flood list, and every REFRESH seconds
             WITHDRAW when one goes, LEAVE when the node ends
    told   stations that other VTEPs announced
             -> an extern_learn entry for each       nothing is flooded to them
             -> an answer for each of its addresses  ARP and ND need not ask (neighbour.py)

What was told is believed for HOLD seconds.  So a lost datagram costs a delay, and a node
that dies without a word is forgotten.  A node that comes asks (ASK) and is told all.

The last who tells a station has it; an older WITHDRAW of the former host no longer
counts.  Static entries stand above all this, and data that contradicts it is reported
(vxlan/fdb.py).

Each datagram has the sender's wall clock in microseconds, always increasing.  A receiver
remembers the last WINDOW of them from each sender and takes none twice, and none that is
older than all of these.  With a key it takes none that differs from its own clock by more than
MAX_SKEW seconds either, so what was recorded long ago is good for nothing.  Without one, a
sender whose clock was set back is believed again.

All is bounded: MAX_OWN stations here, MAX_TOLD of each remote and VNI.  Whatever is beyond is
unknown, and flooded to, as if nobody had told.
"""

from __future__ import annotations

import copy
import ipaddress
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vxlan.announcement import Announcement, Kind, Station, in_parts, pack, parse
from vxlan.engine import Datagram
from vxlan.fdb import FdbEntry, Remote, State
from vxlan.mtu import family_of
from vxlan.neighbour import answer_to, question_in

SOURCE = "announced"
"""The source of the entries that are made of announcements."""

REFRESH, HOLD = 30.0, 100
"""Seconds: how often all is told again, and how long it is believed."""

MAX_SKEW = 60
_SKEW = MAX_SKEW * 1_000_000
WINDOW = 64
MAX_OWN, MAX_TOLD = 4096, 4096
ASK_GAP = 1.0
"""Seconds between two answers to one who asks for all."""

TTL = 64


class Change(NamedTuple):
    """What a VTEP told, perhaps again: a station is behind `remote`, an underlay address;
    None: no more."""

    vni: int
    mac: bytes
    remote: str | None


@dataclass(slots=True)
class _Told:
    remote: str
    addresses: tuple[bytes, ...]
    when: int
    until: float


@dataclass(slots=True)
class _Side:
    """One VNI: what is announced here, and what the others told."""

    own: dict[bytes, Station] = field(default_factory=dict)
    told: dict[bytes, _Told] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    neighbours: dict[bytes, bytes] = field(default_factory=dict)
    remotes: tuple[Remote, ...] = ()
    due: float = 0.0


@dataclass(slots=True)
class _Sender:
    heard: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    answer_at: dict[int, float] = field(default_factory=dict)  # by VNI


class Announcer:
    """The announcements of one VTEP.  `remotes(vni)` is the flood list of a segment.

    Nothing is announced or believed before `open`.  Times are monotonic seconds; `epoch`,
    the wall clock less the monotonic one, makes `when` of them.
    """

    def __init__(self, local: Iterable[str], remotes: Callable[[int], tuple[Remote, ...]]) -> None:
        self.key: bytes | None = None
        self.epoch = 0.0
        self.output: list[Datagram] = []
        self._sender = {family_of(one): _sixteen(one) for one in reversed(tuple(local))}
        self._remotes = remotes
        self._sides: dict[int, _Side] = {}
        self._senders: dict[str, _Sender] = {}
        self._last = 0

    def twin(self, source: str, remotes: Callable[[int], tuple[Remote, ...]]) -> Announcer:
        """One that answers and refuses as this one, and shares what it knows.

        With a `source` it may be told something from there, and then answers no more.
        """
        made = Announcer((), remotes)
        made.key, made.epoch, made._last = self.key, self.epoch, self._last
        made._sender = self._sender
        for vni, side in self._sides.items():
            made._sides[vni] = _Side(own=side.own, neighbours={} if source else side.neighbours)
        if source in self._senders:
            made._senders[source] = copy.deepcopy(self._senders[source])
        return made

    # -- which segments take part ----------------------------------------------------------

    def open(self, vni: int) -> None:
        """Announce in a segment, and believe what is announced there."""
        self._sides.setdefault(vni, _Side())

    def close(self, vni: int, now: float) -> list[Change]:
        """Take no part any more; what is forgotten with it."""
        if vni not in self._sides:
            return []
        self._say(vni, Kind.LEAVE, self._remotes(vni), now)
        side = self._sides.pop(vni)
        return [Change(vni, mac, None) for mac in side.told]

    def leave(self, now: float) -> None:
        """Say that this VTEP ends."""
        for vni in self._sides:
            self._say(vni, Kind.LEAVE, self._remotes(vni), now)

    # -- our own stations ------------------------------------------------------------------

    def own(self, vni: int) -> Mapping[bytes, Station]:
        """What is announced in a segment; nothing if it takes no part."""
        side = self._sides.get(vni)
        return side.own if side else {}

    def add(self, vni: int, station: Station, now: float) -> list[Change]:
        """Announce a station.  KeyError if the segment takes no part, ValueError for too many."""
        side = self._sides[vni]
        if station.mac not in side.own and len(side.own) >= MAX_OWN:
            raise ValueError(f"{MAX_OWN} stations are announced here already")
        side.own[station.mac] = station
        self._say(vni, Kind.TELL, self._remotes(vni), now, [station])
        return self._forget(vni, side, [station.mac] if station.mac in side.told else [])

    def remove(self, vni: int, mac: bytes, now: float) -> bool:
        """Announce a station no more; False if it was not.  KeyError as above."""
        side = self._sides[vni]
        station = side.own.pop(mac, None)
        if station is None:
            return False
        self._say(vni, Kind.WITHDRAW, self._remotes(vni), now, [Station(mac)])
        return True

    # -- what others told ------------------------------------------------------------------

    def told(self, vni: int) -> Mapping[bytes, tuple[str, tuple[bytes, ...]]]:
        """MAC -> underlay address and IP addresses of what others announced."""
        side = self._sides.get(vni)
        if side is None:
            return {}
        return {mac: (one.remote, one.addresses) for mac, one in side.told.items()}

    def answers(self, vni: int) -> bool:
        """Whether any question of neighbours can be answered in a segment."""
        side = self._sides.get(vni)
        return side is not None and bool(side.neighbours)

    def answer(self, vni: int, frame: bytes) -> bytes | None:
        """The answer to what a frame asks of everybody, if somebody announced it."""
        asked = question_in(frame)
        mac = self._sides[vni].neighbours.get(asked.target) if asked else None
        return answer_to(asked, mac) if asked and mac and mac != asked.mac else None

    def take(self, datagram: Datagram, remote: Remote, now: float) -> list[Change] | None:
        """Follow an announcement of one of our remotes; None where it is refused."""
        said = parse(datagram.payload, self.key)
        if said is None or said.vni not in self._sides:
            return None
        there = (one for one in self._remotes(said.vni) if one.address == remote.address)
        if (listed := next(there, None)) is None:
            return None  # it is a remote of another segment
        remote = listed
        sender = self._senders.setdefault(remote.address, _Sender())
        if not self._is_fresh(said, sender, remote.address, now):
            return None
        sender.heard.append(said.when)
        return self._follow(said, remote, sender, now)

    def _is_fresh(self, said: Announcement, sender: _Sender, source: str, now: float) -> bool:
        heard, wall = sender.heard, self._wall(now)
        if self.key is not None:
            if said.sender != _sixteen(source) or abs(said.when - wall) > _SKEW:
                return False
            if heard and max(heard) > wall + _SKEW:
                self._start_anew(sender, source)  # our own clock was set back
        elif heard and said.when < max(heard) - _SKEW:
            self._start_anew(sender, source)  # its clock was
        return said.when not in heard and (len(heard) < WINDOW or said.when > min(heard))

    def _start_anew(self, sender: _Sender, source: str) -> None:
        """Forget by what clock a sender told what it told."""
        sender.heard.clear()
        for side in self._sides.values():
            for told in side.told.values():
                if told.remote == source:
                    told.when = 0

    def _follow(
        self, said: Announcement, remote: Remote, sender: _Sender, now: float
    ) -> list[Change]:
        side, source = self._sides[said.vni], remote.address
        if said.kind is Kind.TELL:
            kept = (self._keep(said, side, station, source, now) for station in said.stations)
            return [change for change in kept if change]
        if said.kind is Kind.ASK:
            if now >= sender.answer_at.get(said.vni, 0.0):
                sender.answer_at[said.vni] = now + ASK_GAP
                self._say(said.vni, Kind.TELL, (remote,), now, side.own.values())
            return []
        named = [station.mac for station in said.stations]
        doomed = named if said.kind is Kind.WITHDRAW else list(side.told)
        mine = [mac for mac in doomed if _is_of(side.told.get(mac), source, said.when)]
        return self._forget(said.vni, side, mine)

    def _keep(
        self, said: Announcement, side: _Side, station: Station, source: str, now: float
    ) -> Change | None:
        """Believe what is told of one station; None where it is not believed."""
        old = side.told.get(station.mac)
        if station.mac in side.own or (old and old.remote == source and old.when > said.when):
            return None
        if (old is None or old.remote != source) and side.held.get(source, 0) >= MAX_TOLD:
            return None
        if old is not None:
            self._let_go(side, station.mac)
        side.told[station.mac] = _Told(source, station.addresses, said.when, now + said.hold)
        side.held[source] = side.held.get(source, 0) + 1
        side.neighbours.update(dict.fromkeys(station.addresses, station.mac))
        return Change(said.vni, station.mac, source)

    def _let_go(self, side: _Side, mac: bytes) -> None:
        old = side.told.pop(mac)
        side.held[old.remote] -= 1
        for address in old.addresses:
            if side.neighbours.get(address) == mac:
                del side.neighbours[address]

    def _forget(self, vni: int, side: _Side, macs: Iterable[bytes]) -> list[Change]:
        changes = []
        for mac in macs:
            self._let_go(side, mac)
            changes.append(Change(vni, mac, None))
        return changes

    def take_output(self) -> list[Datagram]:
        """What is to be sent, taken out."""
        taken, self.output = self.output, []
        return taken

    # -- time --------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Change]:
        """Tell what is due, and forget what nobody told again."""
        changes: list[Change] = []
        for vni, side in self._sides.items():
            changes += self._follow_remotes(vni, side, now)
            if now >= side.due:
                self._say(vni, Kind.TELL, side.remotes, now, side.own.values())
                side.due = now + REFRESH
                changes += self._forget(
                    vni, side, [mac for mac, one in side.told.items() if one.until < now]
                )
        return changes

    def _follow_remotes(self, vni: int, side: _Side, now: float) -> list[Change]:
        """Ask those who are new in the flood list, and tell them; forget those who left it."""
        before, side.remotes = side.remotes, self._remotes(vni)
        if before == side.remotes:
            return []
        new = tuple(remote for remote in side.remotes if remote not in before)
        self._say(vni, Kind.ASK, new, now)
        self._say(vni, Kind.TELL, new, now, side.own.values())
        left = {one.address for one in before} - {one.address for one in side.remotes}
        gone = [mac for mac, one in side.told.items() if one.remote in left]
        return self._forget(vni, side, gone)

    def _say(
        self,
        vni: int,
        kind: Kind,
        remotes: Iterable[Remote],
        now: float,
        stations: Iterable[Station] = (),
    ) -> None:
        """One datagram for each remote, or as many as the stations need; none for no station."""
        bare: list[tuple[Station, ...]] = [()] if kind in (Kind.ASK, Kind.LEAVE) else []
        parts = bare or list(in_parts(stations))
        for remote in remotes:
            sender = self._sender.get(family_of(remote.address), bytes(16))
            for part in parts:
                said = Announcement(kind, vni, self._next_when(now), sender, part, HOLD)
                self.output.append(Datagram(remote, pack(said, self.key), vni, 0, TTL))

    def _wall(self, now: float) -> int:
        return max(0, int((self.epoch + now) * 1_000_000))

    def _next_when(self, now: float) -> int:
        wall = self._wall(now)
        if self._last > wall + _SKEW:
            self._last = wall  # the clock was set back
        self._last = max(self._last + 1, wall)
        return self._last


def is_announced(entry: FdbEntry | None, remotes: tuple[Remote, ...] | None = None) -> bool:
    """Whether an entry, or the claim under it, is made of an announcement (that names these)."""
    if entry is not None and entry.state is State.STATIC:
        entry = entry.shadowed
    if entry is None or entry.source != SOURCE:
        return False
    return remotes is None or entry.remotes == remotes


def _is_of(told: _Told | None, source: str, when: int) -> bool:
    return told is not None and told.remote == source and told.when < when


def _sixteen(address: str) -> bytes:
    return ipaddress.ip_address(address).packed.ljust(16, b"\0")
