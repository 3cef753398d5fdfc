"""What a node keeps for the case that it is killed, and how it goes on with it.

Theory of operation
===================

With a store (vxlan/fdstore.py) a node that was killed, and is started again, finds

    tap.VNI.QUEUE    its TAPs, one descriptor for each queue
    udp.N            the sockets that receive
    state            memory: what each TAP was made for, and what came by command

It goes on with what fits the configuration that it has now, before its engine starts; so
what arrived in between is carried, not lost.  What does not fit is closed with one line
in the log, and made anew as without a store.

What came by command are segments, with whose they are, and remotes that differ from
those of the configuration.  Nobody could ask for them again before packets are dropped.
Containers attached by CNI are not here: they are written down already (vxlan/attached.py).

An orderly end takes everything out of the store, first of all the state.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from vxlan import fdstate
from vxlan.api import ApiError
from vxlan.fdb import Remote
from vxlan.fdstore import FdStore
from vxlan.node_segments import Segments
from vxlan.tap import Tap, TapError, device_of
from vxlan.udpsock import fits_receiver

if TYPE_CHECKING:
    from vxlan.node import Node
    from vxlan.node_segment import NodeSegment

VERSION = 1

_TAP_NAME = re.compile(r"tap\.\d+\.\d+")

log = logging.getLogger(__name__)


class Opener(Protocol):
    """Of an attachment (vxlan/attachment.py), what this needs."""

    @property
    def identity(self) -> str:
        """What its TAP is made for."""

    def open(self, mtu: int) -> Tap:
        """Make a TAP."""

    def adopt(self, fds: Sequence[int], mtu: int) -> Tap:
        """Go on with a TAP."""


class Kept:
    """The descriptors and the state of one node."""

    def __init__(self, store: FdStore) -> None:
        self.store = store
        self._restarted = store.offers
        self._before = _state_before(store)
        self._memory = _memory(store)
        self.restarts: int = self._before.get("restarts", 0) + self._restarted
        self._taps: dict[str, str] = {}
        self._snapshot: Callable[[], dict[str, Any]] | None = None
        self._writing = False

    def as_json(self) -> dict[str, Any]:
        """What `show` tells: who keeps how much, since how many restarts, and what not."""
        return {
            "by": self.store.by,
            "descriptors": self.store.count,
            "restarts": self.restarts,
            "fallbacks": self.store.fallbacks,
        }

    # -- sockets -------------------------------------------------------------------------------

    def receivers(
        self, local: Sequence[str], port: int, queues: int
    ) -> dict[str, list[socket.socket]]:
        """The receivers that fit, by address; all others are closed."""
        there = self._sockets()
        found: dict[str, list[socket.socket]] = {}
        for address in local:
            fitting = [
                name
                for name, sock in there.items()
                if fits_receiver(sock, address, port, shared=queues > 1)
            ]
            if len(fitting) == queues:
                found[address] = [there.pop(name) for name in fitting]
                self._took(fitting)
        for sock in there.values():
            sock.detach()
        rest = self.store.names("udp")
        self.store.refuse(rest, f"they are not the {queues} of port {port} at our addresses")
        return found

    def _sockets(self) -> dict[str, socket.socket]:
        found = {}
        for name in self.store.names("udp"):
            with suppress(OSError):  # no socket at all
                found[name] = socket.socket(fileno=self.store.look(name))
        return found

    def keep_receivers(
        self, receivers: Sequence[socket.socket], held: Mapping[str, list[socket.socket]]
    ) -> None:
        """Have the sockets kept that are not `held` already."""
        old = [sock for several in held.values() for sock in several]
        new = [sock for sock in receivers if sock not in old]
        taken = self.store.kept("udp")
        free = (name for n in range(len(receivers) * 2) if (name := f"udp.{n}") not in taken)
        self.store.put({name: sock.fileno() for name, sock in zip(free, new, strict=False)})

    def drop_receivers(self) -> None:
        """Have them kept no more."""
        self.store.remove(self.store.kept("udp"))

    # -- TAPs ----------------------------------------------------------------------------------

    async def open(self, vni: int, name: str, attachment: Opener, mtu: int) -> Tap:
        """The TAP of a segment: the one that was kept, if it fits, or else a new one.

        Raises TapError or NetdevError, and leaves nothing.
        """
        tap = await self._adopt(vni, name, attachment, mtu)
        if tap is None:
            tap = await asyncio.to_thread(attachment.open, mtu)
            if self.store.by is not None:
                self.store.put({f"tap.{vni}.{n}": fd for n, fd in enumerate(tap.fds)})
        self.made_for(vni, attachment)
        return tap

    async def _adopt(self, vni: int, name: str, attachment: Opener, mtu: int) -> Tap | None:
        self._refuse_namesakes(vni, name)
        names = [one for one in self.store.names(f"tap.{vni}") if _TAP_NAME.fullmatch(one)]
        if not names:
            return None
        fds = [self.store.look(one) for one in names]
        try:
            self._check(vni, name, fds, attachment.identity)
            tap = await asyncio.to_thread(attachment.adopt, fds, mtu)
        except TapError as error:
            self.store.refuse(names, f"{error}: the TAP is made anew")
            return None
        except BaseException:
            self._took(names)
            self.store.remove(names)
            raise
        self._took(names)
        return tap

    def _took(self, names: Sequence[str]) -> None:
        for name in names:
            self.store.take(name)

    def _check(self, vni: int, name: str, fds: Sequence[int], identity: str) -> None:
        """Refuse a TAP that was made for something else.  Raises TapError."""
        made_for = self._before.get("taps", {}).get(str(vni))
        device = device_of(fds[0])[0]
        if made_for is None and device != name:
            raise TapError(f"tap {name}: it is {device}")
        if made_for not in (None, identity):
            raise TapError(f"tap {name}: it was made for another name, MAC, bridge or address")

    def _refuse_namesakes(self, vni: int, name: str) -> None:
        """A kept device of another segment stands in the way of one of its name."""
        own = self.store.names(f"tap.{vni}")
        for other in self.store.names("tap"):
            with suppress(TapError):
                if other not in own and device_of(self.store.look(other))[0] == name:
                    self.store.refuse([other], f"segment {vni} has its name now")

    def made_for(self, vni: int, attachment: Opener) -> None:
        """Remember what a TAP is used for now."""
        if self.store.by is not None:
            self._taps[str(vni)] = attachment.identity
            self.changed()

    async def drop_tap(self, vni: int) -> None:
        """Have the TAP of a segment kept no more, before it is closed: its name is free then."""
        self._taps.pop(str(vni), None)
        if names := self.store.kept(f"tap.{vni}"):
            await asyncio.to_thread(self.store.remove, names)
        self.changed()

    # -- what came by command ------------------------------------------------------------------

    async def restore(self, node: Node) -> None:
        """Serve again what was served by command.  The caller holds `changing`."""
        before = self._before
        for one in before.get("segments", ()):
            try:
                await Segments(node).serve_asked(one)
            except ApiError as error:
                log.warning("segment %s, added by command: %s", one.get("vni"), error)
        for vni, lists in before.get("remotes", {}).items():
            if segment := node.segments.get(int(vni)):
                await _restore_remotes(segment, lists)

    def begin(self, node: Node) -> None:
        """From now on write down each change; what is still offered is of no use."""
        self.store.refuse(self.store.names(), "no segment has them now")
        self._snapshot = lambda: _by_command(node)
        if self._restarted and self.store.by:
            log.info("restart %d: going on with what %s kept", self.restarts, self.store.by)
        self.changed()

    def changed(self) -> None:
        """Something came or went: write that down, once for all changes of one step."""
        if self._snapshot and self._memory is not None and not self._writing:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if self._snapshot is None or self._memory is None:
            return
        head = {"version": VERSION, "restarts": self.restarts, "taps": self._taps}
        try:
            fits = fdstate.write(self._memory, head | self._snapshot())
        except OSError as error:
            self.store.fall_back(f"state: {error.strerror}")
        else:
            if not fits:
                self.store.fall_back(f"state: more than {fdstate.MAX_SIZE >> 20} MiB")

    def forget(self) -> None:
        """At an orderly end: nothing is to be found again."""
        self._snapshot = None
        if self._memory is not None:
            self.store.remove(["state"])
            os.close(self._memory)
            self._memory = None


def _state_before(store: FdStore) -> dict[str, Any]:
    """What was written before; nothing if there is none, or none that can be used."""
    for name in store.names("state"):
        try:
            before = fdstate.read(store.look(name))
            if before.get("version") != VERSION:
                raise fdstate.StateTorn(f"its version is not {VERSION}")
        except fdstate.StateTorn as why:
            store.refuse([name], f"{why}: what came by command has to be asked for again")
        else:
            return before
    return {}


def _memory(store: FdStore) -> int | None:
    """The descriptor of the state: the kept one, or a new one that is kept from now on."""
    if store.by is None:
        return None
    if store.names("state"):
        return store.take("state")
    try:
        made = fdstate.make()
        fdstate.write(made, {"version": VERSION})
    except OSError as error:
        store.fall_back(f"state: {error.strerror}")
        return None
    if store.put({"state": made}):
        return made
    os.close(made)
    return None


def _by_command(node: Node) -> dict[str, Any]:
    segments = node.segments
    return {
        "segments": [one.asked for one in segments.values() if one.asked is not None],
        "remotes": {
            str(vni): lists for vni, segment in segments.items() if (lists := _differing(segment))
        },
    }


def _differing(segment: NodeSegment) -> dict[str, Any]:
    """How the flood list differs from that of the configuration."""
    now, wanted = segment.engine.remotes(segment.config.vni), segment.config.remotes
    others = [one for one in wanted if one.address not in segment.local]
    lists: dict[str, Any] = {
        "added": [list(one) for one in now if one not in others],
        "removed": [list(one) for one in others if one not in now],
    }
    if segment.echo != dict(segment.config.echo):
        lists["echo"] = segment.echo
    return lists if any(lists.values()) or "echo" in lists else {}


async def _restore_remotes(segment: NodeSegment, lists: dict[str, Any]) -> None:
    for address, port in lists["added"]:
        if address not in segment.local:
            segment.add_remote(Remote(address, port))
    for address, port in lists["removed"]:
        segment.del_remote(Remote(address, port))
    wanted = lists.get("echo", segment.echo)
    for vtep in {**segment.echo, **wanted} if wanted != segment.echo else ():
        await segment.set_echo(vtep, wanted.get(vtep))
    await segment.refit()
