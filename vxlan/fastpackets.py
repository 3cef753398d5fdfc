"""The compiled engine without input and output: C decides, and leaves to Python what is rare.

Theory of operation
===================

    a packet                       fastpath/datapath.pxd, and nothing here
    too big, a question for a      punted: decided by the functions of the Python engine
      neighbour, a probe, an         (vxlan/fit.py, neighbour.py, paths.py, announce.py)
      echo, an announcement

What follows from these for later packets is written into C: the room of each path, whose
questions may be answered here, entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from vxlan.announce import SOURCE, Change, is_announced
from vxlan.announcement import is_announcement
from vxlan.announcing import Announcing
from vxlan.drop import Count, Drop
from vxlan.echo import Echoes
from vxlan.engine import Datagram, Frame, PathState
from vxlan.fastnames import Side
from vxlan.fastsight import Watching
from vxlan.fasttables import FastTables
from vxlan.fdb import FdbFull, Remote, State
from vxlan.vtep import encap_too_big, refuse_to_encap

UNBOUNDED = 0xFFFFFFFF


class FastPackets(Announcing, Watching, FastTables):
    """The compiled engine without input and output."""

    # -- paths -------------------------------------------------------------------------

    def set_paths(self, ceilings: Mapping[Remote, int], now: float) -> None:
        self.probing.set(ceilings, now)
        self.follow_paths()

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        self._sides[vni].segment.asks_as = echoes.mac if echoes else b""
        self.core.set_asks_as(vni, echoes.mac if echoes else None)
        self.probing.set_echoes(vni, echoes, now)
        self.follow_paths()

    def paths(self) -> Mapping[str, PathState]:
        return self.probing.states()

    def ping(self, remote: Remote, size: int, flow: int, now: float) -> bytes:
        return self.probing.ping(remote, size, flow, now)

    def echo(self, nonce: bytes) -> float | None:
        return self.probing.echo(nonce)

    def follow_paths(self) -> None:
        """Write into C what the paths carry now."""
        rooms = self.probing.rooms
        for address in self._rooms.keys() - rooms.keys():
            self.core.set_room(self.names.peer(address), UNBOUNDED)
        for address, room in rooms.items():
            if self._rooms.get(address) != room:
                self.core.set_room(self.names.peer(address), max(room, 0))
        self._rooms = dict(rooms)

    def take_reply(self, peer: int, vni: int, frame: bytes, now: float) -> bool:
        """Whether a frame for this host was the answer to an echo of ours."""
        source = self.names.address(peer)
        if frame[0:6] != self._sides[vni].segment.asks_as:
            return False
        if not self.probing.replied(frame, source, now):
            return False
        self.core.count(None, peer, Count.PROBES, 1)
        self.follow_paths()
        return True

    def take_probe(self, peer: int, datagram: Datagram, now: float) -> None:
        """Follow a probe or an announcement of one of our remotes; refuse anybody else's."""
        why = self._refuse_probe(peer, datagram, now)
        if why is not None:
            self.core.drop(None, peer, why, 1)
        self._tell_probe(datagram, why)

    def _refuse_probe(self, peer: int, datagram: Datagram, now: float) -> Drop | None:
        source = datagram.remote.address
        side = next((one for one in self._sides.values() if one.knows(source)), None)
        if is_announcement(datagram.payload):
            return self._refuse_announcement(peer, side, datagram, now)
        if not side or not self.probing.take(datagram, side.segment.remote_at(source), now):
            return Drop.VXLAN_INVALID_HDR
        self.core.count(None, peer, Count.PROBES, 1)
        self.follow_paths()
        return None

    # -- announcements -----------------------------------------------------------------

    def _refuse_announcement(
        self, peer: int, side: Side | None, datagram: Datagram, now: float
    ) -> Drop | None:
        remote = side.segment.remote_at(datagram.remote.address) if side else None
        changes = self.announcer.take(datagram, remote, now) if remote else None
        if changes is None:
            return Drop.ANNOUNCEMENT_REFUSED
        self.core.count(None, peer, Count.ANNOUNCEMENTS, 1)
        self.follow(changes, now)
        return None

    def follow(self, changes: Iterable[Change], now: float) -> None:
        for vni, mac, remote in changes:
            entry = self.fdb_get(vni, mac)
            if remote is not None:
                to = (self._sides[vni].segment.remote_at(remote),)
                if not is_announced(entry, to):
                    with suppress(FdbFull):
                        self.fdb_set(vni, mac, to, State.EXTERN_LEARN, SOURCE, now)
            elif is_announced(entry):
                self.fdb_remove(vni, mac, now, State.EXTERN_LEARN)
            # Workers leave questions to Python where any can be answered.
            self.core.set_answers(vni, self.announcer.answers(vni))

    def answered(self, vni: int, frame: bytes) -> bool:
        """Whether a frame asked for a neighbour that is known here, and was answered."""
        segment = self._sides[vni].segment
        if refuse_to_encap(segment, frame) is not None:
            return False
        answer = self.announcer.answer(vni, frame)
        if answer is None:
            return False
        segment.tally.count(Count.SUPPRESSED)
        self.answers.append(Frame(vni, answer))
        self._tell_answered(vni, frame)
        return True

    # -- the data path without input and output ------------------------------------------

    def encap(self, vni: int, frames: Sequence[bytes], now: float) -> list[Datagram]:
        if self.announcer.answers(vni):
            frames = [frame for frame in frames if not self.answered(vni, frame)]
        made: list[Datagram] = []
        for numbers, data, *rest in self.core.encap(vni, frames, now):
            remotes = tuple(self.names.remote(number) for number in numbers)
            flow, tos, ttl = rest
            if tos is None:
                made += self._too_big(vni, data, remotes, flow, ttl, now)
            else:
                made += [Datagram(remote, data, flow, tos, ttl) for remote in remotes]
        return made

    def _too_big(
        self,
        vni: int,
        frame: bytes,
        remotes: tuple[Remote, ...],
        limit: int,
        flooded: bool,
        now: float,
    ) -> list[Datagram]:
        segment = self._sides[vni].segment
        targets = segment.flood_list if flooded else remotes
        decide = partial(encap_too_big, segment, frame, targets, limit, self.answers, now)
        if self._recorder is None:
            return decide()
        entry = None if flooded else self.fdb_get(vni, frame[0:6])
        return self._tell_frame(segment, frame, entry, now, decide)

    def decap(self, datagrams: Sequence[Datagram], now: float) -> list[Frame]:
        frames: list[Frame] = []
        for datagram in datagrams:
            peer = self.names.source(datagram.remote.address)
            taken = self.core.decap(peer, datagram.payload, datagram.tos, now, datagram.remote.port)
            if taken is True:
                self.take_probe(peer, datagram, now)
            elif taken and not self.take_reply(peer, *taken, now):
                frames.append(Frame(*taken))
        self._sync_events()
        return frames

    def tick(self, now: float) -> None:
        self.core.tick(now)
        self._sync_events()
        self.follow(self.announcer.tick(now), now)
        self.probing.tick(now)
        self.follow_paths()

    def take_output(self) -> tuple[list[Datagram], list[Frame]]:
        datagrams, self.probing.output = self.probing.output, []
        datagrams += self.announcer.take_output()
        frames, self.answers = self.answers, []
        return datagrams, frames
