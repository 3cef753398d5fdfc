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

    podman network create --driver pyvxlan-netavark -o vni=42 \\
        --subnet 10.42.0.0/16 --ip-range 10.42.1.0/24 net42

Everything else is as with CNI (vxlan/plugins/cni.py): the node gives the address and the
link, we move it into the container.
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
OPTIONS = ("vni", "node", "mtu", "remotes")
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
            network = _read()
            _options(network)
            _ranges(network)
            return network
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


def _setup(netns: str, call: Mapping[str, Any]) -> dict[str, Any]:
    network, wish = call["network"], call["network_options"]
    options = _options(network)
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


def _number(key: str, value: object) -> int:
    if not str(value).isdecimal():
        raise ValueError(f"option {key}: {value!r} is no number")
    return int(str(value))


def _ranges(network: Mapping[str, Any]) -> list[list[dict[str, str]]]:
    """Each subnet is a set of its own: a container gets an address of each."""
    if (network.get("ipam_options") or {}).get("driver") == "none":
        return []
    sets = []
    for subnet in network.get("subnets") or []:
        lease = subnet.get("lease_range") or {}
        words = {
            "subnet": subnet["subnet"],
            "rangeStart": lease.get("start_ip"),
            "rangeEnd": lease.get("end_ip"),
            "gateway": subnet.get("gateway"),
        }
        sets.append([{word: str(value) for word, value in words.items() if value}])
    return sets


def _ways(network: Mapping[str, Any], gateways: list[str | None]) -> list[Way]:
    """A default route by each gateway that was named, and the network's own routes."""
    ways = [
        Way(str(route["destination"]), str(route["gateway"]))
        for route in network.get("routes") or []
    ]
    if network.get("internal"):
        return ways
    known = [gateway for gateway in gateways if gateway]
    return ways + [Way("::/0" if ":" in via else "0.0.0.0/0", via) for via in known]


if __name__ == "__main__":
    sys.exit(main())
