"""What a click does to the lab: ping, forget, flap a MAC, shrink a path.

Everything is real: an echo request leaves a container, an entry is flushed, a frame
with a stolen source address is sent, a wire carries less.  `undo` widens wires again.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar

from vxlan import api, netdev, wire
from vxlan.lab.probe import ping
from vxlan.lab.topology import LINK
from vxlan.lab.view.feed import Feed
from vxlan.lab.view.scene import ContainerView, HostView, Scene
from vxlan.lab.wait import LabError

T = TypeVar("T", HostView, ContainerView)

LARGEST = 8972
"""Bytes of echo data: a frame of 9014 bytes."""

NARROWEST, WIDEST = 1280, 9000
"""MTU that a path can be given, in bytes."""

_ARP_REQUEST = bytes.fromhex("0001 0800 06 04 0001")


class Actions:
    """The actions of one lab, one at a time; `scene` is asked for the lab as it is."""

    def __init__(self, scene: Callable[[], Scene], feed: Feed) -> None:
        self._now, self._feed = scene, feed
        self._lock = threading.Lock()
        self._over = False
        self._changed: dict[str, int] = {}
        """The full width of each wire that was given another."""
        self._known: dict[str, Callable[[dict[str, Any]], str]] = {
            "ping": self.ping,
            "forget": self.forget,
            "flap": self.flap,
            "shrink": self.shrink,
        }

    @property
    def _scene(self) -> Scene:
        return self._now()

    def do(self, action: str, said: dict[str, Any]) -> str:
        """Do one by its name; what came of it, in a sentence.  Raises LabError."""
        if action not in self._known:
            raise LabError(f"{action[:40]!r} is no action: there are {', '.join(self._known)}")
        try:
            with self._lock:
                if self._over:
                    raise LabError("the page is closed")
                done = self._known[action](said)
        except (api.ApiError, netdev.NetdevError, OSError) as error:
            raise LabError(f"{action}: {error}") from error
        self._feed.tell("done", {"action": action, "said": done})
        return done

    def undo(self) -> None:
        """Give every wire its width back, after the last action: none is done from now on."""
        with self._lock:
            self._over = True
            for host, mtu in self._changed.items():
                with suppress(netdev.NetdevError, OSError):  # the lab may be down by now
                    netdev.set_mtu(host, mtu, netns=self._scene.switch.name)

    def ping(self, said: dict[str, Any]) -> str:
        """One echo request `from` a container `to` another, with `size` bytes of data."""
        source = _named(self._scene.containers, said.get("from"))
        to = _named(self._scene.containers, said.get("to"))
        if source is to:
            raise LabError(f"{to.name} cannot ping itself over the overlay: choose another")
        size = _number(said.get("size", 56), 0, LARGEST, "size")
        address = _common_address(source, to)
        namespace = self._scene.places[source.name]
        (rtt,) = ping(namespace, address, size=size, timeout=1.5).rtts
        if rtt is None:
            return f"{source.name} pinged {to.name} with {size} bytes: no answer."
        return f"{source.name} pinged {to.name} with {size} bytes: answer after {rtt * 1e3:.1f} ms."

    def forget(self, _: dict[str, Any]) -> str:
        """Empty the learned part of each FDB, and what the containers know of each other."""
        for host in self._scene.hosts:
            if host.node:
                api.call(host.node, "fdb.flush", state="dynamic")
            else:
                self._forget_kernel(host)
        for container in self._scene.containers:
            netdev.flush_neighbours(LINK, self._scene.places[container.name].name)
        return "Everything learned is forgotten: in each FDB, and in each container's ARP table."

    def _forget_kernel(self, host: HostView) -> None:
        netns = self._scene.places[host.name].name
        for segment in host.segments:
            for entry in netdev.fdb(segment.tap, netns):
                if entry.dst and not entry.permanent and entry.mac != wire.ZERO_MAC:
                    netdev.fdb_del(segment.tap, entry.mac, entry.dst, netns)

    def flap(self, said: dict[str, Any]) -> str:
        """Announce the MAC of `station` from behind `host`, where it is not."""
        station = _named(self._scene.containers, said.get("station"))
        host = _named(self._scene.hosts, said.get("host"))
        if host.name == station.host:
            raise LabError(f"{station.name} is on {host.name}: choose another host")
        owner, link = self._beside(station, host)
        with self._scene.places[owner].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((link, 0))
            sender.send(_announcement(station))
        return (
            f"The MAC of {station.name} was heard behind {host.name}. "
            f"Who believes it sends there, until {station.name} itself speaks again."
        )

    def _beside(self, station: ContainerView, host: HostView) -> tuple[str, str]:
        """From where `host` is told of the MAC: a container of the same VNI, or its bridge."""
        for other in self._scene.containers:
            if (other.host, other.vni) == (host.name, station.vni):
                return other.name, LINK
        for segment in host.segments:
            if segment.vni == station.vni and segment.bridge:
                return host.name, segment.bridge
        raise LabError(f"{station.name} is in VNI {station.vni}, which {host.name} does not have")

    def shrink(self, said: dict[str, Any]) -> str:
        """Let the wire between `host` and its network carry packets of `mtu` bytes only."""
        host = _named(self._scene.hosts, said.get("host"))
        mtu = _number(said.get("mtu"), NARROWEST, WIDEST, "mtu")
        full = self._changed[host.name] = host.mtu
        netdev.set_mtu(host.name, mtu, netns=self._scene.switch.name)
        self._feed.tell("wire", {"host": host.name, "mtu": mtu, "full": full}, f"wire {host.name}")
        if mtu < full:
            return f"The wire to {host.name} now silently loses what is longer than {mtu} bytes."
        return f"The wire to {host.name} carries {mtu} bytes."


def _named(among: tuple[T, ...], name: object) -> T:
    found = next((one for one in among if one.name == name), None)
    if found is None:
        raise LabError(f"{str(name)[:40]!r}: there are {', '.join(one.name for one in among)}")
    return found


def _number(value: object, least: int, most: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise LabError(f"{what}: a number from {least} to {most} is expected")
    return value


def _common_address(source: ContainerView, to: ContainerView) -> str:
    """An address of `to` of a kind that `source` has, too."""
    kinds = {ip_address(address).version for address in source.addresses}
    for address in to.addresses:
        if ip_address(address).version in kinds:
            return address
    raise LabError(f"{source.name} and {to.name} have no address of the same kind")


def _announcement(station: ContainerView) -> bytes:
    """A gratuitous ARP request with the addresses of a station (RFC 5227, section 3)."""
    mac = wire.mac_bytes(station.mac)
    address = next((one for one in station.addresses if ":" not in one), "0.0.0.0")
    packed = ip_address(address).packed
    body = _ARP_REQUEST + mac + packed + wire.ZERO_MAC + packed
    return wire.BROADCAST + mac + wire.ETH_P_ARP.to_bytes(2, "big") + body
