"""`pyvxlan explain`: what becomes of one packet, and why, without sending anything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vxlan.cli import explain_ask as ask
from vxlan.cli import output, session, words
from vxlan.cli.errors import Failure
from vxlan.cli.options import json_option, node_option

if TYPE_CHECKING:
    from vxlan.explain import Defaults, Subject

F = TypeVar("F", bound=Callable[..., Any])

MAX_HEX = 1 << 19
"""Characters of hexadecimal text that are read from standard input."""


def packet_options(command: F) -> F:
    """The forms in which a packet can be given."""
    for option in (
        click.option("--frame", "as_frame", is_flag=True, help="Whatever it is, it is a frame."),
        click.option("--df", is_flag=True, help="IPv4 must not be fragmented."),
        click.option("--size", type=int, metavar="BYTES", help="Of the IP packet."),
        click.option("--dport", type=int, metavar="P", help="Inner destination port."),
        click.option("--sport", type=int, metavar="P", help="Inner source port."),
        click.option("--proto", metavar="tcp|udp|icmp|arp", help="Of the packet; icmp."),
        click.option("--to", metavar="MAC|IP", help="A packet to this station."),
        click.option("--from", "from_", metavar="MAC|IP", help="A packet from this station."),
        click.option("--packet", type=int, metavar="N", help="Which one; 1 is the first."),
        click.option(
            "--pcap", metavar="FILE", help="A packet of a pcap or pcapng file; - reads it."
        ),
    ):
        command = option(command)
    return command


def _judge_options(command: F) -> F:
    """Who is asked, and what holds where nobody is."""
    for option in (
        click.option("--dstport", type=int, metavar="P", help="Without a node: the VXLAN port."),
        click.option("--local", metavar="IP", help="Without a node: this host's address."),
        click.option("--remote", "remotes", multiple=True, metavar="IP", help="Without a node: "
                     "a remote of the flood list; repeatable."),
        click.option("--vni", metavar="N", help="Which segment."),
        node_option,
    ):  # fmt: skip
        command = option(command)
    return command


def end_options(command: F) -> F:
    """What else is asked, and how the answer is shown."""
    for option in (
        json_option,
        click.option("--hex", "drawn", is_flag=True, help="Draw the octets with their names."),
        click.option("--peer", metavar="NODE", help="With --both-ends: who is at the other end."),
        click.option("--both-ends", is_flag=True, help="Ask the other node, too."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("octets", required=False, metavar="[HEX|-]")
@packet_options
@_judge_options
@end_options
def explain(octets: str | None, **said: Any) -> None:
    """Tell what becomes of one packet, and why, without sending anything.

    The packet is HEX (an Ethernet frame; - reads standard input), one of a capture, or
    described in words. A UDP datagram to the VXLAN port is judged as received, any other
    frame as sent by a container. The node that runs decides; a capture is judged without
    one, by defaults, unless -n names it.

    \b
    pyvxlan explain --from 10.42.0.1 --to 02:42:0a:2a:00:02 --proto tcp --size 1500 --df
    pyvxlan explain --pcap FILE --packet 3 --json
    pyvxlan explain -n NAME --pcap FILE --packet 3 --both-ends
    """
    tell(octets, said)


def tell(octets: str | None, said: dict[str, Any]) -> None:
    """Explain the packet that the options name, and print it."""
    asked, answer = _explained(octets, said)
    if said["both_ends"] or said["peer"]:
        answer["other_ends"] = ask.other_ends(answer, asked, said["peer"])
    if said["as_json"]:
        output.emit_json(answer)
        return
    from vxlan.cli import explain_hex, explain_text

    explain_text.show(output.page(), answer)
    if said["drawn"]:
        explain_hex.show(answer)


_WORDS = ("from_", "to", "proto", "sport", "dport", "size", "df")
_ALONE = ("remotes", "local", "dstport")


def _explained(octets: str | None, said: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The node that was asked, None: nobody; and the explanation."""
    in_words = any(said[key] for key in _WORDS)
    _refuse_mixed(said, [octets is not None, said["pcap"] is not None, in_words])
    if in_words:
        return _of_words(said)
    if octets is not None:
        raw = _hex(octets)
        subject = _subject(lambda: ask.of_octets(raw, _port_of(said), said["as_frame"]))
    else:
        subject = _of_capture(said)
    asked = _asked(said, subject)
    if asked is None:
        return None, ask.alone(subject, _defaults(said))
    return asked, ask.subject(asked, subject, _vni(said))


def _refuse_mixed(said: dict[str, Any], forms: list[bool]) -> None:
    if sum(forms) != 1:
        raise _usage("name one packet: HEX, --pcap FILE --packet N, or --from and --to")
    if said["packet"] is not None and said["pcap"] is None:
        raise _usage("--packet goes with --pcap FILE")
    if said["node"] and any(said[key] for key in _ALONE):
        raise _usage("--remote, --local and --dstport stand for a node: leave them or -n out")


def _asked(said: dict[str, Any], subject: Subject) -> str | None:
    """Who decides about octets; None: nobody, defaults do."""
    if said["node"]:
        return session.choose(said["node"])
    if said["remotes"] or said["pcap"] is not None:
        return None
    if subject.outer is not None and not session.running():
        return None
    return session.choose(None)


def _usage(text: str) -> click.UsageError:
    return click.UsageError(text, click.get_current_context(silent=True))


def _vni(said: dict[str, Any]) -> int | None:
    return words.parse((), vni=said["vni"]).vni


def _defaults(said: dict[str, Any]) -> Defaults:
    """What holds without a node."""
    from vxlan.explain import Defaults
    from vxlan.fdb import Remote
    from vxlan.wire import DSTPORT

    port = words.parse((), port=None if said["dstport"] is None else str(said["dstport"])).port
    dstport = port or DSTPORT
    found = [words.remote(text, None) for text in said["remotes"]]
    local = (words.remote(said["local"], None)[0],) if said["local"] else ()
    return Defaults(
        dstport,
        _vni(said),
        local,
        tuple(Remote(address, own or dstport) for address, own in found),
    )


# -- words ---------------------------------------------------------------------------------


def _of_words(said: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    if not said["from_"] or not said["to"]:
        raise _usage("a packet in words has both ends: --from MAC|IP --to MAC|IP")
    described = {key: said[key] for key in ("to", "proto", "sport", "dport", "size")}
    described |= {"from": said["from_"], "df": said["df"] or None}
    if said["remotes"]:
        return None, ask.words_alone(described, _defaults(said))
    asked = session.choose(said["node"])
    return asked, ask.node(asked, vni=_vni(said), **described)


# -- octets --------------------------------------------------------------------------------


def _hex(text: str) -> bytes:
    if text == "-":
        text = sys.stdin.read(MAX_HEX + 1)
        if len(text) > MAX_HEX:
            raise Failure("standard input has more than one packet: give one, in hexadecimal")
    plain = "".join(text.replace(":", " ").split()).removeprefix("0x")
    try:
        octets = bytes.fromhex(plain)
    except ValueError:
        shown = plain if len(plain) <= 20 else f"{plain[:20]}..."
        raise _usage(f"{shown!r} is no packet in hexadecimal: two digits for each octet") from None
    if not octets:
        raise _usage("no octets are given: write them in hexadecimal")
    return octets


# -- a capture -----------------------------------------------------------------------------


def _of_capture(said: dict[str, Any]) -> Subject:
    if said["packet"] is None:
        raise _usage("which packet: add --packet N, 1 is the first")
    if said["packet"] < 1:
        raise _usage(f"there is no packet {said['packet']}: 1 is the first")
    path, number, port = said["pcap"], said["packet"], _port_of(said)
    return _subject(lambda: ask.of_capture(path, number, port, said["as_frame"]), path)


def _port_of(said: dict[str, Any]) -> int:
    """The VXLAN port: that of the node, where one is named."""
    if said["node"] is None:
        return _defaults(said).dstport
    return int(ask.vtep(session.choose(said["node"]))["dstport"])


def _subject(read: Callable[[], Subject], path: str = "") -> Subject:
    from vxlan.outer_read import OuterError
    from vxlan.pcap_read import PcapError

    where = f"{path}: " if path else ""
    try:
        return read()
    except (OuterError, PcapError) as error:
        raise Failure(f"{where}{error}") from error
    except OSError as error:
        raise Failure(f"{where}{error.strerror}") from error
