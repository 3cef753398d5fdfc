"""The devices of Docker's networks: a bridge for each, the node's TAP, a veth for each container.

Theory of operation
===================

    container       |  namespace pyvxlan-docker               |  host
                    |                                         |
    eth0 ═══ veth ══╪═ pEEEE ── bridge br42 ── TAP vxlan42 ═══╪═ node (the TAP's descriptor)
    eth0 ═══ veth ══╪═ pFFFF ─────┘                           |

Containers of one host talk through the bridge; what is for other hosts leaves by the
TAP, whose other end the node keeps wherever the device goes.

The bridges are in a namespace of their own, because Docker gives the host's FORWARD chain
the policy DROP, and a kernel with br_netfilter sends bridged packets through that chain.
No rule of the host's filter is on the way here, and none has to be added.

Docker takes its end of a veth, cEEEE, from the host's namespace, renames it to eth0 and
gives it addresses and MAC.  A veth dies with either end, so whatever becomes of a
container, nothing of it stays.

Every method blocks for some milliseconds, raises NetdevError, and may be repeated: it
makes what is missing and takes away what is there.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vxlan import netdev, netns
from vxlan.attachment import PORT_MTU
from vxlan.netdev import NetdevError

_QUIET = {
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "1",
    "/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "0",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables": "0",
    "/proc/sys/net/bridge/bridge-nf-call-arptables": "0",
}
"""The bridges' namespace says nothing by itself, and filters nothing."""

_NO_NAMESPACE = (errno.ENOENT, errno.EINVAL)
"""There is none, or only its name is left; after anything else the bridges may be there."""

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
    """What there is in the namespace `name`."""

    def __init__(self, name: str) -> None:
        self.netns = name

    def prepare(self) -> None:
        """Make the namespace where it is missing."""
        try:
            self._quieten()
        except NetdevError as error:
            if error.errno not in _NO_NAMESPACE:
                raise
            with suppress(NetdevError):
                netns.delete(self.netns)
            netns.create(self.netns)
            log.info("namespace %s: made", self.netns)
            self._quieten()

    def _quieten(self) -> None:
        with netns.inside(self.netns):
            for path, value in _QUIET.items():
                with suppress(OSError):  # a kernel without IPv6 or br_netfilter
                    Path(path).write_text(value, encoding="ascii")

    def build(self, vni: int) -> None:
        """The bridge of a network: its containers reach each other already."""
        bridge = bridge_of(vni)
        if not netdev.exists(bridge, self.netns):
            netdev.create_bridge(bridge, self.netns)
        netdev.set_up(bridge, netns=self.netns)

    def plug(self, vni: int, tap: str) -> None:
        """The node's TAP into the bridge, from wherever it is."""
        if not netdev.exists(tap, self.netns):
            netdev.move(tap, self.netns)
        netdev.set_mtu(tap, PORT_MTU, self.netns)
        netdev.set_master(tap, bridge_of(vni), self.netns)
        netdev.set_up(tap, netns=self.netns)

    def remove(self, vni: int) -> None:
        """Take the bridge away; the TAP goes with the node's segment."""
        self._delete(bridge_of(vni))

    def connect(self, endpoint: str, vni: int, mtu: int) -> str:
        """A new veth into a network; the name of the end that is Docker's."""
        self.disconnect(endpoint)
        port, inner = port_of(endpoint), inner_of(endpoint)
        netdev.create_veth(inner, port, peer_netns=self.netns, mtu=mtu)
        try:
            netdev.set_master(port, bridge_of(vni), self.netns)
            netdev.set_up(port, netns=self.netns)
        except NetdevError:
            self.disconnect(endpoint)
            raise
        return inner

    def disconnect(self, endpoint: str) -> None:
        """Take a container's veth away, wherever its other end is."""
        self._delete(port_of(endpoint))

    def ports(self) -> set[str]:
        """The bridges' ends of all veths there are."""
        links = netdev.links(self.netns)
        return {link.name for link in links if link.kind == "veth"}

    def sweep(self, vnis: Iterable[int], endpoints: Iterable[str]) -> list[str]:
        """Remove the bridges and veths that nobody knows; their names."""
        known = {bridge_of(vni) for vni in vnis} | {port_of(one) for one in endpoints}
        strange = [
            link.name
            for link in netdev.links(self.netns)
            if link.kind in ("bridge", "veth") and link.name not in known
        ]
        for name in strange:
            self._delete(name)
        return strange

    def _delete(self, name: str) -> None:
        try:
            netdev.delete(name, self.netns)
        except NetdevError as error:
            if error.errno != errno.ENODEV:
                raise
