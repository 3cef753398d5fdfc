"""Stations that are announced to the other nodes: the operations, and the key.

A container engine's plugin names each container here as it comes, and withdraws it as it
goes; an operator may do so by hand.  Nothing of it is kept when the node ends: whoever
named a station names it again.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vxlan import config_values as values
from vxlan.announcement import MAX_ADDRESSES
from vxlan.api import ApiError
from vxlan.api_server import Operation
from vxlan.arguments import Args, checked, only, optional
from vxlan.engine import StationState
from vxlan.node_segment import NodeSegment
from vxlan.wire import mac_text

if TYPE_CHECKING:
    from vxlan.node import Node

MIN_KEY, MAX_KEY = 16, 1024
"""Bytes of a key file, white space around it left out."""


class KeyProblem(Exception):
    """The key cannot be used; one line with the remedy."""


def read_key(path: str) -> bytes:
    """The key in a file that its owner alone can read.  Raises KeyProblem."""
    where = f"key_file {path}"
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_KEY + 1).strip()
    except OSError as error:
        remedy = f"make it with `openssl rand -hex 32 > {path}`, the same on every host"
        raise KeyProblem(f"{where}: {error.strerror}: {remedy}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyProblem(f"{where}: others may read it: chmod 600 {path}")
    if not MIN_KEY <= len(content) <= MAX_KEY:
        raise KeyProblem(f"{where}: a key has {MIN_KEY} to {MAX_KEY} bytes, not {len(content)}")
    return content


class Stations:
    """The operations `station.add`, `station.del` and `station.show` of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def table(self) -> Mapping[str, Operation]:
        """Name -> operation, for vxlan/api_server.py."""
        return {"station.add": self.add, "station.del": self.delete, "station.show": self.show}

    def add(self, args: Args) -> Any:
        """Announce a station; one that is there gets the addresses that are given now."""
        segment = self._announcing(args, "mac", "address")
        mac, addresses = checked(args, "mac", values.station), _addresses(args)
        now = time.monotonic()
        try:
            segment.engine.add_station(segment.config.vni, mac, addresses, now)
        except ValueError as error:
            raise ApiError(f"station: {error}", "conflict") from None
        return {}

    def delete(self, args: Args) -> Any:
        """Announce a station no more."""
        segment = self._announcing(args, "mac")
        mac = checked(args, "mac", values.station)
        if not segment.engine.del_station(segment.config.vni, mac, time.monotonic()):
            text = f"{mac_text(mac)} is not announced here: `pyvxlan station show` lists them"
            raise ApiError(text, "not_found")
        return {}

    def show(self, args: Args) -> Any:
        """What is announced, by us and by others."""
        only(args, "vni")
        return [
            station_json(one, segment.config.vni)
            for segment in self._node.operations.segments(args)
            for one in segment.engine.stations(segment.config.vni)
        ]

    def _announcing(self, args: Args, *names: str) -> NodeSegment:
        only(args, "vni", *names)
        segment = self._node.operations.segment(args)
        if not segment.config.announce:
            vni = segment.config.vni
            text = f"segment {vni} does not announce: set announce = true in its [[segment]]"
            raise ApiError(text, "conflict")
        return segment


def station_json(one: StationState, vni: int) -> dict[str, Any]:
    """One station; `remote` is the underlay address of its VTEP, or null: ours."""
    addresses = [str(ip_address(address)) for address in one.addresses]
    return {"vni": vni, "mac": mac_text(one.mac), "address": addresses, "remote": one.remote}


def _addresses(args: Args) -> tuple[bytes, ...]:
    found: tuple[bytes, ...] = optional(args, "address", (), _packed)
    for size in (4, 16):
        if sum(len(one) == size for one in found) > MAX_ADDRESSES:
            text = f"address: a station is announced with at most {MAX_ADDRESSES} of each kind"
            raise ApiError(text, "usage")
    return found


def _packed(given: object) -> tuple[bytes, ...]:
    """Each of some IP addresses once; what follows a slash is passed over."""
    texts = [values.text(one).partition("/")[0] for one in values.listed(given)]
    return tuple(dict.fromkeys(ip_address(text).packed for text in texts))
