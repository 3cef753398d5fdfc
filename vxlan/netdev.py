"""Network devices: look at them, make them, change them.  No policy.

Theory of operation
===================

Every function is synchronous, takes the name of an interface first and the name
of its namespace as `netns` (None: the caller's), does one thing, and raises
NetdevError whose text is one line with the remedy.  A call opens a netlink
session, which takes about 2 ms: fine for setting up, wrong for each packet.
In a running event loop use `asyncio.to_thread(netdev.link, name)`; a direct call
there is refused (vxlan/netns.py says why).

    vxlan.netdev     links: this file.  It also offers what the next two define
    vxlan.netaddr    addresses, routes, neighbours, forwarding entries
    vxlan.netoffload segmentation and checksums, as ethtool(8) has them
    vxlan.netns      namespaces
    vxlan.netwatch   changes as they happen (asynchronous)
"""

from __future__ import annotations

import errno
import ipaddress
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from vxlan.ifname import check_ifname
from vxlan.netaddr import (
    Fdb,
    Neighbour,
    Route,
    add_address,
    add_neighbour,
    add_route,
    addresses,
    blackhole_own_packets,
    carriers,
    del_address,
    del_route,
    fdb,
    fdb_append,
    fdb_del,
    flush_neighbours,
    neighbours,
    replace_route,
    route_to,
    routes_to,
)
from vxlan.netns import NetdevError, index_of, netlink, opened
from vxlan.netoffload import offloads, set_offloads, set_wire_like

__all__ = [
    "Fdb",
    "Link",
    "Neighbour",
    "NetdevError",
    "Route",
    "Stats",
    "add_address",
    "add_neighbour",
    "add_route",
    "addresses",
    "blackhole_own_packets",
    "by_name",
    "carriers",
    "check_ifname",
    "create_bridge",
    "create_veth",
    "create_vxlan",
    "del_address",
    "del_route",
    "delete",
    "delete_if_there",
    "exists",
    "fdb",
    "fdb_append",
    "fdb_del",
    "flush_neighbours",
    "link",
    "links",
    "move",
    "neighbours",
    "offloads",
    "rename",
    "replace_route",
    "route_to",
    "routes_to",
    "set_alias",
    "set_mac",
    "set_master",
    "set_mtu",
    "set_offloads",
    "set_unqueued",
    "set_up",
    "set_wire_like",
]

IFF_UP = 0x1
IFF_RUNNING = 0x40


class Stats(NamedTuple):
    """What the kernel counted for one link (struct rtnl_link_stats64)."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """One network device.

    kind    "bridge", "tun", "veth", "vxlan", ...; "" for hardware and loopback
    up      set up by an administrator;  running: and it carries packets
    master  index of the bridge or bond it is a port of, or None
    peer    index of a veth's other end (in its own namespace), or of a lower device
    carrier whether its cable is plugged in, up or not; `running` may follow a second later
    alias   what an administrator called it
    """

    index: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    up: bool
    running: bool
    master: int | None
    peer: int | None
    stats: Stats
    carrier: bool
    alias: str


# -- looking ----------------------------------------------------------------------


def links(netns: str | None = None) -> list[Link]:
    """All links of a namespace, in the kernel's order."""
    with netlink(netns, "links") as session:
        return [_link_of(message) for message in session.get_links()]


def by_name(netns: str | None = None) -> dict[str, Link]:
    """All links of a namespace by their names."""
    return {link.name: link for link in links(netns)}


def link(name: str, netns: str | None = None) -> Link:
    """One link by name."""
    with netlink(netns, f"link {name}") as session:
        return _link_of(session.link("get", ifname=check_ifname(name))[0])


def link_at(index: int, netns: str | None = None) -> Link:
    """One link by its number."""
    with netlink(netns, f"link {index}") as session:
        return _link_of(session.link("get", index=index)[0])


def find(name: str, netns: str | None = None) -> Link | None:
    """One link by name; None if there is none."""
    try:
        return link(name, netns)
    except NetdevError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def exists(name: str, netns: str | None = None) -> bool:
    """Whether there is a link of that name."""
    return find(name, netns) is not None


def _link_of(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    stats = message.get_attr("IFLA_STATS64") or {}
    mac = message.get_attr("IFLA_ADDRESS") or ""
    return Link(
        index=int(message["index"]),
        name=str(message.get_attr("IFLA_IFNAME")),
        kind=str(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
        mac=bytes.fromhex(mac.replace(":", "")),
        mtu=int(message.get_attr("IFLA_MTU") or 0),
        up=bool(message["flags"] & IFF_UP),
        running=bool(message["flags"] & IFF_RUNNING),
        master=message.get_attr("IFLA_MASTER"),
        peer=message.get_attr("IFLA_LINK"),
        stats=Stats(**{field: int(stats.get(field, 0)) for field in Stats._fields}),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        alias=str(message.get_attr("IFLA_IFALIAS") or ""),
    )


# -- changing ---------------------------------------------------------------------


def set_up(name: str, up: bool = True, netns: str | None = None) -> None:
    """Set a link up or down."""
    _set(name, netns, f"link {name}: set {'up' if up else 'down'}", state="up" if up else "down")


def set_mtu(name: str, mtu: int, netns: str | None = None) -> None:
    """Set the longest packet, bytes above the Ethernet header, that a link carries."""
    _set(name, netns, f"link {name}: set mtu {mtu}", mtu=mtu)


def set_mac(name: str, mac: bytes, netns: str | None = None) -> None:
    """Give a link another MAC."""
    _set(name, netns, f"link {name}: set mac {mac.hex(':')}", address=mac.hex(":"))


def set_master(name: str, bridge: str | None, netns: str | None = None) -> None:
    """Make a link a port of `bridge`; None takes it out."""
    what = f"link {name}: set master {bridge or 'none'}"
    with netlink(netns, what) as session:
        master = index_of(session, bridge) if bridge else 0
        session.link("set", index=index_of(session, name), master=master)


def rename(name: str, new: str, netns: str | None = None) -> None:
    """Give a link another name."""
    _set(name, netns, f"link {name}: rename to {new}", ifname=check_ifname(new))


def set_alias(name: str, alias: str, netns: str | None = None) -> None:
    """Write on a link whose it is; `ip link` shows it."""
    _set(name, netns, f"link {name}: set alias", ifalias=alias)


def set_unqueued(name: str, netns: str | None = None) -> None:
    """Have a link's packets handed to its driver at once (qdisc noqueue).

    A TAP queues for its reader anyhow; one that takes 256 queues has a qdisc for each
    otherwise, of 96 KiB where txqueuelen is 4000 (pfifo_fast).
    """
    with netlink(netns, f"link {name}: set qdisc noqueue") as session:
        session.tc("replace", "noqueue", index=index_of(session, name))


def move(name: str, to: str | None, netns: str | None = None) -> None:
    """Move a link into the namespace `to` (None: the caller's); down, without addresses."""
    target = opened(to)
    try:
        _set(name, netns, f"link {name}: move to {to or 'here'}", net_ns_fd=target)
    finally:
        os.close(target)


def delete(name: str, netns: str | None = None) -> None:
    """Remove a link (and the other end, if it is a veth)."""
    with netlink(netns, f"link {name}: delete") as session:
        session.link("del", index=index_of(session, name))


def delete_if_there(name: str, netns: str | None = None) -> None:
    """Remove a link; no error if there is none of that name."""
    try:
        delete(name, netns)
    except NetdevError as error:
        if error.errno != errno.ENODEV:
            raise


def _set(name: str, netns: str | None, what: str, **changes: Any) -> None:
    with netlink(netns, what) as session:
        session.link("set", index=index_of(session, name), **changes)


# -- making -----------------------------------------------------------------------


def create_bridge(name: str, netns: str | None = None) -> None:
    """Make a bridge: down, forwarding without delay, no spanning tree.

    Its MTU follows its ports until it is set.
    """
    with netlink(netns, f"bridge {name}: create") as session:
        session.link(
            "add", ifname=check_ifname(name), kind="bridge", br_forward_delay=0, br_stp_state=0
        )


def create_veth(
    name: str,
    peer: str,
    netns: str | None = None,
    peer_netns: str | None = None,
    mtu: int | None = None,
) -> None:
    """Make a pair of connected links, each in its namespace, both down.

    `peer_netns` None: in the same namespace as `name`.
    """
    other: dict[str, Any] = {"ifname": check_ifname(peer)}
    wanted = {} if mtu is None else {"mtu": mtu}
    target = opened(peer_netns) if peer_netns else None
    try:
        if target is not None:
            other["net_ns_fd"] = target
        with netlink(netns, f"veth {name}, {peer}: create") as session:
            session.link(
                "add", ifname=check_ifname(name), kind="veth", peer={**other, **wanted}, **wanted
            )
    finally:
        if target is not None:
            os.close(target)


def create_vxlan(
    name: str,
    vni: int,
    *,
    local: str,
    remote: str | None = None,
    dev: str | None = None,
    dstport: int = 4789,
    netns: str | None = None,
    **options: int,
) -> None:
    """Make a kernel vxlan device: the peer that tests and labs speak with; it is down.

    `options` are the kernel's, by the words of ip-link(8): ttl, tos, df (0 unset,
    1 set, 2 inherit), learning, ageing, limit, udp_csum, udp_zero_csum6_tx, ...
    """
    wanted: dict[str, Any] = {f"vxlan_{word}": value for word, value in options.items()}
    for word, address in (("local", local), ("group", remote)):
        if address is not None:
            six = "6" if ipaddress.ip_address(address).version == 6 else ""
            wanted[f"vxlan_{word}{six}"] = address
    with netlink(netns, f"vxlan {name}: create") as session:
        if dev is not None:
            wanted["vxlan_link"] = index_of(session, dev)
        session.link(
            "add",
            ifname=check_ifname(name),
            kind="vxlan",
            vxlan_id=vni,
            vxlan_port=dstport,
            **wanted,
        )
