"""`explain`: what this node would do with one packet, without doing it.

Theory of operation
===================

A packet comes in one of three forms, and one twin of the engine decides about it:

    frame          octets, as from the TAP of a segment
    datagram, src  a UDP payload, as received from `src`
    from, to, ...  words, of which vxlan/node_words.py makes a frame

The engine goes on undisturbed: its twin (vxlan/twin.py) has the entries of two stations,
and is thrown away.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vxlan import config_values as values
from vxlan import report
from vxlan.api import ApiError
from vxlan.arguments import Args, checked, only, optional
from vxlan.decision import Decision, decide_decap, decide_encap, inner_of, macs_of
from vxlan.engine import Datagram
from vxlan.explanation import Surroundings, explain, given
from vxlan.fdb import Remote
from vxlan.node_words import WORDS, frame_of

if TYPE_CHECKING:
    from vxlan.node import Node
    from vxlan.node_segment import NodeSegment
    from vxlan.vtep import Vtep

LONGEST = 1 << 17
"""Bytes of the longest packet that is explained."""


class Explain:
    """The operation `explain` of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def explain(self, args: Args) -> Any:
        """Decide about one packet; docs/explain.md has the answer."""
        only(args, "vni", "frame", "datagram", "src", "tos", *WORDS)
        _refuse_mixed(args)
        if "datagram" in args:
            return self._datagram(args)
        segment, notes = self._node.operations.segment(args), list[str]()
        if "frame" in args:
            octets = checked(args, "frame", _octets)
        else:
            octets = await frame_of(args, segment, notes)
        return self._encap(segment, octets, notes)

    # -- the two sides ---------------------------------------------------------------------

    def _encap(self, segment: NodeSegment, octets: bytes, notes: list[str]) -> Any:
        now, vni = time.monotonic(), segment.config.vni
        twin = self._node.engine.twin(macs_of(octets))
        decision = decide_encap(twin, vni, octets, now)
        return explain(decision, self._around(decision, twin, now, notes), {})

    def _datagram(self, args: Args) -> Any:
        source = checked(args, "src", values.underlay_address)
        tos = optional(args, "tos", 0, lambda one: values.whole(one, 0, 255, "a TOS"))
        payload = checked(args, "datagram", _octets)
        datagram = Datagram(Remote(source, self._node.config.vtep.dstport), payload, tos=tos)
        twin = self._node.engine.twin(macs_of(inner_of(datagram)), source)
        now = time.monotonic()
        decision = decide_decap(twin, datagram, now)
        around = self._around(decision, twin, now, [])
        return explain(decision, around, given(datagram, around))

    def _around(self, decision: Decision, twin: Vtep, now: float, notes: list[str]) -> Surroundings:
        node, vtep = self._node, self._node.config.vtep
        segment = node.segments.get(decision.vni) if decision.vni is not None else None
        peers, paths = node.engine.peers_up(), node.engine.paths()
        if faults := node.engine.faults():
            notes.append(
                f"{len(faults)} faults are injected here (`pyvxlan fault list`): passed over"
            )
        return Surroundings(
            node=node.config.name,
            local=node.local,
            dstport=vtep.dstport,
            sport=node.underlay.source_port,
            summed=lambda version: vtep.udpcsum if version == 4 else not vtep.udp6zerocsumtx,
            policy=segment.policy if segment else None,
            segment=_segment_json(segment) if segment else None,
            remote=lambda address: {
                "state": report.state_of(peers, address),
                "path": report.path_json(paths.get(address)),
            },
            full=segment is not None and self._is_full(segment),
            now=now,
            notes=notes,
        )

    def _is_full(self, segment: NodeSegment) -> bool:
        count = self._node.engine.fdb_count(segment.config.vni)
        return count >= segment.policy.maxaddress


def _refuse_mixed(args: Args) -> None:
    forms: set[str] = {"frame", "datagram"} & args.keys()
    if args.keys() & set(WORDS):
        forms.add("words")
    if len(forms) != 1:
        text = "one packet at a time: give `frame`, or `datagram` with `src`, or `from` and `to`"
        raise ApiError(text, "usage")
    if forms != {"datagram"} and ("src" in args or "tos" in args):
        raise ApiError("src and tos belong to a datagram: leave them out", "usage")


def _segment_json(segment: NodeSegment) -> dict[str, Any]:
    return {
        "vni": segment.config.vni,
        "tap": segment.config.tap,
        "bridge": segment.config.bridge,
        "mtu": segment.mtu,
        "mtu_limit": segment.limit.why if segment.limit else "no path is known now",
    }


def _octets(value: object) -> bytes:
    """Octets in hexadecimal."""
    try:
        octets = bytes.fromhex(values.text(value))
    except ValueError:
        raise ValueError("these are no octets in hexadecimal") from None
    if len(octets) > LONGEST:
        raise ValueError(f"{len(octets)} bytes: at most {LONGEST} are explained")
    return octets
