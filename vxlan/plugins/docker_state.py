"""What the Docker plugin has to remember: networks, endpoints and address pools.

Theory of operation
===================

Docker tells a plugin of a network once, when it is created, and never again: neither a
plugin nor a dockerd that starts anew hears of it.  So all of it is in one file, which
is replaced as a whole (vxlan/statefile.py): whoever reads it after a crash finds the state
before a change or the one after it.

The file is what *should* be there.  A change of devices comes before the commit when
something is made, and after nothing else when it is taken away; whatever a crash left in
between is removed, or made, when the plugin starts (vxlan/plugins/docker_network.py).

A file that cannot be understood is never overwritten.  A lock keeps a second plugin away.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vxlan import statefile
from vxlan.statefile import StateError

__all__ = ["BRIDGE", "MACVLAN", "WAYS", "Endpoint", "Network", "Pool", "StateError", "Store"]

VERSION = 1

WAYS = MACVLAN, BRIDGE = "macvlan", "bridge"
"""How the containers of a network are joined to its TAP (vxlan/plugins/docker_devices.py)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network.

    address, address6  with their prefix lengths, or empty
    sandbox            the path of the container's network namespace; empty: not joined
    seen               whether there has been a namespace at that path
    """

    mac: str
    address: str = ""
    address6: str = ""
    sandbox: str = ""
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Network:
    """A Docker network.

    segment  the keys of a [[segment]] besides its vni, as the node is asked for it
    mtu      bytes: the overlay MTU when it was last known
    peers    the other hosts of the network, as swarm tells them; elsewhere they are remotes
             of the segment
    attach   one of WAYS; empty: not chosen yet
    """

    vni: int
    segment: Mapping[str, Any]
    pools: tuple[str, ...] = ()
    internal: bool = False
    mtu: int = 0
    peers: tuple[str, ...] = ()
    attach: str = BRIDGE  # what there was before there was a choice
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pool:
    """A subnet, and which part of it is handed out here.

    first, last  the ends of that part, as addresses
    used         address -> "gateway", "reserved" (--aux-address), "static" (it was asked for) or
                 "dynamic"
    latest       the dynamic address that was handed out last
    """

    subnet: str
    first: str
    last: str
    used: Mapping[str, str] = field(default_factory=dict)
    latest: str = ""


class Store:
    """The state file of one plugin.  `open` it once; every change is on disk when it returns."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.json"
        self.networks: Mapping[str, Network] = {}
        self.pools: Mapping[str, Pool] = {}
        self._lock = -1

    def open(self) -> None:
        """Lock and read.  Raises StateError."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror}: give another --state") from error
        self.read()

    def close(self) -> None:
        """Let another plugin have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_network(self, key: str, network: Network | None) -> None:
        """Write a network; None: there is none.  Raises StateError, and nothing changed."""
        networks = _with(self.networks, key, network)
        self._write(networks, self.pools)
        self.networks = networks

    def set_pool(self, key: str, pool: Pool | None) -> None:
        """Write a pool; None: there is none.  Raises StateError, and nothing changed."""
        pools = _with(self.pools, key, pool)
        self._write(self.networks, pools)
        self.pools = pools

    def _take_lock(self) -> None:
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StateError(
                f"{self.path} is in use: another plugin of this name runs, end it or give --plugin"
            ) from None
        self._lock = lock

    def read(self) -> None:
        """What is on disk; nothing if there is no file.  Raises StateError."""
        found = statefile.load(self.path)
        if found is None:
            return
        try:
            self.networks, self.pools = _parse(found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StateError(
                f"{self.path} cannot be understood ({error!r}): put it aside to start without it, "
                "then create the networks anew"
            ) from None

    def _write(self, networks: Mapping[str, Network], pools: Mapping[str, Pool]) -> None:
        state = {
            "version": VERSION,
            "networks": {key: asdict(one) for key, one in networks.items()},
            "pools": {key: asdict(one) for key, one in pools.items()},
        }
        statefile.save(self.path, state)


def _with(there: Mapping[str, Any], key: str, value: Any) -> Mapping[str, Any]:
    rest = {other: one for other, one in there.items() if other != key}
    return rest if value is None else {**rest, key: value}


def _parse(state: Any) -> tuple[Mapping[str, Network], Mapping[str, Pool]]:
    if state["version"] != VERSION:
        raise ValueError(f"version {state['version']}")
    networks = {key: _network(one) for key, one in state["networks"].items()}
    return networks, {key: Pool(**one) for key, one in state["pools"].items()}


def _network(one: dict[str, Any]) -> Network:
    endpoints = {key: Endpoint(**endpoint) for key, endpoint in one["endpoints"].items()}
    lists = {key: tuple(one[key]) for key in ("pools", "peers")}
    return Network(**{**one, **lists, "endpoints": endpoints})
