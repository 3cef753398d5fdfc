"""Attached containers as stations that the other nodes are told of (vxlan/announce.py).

Nothing of it is kept: it is done again at each look, and only what is new is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from ipaddress import ip_address

from vxlan.announcement import MAX_ADDRESSES
from vxlan.attached import Attached
from vxlan.node_segment import NodeSegment
from vxlan.wire import mac_bytes

log = logging.getLogger(__name__)


def announce(segment: NodeSegment, attached: Iterable[Attached]) -> None:
    """Tell the others of those that they were not told of, if the segment announces."""
    if not segment.config.announce:
        return
    vni = segment.config.vni
    told = {
        each.mac: set(each.addresses) for each in segment.engine.stations(vni) if not each.remote
    }
    for one in attached:
        mac, addresses = mac_bytes(one.mac), _packed(one)
        if told.get(mac) != set(addresses):
            try:
                segment.engine.add_station(vni, mac, addresses, time.monotonic())
            except ValueError as error:
                log.warning("segment %d: %s is not announced: %s", vni, one.mac, error)


def withdraw(segment: NodeSegment | None, one: Attached) -> None:
    """Tell the others that it is gone."""
    if segment is not None and segment.config.announce:
        segment.engine.del_station(segment.config.vni, mac_bytes(one.mac), time.monotonic())


def elsewhere(segment: NodeSegment) -> set[str]:
    """The addresses that other nodes announced in the segment."""
    if not segment.config.announce:
        return set()
    told = segment.engine.stations(segment.config.vni)
    return {str(ip_address(ip)) for one in told if one.remote is not None for ip in one.addresses}


def _packed(one: Attached) -> tuple[bytes, ...]:
    """No more of each kind than an announcement carries."""
    found = [ip_address(address).packed for address in one.plain]
    kinds = ([each for each in found if len(each) == size] for size in (4, 16))
    return tuple(each for kind in kinds for each in kind[:MAX_ADDRESSES])
