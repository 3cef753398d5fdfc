"""One resolver: DNS for the containers of a segment, LLMNR between its hosts.

vxlan/node_names.py says what is asked of whom.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vxlan import dnswire
from vxlan.dnswire import NO_SUCH_NAME, SERVER_FAILURE, Question

PORT, LLMNR_PORT, GROUP = 53, 5355, "224.0.0.252"
TTL = 5
"""Seconds that an answer is believed."""

PATIENCE, AGAIN = 0.6, 0.25
"""Seconds that other nodes have to answer, and after which they are asked a second time."""

UPSTREAM_PATIENCE = 3.0
MAX_WAITING = 256
_IP_PKTINFO = 8  # linux/in.h; the socket module has no name for it
_LOOPBACK = 1  # LOOPBACK_IFINDEX, net/flow.h
RESOLV_CONF = Path("/etc/resolv.conf")

_RANDOM = random.SystemRandom()

Find = Callable[[str], list[str] | None]
"""The addresses of one of our containers by its name; None: no such container."""


class Resolver:
    """Answers at one address, for one segment."""

    def __init__(self, address: str, index: int, find: Find) -> None:
        self._address, self._index, self._find = address, index, find
        self._server: socket.socket | None = None
        self._member: socket.socket | None = None
        self._teller: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen.  Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = _udp(self._address, PORT)
        loop.add_reader(self._server, self._asked, self._server)
        self._teller = _udp(self._address, LLMNR_PORT, shared=True)
        self._member = _udp(GROUP, LLMNR_PORT, shared=True)
        membership = struct.pack("=4s4si", socket.inet_aton(GROUP), bytes(4), self._index)
        self._member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        loop.add_reader(self._member, self._heard, self._member)

    def close(self) -> None:
        """Let go of everything."""
        loop = asyncio.get_running_loop()
        for each in filter(None, (self._server, self._member, self._teller)):
            loop.remove_reader(each)
            each.close()
        for task in self._tasks:
            task.cancel()

    # -- other nodes ask us ------------------------------------------------------------------

    def _heard(self, member: socket.socket) -> None:
        """The group is one for all links: only what came by ours counts, and not our own."""
        for message, who, index in _received(member):
            question = dnswire.parse(message)
            if question is None or index != self._index or who[0] == self._address:
                continue
            found = self._find(question.name)
            if found is not None and self._teller is not None:
                told = dnswire.answer(question, found, TTL, llmnr=True)
                with suppress(OSError):
                    self._teller.sendto(told, who)

    # -- containers ask us ---------------------------------------------------------------------

    def _asked(self, server: socket.socket) -> None:
        """The kernel takes what is for the address by any link: the underlay's are strangers."""
        for message, who, index in _received(server):
            question = dnswire.parse(message)
            if question is None or index not in (self._index, _LOOPBACK):
                continue
            found = self._find(question.name)
            if found is not None:
                self._reply(dnswire.answer(question, found, TTL), who)
            elif len(self._tasks) >= MAX_WAITING:
                self._reply(dnswire.refusal(question, SERVER_FAILURE), who)
            else:
                task = asyncio.create_task(self._ask_others(question, message, who))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _reply(self, message: bytes, who: Any) -> None:
        if self._server is not None:
            with suppress(OSError):
                self._server.sendto(message, who)

    async def _ask_others(self, question: Question, message: bytes, who: Any) -> None:
        told: bytes | None = None
        with suppress(OSError):  # no descriptor is left, or the bridge is gone
            if question.single:
                told = await self._ask_nodes(question)
            else:
                told = await _ask_servers(message, self._address)
        self._reply(told or dnswire.refusal(question, SERVER_FAILURE), who)

    async def _ask_nodes(self, question: Question) -> bytes:
        """By IPv4 for any kind; of a type that is no address only whether the name is there."""
        number = _RANDOM.randrange(1 << 16)
        kind = dnswire.A if question.version is None else question.kind
        query = dnswire.ask(number, question.name, kind)
        asked = dnswire.parse(query)
        assert asked is not None
        with _udp(self._address, 0) as asking:
            membership = struct.pack("=4s4si", bytes(4), bytes(4), self._index)
            asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
            found = await _first(asking, query, (GROUP, LLMNR_PORT), asked)
        if found is None:
            return dnswire.refusal(question, NO_SUCH_NAME)
        return dnswire.answer(question, found, TTL)


async def _first(
    asking: socket.socket, query: bytes, where: tuple[str, int], asked: Question
) -> list[str] | None:
    """What the first node says that knows the name; None if nobody answers."""
    _send(asking, query, where)
    again = asyncio.get_running_loop().call_later(AGAIN, _send, asking, query, where)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                found = dnswire.addresses(await _receive(asking), asked)
                if found is not None:
                    return found
    except (OSError, TimeoutError):
        return None
    finally:
        again.cancel()


def _send(asking: socket.socket, query: bytes, where: tuple[str, int]) -> None:
    with suppress(OSError):
        asking.sendto(query, where)


async def _receive(asking: socket.socket) -> bytes:
    """The next datagram.  uvloop has no sock_recvfrom.  Raises OSError."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(asking, _wake, readable)
    try:
        await readable
    finally:
        loop.remove_reader(asking)
    with suppress(BlockingIOError):
        return asking.recv(dnswire.MAX_SIZE)
    return b""


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


async def _ask_servers(message: bytes, own: str) -> bytes | None:
    """What the host's first server that answers says, word for word."""
    for server in await asyncio.to_thread(_servers):
        if server != own and (told := await _ask_server(server, message)):
            return told
    return None


async def _ask_server(server: str, message: bytes) -> bytes | None:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect((server, PORT))
            asking.send(message)
            async with asyncio.timeout(UPSTREAM_PATIENCE):
                told = await _receive(asking)
        except (OSError, TimeoutError):
            return None
    return told if told[:2] == message[:2] else None


def _servers() -> list[str]:
    """The name servers of this host, at most three (resolv.conf(5))."""
    try:
        lines = RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [found[1] for found in words if len(found) > 1 and found[0] == "nameserver"][:3]


def _udp(address: str, port: int, *, shared: bool = False) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
    except OSError:
        opened.close()
        raise
    return opened


def _received(opened: socket.socket) -> list[tuple[bytes, Any, int]]:
    """What waits, with the sender and the number of the link; a few at a time."""
    found = []
    for _ in range(64):
        try:
            message, extra, _, who = opened.recvmsg(dnswire.MAX_SIZE, 64)
        except OSError:
            break
        index = next((struct.unpack_from("=i", data)[0] for *_, data in extra), 0)
        found.append((message, who, index))
    return found
