"""The container's half of attaching it: move the link in, give it addresses and routes.

The node made the link and plugged its other end in (vxlan/node_attach.py); only we can
enter the container's namespace.  What is undone after a failure is the node's to undo:
with the port in the bridge the container's end goes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from vxlan import api
from vxlan.netplain import PlainError, PlainLink, Session, inside


class Way(NamedTuple):
    """One route; without `gateway` the destination is on the link.  `mtu`: bytes.

    Of two for a destination the one with the lower `metric` counts.
    """

    dst: str
    gateway: str = ""
    mtu: int = 0
    metric: int = 0


KEY = ("network", "container", "ifname")


def node_for(wanted: object) -> str:
    """The node that a configuration names, or the one that runs.  Raises ApiError."""
    if wanted:
        return str(wanted)
    there = api.running()
    if not there:
        raise api.ApiError("no node runs here: pyvxlan up NAME", "not_running")
    if len(there) > 1:
        text = f"several nodes run here ({', '.join(there)}): name one of them as node"
        raise api.ApiError(text, "usage")
    return there[0]


def attach(
    node: str, request: dict[str, Any], ways: Callable[[dict[str, Any]], list[Way]]
) -> tuple[dict[str, Any], str]:
    """Ask the node, set up the container; its answer, and the MAC of the port outside.

    `ways` says which routes there are, given the answer.  Whatever fails leaves nothing.
    Raises ApiError, OSError, PlainError or ValueError.
    """
    attached: dict[str, Any] = api.call(node, "attach", **request)
    try:
        return attached, join(request["netns"], request["ifname"], attached, ways(attached))
    except BaseException:
        with suppress(api.ApiError, OSError):
            detach(node, {name: request[name] for name in KEY})
        raise


def detach(wanted: object, key: Mapping[str, Any]) -> None:
    """Take an interface back from the node that is named, else from whichever has it.

    Where no node runs its links are deleted: the node finds out when it starts.
    All nodes are asked before the first that failed is told of.  Raises ApiError or OSError.
    """
    told, failed = 0, None
    for node in [str(wanted)] if wanted else api.running():
        try:
            api.call(node, "detach", **key)
            told += 1
        except (api.ApiError, OSError) as error:
            if not isinstance(error, api.NotRunning):
                failed = failed or error
    if failed:
        raise failed
    if not told:
        _delete_port(key)


def find_attached(wanted: object, key: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What matches, each with its node: the one that is named, else any.  Raises ApiError."""
    nodes = [str(wanted)] if wanted else api.running() or [node_for(None)]
    return [(node, one) for node in nodes for one in api.call(node, "attached", **key)]


def _delete_port(key: Mapping[str, Any]) -> None:
    """By the name that the node gave it; the other end goes with it."""
    from vxlan.attached import Key  # what it imports is slow, and seldom needed

    with Session() as here, suppress(PlainError):
        here.delete(Key(**key).port)


def join(netns: str, ifname: str, attached: dict[str, Any], ways: list[Way]) -> str:
    """Set up a container's interface as `attach` answered; the MAC of the port outside.

    Raises OSError if the namespace cannot be entered, PlainError or ValueError if the
    kernel or a route is wrong.
    """
    with Session() as here, Session(netns) as there:
        if there.link(ifname) is not None:
            text = f"the container has an interface {ifname} already: remove it, or name another"
            raise ValueError(text)
        here.move(here.index(attached["inner"]), there, ifname)
        if any(":" in cidr for cidr in attached["addresses"]):
            _allow_ipv6(netns, ifname)
        there.set_link(ifname, mtu=attached["mtu"], up=True)
        for cidr in attached["addresses"]:
            there.add_address(ifname, cidr)
        for way in ways:
            there.add_route(ifname, way.dst, way.gateway, mtu=way.mtu, metric=way.metric)
        outside = here.link(attached["device"])
    return outside.mac if outside else ""


def _allow_ipv6(netns: str, ifname: str) -> None:
    """Runtimes switch it off where they know of no IPv6 address."""
    with inside(netns):
        try:
            with open(f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6", "w") as switch:
                switch.write("0")
        except OSError:
            return  # read-only here: then the address is refused with the kernel's reason


def look(netns: str, ifname: str) -> tuple[PlainLink, list[str], list[Way]]:
    """A container's interface, its addresses and the routes by it.

    Raises PlainError (ENODEV) if it is not there, OSError if the namespace is not.
    """
    with Session(netns) as there:
        link = there.link(ifname)
        if link is None:
            raise PlainError(f"interface {ifname} in {netns}", 19)
        ways = [
            Way(route.dst, route.gateway)
            for route in there.routes()
            if route.ifindex == link.ifindex
        ]
        return link, there.addresses(ifname), ways
