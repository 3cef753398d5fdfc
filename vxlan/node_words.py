"""Who the words of `pyvxlan explain` mean, on the host where the node runs.

    --from MAC|IP --to MAC|IP [--proto ...] [--sport ...] [--dport ...] [--size ...] [--df]

A word that is an IP address stands for the MAC that this host knows for it, by its own
addresses or by its neighbour table on the segment's device.  Whose MAC is the source
decides nothing, so that one may have a stand-in; the destination decides everything, so
there is none for it.  An address that was not named has a stand-in too, since only the
outer source port follows from it.  Each stand-in is told.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING

from vxlan import config_values as values
from vxlan import netdev
from vxlan.api import ApiError
from vxlan.arguments import Args, checked, optional
from vxlan.sample import CHECKS, Protocol, Sample, frame, protocol
from vxlan.stations import addresses, stand_in, station
from vxlan.wire import BROADCAST

if TYPE_CHECKING:
    from vxlan.node_segment import NodeSegment

WORDS = ("from", "to", "proto", "sport", "dport", "size", "df")


async def frame_of(args: Args, segment: NodeSegment, notes: list[str]) -> bytes:
    """The frame that the words describe; each stand-in is a note.  Raises ApiError."""
    source, target = (checked(args, key, station) for key in ("from", "to"))
    proto: Protocol = optional(args, "proto", "icmp", protocol)
    numbers = {key: checked(args, key, check) for key, check in CHECKS.items() if key in args}
    known = await asyncio.to_thread(_neighbours, segment)
    try:
        here, there = addresses(source, target, notes)
        sample = Sample(
            source.mac or _source_mac(here, known, notes),
            target.mac or _target_mac(there, known, segment, proto),
            here,
            there,
            proto,
            df=optional(args, "df", False, values.flag),
            **numbers,
        )
        return frame(sample)
    except ValueError as error:
        raise ApiError(str(error), "usage") from None


def _neighbours(segment: NodeSegment) -> dict[str, bytes]:
    """IP address -> MAC, of this host and its neighbours on the segment's device.  Blocks."""
    device = segment.config.bridge or segment.config.tap
    try:
        known = {
            str(one.address): one.mac for one in netdev.neighbours(device) if one.mac is not None
        }
        mac = netdev.link(device).mac
        return known | {cidr.split("/")[0]: mac for cidr in netdev.addresses(device)}
    except netdev.NetdevError:
        return {}


def _target_mac(
    address: str, known: dict[str, bytes], segment: NodeSegment, protocol: str
) -> bytes:
    """The MAC behind an address; a group's follows from the address itself."""
    to = ip_address(address)
    if protocol == "arp" or _is_broadcast(to, segment):
        return BROADCAST
    if to.is_multicast:
        return _group_mac(to)
    if address in known:
        return known[address]
    raise ApiError(
        f"the MAC of {address} is not known on this host: give it as `--to MAC,{address}` "
        f"(`ip neigh show {address}` where the frame comes from tells it), "
        "or `--proto arp` for the question that comes first",
        "not_found",
    )


def _is_broadcast(to: IPv4Address | IPv6Address, segment: NodeSegment) -> bool:
    networks = [ip_interface(cidr).network for cidr in segment.config.address]
    everybody = [str(one.broadcast_address) for one in networks if one.version == 4]
    return str(to) in ("255.255.255.255", *everybody)


def _group_mac(to: IPv4Address | IPv6Address) -> bytes:
    """RFC 1112, section 6.4; RFC 2464, section 7."""
    if to.version == 6:
        return b"\x33\x33" + to.packed[-4:]
    return b"\x01\x00\x5e" + bytes((to.packed[1] & 0x7F,)) + to.packed[2:]


def _source_mac(address: str, known: dict[str, bytes], notes: list[str]) -> bytes:
    return known[address] if address in known else stand_in(address, notes)
