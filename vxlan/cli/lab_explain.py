"""`pyvxlan lab explain HOST ...`: what becomes of one packet at a host of a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vxlan.cli import explain as packets
from vxlan.cli import lab as labs
from vxlan.cli.errors import Failure

if TYPE_CHECKING:
    from vxlan.lab.running import RunningLab


@click.command()
@click.argument("host", shell_complete=labs.complete_place)
@click.argument("octets", required=False, metavar="[HEX|-]")
@packets.packet_options
@click.option("--vni", metavar="N", help="Which segment.")
@labs.lab_option
@packets.end_options
def explain(host: str, octets: str | None, lab_name: str | None, **said: Any) -> None:
    """Tell what becomes of one packet at the node of HOST, as `pyvxlan explain` does.

    Names of the lab stand for its containers, with MAC and IP address; --both-ends asks
    the nodes of the lab.

    \b
    pyvxlan lab explain a --from c1 --to c2 --proto tcp --size 1500 --df --both-ends
    pyvxlan lab explain b --pcap FILE --packet 3
    """
    there = labs.chosen(lab_name)
    said["node"] = _node(there, host)
    for key in ("from_", "to"):
        if said[key] in there.containers:
            said[key] = _station(there, said[key])
    said["peer"] = _node(there, said["peer"]) if said["peer"] else None
    packets.tell(octets, {**said, "remotes": (), "local": None, "dstport": None})


def _node(there: RunningLab, word: str) -> str:
    """The control socket of a host's node."""
    with labs.failures():
        there.place(word)
        found = there.hosts.get(word)
        if found is None:
            raise Failure(f"{word} is no host with a VTEP: {', '.join(there.hosts)} are hosts")
        return found.node.target


def _station(there: RunningLab, word: str) -> str:
    """MAC,IP of a container."""
    container = there.containers[word]
    with labs.failures():
        return f"{container.mac.hex(':')},{container.address}"
