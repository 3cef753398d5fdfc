"""Look at one stop, also when its interface goes and comes back.

A node that is started again makes its TAP anew, and a link may go down for a while: then
there is nothing to see here, until there is an interface of that name again.
"""

from __future__ import annotations

from vxlan import netdev, wire
from vxlan.lab.sniffer import SteadySniffer
from vxlan.lab.view.journey import Sighting
from vxlan.lab.view.scene import Stop

BUFFER = 1 << 18
"""Bytes that wait at one stop."""


class Lookout:
    """A sniffer at a stop."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.sniffer = SteadySniffer(stop.namespace, stop.interface, BUFFER)

    @property
    def lost(self) -> int:
        """Frames that passed unseen because the buffer was full."""
        return self.sniffer.lost

    def sightings(self, most: int) -> list[Sighting]:
        """What passed since the last call, `most` at the most."""
        try:
            found = self.sniffer.packets(most)
        except netdev.NetdevError:  # the namespace is gone
            return []
        return [
            Sighting(self.stop, one.direction, one.when, one.data)
            for one in found
            if len(one.data) >= wire.ETH_HLEN
        ]

    def close(self) -> None:
        """Look no more."""
        self.sniffer.close()
