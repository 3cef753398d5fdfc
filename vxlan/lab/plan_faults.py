"""Faults of a lab: as vxlan/config_fault.py reads them, with names for addresses and MACs.

[[host.fault]]
kind   = "flap"
vni    = 42
as     = "c1"          # the MAC of that container
remote = "b"           # the address of that host
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vxlan.config_fault import fault
from vxlan.config_lines import KeyPath, Wrong
from vxlan.wire import mac_text

if TYPE_CHECKING:
    from vxlan.lab.plan import Host

OF_HOSTS = ("remote", "source")
OF_CONTAINERS = ("mac", "as")


def resolved(
    table: Mapping[str, Any], addresses: Mapping[str, str], macs: Mapping[str, str]
) -> dict[str, Any]:
    """The table with the names of hosts and containers replaced by what they stand for."""
    found = dict(table)
    for keys, meaning in ((OF_HOSTS, addresses), (OF_CONTAINERS, macs)):
        for key in keys:
            if isinstance(found.get(key), str):
                found[key] = meaning.get(found[key], found[key])
    return found


def read(
    tables: Sequence[Mapping[str, Any]], path: KeyPath, host: Host, hosts: Sequence[Host]
) -> tuple[dict[str, Any], ...]:
    """The faults of one host, checked, as its node is to be told.  Raises Wrong."""
    addresses = {other.name: _address(other, host) for other in hosts}
    macs = {one.name: mac_text(one.mac) for other in hosts for one in other.containers if one.mac}
    found = []
    for index, table in enumerate(tables):
        here = (*path, "fault", index)
        words = resolved(table, addresses, macs)
        _check(words, here, host)
        found.append(words)
    return tuple(found)


def _address(other: Host, host: Host) -> str:
    """Of another host: the address of a family that both have, if they have one."""
    families = {":" in address for address in host.ips}
    return next((one for one in other.ips if (":" in one) in families), other.ips[0])


def _check(words: Mapping[str, Any], here: KeyPath, host: Host) -> None:
    try:
        one = fault(words)
    except ValueError as error:
        raise Wrong(here, str(error)) from None
    vnis = [segment.vni for segment in host.segments]
    if host.vtep != "pyvxlan" or not vnis:
        raise Wrong(here, f"host {host.name} has no pyvxlan node that could inject it")
    if host.engine == "fastpath":
        raise Wrong(here, 'faults need engine = "python" on this host')
    if one.vni is not None and one.vni not in vnis:
        have = ", ".join(map(str, vnis))
        raise Wrong((*here, "vni"), f"host {host.name} has no VNI {one.vni}: it has {have}")
