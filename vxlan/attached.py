"""Containers that are attached to segments: what is known of each, and keeping it.

Theory of operation
===================

A container is attached by a pair of links: one end is a port of the segment's bridge,
the other is what the container calls eth0.

    container eth0 --- pv1f2e3d4c5b6a  in bridge br42 --- TAP --- engine

The names of the links are derived from whose they are, so a call that died half-way is
found again.  An attachment is written down before its links are made and struck out
after they are gone; so what is written is never less than what is there.

The file belongs to one boot of the machine: no container outlives that.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vxlan import statefile
from vxlan.statefile import StateError

MAX_ATTACHED = 16384
"""Attachments of one node."""

log = logging.getLogger(__name__)

_VERSION = 1


class Key(NamedTuple):
    """Whose it is, in the words of CNI: the network's name, the container, its interface."""

    network: str
    container: str
    ifname: str

    @property
    def digest(self) -> bytes:
        """Twelve bytes that are its own."""
        return hashlib.sha256("\0".join(self).encode()).digest()[:12]

    @property
    def port(self) -> str:
        """The name of the end in the bridge."""
        return f"pv{self.digest[:6].hex()}"

    @property
    def inner(self) -> str:
        """The name of the container's end until it is moved there."""
        return f"pw{self.digest[:6].hex()}"

    @property
    def mac(self) -> bytes:
        """The MAC that it gets where none is asked for; locally administered."""
        return b"\x02" + self.digest[6:11]


@dataclass(frozen=True, slots=True)
class Attached:
    """One container's interface in a segment.

    name       what the container is called, and by which other names; empty if unknown
    netns      the file of its namespace, as the runtime named it
    mac        in text
    addresses  with prefix lengths
    segment    the keys of a segment that was made for it, or None
    """

    key: Key
    vni: int
    mac: str
    mtu: int
    addresses: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    netns: str = ""
    segment: dict[str, Any] | None = None

    @property
    def plain(self) -> list[str]:
        """Its addresses without prefix lengths."""
        return [cidr.partition("/")[0] for cidr in self.addresses]

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON can say it."""
        return {
            **self.key._asdict(),
            "vni": self.vni,
            "device": self.key.port,
            "mac": self.mac,
            "mtu": self.mtu,
            "addresses": list(self.addresses),
            "names": list(self.names),
            "netns": self.netns,
        }


@dataclass(slots=True)
class Book:
    """All attachments of a node, on disk as in memory.

    last  subnet -> the address that was given last (vxlan/ipam.py)
    """

    path: Path
    attached: dict[Key, Attached] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Book:
        """What was written during this boot.  Raises StateError."""
        content = statefile.load(path)
        if content is None or content.get("boot") != statefile.boot_id():
            return cls(path)
        try:
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}")
            found = [_read(entry) for entry in content["attached"]]
            return cls(path, {one.key: one for one in found}, dict(content["last"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"state {path}: not understood ({error!r}): remove it, and the containers' "
                "interfaces with it"
            ) from None

    def put(self, one: Attached, last: dict[str, str] | None = None) -> None:
        """Write down one more.  Raises StateError, and then nothing changed."""
        self._change({**self.attached, one.key: one}, {**self.last, **(last or {})})

    def strike(self, *keys: Key) -> None:
        """Strike out some.  Raises StateError, and then nothing changed."""
        self._change({key: one for key, one in self.attached.items() if key not in keys}, self.last)

    def _change(self, attached: dict[Key, Attached], last: dict[str, str]) -> None:
        content = {
            "version": _VERSION,
            "boot": statefile.boot_id(),
            "attached": [_written(one) for one in attached.values()],
            "last": last,
        }
        statefile.save(self.path, content)
        self.attached, self.last = attached, last

    # -- questions ---------------------------------------------------------------------------

    def select(self, wanted: Mapping[str, str], vni: int | None = None) -> list[Attached]:
        """Those that match; `wanted` are fields of the key."""
        return [
            one
            for one in self.attached.values()
            if vni in (None, one.vni)
            and all(getattr(one.key, name) == value for name, value in wanted.items())
        ]

    def of_segment(self, vni: int) -> Iterator[Attached]:
        """Those of one VNI."""
        return (one for one in self.attached.values() if one.vni == vni)

    def taken(self, vni: int) -> dict[str, Attached]:
        """The addresses of a segment that are given out."""
        return {address: one for one in self.of_segment(vni) for address in one.plain}


def _written(one: Attached) -> dict[str, Any]:
    return {**asdict(one), "key": list(one.key)}


def _read(entry: dict[str, Any]) -> Attached:
    listed = {name: tuple(entry[name]) for name in ("addresses", "names")}
    return Attached(**{**entry, **listed, "key": Key(*entry["key"])})
