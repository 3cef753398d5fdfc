"""`ping`: what the way to a remote is like now, over several source ports.

Probes of two sizes are sent from each of some source ports: a small one, and one as
large as the path is believed to carry (or as asked for).  A path that the underlay
spreads over several links may be whole on one and broken on another; which port fails,
and at which size, tells where.  All probes are under way at once, and what is lost is
sent once more, since any network loses a packet now and then.  The other end must be a
pyvxlan: nobody else answers a probe (vxlan/probe.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vxlan.engine import Datagram, Engine
from vxlan.fdb import Remote
from vxlan.mtu import OVERHEAD, family_of

SMALL = 100
"""Bytes of a small probe, outer IP header included."""

DEADLINE = 1.0
"""Seconds to wait for an answer."""

TRIES = 2
"""How often a probe is sent before it counts as lost."""

_LOOK = 0.001
"""Seconds between two looks at what has been answered."""


PortOf = Callable[[Datagram], int]


@dataclass(slots=True)
class _Probe:
    flow: int
    size: int
    rtt: float | None = None


async def ping(
    engine: Engine, remote: Remote, *, ports: int, size: int | None, port_of: PortOf
) -> dict[str, Any]:
    """Probe a remote from `ports` source ports; what was answered, as JSON.

    `size` is of the outer IP packet, bytes; None takes what the path is believed to carry.
    `port_of` tells from which port a datagram leaves.
    """
    path = engine.paths().get(remote.address)
    sizes = dict.fromkeys((SMALL, size or (path.mtu if path else SMALL)))
    flows = [index * (1 << 32) // ports for index in range(ports)]
    probes = [_Probe(flow, one) for flow in flows for one in sizes]
    await asyncio.gather(*(_send(engine, remote, probe) for probe in probes))
    return {
        "address": remote.address,
        "port": remote.port,
        "overhead": OVERHEAD[family_of(remote.address)],
        "probes": [
            {"srcport": port_of(Datagram(remote, b"", one.flow)), "size": one.size, "rtt": one.rtt}
            for one in probes
        ],
    }


async def _send(engine: Engine, remote: Remote, probe: _Probe) -> None:
    """One probe and its answer, if that comes in time."""
    for _ in range(TRIES):
        began = time.monotonic()
        nonce = engine.ping(remote, probe.size, probe.flow, began)
        while probe.rtt is None and time.monotonic() - began < DEADLINE:
            await asyncio.sleep(_LOOK)
            probe.rtt = engine.echo(nonce)
        if probe.rtt is not None:
            return
