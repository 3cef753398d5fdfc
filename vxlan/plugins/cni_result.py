"""What goes into the result of ADD, and what configuration and delegate say about it.

Source: CNI SPEC 1.1.0, "ADD Success"; the older versions differ in small things: 0.4.0
names the family of each address, and an MTU is told from 1.1.0 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vxlan.plugins.cni_words import CONFIGURATION, FAILED, NEWEST, Call, CniError
from vxlan.plugins.join import Way

RANGE_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")


def ranges(conf: Mapping[str, Any], ipam: Mapping[str, Any]) -> Any:
    """The ranges of our own ipam, in any of the forms that host-local takes; None: none."""
    given = (conf.get("runtimeConfig") or {}).get("ipRanges") or ipam.get("ranges")
    if given is None and "subnet" in ipam:
        given = [[{key: ipam[key] for key in RANGE_KEYS if key in ipam}]]
    if given is None and ipam:
        cause = "ipam has neither subnet nor ranges"
        raise CniError(
            CONFIGURATION, cause, 'add "subnet": "10.42.0.0/16", and a range for this host'
        )
    return given


def ips(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The addresses that a delegate gave.  Raises CniError."""
    found = told.get("ips") or []
    if not all(isinstance(ip, dict) and isinstance(ip.get("address"), str) for ip in found):
        raise CniError(FAILED, "the ipam plugin answered with no addresses")
    return list(found)


def gateways(told: Mapping[str, Any]) -> list[str | None]:
    """The gateway of each of them."""
    return [ip.get("gateway") for ip in ips(told)]


def routes(conf: Mapping[str, Any], told: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The delegate's routes; without one those of our ipam.  Raises CniError."""
    found = ((conf.get("ipam") or {}) if told is None else told).get("routes") or []
    if not all(isinstance(one, dict) and isinstance(one.get("dst"), str) for one in found):
        raise CniError(
            CONFIGURATION, "routes are no objects with a dst", 'write {"dst": "0.0.0.0/0"}'
        )
    return list(found)


def check_previous(conf: Mapping[str, Any]) -> None:
    """What `result` and CHECK rely on in what was there before.  Raises CniError."""
    before = conf.get("prevResult") or {}
    for name, key in (("interfaces", ""), ("ips", "address"), ("routes", "dst")):
        found = before.get(name) or []
        if not isinstance(found, list) or not all(
            isinstance(one, dict) and (not key or isinstance(one.get(key), str)) for one in found
        ):
            what = f"objects with {key}" if key else "objects"
            cause = f"{name} of prevResult is no list of {what}"
            raise CniError(CONFIGURATION, cause, "hand over what ADD answered")


def ways(routes: list[dict[str, Any]], gateways: list[str | None]) -> list[Way]:
    """A route that names no gateway goes by that of the network."""
    ways = []
    for route in routes:
        six = ":" in route["dst"]
        default = next((one for one in gateways if one and (":" in one) == six), "")
        mtu, metric = (_whole(route.get(key)) for key in ("mtu", "priority"))
        ways.append(Way(route["dst"], route.get("gw") or default, mtu, metric))
    return ways


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 32 else 0


def result(
    call: Call,
    conf: Mapping[str, Any],
    attached: Mapping[str, Any],
    port_mac: str,
    given: list[tuple[str, str | None]],
    routes: list[dict[str, Any]],
    told: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """As the specification's version has it; what a plugin before us did stays in it."""
    version, before = conf["cniVersion"], conf.get("prevResult") or {}
    there = list(before.get("interfaces") or [])
    mtu = {"mtu": attached["mtu"]} if version == NEWEST else {}
    inside = {"name": call.ifname, "mac": attached["mac"], "sandbox": call.netns, **mtu}
    servers = {"nameservers": attached["nameservers"]} if attached["nameservers"] else {}
    dns = conf.get("dns") or (told or {}).get("dns") or before.get("dns") or servers
    return {
        "cniVersion": version,
        "interfaces": [*there, {"name": attached["device"], "mac": port_mac}, inside],
        "ips": [*(before.get("ips") or []), *(_ip(version, *ip, len(there) + 1) for ip in given)],
        "routes": [*(before.get("routes") or []), *routes],
        "dns": dns,
    }


def _ip(version: str, cidr: str, gateway: str | None, interface: int) -> dict[str, Any]:
    family = {"version": "6" if ":" in cidr else "4"} if version == "0.4.0" else {}
    via = {"gateway": gateway} if gateway else {}
    return {**family, "address": cidr, **via, "interface": interface}
