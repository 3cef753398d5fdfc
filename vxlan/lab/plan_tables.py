"""The keys of a topology file: for each table, key -> check.

A check of None marks a sub-table, which vxlan/lab/plan.py reads by itself.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping

from vxlan import config_values as values
from vxlan.config_reading import Check
from vxlan.config_tables import SEGMENT as NODE_SEGMENT

_NAME = re.compile(r"[a-z][a-z0-9-]{0,9}")
_TAKEN = re.compile(r"switch|far|lo|(eth|br|vxlan)[0-9]+")
_LARGEST = 9216


def name(value: object) -> str:
    """A host, container or router: it becomes the name of a namespace and of a link."""
    shown = values.text(value)
    if not _NAME.fullmatch(shown):
        raise ValueError(f"{shown!r} is no name: up to 10 of a-z, 0-9 and '-', a letter first")
    if _TAKEN.fullmatch(shown):
        raise ValueError(f"{shown} is the name of something else in every lab: choose another")
    return shown


def names(value: object) -> tuple[str, ...]:
    """A list of names, each once."""
    return tuple(dict.fromkeys(name(one) for one in values.listed(value)))


def cidrs(value: object) -> tuple[str, ...]:
    """One address with its prefix length, or several."""
    found = tuple(dict.fromkeys(values.cidr(one) for one in values.listed(value)))
    if not found:
        raise ValueError("it is empty: write an address like 192.0.2.1/24")
    return found


def underlay_cidrs(value: object) -> tuple[str, ...]:
    """Addresses of a host: at most one IPv4 and one IPv6."""
    found = cidrs(value)
    for cidr in found:
        values.underlay_address(cidr.partition("/")[0])
    if len({":" in cidr for cidr in found}) < len(found):
        raise ValueError(
            "two addresses of one family: a host has one IPv4 and one IPv6 at the most"
        )
    return found


def link_mtu(value: object) -> int:
    """Bytes that a link carries above its Ethernet header."""
    return values.whole(value, 576, _LARGEST, "an MTU of a link")


def container_mtu(value: object) -> int:
    """Bytes that a container sends at the most."""
    return values.whole(value, 68, _LARGEST, "an MTU of a container")


def milliseconds(value: object) -> float:
    """A delay of at most ten seconds."""
    return _number(value, 10_000, "a delay in milliseconds")


def percent(value: object) -> float:
    """A share of packets."""
    return _number(value, 100, "a share in percent")


def _number(value: object, most: float, what: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and 0 <= number <= most:
            return number
    raise ValueError(f"{value!r} is not {what}: it must be 0 to {most:g}")


def carried(value: object) -> dict[str, int]:
    """Host -> bytes: { b = 1400 }."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no table of hosts: write {{ b = 1400 }}")
    return {name(host): link_mtu(bytes_) for host, bytes_ in value.items()}


def group(value: object) -> str:
    """A multicast group of the underlay."""
    shown = values.text(value)
    try:
        address = ipaddress.ip_address(shown)
    except ValueError:
        raise ValueError(f"{shown!r} is not an IP address") from None
    if not address.is_multicast:
        raise ValueError(f"{shown} is no multicast group: write one like 239.1.1.1")
    return str(address)


def _words(value: object) -> tuple[str, ...]:
    return tuple(values.text(one) for one in values.listed(value))


_ENGINE = values.one_of("auto", "python", "fastpath")

LAB: Mapping[str, Check | None] = {
    "title": values.text,
    "engine": _ENGINE,
    "wire": values.flag,
    "router": None,
    "segment": None,
    "host": None,
}

ROUTER: Mapping[str, Check | None] = {
    "name": name,
    "near": cidrs,
    "far": cidrs,
    "mtu": link_mtu,
    "carry": carried,
    "icmp": values.one_of("sent", "filtered"),
}

HOST: Mapping[str, Check | None] = {
    "name": name,
    "address": underlay_cidrs,
    "network": values.one_of("switch", "far"),
    "vtep": values.one_of("pyvxlan", "kernel", "none"),
    "engine": _ENGINE,
    "dstport": values.port,
    "link": None,
    "segment": None,
    "container": None,
    "fault": None,
}

LINK: Mapping[str, Check | None] = {"mtu": link_mtu, "delay": milliseconds, "loss": percent}

CONTAINER: Mapping[str, Check | None] = {
    "name": name,
    "address": cidrs,
    "vni": values.vni,
    "mtu": container_mtu,
    "mac": values.station,
}

_PYVXLAN: Mapping[str, Check | None] = {
    key: check for key, check in NODE_SEGMENT.items() if key not in {"tap", "bridge"}
} | {"remotes": _words}

_KERNEL: Mapping[str, Check | None] = {
    "vni": values.vni,
    "remotes": _words,
    "group": group,
    "learning": values.flag,
    "ageing": values.seconds,
    "maxaddress": NODE_SEGMENT["maxaddress"],
    "ttl": lambda value: values.whole(value, 1, 255, "a TTL"),
    "tos": lambda value: values.whole(value, 0, 255, "a TOS"),
}

SHARED: Mapping[str, Check | None] = {**_PYVXLAN, "group": group, "hosts": names}


def of_driver(vtep: str) -> Mapping[str, Check | None]:
    """What a [[host.segment]] may say."""
    return _KERNEL if vtep == "kernel" else _PYVXLAN


def foreign_to(vtep: str) -> set[str]:
    """Keys of a [[segment]] that a host passes over, because its driver does not have them."""
    return set(SHARED) - set(of_driver(vtep))
