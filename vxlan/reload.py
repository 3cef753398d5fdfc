"""What differs between two configurations, and what of it a running node can follow.

Pure: it compares values and does nothing.  The comparison is between files, not with
the node's state: what was added by command at run time was never in the file, so a
reload leaves it alone unless the file used to have it and now has it no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from vxlan.config import NodeConfig, SegmentConfig
from vxlan.fdb import Remote
from vxlan.wire import mac_text

_LISTS = {"remotes": "remote", "address": "address", "echo": "echo"}
_COMPARED_APART = ("vni", "fdb", *_LISTS)
_NOTHING = {"mtu": "auto", "ttl": "inherit", "tos": "inherit"}
"""What None means, by key; "none" elsewhere."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The segments that go, come and change, as (old, new)."""

    removed: tuple[SegmentConfig, ...]
    added: tuple[SegmentConfig, ...]
    changed: tuple[tuple[SegmentConfig, SegmentConfig], ...]

    def sentences(self) -> list[str]:
        """One for each difference."""
        return [
            *(f"segment {segment.vni}: removed" for segment in self.removed),
            *(f"segment {segment.vni}: added" for segment in self.added),
            *(line for old, new in self.changed for line in differences(old, new)),
        ]


def compare(old: NodeConfig, new: NodeConfig) -> Plan:
    """What to do to come from `old` to `new`; segments are the same if their VNI is."""
    before = {segment.vni: segment for segment in old.segments}
    after = {segment.vni: segment for segment in new.segments}
    return Plan(
        removed=tuple(segment for vni, segment in before.items() if vni not in after),
        added=tuple(segment for vni, segment in after.items() if vni not in before),
        changed=tuple(
            (before[vni], segment)
            for vni, segment in after.items()
            if vni in before and before[vni] != segment
        ),
    )


def needs_restart(old: NodeConfig, new: NodeConfig) -> str | None:
    """What only a new start can change, in one line; None if there is nothing of that."""
    names = [field.name for field in fields(old.vtep)]
    pairs = [(f"vtep.{name}", getattr(old.vtep, name), getattr(new.vtep, name)) for name in names]
    pairs.append(("group", old.group, new.group))
    found = [_change(key, before, after) for key, before, after in pairs if before != after]
    if not found:
        return None
    return (
        f"{', '.join(found)}: needs a restart (`pyvxlan down {old.name}`, "
        "then `pyvxlan up`); nothing was changed"
    )


def differences(old: SegmentConfig, new: SegmentConfig) -> list[str]:
    """One sentence for each key that differs."""
    return [f"segment {new.vni}: {line}" for line in _differences(old, new)]


def _differences(old: SegmentConfig, new: SegmentConfig) -> Iterator[str]:
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name not in _COMPARED_APART and before != after:
            yield _change(field.name, before, after)
    for name, word in _LISTS.items():
        before, after = getattr(old, name), getattr(new, name)
        yield from (f"{word} {one} removed" for one in before if one not in after)
        yield from (f"{word} {one} added" for one in after if one not in before)
    yield from _fdb_differences(static(old), static(new))


def _fdb_differences(
    before: dict[bytes, tuple[Remote, ...]], after: dict[bytes, tuple[Remote, ...]]
) -> Iterator[str]:
    yield from (f"fdb {mac_text(mac)} removed" for mac in before if mac not in after)
    yield from (f"fdb {mac_text(mac)} added" for mac in after if mac not in before)
    both = before.keys() & after.keys()
    yield from (f"fdb {mac_text(mac)} changed" for mac in both if before[mac] != after[mac])


def static(segment: SegmentConfig) -> dict[bytes, tuple[Remote, ...]]:
    """The static entries of a segment by their MAC."""
    return {entry.mac: entry.remotes for entry in segment.fdb}


def _change(key: str, before: Any, after: Any) -> str:
    return f"{key} {_shown(key, before)} -> {_shown(key, after)}"


def _shown(key: str, value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value) or "none"
    return _NOTHING.get(key, "none") if value is None else str(value)
