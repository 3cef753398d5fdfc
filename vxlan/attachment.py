"""The devices of one segment: its TAP, and where that is plugged in.

Theory of operation
===================

    with a bridge                            without

    address 10.42.0.1/24                     address 10.42.0.1/24
    bridge  br42     overlay MTU             TAP     overlay MTU
      +-- TAP        65521
      +-- containers                         or anything an operator plugs it into later

The overlay MTU is put where a host's own packets are made: on a bridge that is
ours, and on a TAP that is no port of a bridge.  A TAP that is a port gets the
largest MTU there is, whoever plugged it in: a bridge drops what is longer than
the port's MTU without a word, so a container's 1500-byte packet would never reach
the VTEP, which can tell the container what does fit.

A bridge is made where it is missing.  Ours are known by their MAC: it is derived
from the VTEP's address and the device's name, so a node that was killed finds its
bridge again, and neighbours that remember the MAC stay right.  Anything else was
there before us: it is used, and never changed or deleted.

Every method blocks for a few milliseconds and raises NetdevError or TapError; call
them where no event loop runs (asyncio.to_thread).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress

from vxlan import netdev
from vxlan.config import SegmentConfig
from vxlan.netdev import Link, NetdevError
from vxlan.tap import Tap
from vxlan.wire import mac_bytes

PORT_MTU = 65521
"""The largest MTU of a TAP: 65535 less the Ethernet header (drivers/net/tun.c)."""

log = logging.getLogger(__name__)


def stable_mac(local: str, device: str) -> bytes:
    """A MAC for one of our devices: the same at each start, another on each host."""
    digest = hashlib.sha256(f"pyvxlan {local} {device}".encode()).digest()
    return b"\x02" + digest[:5]


class Attachment:
    """The TAP of one segment and where it is plugged in.

    `local` is the VTEP's underlay address; `offload` and `queues` are what the engine
    wants of the TAP.
    """

    def __init__(
        self, config: SegmentConfig, local: str, *, offload: bool, queues: int = 1
    ) -> None:
        self.config = config
        self.tap: Tap | None = None
        self._local = local
        self._offload = offload
        self._queues = queues
        self._mtu = 0
        self._master: int | None = None
        self._added: list[str] = []

    # -- making and taking away --------------------------------------------------------

    @property
    def identity(self) -> str:
        """What a TAP must have been made for to be this one: a digest."""
        of = self.config
        made_for = (of.tap, of.mac or self._local, of.bridge, of.address)
        return hashlib.sha256(repr(made_for).encode()).hexdigest()[:16]

    def adopt(self, fds: Sequence[int], mtu: int) -> Tap:
        """Go on with a TAP that was set up for this very configuration before.

        Like one that was set up an hour ago it may be somewhere else by now, and is then
        left as it is.  Raises TapError where it is not such a TAP; the descriptors then
        stay the caller's.  After NetdevError they are closed.
        """
        self._mtu = mtu
        tap = self.tap = Tap.adopt(self.config.tap, fds, offload=self._offload, queues=self._queues)
        try:
            if tap.is_here:
                self.follow()
                self._add_addresses()
        except BaseException:
            self.close()
            raise
        return tap

    def open(self, mtu: int) -> Tap:
        """Make the TAP, plug it in and set everything up.  Leaves nothing if it fails."""
        self._mtu = mtu
        mac = self.config.mac
        tap = Tap.open(
            self.config.tap,
            mac=mac_bytes(mac) if mac else stable_mac(self._local, self.config.tap),
            offload=self._offload,
            queues=self._queues,
        )
        self.tap = tap
        try:
            netdev.set_mtu(tap.name, mtu)
            netdev.set_up(tap.name)
            self._plug()
        except BaseException:
            self.close()
            raise
        return tap

    def close(self) -> None:
        """Take away what is ours, in the reverse order."""
        try:
            self._unplug()
        except NetdevError as error:
            log.warning("tap %s: something is left behind: %s", self.config.tap, error)
        self.close_tap()

    def close_tap(self) -> None:
        """Let the TAP go; the bridge and its addresses stay."""
        if self.tap is not None:
            self.tap.close()
            self.tap = None
            self._master = None

    def change(self, config: SegmentConfig) -> None:
        """Follow another bridge or other addresses; the TAP's own name and MAC stay."""
        if config.bridge != self.config.bridge:
            self._unplug()
            self.config = config
            self._plug()
        else:
            gone = [cidr for cidr in self._added if cidr not in config.address]
            self.config = config
            self._del_addresses(gone)
            self._add_addresses()

    def _plug(self) -> None:
        if self.config.bridge is not None:
            self._ready_bridge(self.config.bridge)
            netdev.set_master(self.config.tap, self.config.bridge)
        self.follow()
        self._add_addresses()

    def _unplug(self) -> None:
        self._del_addresses(self._added)
        bridge = self.config.bridge
        if bridge is None or not netdev.exists(bridge):
            return
        if self._is_ours(netdev.link(bridge)) and not self._others_in(bridge):
            netdev.delete(bridge)
        elif self.tap is not None:
            netdev.set_master(self.tap.name, None)

    # -- the bridge ----------------------------------------------------------------------

    def _ready_bridge(self, name: str) -> None:
        if not netdev.exists(name):
            netdev.create_bridge(name)
            netdev.set_mac(name, stable_mac(self._local, name))
            log.info("bridge %s: made", name)
        else:
            self._accept_bridge(netdev.link(name))
        if self._is_ours(netdev.link(name)):
            netdev.set_mtu(name, self._mtu)
            netdev.set_up(name)

    def _accept_bridge(self, link: Link) -> None:
        if link.kind != "bridge":
            raise NetdevError(
                f"bridge {link.name}: it is no bridge but {link.kind or 'a hardware interface'}: "
                "name another in the configuration"
            )
        if self._is_ours(link):
            log.info("bridge %s: made by this node before, taken over", link.name)
        elif not link.up:
            log.warning("bridge %s: it is down: `ip link set %s up`", link.name, link.name)

    def _is_ours(self, link: Link) -> bool:
        return link.kind == "bridge" and link.mac == stable_mac(self._local, link.name)

    def _others_in(self, bridge: str) -> list[str]:
        """The ports of a bridge besides our TAP."""
        index = netdev.link(bridge).index
        ports = (link.name for link in netdev.links() if link.master == index)
        return [name for name in ports if name != self.config.tap]

    # -- addresses -------------------------------------------------------------------------

    @property
    def _addressed(self) -> str:
        """The device that carries the overlay addresses."""
        return self.config.bridge or self.config.tap

    def _add_addresses(self) -> None:
        there = netdev.addresses(self._addressed) if self.config.address else []
        for cidr in self.config.address:
            if cidr not in there:
                netdev.add_address(self._addressed, cidr)
            elif not self._keeps(cidr):
                continue
            if cidr not in self._added:
                self._added.append(cidr)

    def _keeps(self, cidr: str) -> bool:
        """Whether an address that is there already is ours to take away at the end."""
        own_tap = self.config.bridge is None
        return own_tap or cidr in self._added or self._is_ours(netdev.link(self._addressed))

    def _del_addresses(self, gone: list[str]) -> None:
        for cidr in list(gone):
            with suppress(NetdevError):
                netdev.del_address(self._addressed, cidr)
            self._added.remove(cidr)

    # -- following what changes ----------------------------------------------------------------

    def set_mtu(self, mtu: int) -> None:
        """Put another overlay MTU where it belongs."""
        self._mtu = mtu
        self.follow()

    def own_mac(self) -> bytes | None:
        """The MAC of the device that carries the overlay addresses; None without any."""
        return netdev.link(self._addressed).mac if self.config.address else None

    def follow(self, link: Link | None = None) -> set[bytes]:
        """See where the TAP is now and give each device its MTU; the MACs that are ours.

        Plugs the TAP in anew if its bridge was deleted.  A TAP that is not in this
        namespace any more (a container got it) is left as it is.  `link`: the TAP as
        somebody has just seen it.
        """
        link = link or netdev.find(self.config.tap)
        if link is None or self.tap is None:
            return set()
        bridge = self.config.bridge
        if bridge is not None and link.master is None and not netdev.exists(bridge):
            log.warning("bridge %s: deleted by somebody: making it anew", bridge)
            self._added.clear()
            self._plug()
            return self.follow()
        master = netdev.link_at(link.master) if link.master else None
        self._set_mtus(link, master)
        return {link.mac, master.mac} if master else {link.mac}

    def _set_mtus(self, tap: Link, master: Link | None) -> None:
        wanted = PORT_MTU if master else self._mtu
        if tap.mtu != wanted:
            netdev.set_mtu(tap.name, wanted)
        if master and self._is_ours(master) and master.mtu != self._mtu:
            netdev.set_mtu(master.name, self._mtu)
        if tap.master != self._master:
            self._master = tap.master
            log.info("tap %s: %s", tap.name, f"a port of {master.name}" if master else "no port")
