"""What a node would do now with the packets of a capture, one line for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from vxlan.cli import session
from vxlan.cli.errors import FAILED, Failure

if TYPE_CHECKING:
    from vxlan.pcap_read import Packet

Answer = dict[str, Any]


class Judge:
    """Asks one node by its operation `explain`, which sends nothing and changes nothing.

    `vni` is that of frames from a TAP which the node does not have.
    """

    def __init__(self, node: str, dstport: int | None, vni: int | None) -> None:
        shown = session.call(node, "show")
        self._node, self._vni = node, vni
        self._dstport = dstport or shown["vtep"]["dstport"]
        self._taps = {one["tap"]: one["vni"] for one in shown["segments"]}
        self.verdicts: Counter[str] = Counter()
        self.changed = 0

    def answers(self, packets: Iterable[Packet]) -> Iterator[Answer]:
        """What `explain` says, with `number`, what was `captured` beside the packet, and
        whether that `changed`.  What went out, or is cut, is not judged."""
        for packet in packets:
            if packet.direction == "out":
                continue
            answer = self._answer(packet) if len(packet.data) == packet.length else None
            if answer is None:
                self.verdicts["not judged"] += 1
                continue
            then = packet.comments[0] if packet.comments else None
            answer |= {"number": packet.number, "captured": then, "changed": _changed(then, answer)}
            self.verdicts[answer["verdict"]] += 1
            self.changed += answer["changed"]
            yield answer

    def _answer(self, packet: Packet) -> Answer | None:
        from vxlan.pcap_read import ETHERNET
        from vxlan.replay import datagram_in

        datagram = datagram_in(packet, self._dstport)
        if datagram is not None:
            source = datagram.remote.address
            return self._ask(datagram=datagram.payload.hex(), src=source, tos=datagram.tos)
        vni = self._taps.get(packet.interface.name, self._vni)
        if packet.interface.linktype != ETHERNET or not packet.data:
            return None
        return self._ask(frame=packet.data.hex(), vni=vni)

    def _ask(self, **args: Any) -> Answer | None:
        """The answer; None where the node has no opinion, as of a segment that it lacks."""
        try:
            answer: Answer = session.call(self._node, "explain", **args)
        except Failure as refused:
            if refused.status != FAILED:
                raise
            return None
        return answer

    def told(self) -> str:
        """How many were judged how."""
        parts = [f"{count} {verdict}" for verdict, count in self.verdicts.items()]
        if self.changed:
            parts.append(f"{self.changed} otherwise than when they were captured")
        return ", ".join(parts) or "no packet came in"


def _changed(then: str | None, answer: Answer) -> bool:
    """Whether a packet that was dropped passes now, or the other way round."""
    if then is None or answer["verdict"] not in ("drop", "encap", "decap"):
        return False
    return bool(then.startswith("dropped ") != (answer["verdict"] == "drop"))


def line(answer: Answer) -> str:
    """One packet for a person."""
    from vxlan.cli.capture_text import summary

    frame = bytes.fromhex(answer["inner"].get("hex") or "")
    what = " ".join(summary(frame)) if frame else "no frame"
    parts = [f"{answer['number']:>6} {what}:", answer["verdict"], answer["reason"]]
    if answer["vni"] is not None:
        parts.append(f"vni {answer['vni']}")
    if answer["verdict"] == "encap":
        parts.append("-> " + ", ".join(one["address"] for one in answer["remotes"]))
    if answer["changed"]:
        parts.append(f"(then: {answer['captured']})")
    return " ".join(parts)
