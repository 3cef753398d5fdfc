"""`pyvxlan fault ...`: trouble on purpose, in a node that allows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from vxlan.cli import output, session
from vxlan.cli.options import json_option, node_option
from vxlan.cli.output import Cell, Column, Page
from vxlan.fault import PROTOCOLS, Kind

COLUMNS = [
    Column("id", right=True), Column("fault", fixed=False), Column("since", right=True),
    Column("matched", right=True), Column("hit", right=True),
]  # fmt: skip

_OPTIONS = (
    click.option("--vni", type=int, metavar="N", help="Only packets of this VNI."),
    click.option("--remote", metavar="IP", help="Only packets to or from this VTEP."),
    click.option("--mac", metavar="MAC", help="Only frames to or from this station."),
    click.option("--proto", type=click.Choice(["arp", *PROTOCOLS]), help="Only such packets."),
    click.option("--side", type=click.Choice(["encap", "decap", "both"]), help="Out, in, or both."),
    click.option("--share", metavar="X", help="Of those, how many: 0.2 or 20%; all by default."),
    click.option("--seed", type=int, metavar="N", help="The same seed takes the same packets."),
    click.option("--delay", metavar="T", help="delay, reorder: how long, such as 50ms."),
    click.option("--mtu", type=int, metavar="N", help="shrink: the longest outer packet, bytes."),
    click.option("--icmp", is_flag=True, default=None, help="shrink: tell the sender."),
    click.option("--source", metavar="IP", help="forge-source: the outer source."),
    click.option("--as", "as_", metavar="MAC", help="forge-mac, flap: the inner source."),
    click.option("--period", metavar="T", help="flap: how often, 1s by default."),
    click.option("--bits", metavar="HEX", help="reserved: which, as the 8 bytes of the header."),
)


def commands(node_of: Callable[[dict[str, Any]], str]) -> Sequence[click.Command]:
    """`add`, `list` and `clear`; `node_of` takes out of their options whose faults are meant."""

    @click.command()
    @click.argument("kind", type=click.Choice([kind.value for kind in Kind]), metavar="KIND")
    @json_option
    def add(kind: str, as_json: bool, as_: str | None, **options: Any) -> None:
        """Inject a fault, until it is cleared or the node ends.

        \b
        drop, delay, reorder, duplicate   what happens to a share of the packets
        shrink --mtu N [--icmp]           longer outer packets are lost
        filter-icmp                       what routers say of our packets is lost
        clear-i, reserved                 the I flag is clear, reserved bits are set
        forge-source --source IP          the outer source is another's
        forge-mac --as MAC                the inner source is another's
        flap --vni N --as MAC             a MAC is announced from here, again and again
        """
        options["as"] = as_
        name = node_of(options)
        answer = session.call(name, "fault.add", kind=kind, **options)
        if as_json:
            output.emit_json(answer)
        else:
            click.echo(answer["id"])

    @click.command("list")
    @json_option
    def list_(as_json: bool, **options: Any) -> None:
        """Show the faults in force, and how many packets each has hit."""
        found = session.call(node_of(options), "fault.list")
        if as_json:
            output.emit_json(found)
        else:
            print_faults(output.page(), found)

    @click.command()
    @click.argument("number", type=int, required=False, metavar="[ID]")
    @json_option
    def clear(number: int | None, as_json: bool, **options: Any) -> None:
        """End one fault, or all of them."""
        answer = session.call(node_of(options), "fault.clear", id=number)
        if as_json:
            output.emit_json(answer)

    for option in reversed(_OPTIONS):
        add = option(add)
    return add, list_, clear


def print_faults(page: Page, faults: list[dict[str, Any]]) -> None:
    """The faults as a table, for `fault list` and `show`."""
    page.table(COLUMNS, [_row(one) for one in faults])


def _row(one: dict[str, Any]) -> output.Row:
    since = output.span(one["since"])
    return str(one["id"]), Cell(one["text"], "warn"), since, str(one["seen"]), str(one["hits"])


@click.group()
def fault() -> None:
    """Inject faults on purpose, where the configuration says `faults = true`.

    \b
    pyvxlan fault add drop --vni 42 --share 20%
    pyvxlan fault add delay --delay 50ms --remote 192.0.2.2
    pyvxlan fault list
    pyvxlan fault clear
    """


def _chosen(options: dict[str, Any]) -> str:
    return session.choose(options.pop("node"))


for _command in commands(_chosen):
    fault.add_command(node_option(_command))
