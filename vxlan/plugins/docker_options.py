"""What `docker network create` says, turned into a segment: pure, and checked whole.

The -o options of a network are the keys of a [[segment]] (docs/configuration.md), as far
as they are no devices of the host, and Docker's own word for the MTU:

    -o vni=42 -o remotes=192.0.2.2,192.0.2.3 -o com.docker.network.driver.mtu=1400

One is the plugin's own: -o attach=macvlan or bridge, how containers are joined.
Their values come as text; the node checks them by the rules of its configuration.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from vxlan.plugins.docker_http import Refusal
from vxlan.plugins.docker_state import WAYS, Endpoint, Network
from vxlan.wire import MAX_VNI

GENERIC = "com.docker.network.generic"
INTERNAL = "com.docker.network.internal"
MTU = "com.docker.network.driver.mtu"

KEYS = (
    "vni", "remotes", "mtu", "accept", "ageing", "learning", "maxaddress", "vlan", "ttl", "tos",
    "mss", "reserved_bits", "announce", "attach",
)  # fmt: skip

_ID = re.compile(r"[A-Za-z0-9]{12,128}")


def identifier(body: Mapping[str, Any], key: str) -> str:
    """NetworkID or EndpointID: names of devices are made of its beginning."""
    value = body.get(key)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Refusal(f"{key}: {str(value)[:80]!r} is no identifier of Docker's")
    return value


def network(body: Mapping[str, Any]) -> Network:
    """The network that CreateNetwork describes.  Raises Refusal."""
    options = _mapping(body.get("Options"))
    keys = _keys(_mapping(options.get(GENERIC)))
    vni = keys.pop("vni", None)
    if not isinstance(vni, int) or isinstance(vni, bool):
        raise Refusal(
            f"vni: {'it is missing' if vni is None else f'{vni!r} is no number'}: "
            "give the VXLAN Network Identifier, the same on every host: -o vni=42"
        )
    if not 0 <= vni <= MAX_VNI:  # names of devices are made of it
        raise Refusal(f"vni: {vni} is out of range: give one from 0 to {MAX_VNI}, -o vni=42")
    attach = keys.pop("attach", "")
    if attach not in ("", *WAYS):
        raise Refusal(f"-o attach={attach}: there is no such way: known are {', '.join(WAYS)}")
    keys.setdefault("announce", True)
    pools = [data for family in ("IPv4Data", "IPv6Data") for data in body.get(family) or ()]
    return Network(
        vni,
        segment=keys,
        pools=tuple(str(data["Pool"]) for data in pools if data.get("Pool")),
        internal=bool(options.get(INTERNAL)),
        attach=str(attach),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _keys(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option, value in given.items():
        key = "mtu" if option == MTU else option
        if key in KEYS:
            found[key] = _remotes(value) if key == "remotes" else _value(str(value))
        elif not option.startswith("com.docker."):  # those are Docker's, for all drivers
            near = get_close_matches(option, KEYS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYS)}"
            raise Refusal(f"-o {option}: no such option: {remedy}")
    return found


def _remotes(value: object) -> list[str]:
    return [word for word in re.split(r"[,\s]+", str(value)) if word]


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def endpoint(body: Mapping[str, Any], vni: int) -> Endpoint:
    """The endpoint that CreateEndpoint describes, with a MAC in any case."""
    interface = _mapping(body.get("Interface"))
    address = str(interface.get("Address") or "")
    address6 = str(interface.get("AddressIPv6") or "")
    mac = str(interface.get("MacAddress") or "") or _mac(address or address6, vni)
    return Endpoint(mac.lower(), address, address6)


def _mac(address: str, vni: int) -> str:
    """02:42 and the IPv4 address, as all of Docker's drivers do; else a hash of what there is."""
    try:
        ip = ipaddress.ip_interface(address).ip
    except ValueError:
        raise Refusal(f"Interface: {address!r} is no address: the endpoint needs one") from None
    if ip.version == 4:
        return (b"\x02\x42" + ip.packed).hex(":")
    return (b"\x02" + hashlib.sha256(f"{vni} {ip}".encode()).digest()[:5]).hex(":")
