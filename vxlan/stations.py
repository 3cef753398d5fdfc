"""Words for stations: a MAC, an IP address, or both; and what stands in for the other.

Whoever explains a packet in words (`--from MAC|IP --to MAC|IP`) may leave out what they do
not know.  Each stand-in is told as a note.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from vxlan import config_values as values
from vxlan.wire import mac_text

STAND_INS = {4: ("10.42.0.1", "10.42.0.2"), 6: ("fd42::1", "fd42::2")}
"""Addresses of stations of which only the MAC was named: source, target."""


class Station(NamedTuple):
    """What a word said of a station: its MAC, its address, or both."""

    mac: bytes | None
    address: str | None


def station(value: object) -> Station:
    """MAC, IP, or MAC,IP."""
    mac, address = None, None
    for word in values.text(value).split(","):
        if (found := _maybe(ip_address, word)) is not None and address is None:
            address = str(found)
        elif (octets := _maybe(values.mac, word)) is not None and mac is None:
            mac = octets
        else:
            raise ValueError(f"{value!r} is no station: write a MAC, an IP address, or MAC,IP")
    return Station(mac, address)


def _maybe(check: Callable[[str], Any], word: str) -> Any:
    try:
        return check(word)
    except ValueError:
        return None


def addresses(source: Station, target: Station, notes: list[str]) -> tuple[str, str]:
    """The IP addresses; one that was not named has a stand-in, which the flow's hash has in it.

    Raises ValueError if they are not of one family.
    """
    named = source.address or target.address
    stand_ins = STAND_INS[6 if named and ":" in named else 4]
    found = source.address or stand_ins[0], target.address or stand_ins[1]
    if len({ip_address(one).version for one in found}) > 1:
        raise ValueError(f"{found[0]} cannot talk to {found[1]}: one is IPv4, one is IPv6")
    if source.address is None or target.address is None:
        unnamed = [a for a, b in zip(found, (source, target), strict=True) if b.address is None]
        notes.append(
            f"without an IP address: {' and '.join(unnamed)} "
            f"stand{'s' if len(unnamed) == 1 else ''} in, and the source port follows from that"
        )
    return found


def stand_in(address: str, notes: list[str]) -> bytes:
    """A MAC for a station of which only the address is known."""
    mac = b"\x02\x42" + ip_address(address).packed[-4:]
    notes.append(f"the MAC of {address} is not known here: {mac_text(mac)} stands in for it")
    return mac
