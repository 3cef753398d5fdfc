"""Names of network interfaces: what the kernel takes and what people can use.

Linux takes up to 15 bytes, without "/", white space or ":", and neither "." nor
".." (net/core/dev.c, dev_valid_name).  A "%d" asks the kernel for a free number,
so a name with "%" would come back as another one: it is refused here.
"""

from __future__ import annotations

MAX_NAME = 15
"""IFNAMSIZ less the terminating zero byte."""

_FORBIDDEN = frozenset('/:%"\\')


def check_ifname(name: str) -> str:
    """`name` itself.  ValueError, one line with the rule it breaks, if it is no good name."""
    fault = _fault(name)
    if fault:
        raise ValueError(f"interface name {name!r} {fault}")
    return name


def _fault(name: str) -> str:
    if not name:
        return "is empty: give it 1 to 15 characters"
    if name in (".", ".."):
        return "is reserved: choose another"
    if not name.isascii() or not name.isprintable():
        return "has characters other than printable ASCII: use letters, digits, - _ ."
    bad = next((char for char in name if char in _FORBIDDEN or char.isspace()), None)
    if bad is not None:
        return f"contains {bad!r}: use letters, digits, - _ ."
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters: the kernel takes at most {MAX_NAME}"
    return ""
