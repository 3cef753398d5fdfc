"""Changes of links, addresses and routes as they happen.

Theory of operation
===================

The kernel announces every change on a multicast netlink socket.  `Watch` has
subscribed when its constructor returns, so whoever subscribes first and reads the
present state then misses nothing:

    async with Watch() as changes:
        state = await asyncio.to_thread(netdev.links)
        async for change in changes:
            ...

pyroute2 opens netlink sockets through an event loop's datagram transport, which
uvloop does not offer for netlink.  So the socket here is a plain one, and pyroute2
only takes the messages apart.

A reader that is too slow overflows the socket (ENOBUFS).  It then gets one
`Overrun`: what was known is stale, read the state again.  A message that cannot
be understood is treated in the same way; nothing is raised into the loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from vxlan.netlazy import MarshalRtnl
from vxlan.netns import NetdevError, inside

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE (linux/rtnetlink.h)."""

_NETLINK_ROUTE = 0
_SIZE = 65536
_IFF_UP = 0x1
_AF_BRIDGE = 7
_OWN_ROUTES = (2, 3, 5)
"""RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST: they come and go with the addresses."""


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A link as it is now; `deleted`: as it was.  `master` is the index of its bridge."""

    index: int
    name: str
    mtu: int
    master: int | None
    up: bool
    deleted: bool


@dataclass(frozen=True, slots=True)
class AddressChange:
    """An address came to, or went from, the link of this index."""

    index: int
    address: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A route came, changed or went.  `destination` is a prefix; `index` of its link."""

    destination: str
    index: int | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class Overrun:
    """Changes were lost: read the state again."""


Change = LinkChange | AddressChange | RouteChange | Overrun


class Watch:
    """An asynchronous iterator over `Change`.  One task reads it; `close` ends it."""

    def __init__(self, netns: str | None = None) -> None:
        """Subscribe in a namespace.  Raises NetdevError."""
        self._ready: deque[Change] = deque()
        self._readable: asyncio.Future[None] | None = None
        self._marshal = MarshalRtnl()
        try:
            with inside(netns):
                self._socket = socket.socket(
                    socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE
                )
            self._socket.bind((0, _GROUPS))
        except OSError as error:
            raise NetdevError(f"watch: no netlink: {error.strerror}", error.errno) from error

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Change:
        while not self._ready:
            if self._socket.fileno() < 0:
                raise StopAsyncIteration
            if self._receive():
                await asyncio.sleep(0)  # a storm of changes must not starve the packets
            else:
                await self._wait()
        return self._ready.popleft()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        readable = self._readable = loop.create_future()
        loop.add_reader(self._socket, self._wake)
        try:
            await readable
        finally:
            self._readable = None
            if self._socket.fileno() >= 0:
                loop.remove_reader(self._socket)

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def _receive(self) -> bool:
        """Take in what the kernel has ready; False if nothing."""
        try:
            data = self._socket.recv(_SIZE)
            self._ready += filter(None, map(_change_of, self._marshal.parse(data)))
        except BlockingIOError:
            return False
        except Exception:  # ENOBUFS, or a message of a newer kernel: never the end of the watch
            self._ready.append(Overrun())
        return True

    def close(self) -> None:
        """End the subscription, and the iteration if one waits.  May be called again."""
        if self._readable is not None and self._socket.fileno() >= 0:
            self._readable.get_loop().remove_reader(self._socket)
            self._wake()
        self._socket.close()

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _change_of(message: Any) -> Change | None:
    event = message["event"]
    deleted = event.startswith("RTM_DEL")
    if event.endswith("LINK"):
        return _link(message, deleted)
    if event.endswith("ADDR"):
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        return AddressChange(int(message["index"]), f"{address}/{message['prefixlen']}", deleted)
    if event.endswith("ROUTE") and message["type"] not in _OWN_ROUTES:
        any_address = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
        network = message.get_attr("RTA_DST") or any_address
        return RouteChange(f"{network}/{message['dst_len']}", message.get_attr("RTA_OIF"), deleted)
    return None


def _link(message: Any, deleted: bool) -> LinkChange | None:
    if message["family"] == _AF_BRIDGE:  # a port's own news; "deleted" means: left the bridge
        return None
    return LinkChange(
        index=int(message["index"]),
        name=str(message.get_attr("IFLA_IFNAME")),
        mtu=int(message.get_attr("IFLA_MTU") or 0),
        master=message.get_attr("IFLA_MASTER"),
        up=bool(message["flags"] & _IFF_UP),
        deleted=deleted,
    )
