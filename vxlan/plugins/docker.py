"""Docker's networks over VXLAN: what `pyvxlan docker serve` runs.

Theory of operation
===================

    dockerd ── /run/docker/plugins/pyvxlan.sock ──► this process ── control socket ──► node
                                                      │                                │
                                            TAPs, macvlans, bridges ── descriptors ────┘

The plugin is a process of its own, and the node does not know it: the node keeps the one
UDP port of the host for whoever wants a segment, may only CAP_NET_ADMIN, and carries
packets whatever becomes of the plugin; the plugin needs CAP_SYS_ADMIN for its namespace,
and may be killed and started anew without a packet lost.

    docker_http      the protocol                    docker_state    what is kept on disk
    docker_network   NetworkDriver.*                 docker_devices  what joins containers
    docker_ipam      IpamDriver.*                    docker_taps     the TAPs, handed to the node
    docker_sandbox   whether a container is gone     docker_node     the node
    docker_addresses which address comes next
    docker_options   what `network create` says      docker_engine   questions to dockerd
    docker_swarm     what a swarm asks besides       docker_managed  with a node of its own
    docker_upkeep    what should be there, and is
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxlan import api, sdnotify
from vxlan.netdev import NetdevError
from vxlan.plugins.docker_addresses import Share
from vxlan.plugins.docker_devices import Devices
from vxlan.plugins.docker_http import Handler, PluginServer
from vxlan.plugins.docker_ipam import IpamDriver
from vxlan.plugins.docker_managed import Carrier
from vxlan.plugins.docker_network import NetworkDriver
from vxlan.plugins.docker_node import DEFAULT, NodeLink
from vxlan.plugins.docker_state import StateError, Store
from vxlan.plugins.docker_swarm import follow_peers, swarm_calls
from vxlan.plugins.docker_taps import Taps, TapServer
from vxlan.plugins.docker_upkeep import Upkeep

SOCKETS = Path("/run/docker/plugins")
"""Where Docker looks for NAME.sock when it first hears of the driver NAME."""

STATE = Path("/var/lib/pyvxlan/docker")

ROUND = 30.0
"""Seconds between two looks for what was lost."""

log = logging.getLogger(__name__)


class PluginError(Exception):
    """The plugin cannot start; one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `pyvxlan docker serve` is told.

    name   what stands behind `docker network create -d`
    node   the node that carries the packets; None: the only one that runs
    share  the part of each subnet that this host hands out, where nothing else says so
    swarm  its networks are a swarm's; Docker asks this of a managed plugin only
    """

    name: str = "pyvxlan"
    node: str | None = None
    share: Share | None = None
    swarm: bool = False
    state: Path = STATE
    sockets: Path = SOCKETS


class Plugin:
    """One plugin: `run` returns when SIGTERM or SIGINT came.  Networks stay as they are."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.state, settings.name)
        self.taps = Taps(f"{settings.name}-docker", self.store.path.with_suffix(".taps").absolute())
        self.devices = Devices(self.taps)
        self.node = NodeLink(settings.node, f"docker ({settings.name})", str(self.taps.path))
        self.upkeep = Upkeep(self.store, self.devices, self.node)
        self.driver = NetworkDriver(self.upkeep)
        self.ipam = IpamDriver(self.store, self.upkeep.lock, settings.share)
        self.ended = threading.Event()

    def run(self) -> None:
        """Serve until told to end.  Raises PluginError where it cannot start."""
        self._refuse_second()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ended.set())
        with ExitStack() as stack:
            try:
                self.store.open()
                stack.callback(self.store.close)
                self.upkeep.prepare()
                self._hand_over(stack)
                server = self._listen()
            except (StateError, NetdevError) as error:
                raise PluginError(str(error)) from error
            stack.callback(server.close)
            self._serve(server)

    @property
    def path(self) -> Path:
        """Where Docker finds it."""
        return self.settings.sockets / f"{self.settings.name}.sock"

    def _refuse_second(self) -> None:
        """Namespace, segments and socket are one name's, whatever state it is given."""
        pid = api.listener(self.path)
        if pid is not None:
            raise PluginError(
                f"a plugin named {self.settings.name} runs (pid {pid}): end it, or give --plugin"
            )

    def _hand_over(self, stack: ExitStack) -> None:
        """The node asks for a TAP when it is asked for a segment."""
        try:
            server = TapServer(self.taps)
        except OSError as error:
            raise PluginError(f"{self.taps.path}: {error}: give another --state") from error
        stack.callback(server.close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)

    def _listen(self) -> PluginServer:
        """What should be there is made before Docker can ask for more."""
        self.upkeep.restore()
        self.upkeep.collect()
        self.upkeep.drop_unknown()
        self.ipam.begin()
        try:
            return PluginServer(self.path, self.table())
        except OSError as error:
            raise PluginError(f"{self.path}: {error.strerror}: run as root") from error

    def _serve(self, server: PluginServer) -> None:
        work = [server.serve_forever, self._follow]
        if self.settings.swarm:
            work.append(self._follow_peers)
        for one in work:
            threading.Thread(target=one, daemon=True).start()
        count = len(self.store.networks)
        log.info("plugin %s: serves %s, %d networks", self.settings.name, server.path, count)
        sdnotify.notify("READY=1", f"STATUS={count} networks, node {self.node.name}")
        while not self.ended.wait(ROUND):
            self.upkeep.collect()
        sdnotify.notify("STOPPING=1")
        server.shutdown()
        with self.upkeep.lock:  # what has begun comes to its end
            log.info("plugin %s: ended; the networks stay", self.settings.name)

    def _follow(self) -> None:
        self.node.follow(
            self.upkeep.restore, self.upkeep.happened, self.taps.keep_carrier, self.ended
        )

    def _follow_peers(self) -> None:
        follow_peers(self.upkeep, self.ended)

    def table(self) -> Mapping[str, Handler]:
        """Every method of the protocol that is served."""
        calls = {"Plugin.Activate": self._activate, **self.driver.table(), **self.ipam.table()}
        return {**calls, **(swarm_calls() if self.settings.swarm else {})}

    def _activate(self, _body: dict[str, Any]) -> dict[str, Any]:
        """A dockerd has started.  It tells nothing of what it lost."""
        with self.upkeep.lock:
            self.upkeep.collect(unjoined=True)
            try:
                self.ipam.begin()
            except StateError as error:
                log.error("%s", error)
        return {"Implements": ["NetworkDriver", "IpamDriver"]}


def serve_managed() -> int:
    """What Docker starts as a managed plugin: a node, and the plugin of a swarm."""
    carrier = Carrier()
    carrier.start()
    try:
        return serve(Settings(node=DEFAULT, swarm=True))
    finally:
        carrier.stop()


def serve(settings: Settings) -> int:
    """Run the plugin until it ends; the exit status.  What is wrong goes to the log."""
    try:
        Plugin(settings).run()
    except PluginError as error:
        log.error("%s", error)
        return 1
    return 0
