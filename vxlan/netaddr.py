"""Addresses, routes, neighbours and the kernel's forwarding entries.

The functions are offered by vxlan.netdev too; the same rules hold for them: the
interface first, its namespace as `netns`, NetdevError with one line, and a thread
of their own where an event loop runs.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from vxlan.netlazy import NetlinkError
from vxlan.netns import NetdevError, index_of, name_of, netlink

_NUD_PERMANENT = 0x80
_NUD_NOARP = 0x40
_NTF_SELF = 0x02


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one destination.

    dev      the interface that packets leave by;  index: its number
    source   the address they carry, or None
    gateway  the next hop, or None when the destination is on the link
    mtu      the path MTU that the kernel learned or was given, or None
    local    the destination is an address of this host
    """

    dev: str
    index: int
    source: str | None
    gateway: str | None
    mtu: int | None
    local: bool
    learned: bool = False


class Neighbour(NamedTuple):
    """One entry of the neighbour table."""

    address: str
    mac: bytes | None


class Fdb(NamedTuple):
    """One forwarding entry of a kernel bridge or vxlan device.

    dst  the remote, or None;  via: index of the link that its datagrams leave by,
    where the device was bound to one
    """

    mac: bytes
    dst: str | None
    permanent: bool
    via: int | None = None


# -- addresses --------------------------------------------------------------------


def addresses(name: str, netns: str | None = None) -> list[str]:
    """The addresses of a link as CIDR text, IPv4 first, link-local ones included."""
    with netlink(netns, f"link {name}: addresses") as session:
        messages = session.get_addr(index=index_of(session, name))
        found = [
            ipaddress.ip_interface(f"{_address_of(message)}/{message['prefixlen']}")
            for message in messages
        ]
    return [str(cidr) for cidr in sorted(found, key=lambda cidr: cidr.version)]


def carriers(wanted: Iterable[str], netns: str | None = None) -> dict[str, int]:
    """Address -> number of the link that has it, for those that this namespace has."""
    with netlink(netns, "addresses") as session:
        found = {_address_of(message): int(message["index"]) for message in session.get_addr()}
    return {address: found[address] for address in wanted if address in found}


def add_address(name: str, cidr: str, netns: str | None = None) -> None:
    """Give a link an address; IPv6 ones are usable at once (no duplicate detection)."""
    interface = ipaddress.ip_interface(cidr)
    extra = {"flags": 0x02} if interface.version == 6 else {}  # IFA_F_NODAD
    with netlink(netns, f"link {name}: add address {cidr}") as session:
        session.addr("add", index=index_of(session, name), **_address(cidr), **extra)


def del_address(name: str, cidr: str, netns: str | None = None) -> None:
    """Take an address from a link."""
    with netlink(netns, f"link {name}: delete address {cidr}") as session:
        session.addr("del", index=index_of(session, name), **_address(cidr))


def _address(cidr: str) -> dict[str, Any]:
    interface = ipaddress.ip_interface(cidr)
    return {"address": str(interface.ip), "prefixlen": interface.network.prefixlen}


def _address_of(message: Any) -> str:
    return str(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


# -- routes -----------------------------------------------------------------------


def add_route(
    destination: str,
    *,
    via: str | None = None,
    dev: str | None = None,
    mtu: int | None = None,
    netns: str | None = None,
) -> None:
    """Add a route; `destination` is a prefix or "default"; `mtu` is its MTU metric."""
    _route("add", destination, via, dev, mtu, netns)


def del_route(
    destination: str,
    *,
    via: str | None = None,
    dev: str | None = None,
    netns: str | None = None,
) -> None:
    """Remove a route."""
    _route("del", destination, via, dev, None, netns)


def replace_route(
    destination: str, *, dev: str, mtu: int | None = None, netns: str | None = None
) -> None:
    """Add a route to a destination on the link, or put it in the place of the one there is."""
    _route("replace", destination, None, dev, mtu, netns)


def blackhole_own_packets(family: int, netns: str | None = None) -> None:
    """Discard what this host itself sends by a routing table, as a rule; what it forwards passes.

    Neighbour discovery goes on, since it asks no table.  `family` is 4 or 6.
    """
    with netlink(netns, "rule: add") as session:
        session.rule(
            "add",
            family=socket.AF_INET6 if family == 6 else socket.AF_INET,
            iifname="lo",
            action="blackhole",
            priority=1,
        )


def _route(
    command: str,
    destination: str,
    via: str | None,
    dev: str | None,
    mtu: int | None,
    netns: str | None,
) -> None:
    wanted: dict[str, Any] = {"dst": destination}
    if destination == "default":
        wanted["dst"] = "::/0" if via and ":" in via else "0.0.0.0/0"
    wanted["family"] = socket.AF_INET6 if ":" in wanted["dst"] else socket.AF_INET
    if via:
        wanted["gateway"] = via
    if mtu:
        wanted["metrics"] = {"mtu": mtu}
    with netlink(netns, f"route {destination}: {command}") as session:
        if dev:
            wanted["oif"] = index_of(session, dev)
        session.route(command, **wanted)


def route_to(address: str, netns: str | None = None) -> Route:
    """How packets to one address leave; NetdevError if there is no way."""
    with netlink(netns, f"route to {address}") as session:
        return _route_to(session, address, {})


def routes_to(addresses: Iterable[str], netns: str | None = None) -> dict[str, Route | None]:
    """The same for many addresses, in one session; None where there is no way."""
    found: dict[str, Route | None] = {}
    names: dict[int, str] = {}
    with netlink(netns, "routes") as session:
        for address in addresses:
            try:
                found[address] = _route_to(session, address, names)
            except NetlinkError:
                found[address] = None
    return found


def _route_to(session: Any, address: str, names: dict[int, str]) -> Route:
    """`names` remembers the names of interfaces by their numbers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    message = session.route("get", dst=address, family=family)[0]
    index = int(message.get_attr("RTA_OIF"))
    metrics, cached = message.get_attr("RTA_METRICS"), message.get_attr("RTA_CACHEINFO")
    if index not in names:
        names[index] = name_of(session, index)
    return Route(
        dev=names[index],
        index=index,
        source=message.get_attr("RTA_PREFSRC"),
        gateway=message.get_attr("RTA_GATEWAY"),
        mtu=metrics.get_attr("RTAX_MTU") if metrics else None,
        local=message["type"] == 2,  # RTN_LOCAL
        learned=bool(cached and cached["rta_expires"]),
    )


# -- neighbours and forwarding entries ----------------------------------------------


def neighbours(name: str, netns: str | None = None) -> list[Neighbour]:
    """The neighbour table of a link, IPv4 and IPv6."""
    with netlink(netns, f"link {name}: neighbours") as session:
        return [
            Neighbour(str(message.get_attr("NDA_DST")), _mac(message))
            for message in session.get_neighbours(ifindex=index_of(session, name))
        ]


def add_neighbour(name: str, address: str, mac: bytes, netns: str | None = None) -> None:
    """Write a permanent neighbour, so that nobody needs to ask for it."""
    with netlink(netns, f"link {name}: add neighbour {address}") as session:
        session.neigh(
            "replace",
            dst=address,
            lladdr=mac.hex(":"),
            ifindex=index_of(session, name),
            state=_NUD_PERMANENT,
            family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        )


def flush_neighbours(name: str, netns: str | None = None) -> None:
    """Forget all that was learned by asking: the next packet to each neighbour asks again."""
    with netlink(netns, f"link {name}: flush neighbours") as session:
        index = index_of(session, name)
        for message in session.get_neighbours(ifindex=index):
            if not message["state"] & (_NUD_PERMANENT | _NUD_NOARP):
                session.neigh("del", dst=message.get_attr("NDA_DST"), ifindex=index)


def fdb(name: str, netns: str | None = None) -> list[Fdb]:
    """The forwarding entries of a bridge port, or of a vxlan device."""
    with netlink(netns, f"link {name}: fdb") as session:
        return _entries(session, index_of(session, name))


def _entries(session: Any, index: int) -> list[Fdb]:
    return [
        Fdb(
            _mac(message) or b"",
            message.get_attr("NDA_DST"),
            bool(message["state"] & _NUD_PERMANENT),
            message.get_attr("NDA_IFINDEX"),
        )
        for message in session.fdb("dump")
        if message["ifindex"] == index
    ]


def fdb_append(name: str, mac: bytes, dst: str, netns: str | None = None) -> None:
    """Append a remote to an entry of a kernel vxlan device (zero MAC: its flood list)."""
    with netlink(netns, f"link {name}: fdb append {mac.hex(':')} dst {dst}") as session:
        _fdb(session, "append", index_of(session, name), mac, dst)


def fdb_del(name: str, mac: bytes, dst: str, netns: str | None = None) -> None:
    """Remove a remote from an entry of a kernel vxlan device.

    The kernel reports success, and removes nothing, unless the link that the entry
    leaves by is named too: so the entry is looked up first.
    """
    what = f"link {name}: fdb del {mac.hex(':')} dst {dst}"
    with netlink(netns, what) as session:
        index = index_of(session, name)
        vias = [one.via for one in _entries(session, index) if (one.mac, one.dst) == (mac, dst)]
        if not vias:
            raise NetdevError(f"{what}: there is no such entry", errno.ENOENT)
        for via in vias:
            _fdb(session, "del", index, mac, dst, **({"NDA_IFINDEX": via} if via else {}))


def _fdb(session: Any, command: str, index: int, mac: bytes, dst: str, **extra: int) -> None:
    session.fdb(
        command,
        ifindex=index,
        lladdr=mac.hex(":"),
        dst=dst,
        flags=_NTF_SELF,
        state=_NUD_PERMANENT,
        **extra,
    )


def _mac(message: Any) -> bytes | None:
    text = message.get_attr("NDA_LLADDR")
    return bytes.fromhex(text.replace(":", "")) if text else None
