"""The paths of a VTEP: what each remote can be sent, kept up to date.

Theory of operation
===================

    probes that are due, acknowledgements    -> output    for whoever sends
    acknowledgements, ICMP, the link's MTU   -> Prober -> PathMtu, one for each remote
    the longest inner frame for each remote  -> rooms     for the data path
    what changed                             -> log       for people

Only this side of a VTEP needs time and chance; the data path reads `rooms`.  Both
engines use this class as it is: a probe is no packet in a hurry.
"""

from __future__ import annotations

from collections.abc import Mapping

from vxlan import mtu
from vxlan.echo import Echoes
from vxlan.engine import Datagram, PathState
from vxlan.event import Event, EventKind, EventLog
from vxlan.fdb import Remote
from vxlan.probe import PROBE, Prober, answer_to, nonce_of, parse_probe


class Paths:
    """What is known of the path to each remote, by its underlay address."""

    def __init__(self, log: EventLog) -> None:
        self.rooms: dict[str, int] = {}
        self.output: list[Datagram] = []
        self._log = log
        self._prober = Prober()

    def twin(self, address: str, log: EventLog) -> Paths:
        """A copy that may be changed; of what is under way it knows one remote's part."""
        made = Paths(log)
        made.rooms, made._prober = dict(self.rooms), self._prober.twin(address)
        return made

    # -- what comes in -----------------------------------------------------------------

    def set(self, ceilings: Mapping[Remote, int], now: float) -> None:
        """All remotes, and the MTU of the link or route to each."""
        self._prober.set_paths(ceilings, now)
        self.tick(now)

    def take(self, datagram: Datagram, remote: Remote, now: float) -> bool:
        """Whether a datagram from `remote` was a probe, or the acknowledgement of one."""
        probe = parse_probe(datagram.payload)
        if probe is None:
            return False
        if probe.kind == PROBE:
            self.output.append(answer_to(probe, datagram, remote))
            self._prober.heard(remote.address, now)
        else:
            self._prober.answered(probe, remote.address, now)
            self.tick(now)
        return True

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        """Which stations of a segment are asked in the place of their VTEPs; None: none."""
        self._prober.set_echoes(vni, echoes, now)
        self.tick(now)

    def replied(self, frame: bytes, source: str, now: float) -> bool:
        """Whether a frame for this host, from the VTEP `source`, answers an echo of ours."""
        if not self._prober.replied(frame, source, now):
            return False
        self.tick(now)
        return True

    def claimed(self, address: str, claim: int, quote: bytes, now: float) -> None:
        """ICMP claims that only `claim` bytes fit the path; `quote` is our UDP payload."""
        self._prober.claimed(address, claim, quote, now)
        self.tick(now)

    def refused(self, datagram: Datagram, now: float) -> None:
        """This host could not send a probe: it is longer than the link's MTU."""
        self._prober.refused(datagram, now)
        self.tick(now)

    def heard(self, address: str, now: float) -> None:
        """A remote speaks that was not heard for a while."""
        self._prober.heard(address, now)

    # -- what goes out -----------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Send the probes that are due, and follow the paths that have changed."""
        self.output += self._prober.poll(now)
        before, self.rooms = (
            self.rooms,
            {
                address: mtu.max_frame(path.mtu, path.family)
                for address, path in self._prober.paths.items()
            },
        )
        for address in before.keys() & self.rooms.keys():
            if before[address] != self.rooms[address]:
                self._tell(address, now)

    def _tell(self, address: str, now: float) -> None:
        path = self._prober.paths[address]
        remote = self._prober.remote_of(address)
        self._log.put(
            Event(EventKind.PATH_MTU, now, remote=remote, detail=f"{path.mtu} by {path.how}")
        )

    def ping(self, remote: Remote, size: int, flow: int, now: float) -> bytes:
        """Send a probe of `size` bytes, outer IP header included; its nonce, for `echo`."""
        probe = self._prober.probe(remote, size, now, flow)
        self.output.append(probe)
        return nonce_of(probe)

    def echo(self, nonce: bytes) -> float | None:
        """Seconds until a probe was acknowledged; told once, None before that."""
        return self._prober.echo(nonce)

    def states(self) -> dict[str, PathState]:
        """All paths, for people."""
        return {
            address: PathState(
                path.mtu, path.ceiling, path.how.value, path.phase.value, path.answers, path.when
            )
            for address, path in self._prober.paths.items()
        }
