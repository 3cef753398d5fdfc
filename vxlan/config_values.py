"""One value of the configuration at a time: from what TOML or a flag gives to what we use.

Every function here takes one value and returns it checked and in canonical form, or
raises ValueError whose text says what is wrong with it and what would be right.  It
does not know the key's name nor the file's: vxlan/config.py adds those.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vxlan.clamp import MIN_MSS
from vxlan.echo import Behind
from vxlan.engine import MAX_QUEUES
from vxlan.fdb import Remote
from vxlan.ifname import check_ifname
from vxlan.mtu import MAX_MTU, MIN_MTU
from vxlan.wire import MAX_VNI, ZERO_MAC, mac_bytes, mac_text

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<v4>[^:]*)):(?P<port>[0-9]+)")


def whole(value: object, low: int, high: int, what: str = "a whole number") -> int:
    """An integer from `low` to `high`; `what` completes "N is not ..."."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is not {what}: it must be {low} to {high}")
    return value


def vni(value: object) -> int:
    """A VXLAN Network Identifier, 24 bits (RFC 7348, section 5)."""
    return whole(value, 0, MAX_VNI, "a VNI")


def port(value: object) -> int:
    """A UDP port."""
    return whole(value, 1, 65535, "a UDP port")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of this host and a TCP port to listen on."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


def endpoint(value: object) -> Endpoint:
    """ "127.0.0.1:9479" or "[::1]:9479"; a port alone is one of the loopback address."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Endpoint("127.0.0.1", whole(value, 1, 65535, "a TCP port"))
    parts = _HOST_PORT.fullmatch(text(value))
    if parts is None:
        raise ValueError(f"{value!r} has no port: write 127.0.0.1:9479")
    try:
        address = ipaddress.ip_address(parts["v6"] or parts["v4"])
    except ValueError:
        raise ValueError(f"{value!r} is no IP address with a port: write 127.0.0.1:9479") from None
    return Endpoint(str(address), whole(int(parts["port"][:6]), 1, 65535, "a TCP port"))


def port_range(value: object) -> tuple[int, int]:
    """[MIN, MAX] or "MIN-MAX"."""
    if isinstance(value, str):
        value = [int(word) if word.isdecimal() else word for word in value.split("-")]
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{value!r} is not a range of ports: write 49152-65535")
    low, high = (port(end) for end in value)
    if low > high:
        raise ValueError(f"the range {low}-{high} is empty: write the smaller port first")
    return low, high


def text(value: object) -> str:
    """Any text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a text: write it in quotes")
    return value


def flag(value: object) -> bool:
    """A truth value."""
    if value is True or value is False:
        return bool(value)
    raise ValueError(f"{value!r} is neither true nor false")


def one_of(*words: str) -> Callable[[object], str]:
    """A check that takes one of `words`."""

    def check(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is not one of {', '.join(words)}")
        return str(value)

    return check


def interface(value: object) -> str:
    """The name of a network interface."""
    return check_ifname(text(value))


def node_name(value: object) -> str:
    """A node's name: it becomes a file name (the control socket's)."""
    name = text(value)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", name):
        raise ValueError(f"{name!r} is no node name: up to 64 letters, digits, '.', '_', '@', '-'")
    return name


def mac(value: object) -> bytes:
    """A MAC address in text, of any kind; 6 bytes."""
    return mac_bytes(text(value))


def station(value: object) -> bytes:
    """The MAC of one station: not zero, not a group."""
    address = mac(value)
    if address == ZERO_MAC:
        raise ValueError("the all-zero MAC stands for the flood list: write its remotes there")
    if address[0] & 1:
        raise ValueError(f"{value} is a group address: frames to groups go to the flood list")
    return address


def station_text(value: object) -> str:
    """The MAC of one station, in canonical text."""
    return mac_text(station(value))


def underlay_address(value: object) -> str:
    """A unicast address of the underlay, in canonical text."""
    shown = text(value)
    try:
        address = ipaddress.ip_address(shown)
    except ValueError:
        raise ValueError(f"{shown!r} is not an IP address: host names are not looked up") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"{shown} is mapped or scoped: write a plain IPv4 or global IPv6 address")
    if address.is_multicast:
        raise ValueError(
            f"{shown} is a multicast group: multicast underlays are not supported, "
            "list each remote VTEP instead"
        )
    if address.version == 6 and address.is_link_local:
        raise ValueError(
            f"{shown} is link-local: datagrams from it cannot be told apart by interface, "
            "use a global or unique local address"
        )
    if address.is_unspecified or str(address) == "255.255.255.255":
        raise ValueError(f"{shown} is not the address of one host")
    return str(address)


def remote(value: object, default_port: int) -> Remote:
    """ "192.0.2.2", "192.0.2.2:8472", "2001:db8::3" or "[2001:db8::3]:8472"."""
    shown = text(value)
    parts = _HOST_PORT.fullmatch(shown)
    if parts is None:
        return Remote(underlay_address(shown.removeprefix("[").removesuffix("]")), default_port)
    host = parts["v6"] if parts["v6"] is not None else parts["v4"]
    return Remote(underlay_address(host), port(int(parts["port"])))


def cidr(value: object) -> str:
    """An address with its prefix length, such as 10.42.0.1/24."""
    shown = text(value)
    if "/" not in shown:
        raise ValueError(f"{shown!r} has no prefix length: write it like 10.42.0.1/24")
    try:
        parsed = ipaddress.ip_interface(shown)
    except ValueError:
        raise ValueError(f"{shown!r} is not an address with a prefix length") from None
    return str(parsed)


def overlay_mtu(value: object) -> int | None:
    """Bytes, or None for "auto"."""
    if value == "auto":
        return None
    return whole(value, MIN_MTU, MAX_MTU, 'an MTU or "auto"')


def mss(value: object) -> Literal["clamp", "off"] | int:
    """A bound in bytes, "clamp" or "off"."""
    if value == "clamp":
        return "clamp"
    if value == "off":
        return "off"
    return whole(value, MIN_MSS, MAX_MTU, 'an MSS, "clamp" or "off"')


def queues(value: object) -> int:
    """A number of queues; 0 stands for "auto"."""
    return 0 if value == "auto" else whole(value, 1, MAX_QUEUES, 'a number of queues or "auto"')


def echoes(value: object) -> tuple[Behind, ...]:
    """Remote -> station: a table, or a list of REMOTE=STATION."""
    if not isinstance(value, dict):
        given = [text(one) for one in listed(value)]
        value = dict(one.partition("=")[::2] for one in given)
    return tuple(
        Behind(underlay_address(remote), station_address(of)) for remote, of in value.items()
    )


def station_address(value: object) -> str:
    """The IP address of a station in the overlay, in canonical text."""
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError:
        raise ValueError(
            f"{value!r} is not the IP address of a station: write REMOTE=STATION"
        ) from None


def inheritable(low: int, high: int) -> Callable[[object], int | None]:
    """A check that takes `low` to `high`, or gives None for "inherit"."""

    def check(value: object) -> int | None:
        if value == "inherit":
            return None
        return whole(value, low, high, 'a number or "inherit"')

    return check


def seconds(value: object) -> float:
    """A duration that is finite and not negative."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        duration = float(value)
        if math.isfinite(duration) and duration >= 0:
            return duration
    raise ValueError(f"{value!r} is not a number of seconds: it must be 0 (never) or more")


def listed(value: object) -> list[object]:
    """A list; one value alone counts as a list of one."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value]
