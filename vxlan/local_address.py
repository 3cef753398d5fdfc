"""Which of this host's addresses a VTEP sends from, where the configuration leaves it open.

Blocks for a few milliseconds: call it where no event loop runs.
"""

from __future__ import annotations

import ipaddress

from vxlan import netdev
from vxlan.config import NodeConfig
from vxlan.config_rules import family_problem
from vxlan.netdev import NetdevError


class NoAddress(Exception):
    """There is no address to send from; one line with the remedy."""


def choose(config: NodeConfig) -> tuple[str, ...]:
    """`local` as configured; else the addresses of `dev`; else what the routes say.

    At most one of each family, and one for each family of remotes.  Raises NoAddress.
    """
    vtep = config.vtep
    try:
        local = vtep.local or (_of_device(vtep.dev) if vtep.dev else _by_route(config))
    except NetdevError as error:
        raise NoAddress(f"no address to send from: {error}: or set vtep.local") from None
    for segment in config.segments:
        for remote in segment.all_remotes():
            if problem := family_problem(remote.address, local):
                raise NoAddress(f"segment {segment.vni}: {problem}")
    return local


def _of_device(dev: str) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for cidr in netdev.addresses(dev):
        address = ipaddress.ip_interface(cidr).ip
        if not address.is_link_local:
            found.setdefault(address.version, str(address))
    if not found:
        raise NoAddress(f"vtep.dev: {dev} has no address: give it one, or set local")
    return tuple(found.values())


def _by_route(config: NodeConfig) -> tuple[str, ...]:
    """The source that the routing table gives for the first remote of each family."""
    first: dict[bool, str] = {}
    for segment in config.segments:
        for remote in segment.all_remotes():
            first.setdefault(":" in remote.address, remote.address)
    sources = [netdev.route_to(address).source for address in first.values()]
    return tuple(source for source in sources if source)
