"""Links that share another link: macvlan and ipvlan, as docker's drivers of those names."""

from __future__ import annotations

import os
from typing import Any, Literal

from vxlan.ifname import check_ifname
from vxlan.netns import index_of, netlink, opened

_MODES: dict[str, dict[str, Any]] = {
    "macvlan": {"macvlan_mode": "bridge"},
    "ipvlan": {"ipvlan_mode": 1},  # IPVLAN_MODE_L3: addresses are routed, no broadcast
}


def create_child(
    kind: Literal["macvlan", "ipvlan"],
    name: str,
    parent: str,
    netns: str,
    child_netns: str,
    **given: Any,
) -> None:
    """Make `name` in `child_netns` on top of `parent` in `netns`; it is down.

    macvlan is made in bridge mode, ipvlan in mode L3.  `given` may be mtu and address.
    EOPNOTSUPP is the errno of a kernel without that kind.
    """
    target = opened(child_netns)
    try:
        with netlink(netns, f"{kind} {name} on {parent}: create") as session:
            lower = index_of(session, parent)
            wanted = {"ifname": check_ifname(name), "kind": kind, "link": lower}
            session.link("add", net_ns_fd=target, **wanted, **given, **_MODES[kind])
    finally:
        os.close(target)
