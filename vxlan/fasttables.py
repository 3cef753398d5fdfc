"""The tables of the compiled engine: C keeps what packets need, Python what people ask for.

Theory of operation
===================

    vxlan._fastpath.Core   tables and the rules for one packet, on plain numbers
    FastTables             the tables of the Engine contract (vxlan/engine.py) over it
    FastPackets            the packets that C leaves to Python (vxlan/fastpackets.py)
    FastEngine             devices, threads and time (vxlan/fastengine.py)

    tables      claims have ranks, sources and shadows (vxlan/fdb.py); C keeps the
                claim that speaks, this file keeps what only people ask for
    events      numbers in a ring, turned into `Event`

C knows peers, remotes and segments by numbers.  A peer is an underlay address, a
remote a peer and a port.  `Names` translates (vxlan/fastnames.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vxlan import _fastpath
from vxlan.announce import Announcer
from vxlan.drop import Count, Counters
from vxlan.engine import EngineInfo, FaultRefused, FaultState, Frame, Policy
from vxlan.event import Event, EventKind, EventLog
from vxlan.fastnames import Names, Side
from vxlan.fault import Fault
from vxlan.fdb import FdbEntry, FdbFull, Remote, State
from vxlan.paths import Paths
from vxlan.segment import Segment
from vxlan.twin import Part, twin
from vxlan.vtep import Vtep

NONE = 0xFFFFFFFF

_STATES = (State.DYNAMIC, State.EXTERN_LEARN, State.STATIC)
_KINDS = (
    EventKind.LEARNED,
    EventKind.MOVED,
    EventKind.AGED,
    EventKind.EVICTED,
    EventKind.CONFLICT,
    EventKind.REMOTE_UP,
    EventKind.REMOTE_DOWN,
    EventKind.TAP_LOST,
)
_DETAILS = {
    EventKind.LEARNED: "data",
    EventKind.MOVED: "data",
    EventKind.EVICTED: "table full",
}


class FastTables:
    """The tables of the compiled engine."""

    def __init__(
        self, local: Iterable[str], port: int, why: str = "asked for", queues: int = 1
    ) -> None:
        self.info = EngineInfo("fastpath", why)
        self.queues = queues
        self.port = port
        addresses = tuple(local)
        self.local = frozenset(addresses)
        self.log = EventLog()
        self.probing = Paths(self.log)
        self.announcer = Announcer(addresses, self.remotes)
        self.answers: list[Frame] = []
        self.core = _fastpath.Core(port, secrets.randbits(64))
        self.names = Names(self.core)
        self._sides: dict[int, Side] = {}
        self._rooms: dict[str, int] = {}
        self._why_down: dict[int, str] = {}
        for address in self.local:
            self.core.set_own(self.names.peer(address))

    # -- faults: for the engine that is there to be looked at ------------------------

    def fault_add(self, fault: Fault, now: float) -> int:
        raise FaultRefused('faults need engine = "python": this node runs the fastpath')

    def fault_clear(self, number: int | None) -> int:
        return 0

    def faults(self) -> list[FaultState]:
        return []

    # -- segments ------------------------------------------------------------------

    def add_segment(self, vni: int, policy: Policy) -> None:
        if vni in self._sides:
            raise ValueError(f"VNI {vni} is there already")
        segment = Segment(vni, policy, self.port, self.log)
        self.core.add_segment(vni, policy.maxaddress, policy.ageing, secrets.randbits(64))
        self._sides[vni] = Side(segment)
        self._set_rules(segment)

    def set_policy(self, vni: int, policy: Policy, now: float) -> None:
        segment = self._sides[vni].segment
        segment.set_policy(policy, now)
        self._set_rules(segment)
        self.core.resize(vni, policy.maxaddress, policy.ageing, secrets.randbits(64), now)

    def _set_rules(self, segment: Segment) -> None:
        policy = segment.policy
        mss = {"off": 0, "clamp": -1}.get(str(policy.mss), policy.mss)
        self.core.set_rules(
            segment.vni,
            policy.mtu,
            segment.max_frame,
            policy.learning,
            policy.accept == "any",
            policy.vlan == "drop",
            policy.reserved_bits == "strict",
            policy.ttl or 0,
            -1 if policy.tos is None else policy.tos,
            int(mss),
        )

    def remove_segment(self, vni: int) -> None:
        self.announcer.close(vni, 0.0)
        del self._sides[vni]
        self.core.remove_segment(vni)
        self.probing.set_echoes(vni, None, 0.0)

    def set_own_macs(self, vni: int, macs: Iterable[bytes]) -> None:
        own = self._sides[vni].segment.own_macs = frozenset(macs)
        self.core.set_own_macs(vni, list(own))

    # -- remotes -------------------------------------------------------------------

    def add_remote(self, vni: int, remote: Remote, now: float) -> bool:
        side = self._sides[vni]
        if remote.address in self.local or not side.segment.add_remote(remote, now):
            return False
        self.core.reserve(vni, self.names.peer(remote.address))
        self._set_flood(side, [remote.address])
        return True

    def del_remote(self, vni: int, remote: Remote, now: float) -> bool:
        side = self._sides[vni]
        if not side.segment.del_remote(remote, now):
            return False
        self._set_flood(side, [remote.address])
        if not side.knows(remote.address):
            self.fdb_flush(vni, now, state=State.DYNAMIC, address=remote.address)
        return True

    def remotes(self, vni: int) -> tuple[Remote, ...]:
        return self._sides[vni].segment.flood_list

    def _set_flood(self, side: Side, changed: Iterable[str]) -> None:
        segment = side.segment
        self.core.set_flood(segment.vni, [self.names.number(one) for one in segment.flood_list])
        self._set_known(side, changed)
        for address in changed:
            number = self.names.number(segment.remote_at(address))
            self.core.set_learn_as(segment.vni, self.names.peer(address), number + 1)

    def _set_known(self, side: Side, addresses: Iterable[str]) -> None:
        for address in addresses:
            self.core.set_known(side.segment.vni, self.names.peer(address), side.knows(address))

    # -- entries: the rules of vxlan/fdb.py -------------------------------------------

    def fdb_set(
        self,
        vni: int,
        mac: bytes,
        remotes: tuple[Remote, ...],
        state: State,
        source: str,
        now: float,
    ) -> FdbEntry:
        side, current = self._sides[vni], self.fdb_get(vni, mac)
        entry = FdbEntry(mac, remotes, state, source, now, now, 0.0)
        if current is not None and current.state.rank > state.rank:
            return self._shadow(side, current, entry, now)
        if current is not None:
            self._carry_over(side, current, entry, now)
        self._write(side, current, entry)
        was = current.remotes[0] if current else None
        self._tell(EventKind.FDB_SET, now, side, mac, remotes[0], was, f"{state} by {source}")
        return entry

    def _shadow(self, side: Side, top: FdbEntry, claim: FdbEntry, now: float) -> FdbEntry:
        if claim.state is State.EXTERN_LEARN:
            top.shadowed = claim
            side.notes[top.mac] = (top.source, claim)
        if set(claim.remotes) != set(top.remotes):
            self._conflict(side, top, claim.remotes[0], f"{claim.source} against {top.state}", now)
        return top

    def _carry_over(self, side: Side, old: FdbEntry, new: FdbEntry, now: float) -> None:
        new.used = old.used
        if old.state is new.state:
            new.shadowed = old.shadowed
            if old.remotes == new.remotes:
                new.since = old.since
            elif old.source != new.source:
                self._conflict(side, new, old.remotes[0], f"{new.source} against {old.source}", now)
        elif old.state is State.EXTERN_LEARN and new.state is State.STATIC:
            new.shadowed = old

    def _conflict(
        self, side: Side, entry: FdbEntry, against: Remote, detail: str, now: float
    ) -> None:
        side.segment.tally.count(Count.CONFLICT)
        remote = entry.remotes[0]
        self._tell(EventKind.CONFLICT, now, side, entry.mac, remote, against, detail)

    def _write(self, side: Side, old: FdbEntry | None, new: FdbEntry) -> None:
        """Let C hold an entry, in the place of `old`.  Raises FdbFull."""
        vni = side.segment.vni
        numbers = [self.names.number(remote) for remote in new.remotes]
        state = _STATES.index(new.state)
        if not self.core.fdb_write(
            vni, new.mac, numbers, state, new.since, new.updated, new.used, True
        ):
            limit = side.segment.policy.maxaddress
            raise FdbFull(f"all {limit} entries are static or extern_learn")
        side.notes[new.mac] = (new.source, new.shadowed)
        self._reconfigure(side, old, new)

    def _reconfigure(self, side: Side, old: FdbEntry | None, new: FdbEntry | None) -> None:
        changed: set[str] = set()
        if new is not None and new.state is not State.DYNAMIC:
            changed |= side.configure(new.remotes, 1)
        if old is not None and old.state is not State.DYNAMIC:
            changed |= side.configure(old.remotes, -1)
        self._set_known(side, changed)

    def fdb_remove(
        self, vni: int, mac: bytes, now: float, state: State | None = None
    ) -> FdbEntry | None:
        side, entry = self._sides[vni], self.fdb_get(vni, mac)
        if entry is None:
            return None
        below = entry.shadowed
        if state is not None and entry.state is not state:
            if below is None or below.state is not state:
                return None
            side.notes[mac] = (entry.source, None)
            return below
        self._withdraw(side, entry)
        self._tell(EventKind.FDB_DELETED, now, side, mac, entry.remotes[0], None, entry.state.value)
        return entry

    def _withdraw(self, side: Side, entry: FdbEntry) -> None:
        """Take an entry out; the claim under it speaks again."""
        if entry.shadowed is not None:
            self._write(side, entry, entry.shadowed)
            return
        self.core.fdb_forget(side.segment.vni, entry.mac)
        side.notes.pop(entry.mac, None)
        self._reconfigure(side, entry, None)

    def fdb_flush(
        self, vni: int, now: float, *, state: State | None = None, address: str | None = None
    ) -> int:
        doomed = [
            entry.mac
            for entry in self.fdb_dump(vni)
            if (state is None or entry.state is state) and (address is None or entry.names(address))
        ]
        for mac in doomed:
            self.fdb_remove(vni, mac, now)
        return len(doomed)

    def fdb_get(self, vni: int, mac: bytes) -> FdbEntry | None:
        row = self.core.fdb_find(vni, mac)
        return None if row is None else self._entry(self._sides[vni], row)

    def fdb_count(self, vni: int) -> int:
        return self.core.fdb_count(vni)

    def fdb_dump(self, vni: int) -> list[FdbEntry]:
        side = self._sides[vni]
        return [self._entry(side, row) for row in self.core.fdb_dump(vni)]

    def _entry(self, side: Side, row: tuple[Any, ...]) -> FdbEntry:
        mac, numbers, state, since, updated, used, noted = row
        source, shadowed = side.notes.get(mac, ("data", None)) if noted else ("data", None)
        remotes = tuple(self.names.remote(number) for number in numbers)
        return FdbEntry(mac, remotes, _STATES[state], source, since, updated, used, shadowed)

    # -- counters, events, paths -------------------------------------------------------

    def counters(self, vni: int | None) -> Mapping[str, Counters]:
        found: dict[str, Counters] = {}
        if vni is not None:
            tally = self._sides[vni].segment.tally
            for address, kept in (*tally.by_remote.items(), ("local", tally.local)):
                found[address] = Counters()
                found[address].add(kept)
        for peer, (counts, drops) in self.core.counters(vni).items():
            part = Counters()
            part.counts, part.drops = counts, drops
            found.setdefault(self.names.address(peer), Counters()).add(part)
        return found

    def peers_up(self) -> Mapping[str, bool]:
        return {self.names.address(peer): up for peer, up in self.core.heard().items()}

    def unreachable(self, remote: Remote, now: float, why: str) -> None:
        """The underlay says that a remote cannot be reached."""
        peer = self.names.peer(remote.address)
        self._why_down[peer] = why
        self.core.set_down(peer, self.names.number(remote), now)

    def drain_events(self) -> list[Event]:
        self._sync_events()
        return self.log.drain()

    def _tell(
        self,
        kind: EventKind,
        now: float,
        side: Side,
        mac: bytes,
        remote: Remote | None,
        was: Remote | None,
        detail: str,
    ) -> None:
        self._sync_events()
        self.log.put(Event(kind, now, side.segment.vni, mac, remote, was, detail))

    def _sync_events(self) -> None:
        """Take what C told so far, so that one log has everything in order."""
        events, lost = self.core.take_events()
        self.log.lost += lost
        for event in events:
            self._take_event(*event)

    def _take_event(
        self, number: int, now: float, vni: int, mac: bytes, remote: int, was: int, state: int
    ) -> None:
        kind = _KINDS[number]
        to = self.names.remote(remote) if remote != NONE else None
        if kind is EventKind.REMOTE_UP and to is not None:
            self.probing.heard(to.address, now)
            self.log.put(Event(kind, now, remote=Remote(to.address, self.port)))
        elif kind is EventKind.REMOTE_DOWN and to is not None:
            why = self._why_down.pop(self.names.peer(to.address), "no route")
            self.log.put(Event(kind, now, remote=to, detail=why))
        elif kind is EventKind.TAP_LOST:
            self.log.put(Event(kind, now, vni, detail="the device was deleted"))
        elif to is not None:
            detail = _DETAILS.get(kind, "")
            if kind is EventKind.CONFLICT:
                detail = f"data against {_STATES[state]}"
            from_ = self.names.remote(was) if was != NONE else None
            self.log.put(Event(kind, now, vni, mac, to, from_, detail))

    def twin(self, macs: Collection[bytes], source: str = "") -> Vtep:
        parts = [
            Part(one.segment, self._found(vni, macs), one.configured, self._is_closed(one))
            for vni, one in self._sides.items()
        ]
        return twin(self.local, self.port, parts, self.probing, self.announcer, source)

    def _found(self, vni: int, macs: Iterable[bytes]) -> list[FdbEntry]:
        return [entry for mac in macs if (entry := self.fdb_get(vni, mac)) is not None]

    def _is_closed(self, side: Side) -> bool:
        """As Fdb.closed; each entry above dynamic is among the notes."""
        limit, vni = side.segment.policy.maxaddress, side.segment.vni
        if self.core.fdb_count(vni) < limit or len(side.notes) < limit:
            return False
        noted = self._found(vni, side.notes)
        return sum(entry.state is not State.DYNAMIC for entry in noted) >= limit
