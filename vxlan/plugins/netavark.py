"""`pyvxlan-netavark`: pyvxlan segments as podman networks, by the plugin interface of netavark.

Theory of operation
===================

podman from version 5 on has no CNI.  It runs a program for a network of a driver that it
does not know, with JSON on standard input and the namespace as argument (netavark,
plugin-API.md, API 1.0.0):

    create             `podman network create`: check the network, and hand it back
    setup NETNS        a container starts: attach it, and say what it got
    teardown NETNS     it ends: detach it; what is not there is no error
    info               who we are

    podman network create --driver pyvxlan -o vni=42 \\
        --subnet 10.42.0.0/16 --ip-range 10.42.1.0/24 net42

The driver's name is that of the program, or of a link to it.  podman itself chooses the
address, and names it as a static one; everything else is as with CNI (vxlan/plugins/cni.py):
the node gives the link, we move it into the container.

podman gives a network the first address of each subnet as its gateway where nobody named
one, but asks us before that.  There is nobody at such an address, and a default route
to it would hide that of another network of the container: `create` writes down, as an
option of the network, that there is none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from vxlan import __version__, api
from vxlan.netplain import PlainError
from vxlan.plugins.join import KEY, Way, attach, detach, node_for

API_VERSION = "1.0.0"
NO_WAY_OUT = "no_default_route"
"""The option says so; podman's own drivers have it as well."""

OPTIONS = ("vni", "node", "mtu", "remotes", NO_WAY_OUT)
_USAGE = "usage: pyvxlan-netavark create | setup NETNS | teardown NETNS | info"


def main() -> int:
    """Serve one call; the exit status."""
    try:
        answer = _serve(sys.argv[1:])
    except (api.ApiError, OSError, PlainError, ValueError) as error:
        answer = {"error": f"pyvxlan: {error}"}
    except (LookupError, TypeError, AttributeError) as error:
        answer = {"error": f"pyvxlan: not understood ({error!r}): API {API_VERSION} is spoken here"}
    if answer is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if answer and "error" in answer else 0


def _serve(words: list[str]) -> dict[str, Any] | None:
    match words:
        case ["info"]:
            return {"version": __version__, "api_version": API_VERSION}
        case ["create"]:
            return _create(_read())
        case ["setup", netns]:
            return _setup(netns, _read())
        case ["teardown", _]:
            _teardown(_read())
            return None
    raise ValueError(_USAGE)


def _read() -> dict[str, Any]:
    found = json.loads(sys.stdin.read())
    if not isinstance(found, dict):
        raise ValueError("standard input is no JSON object: podman writes one")
    return found


def _create(network: dict[str, Any]) -> dict[str, Any]:
    """The network, with what podman does not know yet that we make of it.  Raises ValueError."""
    _options(network)
    subnets = network.get("subnets") or []
    if not subnets and not _unaddressed(network):
        raise ValueError(
            "no subnet: all hosts of a network need the same one: --subnet, or --ipam-driver none"
        )
    if any(not subnet.get("lease_range") for subnet in subnets):
        _warn("without --ip-range of its own a host gives out the same addresses as the others")
    if not any(subnet.get("gateway") for subnet in subnets):
        network["options"].setdefault(NO_WAY_OUT, "true")
    return network


def _warn(text: str) -> None:
    """podman shows it to its user."""
    sys.stderr.write(f"pyvxlan: {text}\n")


def _setup(netns: str, call: Mapping[str, Any]) -> dict[str, Any]:
    network, wish = call["network"], call["network_options"]
    options = _options(network)
    if call.get("port_mappings"):
        name = network["name"]
        _warn(f"network {name} publishes no ports: for -p, --network {name},podman")
    request = {
        **_key(call),
        **options,
        "netns": netns,
        "names": [call["container_name"], *(wish.get("aliases") or [])],
        "mac": wish.get("static_mac"),
        "ips": wish.get("static_ips"),
        "ranges": _ranges(network) or None,
    }
    node = node_for(request.pop("node"))
    attached, _ = attach(node, request, lambda found: _ways(network, found["gateways"]))
    subnets = [
        {"ipnet": cidr, **({"gateway": gateway} if gateway else {})}
        for cidr, gateway in zip(attached["addresses"], attached["gateways"], strict=True)
    ]
    interface = {"mac_address": attached["mac"], "subnets": subnets}
    return {
        "dns_search_domains": [],
        "dns_server_ips": network.get("network_dns_servers") or attached["nameservers"],
        "interfaces": {request["ifname"]: interface},
    }


def _teardown(call: Mapping[str, Any]) -> None:
    detach(_options(call["network"])["node"], _key(call))


def _key(call: Mapping[str, Any]) -> dict[str, Any]:
    found = call["network"]["name"], call["container_id"], call["network_options"]["interface_name"]
    return dict(zip(KEY, found, strict=True))


def _options(network: Mapping[str, Any]) -> dict[str, Any]:
    """What `-o` says, as `attach` takes it.  Raises ValueError."""
    given = network.get("options") or {}
    unknown = [key for key in given if key not in OPTIONS]
    if unknown:
        raise ValueError(f"no such option: {unknown[0]} (known are {', '.join(OPTIONS)})")
    if "vni" not in given:
        raise ValueError("option vni is missing: podman network create -o vni=N")
    remotes = [one for one in str(given.get("remotes") or "").split(",") if one]
    return {
        "vni": _number("vni", given["vni"]),
        "mtu": _number("mtu", given["mtu"]) if "mtu" in given else None,
        "node": given.get("node"),
        "segment": {"remotes": remotes} if remotes else None,
    }


def _unaddressed(network: Mapping[str, Any]) -> bool:
    return (network.get("ipam_options") or {}).get("driver") == "none"


def _has_way_out(network: Mapping[str, Any]) -> bool:
    """Whether somebody named a gateway: podman has one for every subnet."""
    refused = (network.get("options") or {}).get(NO_WAY_OUT, "false")
    return not network.get("internal") and str(refused).lower() in ("0", "f", "false")


def _number(key: str, value: object) -> int:
    if not str(value).isdecimal():
        raise ValueError(f"option {key}: {value!r} is no number")
    return int(str(value))


def _ranges(network: Mapping[str, Any]) -> list[list[dict[str, str]]]:
    """Each subnet is a set of its own: a container gets an address of each."""
    if _unaddressed(network):
        return []
    sets, out = [], _has_way_out(network)
    for subnet in network.get("subnets") or []:
        lease = subnet.get("lease_range") or {}
        words = {
            "subnet": subnet["subnet"],
            "rangeStart": lease.get("start_ip"),
            "rangeEnd": lease.get("end_ip"),
            "gateway": subnet.get("gateway") if out else None,
        }
        sets.append([{word: str(value) for word, value in words.items() if value}])
    return sets


def _ways(network: Mapping[str, Any], gateways: list[str | None]) -> list[Way]:
    """A default route by each gateway that was named, and the network's own routes."""
    ways = [
        Way(str(route["destination"]), str(route["gateway"]), metric=int(route.get("metric") or 0))
        for route in network.get("routes") or []
    ]
    known = [gateway for gateway in gateways if gateway]
    return ways + [Way("::/0" if ":" in via else "0.0.0.0/0", via) for via in known]


if __name__ == "__main__":
    sys.exit(main())
