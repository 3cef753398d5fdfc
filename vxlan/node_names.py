"""Names of containers: what a runtime calls them, resolved on every host of a segment.

Theory of operation
===================

    container --- DNS, port 53 of the segment's address ---> this node
                     a name of ours                        answered
                     a single label that is not            the other nodes are asked:
                         LLMNR, 224.0.0.252 port 5355, by the overlay (RFC 4795)
                     anything else                         the host's own servers are asked

A segment takes part that says `names = true` and has an IPv4 address of this host.  A
node answers LLMNR for its containers alone, with silence for what it does not know; the
first answer counts.  So there is nothing to keep in step between hosts, and what an
answer says is as true as the node that gave it, as it is with ARP.

Answers are believed for TTL seconds: a container's address may soon be another's.

All is bounded: MAX_WAITING questions (vxlan/resolver.py) wait for others, more are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import TYPE_CHECKING

from vxlan import netdev
from vxlan.netdev import NetdevError
from vxlan.resolver import Resolver

if TYPE_CHECKING:
    from vxlan.node import Node

log = logging.getLogger(__name__)


class Names:
    """The resolvers of one node: one for each segment that wants names."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._resolvers: dict[tuple[int, str, int], Resolver] = {}

    def of_segment(self, vni: int) -> list[str]:
        """Where a segment's containers ask."""
        return [key[1] for key in self._resolvers if key[0] == vni]

    async def follow(self) -> None:
        """Have exactly the resolvers that the segments want.  The caller holds `changing`."""
        wanted: dict[tuple[int, str, int], None] = {}
        for vni, segment in self._node.segments.items():
            if segment.config.names and (address := _own(segment.config.address)):
                index = await asyncio.to_thread(_index, segment.config.bridge or segment.config.tap)
                wanted[vni, address, index] = None
        for key in self._resolvers.keys() - wanted.keys():
            self._resolvers.pop(key).close()
        for key in wanted.keys() - self._resolvers.keys():
            self._start(*key)

    def _start(self, vni: int, address: str, index: int) -> None:
        resolver = Resolver(address, index, lambda name: self._find(vni, name))
        try:
            resolver.start()
        except OSError as error:
            resolver.close()
            log.warning("segment %d: names: %s: %s", vni, address, _remedy(error))
            return
        self._resolvers[vni, address, index] = resolver
        log.info("segment %d: names are answered at %s", vni, address)

    def _find(self, vni: int, name: str) -> list[str] | None:
        return self._node.attachments.find(vni, name)

    def close(self) -> None:
        """Answer no more."""
        while self._resolvers:
            self._resolvers.popitem()[1].close()


def _own(addresses: tuple[str, ...]) -> str | None:
    """The first IPv4 address, without its prefix length."""
    found = [ipaddress.ip_interface(cidr) for cidr in addresses]
    return next((str(one.ip) for one in found if one.version == 4), None)


def _index(device: str) -> int:
    try:
        return netdev.link(device).index
    except NetdevError:
        return 0  # gone just now: the next look finds it


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "port 53 needs CAP_NET_BIND_SERVICE: restart the node, and let its unit keep it"
    return f"{error.strerror}: is another name server at this address?"
