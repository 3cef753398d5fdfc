"""Which overlay address a container gets: ranges in, a free address out.

Theory of operation
===================

The words are those of the CNI plugin host-local, so that its configurations can be
taken over: a list of sets, each a list of ranges; a container gets one address of each
set (say one IPv4 and one IPv6).

    [[{"subnet": "10.42.0.0/16", "rangeStart": "10.42.1.1", "rangeEnd": "10.42.1.254",
       "gateway": "10.42.0.1"}]]

Several hosts share one subnet, and nobody sees all containers: so each host has a range
of its own, and that is what rangeStart and rangeEnd are for.

The search starts behind the address that was given last, so that one that became free
rests for as long as there are others: neighbours may remember its old MAC.  Addresses
of the network itself, of the gateway and whatever the caller calls taken are passed over.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_RANGES = 64
_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NoAddress(Exception):
    """There is no address to give; one line with the remedy."""


class Given(NamedTuple):
    """An address with its prefix length, and the gateway of its network or None."""

    cidr: str
    gateway: str | None


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses from `first` to `last`, both included, of one subnet."""

    subnet: Network
    first: Address
    last: Address
    gateway: Address | None

    def __str__(self) -> str:
        return f"{self.first}-{self.last} of {self.subnet}"

    def holds(self, address: Address) -> bool:
        """Whether an address belongs to the subnet and is a station's."""
        return address in self.subnet and address not in self._special()

    def given(self, address: Address) -> Given:
        """`address` as it is handed out."""
        gateway = str(self.gateway) if self.gateway else None
        return Given(f"{address}/{self.subnet.prefixlen}", gateway)

    def _special(self) -> set[Address]:
        gateway = {self.gateway} if self.gateway else set()
        if self.subnet.num_addresses <= 2:
            return {*gateway}
        return {self.subnet.network_address, self.subnet.broadcast_address, *gateway}

    def free(self, taken: Collection[str], after: str | None) -> Address | None:
        """The first free address behind `after`, else behind the start; None if all are taken."""
        low, high = int(self.first), int(self.last)
        kind = type(self.first)
        start = int(kind(after)) + 1 if after and self._within(after) else low
        size = high - low + 1
        # one more than can be taken: a free one is found by then
        for step in range(min(size, len(taken) + 4)):
            candidate = kind(low + (start - low + step) % size)
            if str(candidate) not in taken and candidate not in self._special():
                return candidate
        return None

    def _within(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return address.version == self.subnet.version and int(self.first) <= int(address) <= int(
            self.last
        )


RangeSets = tuple[tuple[Range, ...], ...]


def range_sets(value: object) -> RangeSets:
    """Check ranges as host-local has them.  Raises ValueError, one line."""
    if not isinstance(value, list) or not all(isinstance(one, list) and one for one in value):
        raise ValueError('it is no list of lists: write [[{"subnet": "10.42.0.0/16"}]]')
    if sum(len(one) for one in value) > MAX_RANGES:
        raise ValueError(f"there are more than {MAX_RANGES} ranges")
    return tuple(tuple(_range(table) for table in one) for one in value)


def _range(table: object) -> Range:
    if not isinstance(table, dict) or "subnet" not in table:
        raise ValueError(f'{table!r} has no subnet: write {{"subnet": "10.42.0.0/16"}}')
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        raise ValueError(f"no such key: {unknown[0]} (known are {', '.join(_KEYS)})")
    subnet = _network(table["subnet"])
    last = int(subnet.broadcast_address) - (subnet.version == 4 and subnet.prefixlen < 31)
    kind = type(subnet.network_address)
    ends = (int(subnet.network_address) + (subnet.num_addresses > 2), last)
    found = Range(
        subnet,
        _inside(table, "rangeStart", subnet) or kind(ends[0]),
        _inside(table, "rangeEnd", subnet) or kind(ends[1]),
        _inside(table, "gateway", subnet),
    )
    if int(found.first) > int(found.last):
        raise ValueError(f"the range {found} is empty: write the smaller address first")
    return found


def _network(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no subnet: write it like 10.42.0.0/16") from None


def _inside(table: Mapping[str, Any], key: str, subnet: Network) -> Address | None:
    value = table.get(key)
    if value is None:
        return None
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError:
        raise ValueError(f"{key}: {value!r} is no IP address") from None
    if address not in subnet:
        raise ValueError(f"{key}: {address} is not in {subnet}")
    return address


def choose(
    sets: RangeSets,
    wanted: Collection[str],
    taken: Collection[str],
    after: Mapping[str, str],
    avoid: Collection[str] = (),
) -> list[Given]:
    """One address of each set, and those that are wanted by name.

    `wanted` are addresses, with or without a prefix length; `taken`, `avoid` and the
    values of `after` (subnet -> the address given last) without.  What is to be avoided is
    given to those alone who want it by name.  Raises NoAddress.
    """
    used = {*taken, *avoid}
    chosen: list[Given] = []
    served: set[int] = set()
    for text in wanted:
        at, given = _wanted(sets, text, taken)
        served.add(at)
        chosen.append(given)
    for at, ranges in enumerate(sets):
        if at not in served:
            chosen.append(_next(ranges, used, after))
    return chosen


def _wanted(sets: RangeSets, text: str, taken: Collection[str]) -> tuple[int, Given]:
    interface = ipaddress.ip_interface(text)
    if str(interface.ip) in taken:
        raise NoAddress(f"{interface.ip} is taken: choose another, or none")
    for at, ranges in enumerate(sets):
        for one in ranges:
            if one.holds(interface.ip):
                return at, one.given(interface.ip)
    if "/" in text:
        return -1, Given(str(interface), None)
    where = ", ".join(str(one.subnet) for ranges in sets for one in ranges) or "none"
    raise NoAddress(
        f"{text} is no station's address of a configured subnet ({where}): "
        "give its prefix length, or choose another"
    )


def _next(ranges: tuple[Range, ...], taken: Collection[str], after: Mapping[str, str]) -> Given:
    for one in ranges:
        free = one.free(taken, after.get(str(one.subnet)))
        if free is not None:
            return one.given(free)
    shown = ", ".join(map(str, ranges))
    raise NoAddress(f"no address is free in {shown}: widen the range, or remove containers")
