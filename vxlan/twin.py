"""A copy of a VTEP, on which something can be tried that shall have no consequence.

An engine that carries traffic cannot be asked "what would you do?": doing it counts,
learns and answers.  Its twin is a `Vtep` with the same rules and, of the tables, what
concerns one packet, so it decides as the engine would, and may then be thrown away.
What it costs does not grow with the number of stations that the engine knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vxlan.announce import Announcer
from vxlan.fdb import FdbEntry
from vxlan.paths import Paths
from vxlan.segment import Segment
from vxlan.vtep import Vtep


class Part(NamedTuple):
    """One segment of an engine: its rules, the entries that concern the packet, how many
    entries above dynamic name each underlay address, and whether they fill the table."""

    segment: Segment
    entries: Iterable[FdbEntry]
    configured: Mapping[str, int]
    closed: bool


def twin(
    local: Iterable[str],
    port: int,
    parts: Iterable[Part],
    paths: Paths,
    announcer: Announcer,
    source: str,
) -> Vtep:
    """The copy; `source` is the underlay address that the packet came from, if it did."""
    made = Vtep(local, port)
    made.paths = paths.twin(source, made.log)
    made.announcer = announcer.twin(source, lambda vni: made.segments[vni].flood_list)
    for segment, entries, configured, closed in parts:
        made.segments[segment.vni] = segment.twin(made.log, entries, configured, closed)
    return made
