"""The part of the Engine contract that is about announcements, the same in both engines."""

from __future__ import annotations

from collections.abc import Iterable

from vxlan.announce import Announcer, Change
from vxlan.announcement import Station
from vxlan.engine import StationState


class Announcing:
    """What the node asks of an engine about stations; see vxlan/engine.py.

    An engine has an `announcer`, and writes the entries that are made of what it hears.
    """

    announcer: Announcer

    def follow(self, changes: Iterable[Change], now: float) -> None:
        """Write the entries that announcements make."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send at once what there is to say, where there is an underlay."""

    def announce_with(self, key: bytes | None, epoch: float) -> None:
        self.announcer.key, self.announcer.epoch = key, epoch

    def set_announcing(self, vni: int, on: bool, now: float) -> None:
        if on:
            self.announcer.open(vni)
        else:
            self.follow(self.announcer.close(vni, now), now)

    def add_station(self, vni: int, mac: bytes, addresses: tuple[bytes, ...], now: float) -> None:
        self.follow(self.announcer.add(vni, Station(mac, addresses), now), now)
        self._flush()

    def del_station(self, vni: int, mac: bytes, now: float) -> bool:
        found = self.announcer.remove(vni, mac, now)
        self._flush()
        return found

    def stations(self, vni: int) -> list[StationState]:
        own = [StationState(mac, one.addresses) for mac, one in self.announcer.own(vni).items()]
        told = self.announcer.told(vni).items()
        return own + [StationState(mac, addresses, remote) for mac, (remote, addresses) in told]

    def leave(self, now: float) -> None:
        self.announcer.leave(now)
        self._flush()
