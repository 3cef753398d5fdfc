"""Which address of a subnet comes next: pure, for vxlan/plugins/docker_ipam.py."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from vxlan.plugins.docker_http import Refusal
from vxlan.plugins.docker_state import Pool

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Share = tuple[int, int]


def parse_share(text: str) -> Share:
    """ "2/4" -> (2, 4).  ValueError with the remedy."""
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    share = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= share[0] <= share[1]:
        raise ValueError(f"{text!r} is no share: write 2/4 for the second of four parts")
    return share


def subnet_of(value: object, six: bool) -> Subnet:
    """What --subnet or --ip-range says.  Raises Refusal."""
    if not value:
        raise Refusal(
            "no subnet: all hosts of a network need the same one, give "
            + ("--subnet 2001:db8:42::/64" if six else "--subnet 10.42.0.0/16")
        )
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError as error:
        raise Refusal(f"{value!r} is no subnet: {error}") from None


def first_of(subnet: Subnet) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that stands for a gateway, the same on every host."""
    return subnet[1] if subnet.num_addresses > 2 else subnet[0]


def next_free(pool: Pool, subnet: Subnet, held: Collection[str] = ()) -> str:
    """The first free address after the latest, round the part.  Raises Refusal."""
    kind = type(subnet[0])
    first, last = int(ipaddress.ip_address(pool.first)), int(ipaddress.ip_address(pool.last))
    unfit = _unfit(subnet)
    size = last - first + 1
    begin = int(ipaddress.ip_address(pool.latest)) + 1 - first if pool.latest else 0
    for step in range(min(size, len(pool.used) + len(held) + len(unfit) + 1)):
        number = first + (begin + step) % size
        address = str(kind(number))
        if number not in unfit and address not in pool.used and address not in held:
            return address
    raise Refusal(
        f"no address is free: this host has {pool.first} to {pool.last} of {subnet}; "
        "give it a larger part, or remove containers"
    )


def _unfit(subnet: Subnet) -> set[int]:
    """The subnet's own address, and what is broadcast or anycast there."""
    if subnet.num_addresses <= 2:
        return set()
    ends = {int(subnet[0]), int(first_of(subnet))}
    return ends | {int(subnet[-1])} if subnet.version == 4 else ends
