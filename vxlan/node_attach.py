"""Attaching containers to the segments of a running node: `attach`, `detach`, `attached`.

Theory of operation
===================

A runtime's plugin (vxlan/plugins/cni.py) asks; the node does the host's half:

    attach    an address, a pair of links, one end in the segment's bridge
              -> the plugin moves the other end into the container and sets it up there
    detach    the links go, the address is free again; what is not there is no error

Only the plugin can enter a container's namespace: the runtime starts it with all
privileges, while a node keeps CAP_NET_ADMIN alone.

What is attached is written down (vxlan/attached.py), and looked after: at the start of
the node and whenever links change.  A port that lost its bridge is plugged in again.  One
whose link is gone went with its container, since both ends of a pair go together; it
is struck out, and its address is free.

Everything here holds one lock, so that no two calls give out the same address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vxlan import config_values as values
from vxlan import ipam, netdev, statefile
from vxlan.api import ApiError
from vxlan.api_server import Operation
from vxlan.arguments import Args, checked, only, optional
from vxlan.attached import MAX_ATTACHED, Attached, Book, Key
from vxlan.attachment import PORT_MTU
from vxlan.ipam import Given, NoAddress, RangeSets
from vxlan.mtu import MAX_MTU, MIN_MTU
from vxlan.netdev import NetdevError
from vxlan.node_segment import NodeSegment
from vxlan.statefile import StateError
from vxlan.wire import mac_bytes

if TYPE_CHECKING:
    from vxlan.node import Node

MAX_TEXT = 1024
MAX_NAMES = 32

log = logging.getLogger(__name__)


class Attachments:
    """The containers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = asyncio.Lock()
        self._opened: Book | None = None

    def table(self) -> Mapping[str, Operation]:
        """Name -> operation, for vxlan/api_server.py."""
        return {"attach": self.attach, "detach": self.detach, "attached": self.show}

    # -- operations ------------------------------------------------------------------------

    async def attach(self, args: Args) -> Any:
        """Give a container an interface; what the plugin has to do with it."""
        only(args, *_KEY, "vni", "netns", "names", "mac", "mtu", "ips", "ranges")
        key = _key(args)
        async with self._lock:
            book = await self._book()
            segment = self._segment(args)
            mtu = _mtu(args, segment)
            _refuse_second(book, key)
            given = self._addresses(args, book, segment)
            none: tuple[str, ...] = ()
            one = Attached(
                key,
                segment.config.vni,
                _mac(args, book, segment, key),
                mtu,
                tuple(each.cidr for each in given),
                optional(args, "names", none, _names),
                optional(args, "netns", "", _text),
            )
            await self._make(book, one, segment, given)
        return {
            **one.as_json(),
            "inner": key.inner,
            "gateways": [each.gateway for each in given],
        }

    async def detach(self, args: Args) -> Any:
        """Take interfaces away; {"detached": how many there were}."""
        only(args, *_KEY)
        wanted = {key: checked(args, key, _text) for key in _KEY if key in args}
        if "container" not in wanted:
            raise ApiError("container is missing: the request needs it", "usage")
        async with self._lock:
            book = await self._book()
            gone = book.select(wanted)
            if not gone and len(wanted) == len(_KEY):
                await asyncio.to_thread(_remove, Key(**wanted))
            for one in gone:
                await asyncio.to_thread(_remove, one.key)
            if gone:
                await self._write(book.strike, *(one.key for one in gone))
        for one in gone:
            log.info("segment %d: %s detached", one.vni, _who(one))
        return {"detached": len(gone)}

    async def show(self, args: Args) -> Any:
        """The attachments that match."""
        only(args, *_KEY, "vni")
        wanted = {key: checked(args, key, _text) for key in _KEY if key in args}
        vni = checked(args, "vni", values.vni) if "vni" in args else None
        async with self._lock:
            book = await self._book()
            ports = await asyncio.to_thread(_ports)
            found = book.select(wanted, vni)
        return [one.as_json() | {"plugged": self._plugged(one, ports)} for one in found]

    def _plugged(self, one: Attached, ports: Mapping[str, str | None]) -> bool:
        """Whether its port is in the bridge of its segment."""
        segment = self._node.segments.get(one.vni)
        return segment is not None and ports.get(one.key.port, "") == segment.config.bridge

    # -- looking after them ------------------------------------------------------------------

    async def follow(self) -> None:
        """Plug in again what lost its bridge; strike out what is gone."""
        async with self._lock:
            try:
                book = await self._book()
                if book.attached:
                    await self._follow(book)
            except (ApiError, NetdevError) as error:
                log.warning("attached containers: %s", error)

    async def _follow(self, book: Book) -> None:
        ports = await asyncio.to_thread(_ports)
        gone = [one for one in book.attached.values() if one.key.port not in ports]
        if gone:
            await self._write(book.strike, *(one.key for one in gone))
        for one in gone:
            log.info("segment %d: %s is gone, and its link with it", one.vni, _who(one))
        for one in book.attached.values():
            segment = self._node.segments.get(one.vni)
            bridge = segment.config.bridge if segment else None
            if bridge is not None and ports[one.key.port] != bridge:
                await asyncio.to_thread(netdev.set_master, one.key.port, bridge)
                log.info("segment %d: %s plugged in again", one.vni, _who(one))

    # -- steps --------------------------------------------------------------------------------

    async def _book(self) -> Book:
        """Read when it is first needed: most nodes have no containers."""
        if self._opened is None:
            path = statefile.state_dir() / self._node.config.name / "attached.json"
            try:
                self._opened = await asyncio.to_thread(Book.open, path)
            except StateError as error:
                raise ApiError(str(error)) from None
        return self._opened

    async def _write(self, change: Callable[..., None], *args: Any) -> None:
        try:
            await asyncio.to_thread(change, *args)
        except StateError as error:
            raise ApiError(str(error)) from None

    def _segment(self, args: Args) -> NodeSegment:
        vni = checked(args, "vni", values.vni)
        segment = self._node.segments.get(vni)
        if segment is None:
            there = ", ".join(map(str, self._node.segments)) or "none"
            raise ApiError(
                f"no segment {vni} in node {self._node.config.name}, there are {there}: "
                "add it to the configuration",
                "not_found",
            )
        if segment.config.bridge is None:
            raise ApiError(
                f"segment {vni} has no bridge to plug containers in: "
                f'add bridge = "br{vni}" to it and reload',
                "conflict",
            )
        return segment

    def _addresses(self, args: Args, book: Book, segment: NodeSegment) -> list[Given]:
        """What is asked for, and one of each set of ranges."""
        sets: RangeSets = optional(args, "ranges", (), ipam.range_sets)
        none: tuple[str, ...] = ()
        wanted = optional(args, "ips", none, _addresses)
        taken = book.taken(segment.config.vni)
        for text in wanted:
            if holder := taken.get(text.partition("/")[0]):
                raise ApiError(f"ips: {text} is {_who(holder)}'s: choose another", "conflict")
        own = {cidr.partition("/")[0] for cidr in segment.config.address}
        try:
            return ipam.choose(sets, wanted, taken.keys() | own, book.last)
        except NoAddress as error:
            raise ApiError(str(error), "conflict") from None

    async def _make(
        self, book: Book, one: Attached, segment: NodeSegment, given: list[Given]
    ) -> None:
        last = {
            str(ipaddress.ip_interface(each.cidr).network): each.cidr.partition("/")[0]
            for each in given
        }
        await self._write(book.put, one, last)
        try:
            assert segment.config.bridge is not None
            await asyncio.to_thread(_plug, one, segment.config.bridge)
        except NetdevError as error:
            await self._write(book.strike, one.key)
            raise ApiError(f"{_who(one)}: {error}") from None
        log.info("segment %d: %s attached, %s", one.vni, _who(one), ", ".join(one.addresses))


# -- links: these block ----------------------------------------------------------------------


def _plug(one: Attached, bridge: str) -> None:
    """Make the pair of links and plug it in.  Leaves nothing if it fails."""
    port, inner = one.key.port, one.key.inner
    if netdev.exists(port):  # of a call that died
        netdev.delete(port)
    netdev.create_veth(port, inner, mtu=one.mtu)
    try:
        netdev.set_mac(inner, mac_bytes(one.mac))
        netdev.set_mtu(port, PORT_MTU)
        netdev.set_master(port, bridge)
        netdev.set_up(port)
    except BaseException:
        with suppress(NetdevError):
            netdev.delete(port)
        raise


def _remove(key: Key) -> None:
    """The link may go by itself meanwhile, with its container."""
    with suppress(NetdevError):
        netdev.delete(key.port)


def _ports() -> dict[str, str | None]:
    """The names of all links, and their bridges."""
    links = netdev.links()
    names = {link.index: link.name for link in links}
    return {link.name: names.get(link.master) if link.master else None for link in links}


# -- arguments -------------------------------------------------------------------------------

_KEY = ("network", "container", "ifname")


def _key(args: Args) -> Key:
    return Key(
        checked(args, "network", _text),
        checked(args, "container", _text),
        checked(args, "ifname", values.interface),
    )


def _who(one: Attached) -> str:
    name = one.names[0] if one.names else one.key.container[:12]
    return f"container {name} ({one.key.ifname})"


def _text(value: object) -> str:
    found = values.text(value)
    if len(found) > MAX_TEXT or not found.isprintable():
        raise ValueError(f"it is no text of up to {MAX_TEXT} printable characters")
    return found


def _names(value: object) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_text(one) for one in values.listed(value)))
    if len(found) > MAX_NAMES:
        raise ValueError(f"{len(found)} names: at most {MAX_NAMES}")
    return found


def _addresses(value: object) -> tuple[str, ...]:
    """Overlay addresses, each with or without a prefix length."""
    given = [values.text(one) for one in values.listed(value)]
    return tuple(
        values.cidr(one) if "/" in one else values.station_address(one)
        for one in dict.fromkeys(given)
    )


def _mtu(args: Args, segment: NodeSegment) -> int:
    wanted = optional(args, "mtu", 0, lambda one: values.whole(one, MIN_MTU, MAX_MTU, "an MTU"))
    if wanted > segment.mtu:
        raise ApiError(
            f"mtu: {wanted} does not fit: segment {segment.config.vni} carries {segment.mtu}: "
            "ask for less, or for none",
            "conflict",
        )
    return wanted or segment.mtu


def _mac(args: Args, book: Book, segment: NodeSegment, key: Key) -> str:
    vni = segment.config.vni
    mac = optional(args, "mac", key.mac.hex(":"), values.station_text)
    for other in book.of_segment(vni):
        if other.mac == mac:
            raise ApiError(f"mac: {mac} is {_who(other)}'s: choose another", "conflict")
    return mac


def _refuse_second(book: Book, key: Key) -> None:
    if there := book.attached.get(key):
        raise ApiError(
            f"{_who(there)} is attached to {key.network} already: detach it first", "conflict"
        )
    if len(book.attached) >= MAX_ATTACHED:
        raise ApiError(f"{MAX_ATTACHED} containers are attached already", "conflict")
