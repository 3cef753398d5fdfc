"""Who decides about the packet of `pyvxlan explain`: a node, nobody, or the other end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vxlan.cli import session
from vxlan.cli.errors import Failure

if TYPE_CHECKING:
    from vxlan.explain import Defaults, Subject

Answer = dict[str, Any]

MOST_ENDS = 16
"""How many remotes of a flood list are asked."""


def of_octets(octets: bytes, dstport: int, as_frame: bool) -> Subject:
    """What octets are.  Raises OuterError."""
    from vxlan.explain import Subject, subject_of

    return Subject(octets) if as_frame else subject_of(octets, dstport)


def of_capture(path: str, number: int, dstport: int, as_frame: bool) -> Subject:
    """What a packet of a capture is.  Raises OSError, OuterError, PcapError."""
    from vxlan.explain import Subject, captured
    from vxlan.pcap_read import packet

    if path == "-":
        found = packet(sys.stdin.buffer, number)
    else:
        with Path(path).open("rb") as stream:
            found = packet(stream, number)
    return Subject(found.data) if as_frame else captured(found, dstport)


# -- nobody --------------------------------------------------------------------------------


def alone(subject: Subject, defaults: Defaults) -> Answer:
    """By defaults."""
    from vxlan.explain import alone

    return alone(subject, defaults)


def words_alone(described: Answer, defaults: Defaults) -> Answer:
    """A packet in words, by defaults."""
    from vxlan.explain import frame_alone

    try:
        return frame_alone(described, defaults)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from None


# -- a node --------------------------------------------------------------------------------


def node(name: str, **args: Any) -> Answer:
    """The answer of one node."""
    answer: Answer = session.call(name, "explain", **args)
    return answer


def vtep(name: str) -> Answer:
    """What `show` says of the underlay side of a node."""
    shown: Answer = session.call(name, "show")["vtep"]
    return shown


def subject(name: str, subject: Subject, vni: int | None) -> Answer:
    """What a node does with a frame, or with a datagram that it sent or is sent."""
    if subject.outer is None:
        if subject.frame is None:
            raise Failure("this packet is neither a frame nor a datagram to the VXLAN port")
        answer = node(name, vni=vni, frame=subject.frame.hex())
        answer["notes"] = [*subject.notes, *answer["notes"]]
        return answer
    outer, local = subject.outer, vtep(name)["local"]
    if outer.source.address in local:
        return _sent(name, subject)
    answer = node(name, datagram=outer.payload.hex(), src=outer.source.address, tos=outer.tos)
    answer["outer"] = subject.outer_json
    answer["notes"] = [*subject.notes, *answer["notes"]]
    if outer.target.address not in local:
        note = f"it was sent to {outer.target.address}: judged as if it had come to this node"
        answer["notes"].append(note)
    return answer


def _sent(name: str, subject: Subject) -> Answer:
    """A datagram that the node sent itself: what it does with the frame inside, now."""
    from vxlan.wire import VXLAN_HLEN, parse_vxlan

    assert subject.outer is not None
    header = parse_vxlan(subject.outer.payload)
    if header is None or not header.valid:
        raise Failure(f"node {name} sent this, but no frame: it is a probe, or cut off")
    frame = subject.outer.payload[VXLAN_HLEN:]
    answer = node(name, vni=header.vni, frame=frame.hex())
    answer["notes"].insert(0, f"node {name} sent this: judged is the frame inside, as of now")
    return answer


# -- the other end -------------------------------------------------------------------------


def other_ends(answer: Answer, asked: str | None, peer: str | None) -> list[Answer]:
    """What the other ends decide: {"address", "node", "explanation", "why"} for each.

    `asked` is the node that gave the answer.  `why` is one line, where the other end could
    not be asked.
    """
    if answer["side"] == "encap":
        there = list(dict.fromkeys(one["dst"] for one in answer["datagrams"]))
        found = [_end(address, asked, peer, answer) for address in there[:MOST_ENDS]]
        return found or [_nobody("nothing leaves this end")]
    if answer["side"] == "decap" and answer["vni"] is not None:
        return [_end(answer["outer"]["src"], asked, peer, answer)]
    return [_nobody("no frame came from there")]


def _nobody(why: str) -> Answer:
    return {"address": None, "node": None, "explanation": None, "why": why}


def _end(address: str, asked: str | None, peer: str | None, answer: Answer) -> Answer:
    end: Answer = {"address": address, "node": None, "explanation": None, "why": ""}
    try:
        name = peer or _node_at(address, asked)
        end["node"] = Path(name).stem if "/" in name else name
        if answer["side"] == "encap":
            _receive(end, name, answer)
        else:
            end["explanation"] = node(name, vni=answer["vni"], frame=answer["inner"]["hex"])
    except Failure as failure:
        end["why"] = failure.format_message()
    return end


def _node_at(address: str, asked: str | None) -> str:
    """The one node of this machine, or of the same lab, that has an underlay address."""
    found = [name for name in _neighbours(asked) if address in vtep(name)["local"]]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failure(
            f"{len(found)} nodes have {address} ({', '.join(found)}): name it with --peer"
        )
    raise Failure(f"no node that runs on this machine has {address}: ask there, or name --peer")


def _neighbours(asked: str | None) -> list[str]:
    """The nodes that may be the other end.  Those of a lab lie side by side:
    LAB/HOST/HOST.sock."""
    from vxlan import api

    if asked is None or "/" not in asked:
        return [name for name in session.running() if name != asked]
    lab = Path(asked).resolve().parent.parent
    there = [path for path in sorted(lab.glob("*/*.sock")) if api.listener(path) is not None]
    return [str(path) for path in there if path != Path(asked).resolve()]


def _receive(end: Answer, name: str, answer: Answer) -> None:
    """What node `name` does with the datagram for `end`, the first of several fragments."""
    sent = next(one for one in answer["datagrams"] if one["dst"] == end["address"])
    listens = vtep(name)["dstport"]
    if listens != sent["dport"]:
        end["why"] = f"node {name} listens on port {listens}, the datagram goes to {sent['dport']}"
        return
    payload = answer["payloads"][sent["payload"]]
    end["explanation"] = node(name, datagram=payload, src=sent["src"], tos=sent["tos"])
    end["explanation"]["outer"] = {key: sent[key] for key in end["explanation"]["outer"]}
