"""Docker's swarm: networks of many hosts, whose addresses, names and members are swarm's.

Theory of operation
===================

    a manager   AllocateNetwork     which VNI          may be asked again at any time
    each host   CreateNetwork ...   as without swarm   when its first container comes

What AllocateNetwork answers takes the place of the network's options, and reaches every
host.  Without `-o vni=N` the VNI follows from the network's identifier, so every
manager gives the same answer and none has to remember it.

Who takes part in a network is asked of dockerd, every other second.  It could be told by
DiscoverNew as well, but that is not repeated for a plugin that starts later.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Mapping
from typing import Any

from vxlan.plugins import docker_engine, docker_options
from vxlan.plugins.docker_http import Handler
from vxlan.plugins.docker_options import GENERIC, identifier
from vxlan.plugins.docker_upkeep import Upkeep
from vxlan.wire import MAX_VNI

Body = dict[str, Any]

FIRST_VNI = 4096
"""Where swarm's own overlays begin as well: smaller ones are for those who choose."""

PAUSE = 2.0
"""Seconds between two looks at who takes part."""

log = logging.getLogger(__name__)


def swarm_calls() -> Mapping[str, Handler]:
    """The methods that only a swarm calls, and those that it answers otherwise."""
    return {
        "NetworkDriver.GetCapabilities": _capabilities,
        "NetworkDriver.AllocateNetwork": allocate,
        "NetworkDriver.FreeNetwork": lambda _body: {},
    }


def _capabilities(_body: Body) -> Body:
    return {"Scope": "global", "ConnectivityScope": "global"}


def allocate(body: Body) -> Body:
    """The options of a network, checked, with a VNI in any case."""
    given = body.get("Options")
    options = {str(key): value for key, value in (given if isinstance(given, dict) else {}).items()}
    options.setdefault("vni", str(vni_of(identifier(body, "NetworkID"))))
    docker_options.network({"Options": {GENERIC: options}})
    return {"Options": options}


def vni_of(network: str) -> int:
    """A VNI that is the same wherever it is asked for."""
    return FIRST_VNI + zlib.crc32(network.encode()) % (MAX_VNI + 1 - FIRST_VNI)


def follow_peers(upkeep: Upkeep, ended: threading.Event) -> None:
    """Keep the remotes of all networks to those who take part; blocks until `ended`."""
    while not ended.wait(PAUSE):
        for key in list(upkeep.store.networks):
            peers = docker_engine.peers_of(key)
            if peers is not None:
                upkeep.set_peers(key, peers)
