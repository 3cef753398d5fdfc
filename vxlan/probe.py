"""Probes: datagrams by which two pyvxlan ask each other what the path carries.

Theory of operation
===================

A probe goes where data goes, from a port of the same pool to the remote's VXLAN
port, and looks like this:

    +-----------------------+--------+------+-------+--------+-----------+----------+
    | VXLAN header, all zero| "PVXP" | kind | 0 0 0 | nonce  | size      | zeros    |
    |           8           |   4    |  1   |   3   |   8    | u16, + 6  | ...      |
    +-----------------------+--------+------+-------+--------+-----------+----------+

The I flag is clear.  RFC 7348 (section 4.1) has a receiver discard such a datagram
and do nothing else, and so do the kernel driver (with the drop reason
VXLAN_INVALID_HDR, and in none of its device's counters) and everything that follows
the RFC.  So probing a peer that is no pyvxlan is harmless, and its silence is the
answer.

Another pyvxlan returns an acknowledgement: the same 32 bytes with the other
kind, and in `size` how long the probe was when it arrived.  It is never longer
than the probe, and goes only to an address that is a remote of a segment, so a
forged probe cannot make us flood a third party.

The nonce is random, and 64 bits of it are in every probe.  Only who sees our probes can
acknowledge one, or make up an ICMP error that quotes one.

A remote whose station is named is asked through that station instead (vxlan/echo.py).

`Prober` keeps a `PathMtu` (vxlan/pathmtu.py) for each remote and turns it into
datagrams.  It reads no clock and opens no socket.  A probe carries a flow hash of
its own, so over time all the ways that the underlay spreads its load over are tried.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from struct import Struct
from typing import NamedTuple

from vxlan.echo import MAGIC, Echoes, Station, neighbour_in, nonce_in, packed, stations_of
from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.mtu import family_of
from vxlan.pathmtu import How, PathMtu, Phase
from vxlan.wire import ETH_HLEN, IPV4_HLEN, IPV6_HLEN, UDP_HLEN, VXLAN_HLEN

_RANDOM = random.SystemRandom()

PROBE, ANSWER = 1, 2
_LAYOUT = Struct("!8x4sB3x8sH6x")
PROBE_HLEN = _LAYOUT.size
_OUTER = {4: IPV4_HLEN + UDP_HLEN, 6: IPV6_HLEN + UDP_HLEN}

MAX_WAITING = 1024
"""How many probes may be unanswered before the oldest is forgotten."""
TTL = 64


class ProbeHeader(NamedTuple):
    """kind: PROBE or ANSWER; size: of the outer IP packet, bytes, as the sender made it
    (PROBE) or as it arrived (ANSWER)."""

    kind: int
    nonce: bytes
    size: int


def pack_probe(header: ProbeHeader, length: int = PROBE_HLEN) -> bytes:
    """The UDP payload of a probe or an answer, padded to `length` bytes."""
    packed = _LAYOUT.pack(MAGIC, header.kind, header.nonce, header.size)
    return packed + bytes(max(0, length - PROBE_HLEN))


def parse_probe(payload: bytes) -> ProbeHeader | None:
    """The probe in a UDP payload; None where it is something else."""
    if len(payload) < PROBE_HLEN or payload[8:12] != MAGIC or any(payload[:8]):
        return None
    _, kind, nonce, size = _LAYOUT.unpack_from(payload)
    return ProbeHeader(kind, nonce, size) if kind in (PROBE, ANSWER) else None


def nonce_of(probe: Datagram) -> bytes:
    """The nonce of a datagram that is a probe."""
    return probe.payload[16:24]


def outer_size(payload: bytes, family: int) -> int:
    """Bytes of the outer IP packet that carries a UDP payload; `family` is 4 or 6."""
    return len(payload) + _OUTER[family]


def answer_to(probe: ProbeHeader, datagram: Datagram, remote: Remote) -> Datagram:
    """The acknowledgement of a probe that arrived in `datagram`, for its sender `remote`."""
    size = outer_size(datagram.payload, family_of(remote.address))
    payload = pack_probe(ProbeHeader(ANSWER, probe.nonce, size))
    return Datagram(remote, payload, int.from_bytes(probe.nonce[:4], "big"), 0, TTL)


class _Waiting(NamedTuple):
    remote: Remote
    size: int
    sent: float


class Prober:
    """The path MTU of every remote, by its address, and the probes that find it.

    `entropy(n)` gives n random bytes; tests give it a seed.
    """

    def __init__(self, entropy: Callable[[int], bytes] = _RANDOM.randbytes) -> None:
        self.paths: dict[str, PathMtu] = {}
        self._remotes: dict[str, Remote] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._echoes: dict[bytes, float] = {}
        self._asked: dict[int, dict[str, Station]] = {}
        self._stations: dict[str, Station] = {}
        self._entropy = entropy

    def twin(self, address: str) -> Prober:
        """One that knows what this one knows of one remote, and may be changed."""
        made = Prober(self._entropy)
        path, station = self.paths.get(address), self._stations.get(address)
        if path is not None:
            made.paths[address], made._remotes[address] = copy.copy(path), self._remotes[address]
        if station is not None:
            made._stations[address] = copy.copy(station)
        made._waiting = {
            nonce: one for nonce, one in self._waiting.items() if one.remote.address == address
        }
        return made

    # -- which paths there are ---------------------------------------------------------

    def set_paths(self, ceilings: Mapping[Remote, int], now: float) -> None:
        """Watch exactly these remotes; the numbers are the MTUs of links and routes."""
        wanted = {remote.address for remote in ceilings}
        for address in self.paths.keys() - wanted:
            del self.paths[address], self._remotes[address]
        for remote, ceiling in ceilings.items():
            self._remotes[remote.address] = remote
            path = self.paths.get(remote.address)
            if path is None:
                self.paths[remote.address] = PathMtu(ceiling, family_of(remote.address), _due=now)
            else:
                path.set_ceiling(ceiling, now)

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        """Ask these stations of a segment, and no others; None: none.

        What is known of the path to a remote that is asked otherwise now is forgotten.
        """
        self._asked.pop(vni, None)
        if echoes is not None:
            self._asked[vni] = stations_of(vni, echoes)
        before, self._stations = self._stations, {}
        for stations in self._asked.values():
            for address, station in stations.items():
                if before.get(address) == station:
                    station = before[address]  # its MAC is known
                self._stations.setdefault(address, station)
        for address in (before.keys() ^ self._stations.keys()) & self.paths.keys():
            ceiling = self.paths[address].ceiling
            self.paths[address] = PathMtu(ceiling, family_of(address), _due=now)

    def remote_of(self, address: str) -> Remote:
        """The remote at an address that is watched.  KeyError if it is not."""
        return self._remotes[address]

    # -- probes out --------------------------------------------------------------------

    def poll(self, now: float) -> list[Datagram]:
        """The probes that are to be sent now."""
        due: list[Datagram] = []
        for address, path in self.paths.items():
            remote, station = self._remotes[address], self._stations.get(address)
            if station is not None:
                due += self._poll_station(remote, path, station, now)
            elif (size := path.poll(now)) is not None:
                due.append(self.probe(remote, size, now))
        return due

    def _poll_station(
        self, remote: Remote, path: PathMtu, station: Station, now: float
    ) -> list[Datagram]:
        """Its MAC is asked for first, and again while it is silent."""
        due: list[Datagram] = []
        if station.mac is None or path.answers is False or path.phase is Phase.ERROR:
            question = station.question(remote, now)
            due += [question] if question else []
        if station.mac is not None and (size := path.poll(now)) is not None:
            nonce = self._expect(remote, size, now)
            due.append(station.request(remote, size, nonce))
        return due

    def _expect(self, remote: Remote, size: int, now: float) -> bytes:
        """The nonce of a probe that is being sent."""
        nonce = self._entropy(8)
        while len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[nonce] = _Waiting(remote, size, now)
        return nonce

    def probe(self, remote: Remote, size: int, now: float, flow: int | None = None) -> Datagram:
        """A probe whose outer IP packet has `size` bytes."""
        nonce = self._expect(remote, size, now)
        payload = pack_probe(
            ProbeHeader(PROBE, nonce, size), size - _OUTER[family_of(remote.address)]
        )
        chosen = int.from_bytes(nonce[:4], "big") if flow is None else flow
        return Datagram(remote, payload, chosen, 0, TTL)

    # -- reports in --------------------------------------------------------------------

    def answered(self, answer: ProbeHeader, source: str, now: float) -> None:
        """An acknowledgement came from `source`; ignored where we sent no such probe there."""
        waiting = self._came_back(answer.nonce, source)
        if waiting is None:
            return
        while len(self._echoes) >= MAX_WAITING:
            del self._echoes[next(iter(self._echoes))]
        self._echoes[answer.nonce] = now - waiting.sent
        path = self.paths.get(source)
        if path is not None and answer.size >= waiting.size:
            path.acknowledged(waiting.size, now)

    def _came_back(self, nonce: bytes, source: str) -> _Waiting | None:
        """What was sent to `source` with a nonce, once."""
        waiting = self._waiting.get(nonce)
        if waiting is None or waiting.remote.address != source:
            return None
        return self._waiting.pop(nonce)

    def replied(self, frame: bytes, source: str, now: float) -> bool:
        """A frame for this host came by way of `source`; whether it answers an echo of ours."""
        station = self._stations.get(source)
        if station is None:
            return False
        self._meet(station, frame, source, now)
        nonce = nonce_in(frame)
        waiting = self._came_back(nonce, source) if nonce else None
        if waiting is None:
            return False
        path = self.paths.get(source)
        if path is not None:
            path.acknowledged(waiting.size, now, How.ECHO)
        return True

    def _meet(self, station: Station, frame: bytes, source: str, now: float) -> None:
        """Learn the MAC of a station from an ARP reply or a neighbour advertisement."""
        told = neighbour_in(frame)
        if told is not None and told[0] == packed(station.address):
            station.mac = told[1]
            self.heard(source, now)

    def echo(self, nonce: bytes) -> float | None:
        """How long the probe with this nonce took, seconds; told once."""
        return self._echoes.pop(nonce, None)

    def claimed(self, address: str, claim: int, quote: bytes, now: float) -> None:
        """ICMP claims that only `claim` bytes fit the path, quoting our payload `quote`."""
        path = self.paths.get(address)
        if path is None:
            return
        nonce = _quoted_nonce(quote)
        waiting = self._waiting.get(nonce) if nonce else None
        if waiting is not None and waiting.remote.address == address:
            path.quoted(waiting.size, claim, now)
        elif not nonce:
            path.claimed(claim, now)

    def refused(self, datagram: Datagram, now: float) -> None:
        """This host could not send a probe: it is longer than the link's MTU."""
        waiting = self._waiting.get(_quoted_nonce(datagram.payload) or b"")
        if waiting is not None:
            self.claimed(datagram.remote.address, waiting.size - 1, datagram.payload, now)

    def heard(self, address: str, now: float) -> None:
        """A remote speaks: it was silent for a while, or it probes us."""
        path = self.paths.get(address)
        if path is not None:
            path.heard(now)


def _quoted_nonce(payload: bytes) -> bytes | None:
    """The nonce of a probe of either kind that we sent, out of its UDP payload."""
    probe = parse_probe(payload)
    if probe is not None:
        return probe.nonce
    frame = payload[VXLAN_HLEN:]
    return nonce_in(frame, asked=True) if len(frame) > ETH_HLEN else None
