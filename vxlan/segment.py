"""One VNI on this host: its stations, its remotes and its rules.

Theory of operation
===================

A `Segment` is what the kernel calls a vxlan device, without the device: an FDB, a
flood list, a policy and counters.  It answers the questions of the two sides:

    encap   where does this frame go?            targets()
    decap   may this datagram come in?           admits()
            what does its source MAC teach us?   learn()

Where a frame goes: to the remotes of its destination's entry, if there is one.
Broadcast, unknown unicast and multicast (BUM) go to every remote of the flood
list, one copy each (head-end replication).  Nothing that came from the underlay
is ever sent to the underlay again (split horizon), so the flood list needs no
loop protection: the segment is a full mesh, and one hop reaches everybody.

A remote of the segment is an address of the flood list or of a static or
extern_learn entry.  With `accept = "known"` nobody else may send to us, so a
stranger in the underlay can neither inject frames nor poison the FDB.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vxlan.drop import Count, Drop, Tally
from vxlan.event import Event, EventKind, EventLog
from vxlan.fdb import Fdb, FdbEntry, Learned, Remote, State
from vxlan.toobig import AnswerBudget
from vxlan.wire import ETH_HLEN, vxlan_header

if TYPE_CHECKING:
    from vxlan.engine import Policy

_COUNTED = {
    EventKind.LEARNED: Count.LEARNED,
    EventKind.MOVED: Count.MOVED,
    EventKind.CONFLICT: Count.CONFLICT,
    EventKind.AGED: Count.AGED,
    EventKind.EVICTED: Count.EVICTED,
}


class Segment:
    """The state of one VNI.  ValueError for a VNI that is none."""

    def __init__(self, vni: int, policy: Policy, port: int, log: EventLog) -> None:
        self.vni = vni
        self.port = port
        self.header = vxlan_header(vni)
        self.log = log
        self.fdb = Fdb(ageing=policy.ageing, limit=policy.maxaddress, notify=self._notify)
        self.tally = Tally()
        self.answers = AnswerBudget()
        self.too_big_told = -math.inf
        self.own_macs: frozenset[bytes] = frozenset()
        self.asks_as = b""
        self.flood_list: tuple[Remote, ...] = ()
        self._flood_by_address: dict[str, Remote] = {}
        self.set_policy(policy, 0.0)

    def set_policy(self, policy: Policy, now: float) -> None:
        """Follow other rules from now on; entries and counters stay."""
        self.policy = policy
        self.max_frame = policy.max_frame or policy.mtu + ETH_HLEN
        self.fdb.ageing = policy.ageing
        self.fdb.resize(policy.maxaddress, now)

    # -- remotes -----------------------------------------------------------------------

    def add_remote(self, remote: Remote, now: float) -> bool:
        """Add to the flood list; False if it is there."""
        if remote in self.flood_list:
            return False
        self._set_flood_list((*self.flood_list, remote))
        self.tally.reserve(remote.address)
        self.log.put(Event(EventKind.REMOTE_ADDED, now, self.vni, remote=remote))
        return True

    def del_remote(self, remote: Remote, now: float) -> bool:
        """Take from the flood list; False if it is not there.

        What was learned from this remote is forgotten with it, unless another
        claim still makes it a remote: its stations are flooded for and found again.
        """
        if remote not in self.flood_list:
            return False
        self._set_flood_list(tuple(other for other in self.flood_list if other != remote))
        self.log.put(Event(EventKind.REMOTE_REMOVED, now, self.vni, remote=remote))
        if not self.knows(remote.address):
            self.flush(now, state=State.DYNAMIC, address=remote.address)
        return True

    def _set_flood_list(self, remotes: tuple[Remote, ...]) -> None:
        self.flood_list = remotes
        self._flood_by_address = {remote.address: remote for remote in reversed(remotes)}

    def knows(self, address: str) -> bool:
        """Whether an underlay address is a remote of this segment."""
        return address in self._flood_by_address or address in self.fdb.configured

    def remote_at(self, address: str) -> Remote:
        """The remote at an address: as the flood list has it, else at our own port.

        Never the port that a datagram came from: that one carries flow entropy.
        """
        return self._flood_by_address.get(address) or Remote(address, self.port)

    def flush(self, now: float, *, state: State | None = None, address: str | None = None) -> int:
        """Withdraw the claims of a state and of a remote; None stands for all."""
        return self.fdb.flush(
            lambda entry: (
                (state is None or entry.state is state)
                and (address is None or entry.names(address))
            ),
            now,
        )

    def twin(
        self,
        log: EventLog,
        entries: Iterable[FdbEntry],
        configured: Mapping[str, int],
        closed: bool,
    ) -> Segment:
        """A copy with these entries alone, which may be changed; the rest as in the FDB."""
        made = Segment(self.vni, self.policy, self.port, log)
        made._set_flood_list(self.flood_list)
        made.fdb.restore(entries, configured, closed)
        made.own_macs, made.asks_as = self.own_macs, self.asks_as
        made.answers, made.too_big_told = copy.copy(self.answers), self.too_big_told
        return made

    # -- the questions of the data path ------------------------------------------------

    def targets(self, mac: bytes, now: float) -> tuple[Remote, ...]:
        """Where a frame for `mac` goes; empty if there is nowhere."""
        return self.fdb.lookup(mac, now) or self.flood_list

    def admits(self, address: str) -> bool:
        """Whether a datagram from this underlay address may come in."""
        return self.policy.accept == "any" or self.knows(address)

    def learn(self, mac: bytes, source: Remote, now: float) -> Drop | None:
        """Let a frame from `mac` behind `source` teach us; a reason if it may not pass."""
        if not self.policy.learning:
            return None
        if self.fdb.learn(mac, source, now) is Learned.REFUSED:
            return Drop.VXLAN_ENTRY_EXISTS
        return None

    def _notify(
        self,
        kind: EventKind,
        now: float,
        mac: bytes,
        remote: Remote | None,
        was: Remote | None,
        detail: str,
    ) -> None:
        counted = _COUNTED.get(kind)
        if counted is not None:
            self.tally.local.counts[counted] += 1
        self.log.put(Event(kind, now, self.vni, mac, remote, was, detail))
