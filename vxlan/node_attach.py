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

In a segment that announces, each container is a station that is told to the other nodes.

A segment that the node has not can be asked for with the first container.  It belongs to
the owner "cni", comes again at the next start of the node while it has containers, and
goes with the last of them.

Everything here holds the node's lock for changes: no two calls give out one address, and
no segment goes while a container comes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vxlan import attach_links, attach_stations, ipam, netdev, statefile
from vxlan import attach_request as request
from vxlan import config_values as values
from vxlan.api import ApiError
from vxlan.api_server import Operation
from vxlan.arguments import Args, checked, only, optional
from vxlan.attached import Attached, Book, Key
from vxlan.ipam import Given, NoAddress, RangeSets
from vxlan.netdev import NetdevError
from vxlan.node_segment import NodeSegment
from vxlan.node_segments import Segments
from vxlan.statefile import StateError

if TYPE_CHECKING:
    from vxlan.node import Node

OWNER = "cni"
"""The owner of segments that are served because a container asked for them."""

log = logging.getLogger(__name__)


class Attachments:
    """The containers of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._segments = Segments(node)
        self._opened: Book | None = None

    def table(self) -> Mapping[str, Operation]:
        """Name -> operation, for vxlan/api_server.py."""
        return {"attach": self.attach, "detach": self.detach, "attached": self.show}

    # -- operations ------------------------------------------------------------------------

    async def attach(self, args: Args) -> Any:
        """Give a container an interface; what the plugin has to do with it."""
        only(args, *request.KEY, "vni", "netns", "names", "mac", "mtu", "ips", "ranges", "segment")
        key = request.key_of(args)
        async with self._node.changing:
            book = await self._book()
            await self._forget_dead(book, key)
            request.refuse_second(book, key)
            wanted = await self._serve_asked(args, book)
            try:
                one, given = await self._attach(args, book, key, wanted)
            except BaseException:
                await self._leave(book, checked(args, "vni", values.vni))
                raise
        return {
            **one.as_json(),
            "inner": key.inner,
            "gateways": [each.gateway for each in given],
            "nameservers": self._node.names.of_segment(one.vni),
        }

    async def _forget_dead(self, book: Book, key: Key) -> None:
        """A call that died before the container had its end of the pair is made good again."""
        one = book.attached.get(key)
        if one and key.inner in await asyncio.to_thread(attach_links.ports):
            await asyncio.to_thread(attach_links.remove, key)
            await self._strike(book, [one])
            log.info("segment %d: %s never got its link: struck out", one.vni, request.who(one))

    async def _attach(
        self, args: Args, book: Book, key: Key, wanted: dict[str, Any] | None
    ) -> tuple[Attached, list[Given]]:
        segment = self._segment(args)
        mtu = request.mtu_of(args, segment)
        given = self._addresses(args, book, segment)
        none: tuple[str, ...] = ()
        one = Attached(
            key,
            segment.config.vni,
            request.mac_of(args, book, segment, key),
            mtu,
            tuple(each.cidr for each in given),
            optional(args, "names", none, request.names),
            optional(args, "netns", "", request.text),
            wanted,
        )
        await self._make(book, one, segment, given)
        return one, given

    async def detach(self, args: Args) -> Any:
        """Take interfaces away; {"detached": how many there were}."""
        only(args, *request.KEY)
        wanted = {key: checked(args, key, request.text) for key in request.KEY if key in args}
        if "container" not in wanted:
            raise ApiError("container is missing: the request needs it", "usage")
        async with self._node.changing:
            book = await self._book()
            gone = book.select(wanted)
            if not gone and len(wanted) == len(request.KEY):
                await asyncio.to_thread(attach_links.remove, Key(**wanted))
            for one in gone:
                await asyncio.to_thread(attach_links.remove, one.key)
            if gone:
                await self._strike(book, gone)
        for one in gone:
            log.info("segment %d: %s detached", one.vni, request.who(one))
        return {"detached": len(gone)}

    async def show(self, args: Args) -> Any:
        """The attachments that match."""
        only(args, *request.KEY, "vni")
        wanted = {key: checked(args, key, request.text) for key in request.KEY if key in args}
        vni = checked(args, "vni", values.vni) if "vni" in args else None
        async with self._node.changing:
            book = await self._book()
            ports = await asyncio.to_thread(attach_links.ports)
            found = book.select(wanted, vni)
        return [one.as_json() | {"plugged": self._plugged(one, ports)} for one in found]

    def _plugged(self, one: Attached, ports: Mapping[str, str | None]) -> bool:
        """Whether its port is in the bridge of its segment."""
        segment = self._node.segments.get(one.vni)
        return segment is not None and ports.get(one.key.port, "") == segment.config.bridge

    def find(self, vni: int, name: str) -> list[str] | None:
        """The addresses of the containers of a segment that are called so; None: there is none."""
        attached = self._opened.of_segment(vni) if self._opened else ()
        found = [one for one in attached if name.lower() in map(str.lower, one.names)]
        return [address for one in found for address in one.plain] if found else None

    # -- looking after them ------------------------------------------------------------------

    async def follow(self) -> None:
        """Plug in again what lost its bridge; strike out what is gone.

        Whoever calls this, or `restore`, holds `changing`.
        """
        try:
            book = await self._book()
            if book.attached:
                await self._follow(book)
        except (ApiError, NetdevError) as error:
            log.warning("attached containers: %s", error)

    async def restore(self) -> None:
        """At the start: serve the segments that containers had asked for."""
        try:
            book = await self._book()
        except ApiError as error:
            log.warning("attached containers: %s", error)
            return
        for one in book.attached.values():
            if one.segment is not None and one.vni not in self._node.segments:
                try:
                    await self._segments.serve(one.segment, OWNER)
                except ApiError as error:
                    log.warning("segment %d of attached containers: %s", one.vni, error)

    async def _follow(self, book: Book) -> None:
        ports = await asyncio.to_thread(attach_links.ports)
        gone = [one for one in book.attached.values() if one.key.port not in ports]
        if gone:
            await self._strike(book, gone)
        for one in gone:
            log.info("segment %d: %s is gone, and its link with it", one.vni, request.who(one))
        for one in book.attached.values():
            segment = self._node.segments.get(one.vni)
            bridge = segment.config.bridge if segment else None
            if bridge is not None and ports[one.key.port] != bridge:
                await asyncio.to_thread(netdev.set_master, one.key.port, bridge)
                log.info("segment %d: %s plugged in again", one.vni, request.who(one))
        for vni, segment in self._node.segments.items():
            attach_stations.announce(segment, book.of_segment(vni))

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

    async def _strike(self, book: Book, gone: list[Attached]) -> None:
        await self._write(book.strike, *(one.key for one in gone))
        for one in gone:
            attach_stations.withdraw(self._node.segments.get(one.vni), one)
        for vni in {one.vni for one in gone}:
            await self._leave(book, vni)

    async def _leave(self, book: Book, vni: int) -> None:
        """A segment that was made for containers goes with the last of them."""
        segment = self._node.segments.get(vni)
        if segment and segment.owner == OWNER and not any(book.of_segment(vni)):
            await self._node.stop_segment(vni)

    async def _serve_asked(self, args: Args, book: Book) -> dict[str, Any] | None:
        """Serve the segment if the node has it not; the keys to do so again, or None.

        Who uses what another container asked for keeps it, and needs the keys as well.
        """
        vni = checked(args, "vni", values.vni)
        wanted: dict[str, Any] | None = optional(args, "segment", None, request.table)
        there = self._node.segments.get(vni)
        if there is not None and there.owner != OWNER:
            return None
        if wanted is None:
            return next((one.segment for one in book.of_segment(vni) if one.segment), None)
        wanted = {"bridge": f"br{vni}", **wanted, "vni": vni}
        await self._segments.serve(wanted, OWNER)
        return wanted

    def _segment(self, args: Args) -> NodeSegment:
        vni = checked(args, "vni", values.vni)
        segment = self._node.segments.get(vni)
        if segment is None:
            there = ", ".join(map(str, self._node.segments)) or "none"
            raise ApiError(
                f"no segment {vni} in node {self._node.config.name}, there are {there}: "
                'add it to the configuration, or give a "segment" with its remotes',
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
        wanted = optional(args, "ips", none, request.addresses)
        taken = book.taken(segment.config.vni)
        for text in wanted:
            if holder := taken.get(text.partition("/")[0]):
                raise ApiError(
                    f"ips: {text} is {request.who(holder)}'s: choose another", "conflict"
                )
        own = {cidr.partition("/")[0] for cidr in segment.config.address}
        try:
            told = attach_stations.elsewhere(segment)
            return ipam.choose(sets, wanted, taken.keys() | own, book.last, told)
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
            await asyncio.to_thread(attach_links.plug, one, segment.config.bridge)
        except NetdevError as error:
            await self._write(book.strike, one.key)
            raise ApiError(f"{request.who(one)}: {error}") from None
        attach_stations.announce(segment, [one])
        log.info("segment %d: %s attached, %s", one.vni, request.who(one), ", ".join(one.addresses))
