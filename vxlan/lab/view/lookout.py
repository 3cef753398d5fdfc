"""Look at one stop, also when its interface goes and comes back.

A node that is started again makes its TAP anew: the sniffer of the old one hears nothing
more, says so by an error, and is replaced as soon as there is an interface of that name.
"""

from __future__ import annotations

import time
from contextlib import suppress

from vxlan import netdev, wire
from vxlan.lab.sniffer import Sniffer
from vxlan.lab.view.journey import Sighting
from vxlan.lab.view.scene import Stop

BUFFER = 1 << 18
"""Bytes that wait at one stop."""

RETRY = 0.5
"""Seconds until an interface that is not there is looked for again."""


class Lookout:
    """A sniffer at a stop.  `lost` counts frames that found its buffer full."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.sniffer: Sniffer | None = None
        self._lost = 0
        self._again = 0.0
        with suppress(OSError):
            self._open()

    @property
    def lost(self) -> int:
        """Frames that passed unseen, of all its sniffers."""
        return self._lost + (self.sniffer.lost if self.sniffer else 0)

    def sightings(self, most: int) -> list[Sighting]:
        """What passed since the last call, `most` at the most."""
        try:
            sniffer = self.sniffer or self._open()
            found = sniffer.packets(most) if sniffer else []
        except OSError:
            self.close()
            return []
        return [
            Sighting(self.stop, one.direction, one.when, one.data)
            for one in found
            if len(one.data) >= wire.ETH_HLEN
        ]

    def _open(self) -> Sniffer | None:
        if time.monotonic() < self._again:
            return None
        self._again = time.monotonic() + RETRY
        try:
            self.sniffer = Sniffer(self.stop.namespace, self.stop.interface, BUFFER)
        except netdev.NetdevError:  # the namespace is gone
            return None
        return self.sniffer

    def close(self) -> None:
        """Look no more, until `sightings` is called again."""
        if self.sniffer is not None:
            self._lost = self.lost
            self.sniffer.close()
            self.sniffer = None
