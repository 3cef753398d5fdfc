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
from dataclasses import dataclass
from typing import Any

from vxlan.engine import Engine
from vxlan.fdb import Remote
from vxlan.mtu import OVERHEAD, family_of
from vxlan.wire import source_port

SMALL = 100
"""Bytes of a small probe, outer IP header included."""

DEADLINE = 1.0
"""Seconds to wait for an answer."""

TRIES = 2
"""How often a probe is sent before it counts as lost."""

_LOOK = 0.001
"""Seconds between two looks at what has been answered."""


@dataclass(slots=True)
class _Probe:
    flow: int
    size: int
    rtt: float | None = None


async def ping(
    engine: Engine, remote: Remote, *, ports: int, size: int | None, srcport: tuple[int, int]
) -> dict[str, Any]:
    """Probe a remote from `ports` source ports; what was answered, as JSON.

    `size` is of the outer IP packet, bytes; None takes what the path is believed to carry.
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
            {"srcport": source_port(one.flow, *srcport), "size": one.size, "rtt": one.rtt}
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
