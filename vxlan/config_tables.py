"""The keys of the configuration: for each table, key -> check; and the flags of `pyvxlan up`.

A check of None marks a sub-table, which vxlan/config.py reads by itself.  An element
of a list is checked there too where its message names its index.
"""

from __future__ import annotations

from collections.abc import Mapping

from vxlan import config_values as values
from vxlan.config_reading import Check


def _addresses(value: object) -> tuple[str, ...]:
    return tuple(values.underlay_address(one) for one in values.listed(value))


def _cidrs(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values.cidr(one) for one in values.listed(value)))


def _list(value: object) -> tuple[object, ...]:
    return tuple(values.listed(value))


def _as_given(value: object) -> object:
    return value


NODE: Mapping[str, Check | None] = {
    "group": values.text,
    "vtep": None,
    "segment": None,
}

VTEP: Mapping[str, Check | None] = {
    "local": _addresses,
    "dev": values.interface,
    "dstport": values.port,
    "srcport": values.port_range,
    "engine": values.one_of("auto", "python", "fastpath"),
    "udpcsum": values.flag,
    "udp6zerocsumtx": values.flag,
    "udp6zerocsumrx": values.flag,
    "rcvbuf": lambda value: values.whole(value, 0, 1 << 30, "a number of bytes"),
    "queues": values.queues,
    "metrics": values.endpoint,
    "key_file": values.text,
    "faults": values.flag,
}

SEGMENT: Mapping[str, Check | None] = {
    "vni": values.vni,
    "tap": values.interface,
    "bridge": values.interface,
    "address": _cidrs,
    "mtu": values.overlay_mtu,
    "remotes": _list,
    "fdb": None,
    "learning": values.flag,
    "ageing": values.seconds,
    "maxaddress": lambda value: values.whole(value, 1, 16_777_216, "a number of entries"),
    "accept": values.one_of("known", "any"),
    "vlan": values.one_of("carry", "drop"),
    "reserved_bits": values.one_of("ignore", "strict"),
    "ttl": values.inheritable(1, 255),
    "tos": values.inheritable(0, 255),
    "mss": values.mss,
    "mac": values.station_text,
    "echo": values.echoes,
    "announce": values.flag,
    "names": values.flag,
}

STATIC: Mapping[str, Check | None] = {
    "mac": _as_given,
    "dst": _list,
    "port": values.port,
}

FLAGS: Mapping[str, tuple[str, str]] = {
    "local": ("vtep", "local"),
    "dev": ("vtep", "dev"),
    "dstport": ("vtep", "dstport"),
    "srcport": ("vtep", "srcport"),
    "engine": ("vtep", "engine"),
    "vni": ("segment", "vni"),
    "remote": ("segment", "remotes"),
    "tap": ("segment", "tap"),
    "bridge": ("segment", "bridge"),
    "address": ("segment", "address"),
    "mtu": ("segment", "mtu"),
    "learning": ("segment", "learning"),
    "ageing": ("segment", "ageing"),
    "maxaddress": ("segment", "maxaddress"),
    "accept": ("segment", "accept"),
    "vlan": ("segment", "vlan"),
    "ttl": ("segment", "ttl"),
    "tos": ("segment", "tos"),
    "echo": ("segment", "echo"),
    "announce": ("segment", "announce"),
}
"""Flag without its dashes -> table and key.  `--name` is the node's, no key."""
