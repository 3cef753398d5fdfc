"""The devices of Docker's networks: the TAP, and what joins a container to it.

Theory of operation
===================

A network is attached in one of two ways, told when it is created and kept:

    macvlan    container       |  namespace pyvxlan-docker
                               |
               eth0 ═══════════╪═══╗
               eth0 ═══════════╪═══╩═ TAP vxlan42 ═══ node (by the TAP's descriptors)

    bridge     eth0 ═══ veth ══╪═ pEEEE ── bridge br42 ── TAP vxlan42 ═══ node
               eth0 ═══ veth ══╪═ pFFFF ─────┘

Either way containers of one host talk without the node; what is for other hosts leaves by
the TAP (vxlan/plugins/docker_taps.py).  A macvlan leaves out a bridge and a veth, each with
its share of the work.  It is one MAC's alone, and some kernels have none: then a bridge.

All this is in a namespace of its own, because Docker gives the host's FORWARD chain
the policy DROP, and a kernel with br_netfilter sends bridged packets through that chain.
No rule of the host's filter is on the way here, and none has to be added.

Docker takes its link, cEEEE, from the host's namespace, renames it to eth0 and gives it
addresses and MAC.  When the container leaves, Docker puts it back.  Both kinds die with the
container's namespace, so whatever becomes of a container, nothing of it stays.

Every method blocks for some milliseconds, raises NetdevError, and may be repeated: it
makes what is missing and takes away what is there.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vxlan import netdev, netns
from vxlan.netchild import create_child
from vxlan.netdev import NetdevError
from vxlan.plugins.docker_state import BRIDGE, MACVLAN
from vxlan.plugins.docker_taps import Taps, tap_of

PATIENCE = 3.0
"""Seconds that the kernel may take to remove a container's namespace, and the MAC with it."""

_PROBE = "probe"

_QUIET = {
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "1",
    "/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "0",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables": "0",
    "/proc/sys/net/bridge/bridge-nf-call-arptables": "0",
}
"""Their namespace says nothing by itself, and filters nothing."""

_NO_NAMESPACE = (errno.ENOENT, errno.EINVAL)
"""There is none, or only its name is left; after anything else the devices may be there."""

log = logging.getLogger(__name__)


def bridge_of(vni: int) -> str:
    """The bridge of a network."""
    return f"br{vni}"


def port_of(endpoint: str) -> str:
    """The bridge's end of a container's veth."""
    return f"p{endpoint[:12]}"


def inner_of(endpoint: str) -> str:
    """The container's end, before Docker renames it and after it was given back."""
    return f"c{endpoint[:12]}"


class Devices:
    """What there is in the namespace of `taps`."""

    def __init__(self, taps: Taps) -> None:
        self.netns = taps.netns
        self._taps = taps

    def prepare(self) -> bool:
        """Make the namespace where it is missing; whether it was."""
        try:
            self._quieten()
            return False
        except NetdevError as error:
            if error.errno not in _NO_NAMESPACE:
                raise
            with suppress(NetdevError):
                netns.delete(self.netns)
            netns.create(self.netns)
            log.info("namespace %s: made", self.netns)
            self._taps.forget()
            self._quieten()
            return True

    def _quieten(self) -> None:
        with netns.inside(self.netns):
            for path, value in _QUIET.items():
                with suppress(OSError):  # a kernel without IPv6 or br_netfilter
                    Path(path).write_text(value, encoding="ascii")

    # -- networks ----------------------------------------------------------------------------

    def choose(self, vni: int, wanted: str) -> str:
        """How a new network is attached: as it is wanted, else by what the kernel has."""
        if wanted == BRIDGE or self._has_macvlan(vni):
            return wanted or MACVLAN
        if wanted == MACVLAN:
            raise NetdevError(
                "attach=macvlan: this kernel has no macvlan: `modprobe macvlan`, "
                "or take -o attach=bridge"
            )
        log.warning("VNI %d: this kernel has no macvlan: its containers get a bridge", vni)
        return BRIDGE

    def _has_macvlan(self, vni: int) -> bool:
        self._taps.make(vni)
        netdev.delete_if_there(_PROBE, self.netns)
        try:
            create_child("macvlan", _PROBE, tap_of(vni), self.netns, self.netns)
        except NetdevError as error:
            if error.errno == errno.EOPNOTSUPP:
                return False
            raise
        netdev.delete(_PROBE, self.netns)
        return True

    def build(self, vni: int, way: str) -> bool:
        """What a network's containers are joined to; whether there was none.

        They reach each other already.
        """
        anew = self._taps.make(vni)
        if way == BRIDGE:
            bridge = bridge_of(vni)
            anew = not netdev.exists(bridge, self.netns)
            if anew:
                netdev.create_bridge(bridge, self.netns)
            netdev.set_up(bridge, netns=self.netns)
        return anew

    def plug(self, vni: int, way: str) -> None:
        """The TAP into the bridge, where there is one."""
        if way == BRIDGE:
            netdev.set_master(tap_of(vni), bridge_of(vni), self.netns)

    def remove(self, vni: int) -> None:
        """Take a network's devices away."""
        netdev.delete_if_there(bridge_of(vni), self.netns)
        self._taps.delete(vni)

    # -- containers --------------------------------------------------------------------------

    def connect(self, endpoint: str, vni: int, way: str, mac: str, mtu: int) -> str:
        """A new link into a network; the name of Docker's end, in the host's namespace."""
        self.disconnect(endpoint)
        try:
            if way == BRIDGE:
                self._connect_veth(endpoint, vni, mtu)
            else:
                self._connect_macvlan(inner_of(endpoint), vni, mac, mtu)
        except NetdevError:
            self.disconnect(endpoint)
            raise
        return inner_of(endpoint)

    def _connect_veth(self, endpoint: str, vni: int, mtu: int) -> None:
        port = port_of(endpoint)
        netdev.create_veth(inner_of(endpoint), port, peer_netns=self.netns, mtu=mtu)
        netdev.set_master(port, bridge_of(vni), self.netns)
        netdev.set_up(port, netns=self.netns)

    def _connect_macvlan(self, inner: str, vni: int, mac: str, mtu: int) -> None:
        """Docker sets it up when it is too late to say why that fails: so it is tried here."""
        create_child("macvlan", inner, tap_of(vni), self.netns, self.netns, mtu=mtu, address=mac)
        self._try_mac(inner, mac)
        netdev.set_alias(inner, self.netns, self.netns)
        netdev.move(inner, None, self.netns)

    def _try_mac(self, inner: str, mac: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                netdev.set_up(inner, netns=self.netns)
            except NetdevError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if time.monotonic() > deadline:
                    raise NetdevError(
                        f"another container of this network has the MAC {mac}: stop it, "
                        "or give this one another --mac-address",
                        error.errno,
                    ) from None
                time.sleep(0.05)
            else:
                netdev.set_up(inner, False, netns=self.netns)
                return

    def disconnect(self, endpoint: str) -> None:
        """Take a container's link away: a veth wherever it is, a macvlan that Docker gave back."""
        netdev.delete_if_there(port_of(endpoint), self.netns)
        for place in (self.netns, None):
            netdev.delete_if_there(inner_of(endpoint), place)

    # -- what nobody knows -------------------------------------------------------------------

    def sweep(self, vnis: Iterable[int], endpoints: Iterable[str]) -> list[str]:
        """Remove the devices of networks and containers that nobody knows; their names."""
        names = set(endpoints)
        known = {name for vni in vnis for name in (bridge_of(vni), tap_of(vni))}
        known |= {port_of(one) for one in names}
        kinds = ("bridge", "veth", "tun", "macvlan")
        inside = [
            link.name
            for link in netdev.links(self.netns)
            if link.kind in kinds and link.name not in known
        ]
        left = {inner_of(one) for one in names}
        outside = [
            link.name
            for link in netdev.links()
            if link.kind == "macvlan" and link.alias == self.netns and link.name not in left
        ]
        for name in inside:
            netdev.delete_if_there(name, self.netns)
        for name in outside:
            netdev.delete_if_there(name)
        return inside + outside
