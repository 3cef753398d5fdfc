"""`pyvxlan station ...`: stations that nodes announce to each other."""

from __future__ import annotations

from typing import Any

import click

from vxlan.cli import output, session, words
from vxlan.cli.devices import Devices
from vxlan.cli.options import json_option
from vxlan.cli.output import Cell, Column

COLUMNS = [
    Column("dev"), Column("mac"), Column("address", fixed=False), Column("announced by"),
]  # fmt: skip

_PLACE = click.argument("args", nargs=-1, metavar="[vni N] [dev TAP]")


@click.group()
def station() -> None:
    """Stations that are announced: nobody has to flood to find them.

    A segment with `announce = true` tells its remotes which stations are here, and believes
    what they tell.  Container plugins do this by themselves.

    \b
    pyvxlan station add 02:42:0a:2a:00:0b --address 10.42.0.11
    pyvxlan station show
    """


@station.command("show")
@click.argument("args", nargs=-1, metavar="[NAME] [vni N] [dev TAP]")
@words.segment_options
@json_option
def show(args: tuple[str, ...], as_json: bool, node: str | None, **options: str | None) -> None:
    """Show what is announced here, and by others."""
    (name, vni), _ = words.shown(args, node, **options)
    stations = session.call(name, "station.show", vni=vni)
    if as_json:
        output.emit_json(stations)
        return
    devices = Devices(name)
    rows = [(devices.tap(one["vni"]), *_row(one)) for one in stations]
    output.page().table(COLUMNS, rows)


def _row(one: dict[str, Any]) -> output.Row:
    by = Cell("this node", "good") if one["remote"] is None else Cell(one["remote"])
    return one["mac"], ", ".join(one["address"]) or "none", by


def _edit(
    op: str, mac: str, args: tuple[str, ...], as_json: bool, options: dict[str, Any], **more: Any
) -> None:
    node = options.pop("node")
    said = words.parse(args, **options)
    words.refuse_rest(said)
    name, vni = words.target(node, said)
    result = session.call(name, op, vni=vni, mac=mac, **more)
    if as_json:
        output.emit_json(result)


@station.command()
@click.argument("mac")
@_PLACE
@click.option("--address", metavar="IP", multiple=True, help="Its addresses; repeatable.")
@words.segment_options
@json_option
def add(
    mac: str, args: tuple[str, ...], as_json: bool, address: tuple[str, ...], **options: Any
) -> None:
    """Announce a station behind this node; again, to change its addresses."""
    _edit("station.add", mac, args, as_json, options, address=list(address))


@station.command("del")
@click.argument("mac")
@_PLACE
@words.segment_options
@json_option
def delete(mac: str, args: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Announce a station no more."""
    _edit("station.del", mac, args, as_json, options)
