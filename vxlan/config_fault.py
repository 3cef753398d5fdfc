"""A fault as requests and files write it: the keys, what each kind takes, and their checks.

The same table of keys stands in a request to the control socket (`fault.add`), in a
topology file of a lab and, as options, behind `pyvxlan fault add`.  `fault` reads one
and raises ValueError with what is wrong and what would be right; `as_table` writes it
back, so that what is in force can be said again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from vxlan import config_values as values
from vxlan.fault import PROTOCOLS, RESERVED_BITS, Fault, Kind
from vxlan.mtu import MIN_MTU
from vxlan.wire import VXLAN_HLEN, mac_text

_SPAN = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>ms|s)?")
_LONGEST = 60.0
_HOLD = 0.01
_FLAP = 1.0


def share(value: object) -> float:
    """0.2 or "20%": more than nothing, at most all."""
    number: object = value
    if isinstance(value, str) and value.endswith("%"):
        number = _float(value[:-1], value) / 100
    elif isinstance(value, str):
        number = _float(value, value)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number <= 1:
        return float(number)
    raise ValueError(f'{value!r} is not a share: write 0.2 or "20%", more than 0 and at most 1')


def span(value: object) -> float:
    """Seconds, or "50ms" or "1.5s": more than 0 and at most a minute."""
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    number: object = value
    if found is not None:
        number = float(found["number"]) / (1000 if found["unit"] == "ms" else 1)
    numeric = isinstance(number, (int, float)) and not isinstance(number, bool)
    if numeric and 0 < number <= _LONGEST:  # type: ignore[operator]
        return float(number)  # type: ignore[arg-type]
    raise ValueError(f"{value!r} is not a time: write 50ms or 1.5s, at most {_LONGEST:g}s")


def bits(value: object) -> int:
    """Reserved bits as 16 hexadecimal digits, the whole VXLAN header."""
    text = values.text(value)
    if not re.fullmatch(rf"[0-9A-Fa-f]{{{2 * VXLAN_HLEN}}}", text):
        raise ValueError(f"{value!r} is not 16 hexadecimal digits, the 8 bytes of the header")
    found = int(text, 16)
    if not found & RESERVED_BITS or found & ~RESERVED_BITS:
        raise ValueError(f"{value} are not reserved bits: they lie in {RESERVED_BITS:016x}")
    return found


def _float(text: str, shown: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'{shown!r} is not a share: write 0.2 or "20%"') from None


KEYS: Mapping[str, tuple[str, Callable[[object], Any]]] = {
    "vni": ("vni", values.vni),
    "remote": ("remote", values.underlay_address),
    "mac": ("mac", values.mac),
    "proto": ("proto", values.one_of("arp", *PROTOCOLS)),
    "side": ("side", values.one_of("encap", "decap", "both")),
    "share": ("share", share),
    "seed": ("seed", lambda value: values.whole(value, 0, (1 << 32) - 1, "a seed")),
    "delay": ("delay", span),
    "mtu": ("mtu", lambda value: values.whole(value, MIN_MTU, 65535, "bytes of an outer packet")),
    "icmp": ("icmp", values.flag),
    "source": ("source", values.underlay_address),
    "as": ("as_mac", values.station),
    "period": ("period", span),
    "bits": ("bits", bits),
}
"""Key -> field of Fault, and its check."""

_MATCH = ("vni", "remote", "mac", "proto", "side", "share", "seed")
_TAKES: Mapping[Kind, tuple[str, ...]] = {
    Kind.DROP: _MATCH,
    Kind.DELAY: (*_MATCH, "delay"),
    Kind.REORDER: (*_MATCH, "delay"),
    Kind.DUPLICATE: _MATCH,
    Kind.CLEAR_I: _MATCH,
    Kind.RESERVED: (*_MATCH, "bits"),
    Kind.FORGE_SOURCE: (*_MATCH, "source"),
    Kind.FORGE_MAC: (*_MATCH, "as"),
    Kind.FLAP: ("vni", "remote", "share", "seed", "as", "period", "source"),
    Kind.SHRINK: (*_MATCH, "mtu", "icmp"),
    Kind.FILTER_ICMP: ("remote", "share", "seed"),
}
_NEEDS: Mapping[Kind, tuple[str, ...]] = {
    Kind.DELAY: ("delay",),
    Kind.FORGE_SOURCE: ("source",),
    Kind.FORGE_MAC: ("as",),
    Kind.FLAP: ("vni", "as"),
    Kind.SHRINK: ("mtu",),
}
_MAKES = (Kind.CLEAR_I, Kind.RESERVED, Kind.FORGE_SOURCE, Kind.FORGE_MAC, Kind.FLAP)
"""What makes wrong packets does so on its own side, unless told otherwise."""

_UNSAID: Mapping[Kind, Mapping[str, Any]] = {
    Kind.REORDER: {"delay": _HOLD},
    Kind.FLAP: {"period": _FLAP},
    **{kind: {"side": "encap"} for kind in _MAKES if kind is not Kind.FLAP},
}


def fault(table: Mapping[str, object]) -> Fault:
    """The fault that a table with a `kind` describes.  Raises ValueError."""
    if "kind" not in table:
        raise ValueError(f"it has no kind: one of {', '.join(Kind)}")
    kind = Kind(values.one_of(*Kind)(table["kind"]))
    given = {key: value for key, value in table.items() if key != "kind" and value is not None}
    for key in given:
        if key not in _TAKES[kind]:
            raise ValueError(_stranger(kind, key))
    for key in _NEEDS.get(kind, ()):
        if key not in given:
            raise ValueError(f"{kind} needs {key}: add it")
    found = {KEYS[key][0]: _checked(key, value) for key, value in given.items()}
    return _consistent(Fault(kind, **{**_UNSAID.get(kind, {}), **found}))


def _stranger(kind: Kind, key: str) -> str:
    if key in KEYS:
        return f"{kind} has no {key}: it takes {', '.join(_TAKES[kind])}"
    near = get_close_matches(key, _TAKES[kind], n=1)
    remedy = f"did you mean {near[0]}?" if near else f"{kind} takes {', '.join(_TAKES[kind])}"
    return f"{key}: no such key: {remedy}"


def _checked(key: str, value: object) -> Any:
    try:
        return KEYS[key][1](value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _consistent(one: Fault) -> Fault:
    if one.icmp and one.side == "decap":
        raise ValueError("icmp: only the sending side can be told: leave it out, or side = encap")
    if one.source and one.remote is not None and (":" in one.source) != (":" in one.remote):
        raise ValueError(f"source: {one.source} and {one.remote} are of two IP versions")
    return one


def as_table(one: Fault) -> dict[str, Any]:
    """The table that makes this fault; keys that say nothing are left out."""
    said = _TAKES[one.kind]
    table: dict[str, Any] = {"kind": one.kind.value}
    for key in said:
        value = getattr(one, KEYS[key][0])
        if isinstance(value, bytes):
            table[key] = mac_text(value)
        elif key == "bits":
            table[key] = f"{value:016x}"
        elif value not in (None, ""):
            table[key] = value
    return table
