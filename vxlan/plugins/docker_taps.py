"""The TAPs of Docker's networks: made here, kept here, and handed to the node to be read.

Theory of operation
===================

    make(42)      a persistent TAP vxlan42 in the plugin's namespace, up
    socket        the node asks for VNI 42 and gets descriptors (vxlan/tap_handing.py)
    delete(42)    the network is gone

A macvlan dies with the device below it, so the device must outlive the node, and this
process too: nothing here is lost by a kill.  Without a reader a TAP has no carrier, and a
macvlan without carrier sends nothing, not even to a container of the same host.  So a
queue that rests is kept open here: the containers of a host have each other while the
node is away.  It is taken when nobody reads: for a moment the kernel would send it frames.

Requests come while whoever holds the plugin's lock waits for the node, so this class has a
lock of its own, and asks nobody.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from contextlib import suppress
from pathlib import Path

from vxlan import netdev, netns, tap_handing
from vxlan.attachment import PORT_MTU
from vxlan.netdev import NetdevError
from vxlan.plugins.private_server import PrivateServer
from vxlan.tap import Tap, TapError
from vxlan.tap_handing import Wish

PATIENCE = 10.0
"""Seconds that a node may take for its request."""

log = logging.getLogger(__name__)


def tap_of(vni: int) -> str:
    """The TAP of a network."""
    return f"vxlan{vni}"


class Taps:
    """The TAPs of the networks in the namespace `netns`, handed over at the socket `path`.

    Methods block for some milliseconds, raise NetdevError, and may be repeated.
    """

    def __init__(self, netns: str, path: Path) -> None:
        self.netns = netns
        self.path = path
        self._kept: dict[int, Tap | None] = {}
        self._anew: set[int] = set()
        self._lock = threading.Lock()

    def make(self, vni: int) -> bool:
        """Have the TAP of a network; whether it is another one than the last time."""
        with self._lock:
            anew = self._ready(vni) or vni in self._anew
            self._anew.discard(vni)
        return anew

    def delete(self, vni: int) -> None:
        """Have it no more."""
        with self._lock:
            self._let_go(vni)
            self._anew.discard(vni)
            netdev.delete_if_there(tap_of(vni), self.netns)

    def forget(self) -> None:
        """The namespace is another one: whatever was in it is not ours any more."""
        with self._lock:
            for vni in list(self._kept):
                self._let_go(vni)
            self._anew.clear()

    def keep_carrier(self) -> None:
        """The node has ended: see that no TAP goes without a carrier."""
        with self._lock:
            for vni in list(self._kept):
                with suppress(NetdevError):  # the node will ask, and hear why
                    self._remade(vni)

    def handed(self, wish: Wish) -> Tap:
        """As many new queues of a network's TAP as are wished for.  The caller closes them.

        Raises TapError as well.
        """
        with self._lock:
            if wish.vni not in self._kept:
                raise TapError(f"VNI {wish.vni} is no network of this plugin, or not yet")
            self._remade(wish.vni)
            return self._opened(wish)

    # -- the caller holds the lock ---------------------------------------------------

    def _remade(self, vni: int) -> None:
        """A TAP that somebody deleted is made anew, and `make` will tell."""
        if self._ready(vni):
            self._anew.add(vni)
            log.warning("tap %s: deleted by somebody: made anew", tap_of(vni))

    def _ready(self, vni: int) -> bool:
        """See that the TAP is there, up and has a carrier; whether it had to be made."""
        kept, name = self._kept.get(vni), tap_of(vni)
        if kept is not None and kept.there:
            return False
        self._let_go(vni)
        self._kept[vni] = None
        link = netdev.find(name, self.netns)
        if link and link.kind != "tun":
            remedy = f"remove it with `ip -n {self.netns} link del {name}`"
            raise NetdevError(f"namespace {self.netns}: {name} is no TAP: {remedy}")
        if not link or not link.carrier:
            self._kept[vni] = self._resting(vni)
        if not link or not link.up:
            self._set_up(name)
        return not link

    def _let_go(self, vni: int) -> None:
        kept = self._kept.pop(vni, None)
        if kept is not None:
            kept.close()

    def _resting(self, vni: int) -> Tap:
        tap = self._opened(Wish(vni))
        try:
            tap.rest()
        except OSError as error:
            tap.close()
            raise NetdevError(f"tap {tap.name}: {error.strerror}", error.errno) from error
        return tap

    def _opened(self, wish: Wish) -> Tap:
        with netns.inside(self.netns):
            try:
                return Tap.open(
                    tap_of(wish.vni), offload=wish.offload, queues=wish.queues, persist=True
                )
            except TapError as error:
                raise NetdevError(f"namespace {self.netns}: {error}") from error

    def _set_up(self, name: str) -> None:
        try:
            netdev.set_unqueued(name, self.netns)
        except NetdevError as error:
            log.warning("%s: it takes more memory", error)
        netdev.set_mtu(name, PORT_MTU, self.netns)
        netdev.set_up(name, netns=self.netns)


class TapServer(PrivateServer):
    """Hands over TAPs at their socket.  `serve_forever`, then `close`."""

    socket_type = socket.SOCK_SEQPACKET
    most = request_queue_size = 16

    def __init__(self, taps: Taps) -> None:
        self.taps = taps
        super().__init__(taps.path, _Request)


class _Request(socketserver.BaseRequestHandler):
    server: TapServer

    def handle(self) -> None:
        self.request.settimeout(PATIENCE)
        if not tap_handing.trusted(self.request):
            return
        try:
            wish = tap_handing.read_wish(self.request)
            tap = self.server.taps.handed(wish)
        except (ValueError, TapError, NetdevError) as error:
            log.warning("no TAP handed over: %s", error)
            tap_handing.refuse(self.request, str(error))
            return
        try:
            tap_handing.hand(self.request, tap)
        finally:
            tap.close()
        log.info("tap %s: handed over, %d queues", tap.name, wish.queues)
