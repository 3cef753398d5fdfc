"""What no single key of a topology can say: names that exist, addresses that reach each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from vxlan import config
from vxlan.config_lines import KeyPath, Wrong, show
from vxlan.config_reading import meant
from vxlan.config_rules import each_once as each_once
from vxlan.config_values import remote as check_remote

if TYPE_CHECKING:
    from vxlan.lab.plan import Host, Router


def need(found: Mapping[str, Any], keys: Iterable[str], path: KeyPath, rule: str) -> None:
    """Raise Wrong for the first of `keys` that is not there."""
    for key in keys:
        if key not in found:
            raise Wrong(path, f"it has no {key}: {rule}")


def check_names(given: Iterable[str], known: Sequence[str], path: KeyPath, what: str) -> None:
    """Raise Wrong for a name that nothing has."""
    for name in given:
        if name not in known:
            raise Wrong(path, f"no {what} is named {name}: {meant(name, list(known))}")


def check_hosts(hosts: Sequence[Host], router: Router | None) -> None:
    """Names and addresses are there once, and whoever is far has a router."""
    if not hosts:
        raise Wrong(("host",), "there is no host: add a [[host]] with a name and an address")
    each_once([host.name for host in hosts], ("host",), "name", "the name")
    owners: dict[str, str] = {}
    for index, host in enumerate(hosts):
        path: KeyPath = ("host", index)
        for address in host.ips:
            if owners.setdefault(address, host.name) != host.name:
                raise Wrong((*path, "address"), f"{address} is already {owners[address]}'s")
        if host.network == "far" and router is None:
            raise Wrong((*path, "network"), "nothing leads to far: add a [router]")
        if router is not None:
            _check_gateway(host, router, path)
    if router is not None:
        _check_router(router, hosts, owners)


def _check_gateway(host: Host, router: Router, path: KeyPath) -> None:
    side = "far" if host.network == "far" else "near"
    gateways = [ip_interface(cidr) for cidr in getattr(router, side)]
    for address in host.ips:
        if not any(ip_address(address) in gateway.network for gateway in gateways):
            where = ", ".join(map(str, gateways))
            raise Wrong((*path, "address"), f"{address} is not beside router.{side} ({where})")


def _check_router(router: Router, hosts: Sequence[Host], owners: Mapping[str, str]) -> None:
    names = [host.name for host in hosts]
    if router.name in names:
        raise Wrong(("router", "name"), f"{router.name} is already a host: choose another")
    check_names(router.carry, names, ("router", "carry"), "host")
    for side in ("near", "far"):
        for cidr in getattr(router, side):
            if owner := owners.get(str(ip_interface(cidr).ip)):
                raise Wrong(("router", side), f"{cidr} is already {owner}'s: choose another")


def remote_of(host: Host, word: str, hosts: Mapping[str, Host], path: KeyPath) -> str:
    """The remote that a word means to `host`: another host by name, or an address."""
    other = hosts.get(word)
    if other is None:
        return _literal(word, list(hosts), path)
    mine = [":" in address for address in host.ips]
    shared = [address for address in other.ips if (":" in address) in mine]
    if not shared:
        raise Wrong(
            path,
            f"{host.name} and {other.name} have no address of one family: "
            "give one of them another, or each its own remotes",
        )
    if other.dstport == host.dstport:
        return shared[0]
    return f"[{shared[0]}]:{other.dstport}" if ":" in shared[0] else f"{shared[0]}:{other.dstport}"


def _literal(word: str, hosts: list[str], path: KeyPath) -> str:
    try:
        check_remote(word, 4789)
    except ValueError:
        if word[:1].isalpha() and ":" not in word:
            raise Wrong(path, f"no host is named {word}: {meant(word, hosts)}") from None
        raise Wrong(path, f"{word!r} is neither a host of the lab nor an address") from None
    return word


def check_nodes(hosts: Sequence[Host]) -> None:
    """Every node's configuration holds; names of containers and hosts differ."""
    taken: dict[str, str] = {host.name: "a host" for host in hosts}
    for index, host in enumerate(hosts):
        for place, container in enumerate(host.containers):
            path: KeyPath = ("host", index, "container", place)
            if container.name in taken:
                raise Wrong((*path, "name"), f"{container.name} is already {taken[container.name]}")
            taken[container.name] = f"a container of {host.name}"
        if host.vtep == "pyvxlan" and host.segments:
            _check_node(host, ("host", index))
        if host.vtep == "kernel":
            _check_kernel(host, ("host", index))


def _check_node(host: Host, path: KeyPath) -> None:
    vtep, segments = node_tables(host)
    try:
        config.of_tables({"vtep": vtep, "segment": segments}, host.name)
    except Wrong as wrong:
        raise Wrong(path, f"its node would be refused: {show(wrong.path)}: {wrong}") from None


def _check_kernel(host: Host, path: KeyPath) -> None:
    for segment in host.segments:
        ports = {check_remote(one, host.dstport).port for one in segment.remotes}
        if ports - {host.dstport}:
            raise Wrong(path, "the kernel's driver sends to one port: give all hosts one dstport")


def node_tables(host: Host) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """[vtep] and the [[segment]] of a pyvxlan host, as its node's configuration has them."""
    vtep = {
        "local": list(host.ips),
        "engine": host.engine,
        "dstport": host.dstport,
        "faults": host.engine != "auto" or bool(host.faults),
    }
    segments = [
        {
            "vni": segment.vni,
            "tap": segment.device,
            "bridge": segment.bridge,
            "remotes": list(segment.remotes),
            **segment.keys,
        }
        for segment in host.segments
    ]
    return vtep, segments
