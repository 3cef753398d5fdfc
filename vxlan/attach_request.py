"""What a request to attach a container asks for, checked.  Raises ApiError."""

from __future__ import annotations

from typing import Any

from vxlan import config_values as values
from vxlan.api import ApiError
from vxlan.arguments import Args, checked, optional
from vxlan.attached import MAX_ATTACHED, Attached, Book, Key
from vxlan.mtu import MAX_MTU, MIN_MTU
from vxlan.node_segment import NodeSegment

MAX_TEXT = 1024
MAX_NAMES = 32

KEY = ("network", "container", "ifname")


def key_of(args: Args) -> Key:
    """Whose interface it is."""
    return Key(
        checked(args, "network", text),
        checked(args, "container", text),
        checked(args, "ifname", values.interface),
    )


def who(one: Attached) -> str:
    """A container as people call it, for messages."""
    name = one.names[0] if one.names else one.key.container[:12]
    return f"container {name} ({one.key.ifname})"


def text(value: object) -> str:
    """A text that is bounded and printable."""
    found = values.text(value)
    if len(found) > MAX_TEXT or not found.isprintable():
        raise ValueError(f"it is no text of up to {MAX_TEXT} printable characters")
    return found


def table(value: object) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("it is no object with the keys of a [[segment]]")
    return value


def names(value: object) -> tuple[str, ...]:
    """What a container is called, each once."""
    found = tuple(dict.fromkeys(text(one) for one in values.listed(value)))
    if len(found) > MAX_NAMES:
        raise ValueError(f"{len(found)} names: at most {MAX_NAMES}")
    return found


def addresses(value: object) -> tuple[str, ...]:
    """Overlay addresses, each with or without a prefix length."""
    given = [values.text(one) for one in values.listed(value)]
    return tuple(
        values.cidr(one) if "/" in one else values.station_address(one)
        for one in dict.fromkeys(given)
    )


def mtu_of(args: Args, segment: NodeSegment) -> int:
    """What is asked for, if the segment carries it; else what it carries."""
    wanted = optional(args, "mtu", 0, lambda one: values.whole(one, MIN_MTU, MAX_MTU, "an MTU"))
    if wanted > segment.mtu:
        raise ApiError(
            f"mtu: {wanted} does not fit: segment {segment.config.vni} carries {segment.mtu}: "
            "ask for less, or for none",
            "conflict",
        )
    return wanted or segment.mtu


def mac_of(args: Args, book: Book, segment: NodeSegment, key: Key) -> str:
    """What is asked for, or the container's own; in text, and nobody else's in the segment."""
    vni = segment.config.vni
    mac = optional(args, "mac", key.mac.hex(":"), values.station_text)
    for other in book.of_segment(vni):
        if other.mac == mac:
            raise ApiError(f"mac: {mac} is {who(other)}'s: choose another", "conflict")
    return mac


def refuse_second(book: Book, key: Key) -> None:
    """An interface is attached once, and there is a bound."""
    if there := book.attached.get(key):
        raise ApiError(
            f"{who(there)} is attached to {key.network} already: detach it first", "conflict"
        )
    if len(book.attached) >= MAX_ATTACHED:
        raise ApiError(f"{MAX_ATTACHED} containers are attached already", "conflict")
