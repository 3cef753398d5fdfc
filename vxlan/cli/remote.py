"""`pyvxlan remote ...`: the flood list of a segment, and how its remotes are."""

from __future__ import annotations

from typing import Any

import click

from vxlan.cli import output, session, words
from vxlan.cli.devices import Devices
from vxlan.cli.options import json_option
from vxlan.cli.output import Cell, Column

_TONE: dict[str, output.Tone] = {"up": "good", "down": "bad"}

COLUMNS = [
    Column("remote", fixed=False), Column("port", right=True), Column("state"), Column("path"),
    Column("sent", right=True), Column("received", right=True), Column("dropped", right=True),
]  # fmt: skip


@click.group()
def remote() -> None:
    """The remotes of a segment: who gets a copy of broadcast and unknown frames.

    \b
    pyvxlan remote add 192.0.2.3 dev vxlan42
    pyvxlan remote add [2001:db8::3]:8472 vni 42
    """


@remote.command("show")
@click.argument("args", nargs=-1, metavar="[NAME] [vni N] [dev TAP]")
@words.segment_options
@json_option
def show(args: tuple[str, ...], as_json: bool, node: str | None, **options: str | None) -> None:
    """Show the remotes with their state and traffic."""
    (name, vni), _ = words.shown(args, node, **options)
    remotes = session.call(name, "remote.show", vni=vni)
    if as_json:
        output.emit_json(remotes)
    else:
        devices = Devices(name)
        rows = [(devices.tap(one["vni"]), *row(one)) for one in remotes]
        output.page().table([Column("dev"), *COLUMNS], rows)


def row(one: dict[str, Any]) -> output.Row:
    """One remote as a row under `COLUMNS`."""
    counters = one["counters"]
    return (
        one["address"],
        str(one["port"]),
        Cell(one["state"], _TONE.get(one["state"], "faint")),
        _path(one["path"]),
        _traffic(counters, "encap"),
        _traffic(counters, "decap"),
        _dropped(counters),
    )


def _path(path: dict[str, Any] | None) -> Cell:
    """What the path carries, how that was found and when."""
    if path is None:
        return Cell("no way", "warn")
    said = [str(path["mtu"]), path["how"]]
    if path["phase"] != "complete":
        said.append(path["phase"])
    if path["since"] is not None:
        said.append(output.span(path["since"]))
    return Cell(" ".join(said), "warn" if path["mtu"] < path["ceiling"] else "plain")


def _traffic(counters: dict[str, Any], side: str) -> str:
    packets, octets = counters[f"{side}_packets"], counters[f"{side}_bytes"]
    return f"{packets} ({output.size(octets)})"


def _dropped(counters: dict[str, Any]) -> Cell:
    dropped = sum(counters["drops"].values())
    return Cell(str(dropped), "warn" if dropped else "plain")


def _edit(
    op: str,
    remote: str,
    args: tuple[str, ...],
    as_json: bool,
    options: dict[str, Any],
    **more: str | None,
) -> None:
    node = options.pop("node")
    said = words.parse(["dst", remote, *args], **options)
    words.refuse_rest(said)
    name, vni = words.target(node, said)
    result = session.call(name, op, vni=vni, dst=said.dst, port=said.port, **more)
    if as_json:
        output.emit_json(result)


_PORT = click.option("--port", metavar="P", help="Its UDP port, if not the node's dstport.")


@remote.command()
@click.argument("remote", metavar="IP[:PORT]")
@click.argument("args", nargs=-1, metavar="[port P] [vni N] [dev TAP]")
@_PORT
@click.option("--echo", metavar="STATION", help="Probe its path by pinging a station behind it.")
@words.segment_options
@json_option
def add(
    remote: str, args: tuple[str, ...], as_json: bool, echo: str | None, **options: Any
) -> None:
    """Add a remote to the flood list."""
    _edit("remote.add", remote, args, as_json, options, echo=echo)


@remote.command("del")
@click.argument("remote", metavar="IP[:PORT]")
@click.argument("args", nargs=-1, metavar="[port P] [vni N] [dev TAP]")
@_PORT
@words.segment_options
@json_option
def delete(remote: str, args: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Take a remote from the flood list."""
    _edit("remote.del", remote, args, as_json, options)
