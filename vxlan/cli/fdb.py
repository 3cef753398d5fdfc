"""`pyvxlan fdb ...`: which station is behind which remote, in the words of bridge(8)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from vxlan.cli import output, session, words
from vxlan.cli.devices import Devices
from vxlan.cli.options import json_option
from vxlan.cli.output import Cell, Column

Entry = dict[str, Any]

TABLE_ROWS = 2000
"""A terminal shows a longer list as lines: laying out a table takes all of it first."""

_TONE: dict[str, output.Tone] = {"static": "good", "extern_learn": "warn"}


@click.group()
def fdb() -> None:
    """The forwarding database: which MAC is behind which remote.

    Arguments are the words of bridge(8); each is also an option (--dst IP).

    \b
    pyvxlan fdb show dev vxlan42
    pyvxlan fdb add 02:42:0a:2a:00:02 dev vxlan42 dst 192.0.2.2
    pyvxlan fdb why 02:42:0a:2a:00:02
    """


@fdb.command("show")
@click.argument("args", nargs=-1, metavar="[NAME] [vni N] [dev TAP] [dst IP] [STATE]")
@words.remote_options
@words.segment_options
@json_option
def show(args: tuple[str, ...], as_json: bool, node: str | None, **options: str | None) -> None:
    """Show the entries of a node; the all-zero MAC is the flood list.

    STATE is static, extern_learn or dynamic.
    """
    (name, vni), said = words.shown(args, node, **options)
    entries = [entry for entry in session.call(name, "fdb.show", vni=vni) if _wanted(entry, said)]
    if as_json:
        output.emit_json(entries)
    elif output.on_terminal() and len(entries) <= TABLE_ROWS:
        _print_table(entries, Devices(name))
    else:
        _print_lines(entries, Devices(name))


def _wanted(entry: Entry, said: words.Words) -> bool:
    if said.state not in (None, entry["state"]):
        return False
    return said.dst is None or any(
        dst["address"] == said.dst and said.port in (None, dst["port"]) for dst in entry["dst"]
    )


def _print_lines(entries: list[Entry], devices: Devices) -> None:
    for entry in entries:
        for line in _lines(entry, devices):
            click.echo(line)


def _lines(entry: Entry, devices: Devices) -> Iterator[str]:
    """One line for each remote, as `bridge fdb show` has it."""
    vni = entry["vni"]
    for dst in entry["dst"]:
        yield (
            f"{entry['mac']} dev {devices.tap(vni)} dst {devices.dst(dst)} vni {vni} "
            f"{entry['state']} age {int(entry['age'])}s source {_one_word(entry['source'])} self"
        )


def _one_word(source: str) -> str:
    """The source as one word, so that the words of a line can be counted."""
    return source.replace(" ", "-")


def _print_table(entries: list[Entry], devices: Devices) -> None:
    columns = [
        Column("MAC"), Column("dev"), Column("dst", fixed=False), Column("state"),
        Column("age", right=True), Column("source"),
    ]  # fmt: skip
    output.page().table(columns, (_row(entry, devices) for entry in entries))


def _row(entry: Entry, devices: Devices) -> output.Row:
    return (
        entry["mac"],
        devices.tap(entry["vni"]),
        devices.dsts(entry["dst"], "\n"),
        Cell(entry["state"], _TONE.get(entry["state"], "plain")),
        output.span(entry["age"]),
        entry["source"],
    )


# -- writing ----------------------------------------------------------------------------


def _edit(op: str, mac: str, args: tuple[str, ...], as_json: bool, options: dict[str, Any]) -> None:
    address = words.mac(mac)
    node = options.pop("node")
    said = words.parse(args, **options)
    words.refuse_rest(said)
    if op != "fdb.del":
        words.need_dst(said)
    name, vni = words.target(node, said)
    result = session.call(
        name, op, vni=vni, mac=address, dst=said.dst, port=said.port, state=said.state
    )
    if as_json:
        output.emit_json(result)


_ENTRY = "dst IP [port P] [vni N] [dev TAP] [static|extern_learn]"


@fdb.command()
@click.argument("mac")
@click.argument("args", nargs=-1, metavar=_ENTRY)
@words.remote_options
@words.segment_options
@json_option
def add(mac: str, args: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say that MAC is behind a remote; refused if an entry says otherwise.

    With the all-zero MAC the remote joins the flood list.
    """
    _edit("fdb.add", mac, args, as_json, options)


@fdb.command("replace")
@click.argument("mac")
@click.argument("args", nargs=-1, metavar=_ENTRY)
@words.remote_options
@words.segment_options
@json_option
def replace(mac: str, args: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say that MAC is behind a remote, whatever was said before."""
    _edit("fdb.replace", mac, args, as_json, options)


@fdb.command("del")
@click.argument("mac")
@click.argument("args", nargs=-1, metavar="[dst IP] [port P] [vni N] [dev TAP]")
@words.remote_options
@words.segment_options
@json_option
def delete(mac: str, args: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Delete the entry of MAC, or one remote of it."""
    _edit("fdb.del", mac, args, as_json, options)


@fdb.command()
@click.argument("args", nargs=-1, metavar="[dst IP] [vni N] [dev TAP] [STATE]")
@words.remote_options
@words.segment_options
@json_option
def flush(args: tuple[str, ...], as_json: bool, node: str | None, **options: str | None) -> None:
    """Delete all entries that match; without STATE the learned ones only.

    STATE is static, extern_learn or dynamic.
    """
    said = words.parse(args, **options)
    words.refuse_rest(said)
    name, vni = words.target(node, said)
    state = said.state or "dynamic"
    result = session.call(name, "fdb.flush", vni=vni, state=state, dst=said.dst)
    if as_json:
        output.emit_json(result)
    else:
        output.note(f"flushed {result['flushed']} {state} entries")


# -- why --------------------------------------------------------------------------------


@fdb.command()
@click.argument("mac")
@click.argument("args", nargs=-1, metavar="[vni N] [dev TAP]")
@words.segment_options
@json_option
def why(
    mac: str, args: tuple[str, ...], as_json: bool, node: str | None, **options: str | None
) -> None:
    """Tell where an entry comes from, what it overruled, and its last moves."""
    address = words.mac(mac)
    said = words.parse(args, **options)
    words.refuse_rest(said)
    name, vni = words.target(node, said)
    result = session.call(name, "fdb.why", vni=vni, mac=address)
    if as_json:
        output.emit_json(result)
    else:
        _explain(output.page(), address, result, Devices(name))


def _explain(page: output.Page, mac: str, result: dict[str, Any], devices: Devices) -> None:
    entry = result["entry"]
    if entry is None:
        page.heading(f"{mac}: no entry; frames to it go to the whole flood list")
    else:
        page.heading(f"{mac} dev {devices.tap(entry['vni'])} vni {entry['vni']}")
        _explain_entry(page, entry, devices)
    if result["history"]:
        page.gap()
        page.heading("what happened, oldest first")
        page.table(_HISTORY, (_history_row(event, devices) for event in result["history"]))


def _explain_entry(page: output.Page, entry: Entry, devices: Devices) -> None:
    page.fact("dst", devices.dsts(entry["dst"]))
    page.fact("state", f"{entry['state']}, said by {entry['source']}: {_RANK[entry['state']]}")
    page.fact("since", f"{_clock(time.time() - entry['since'])}, {_ago(entry['since'])}")
    page.fact("confirmed", _ago(entry["age"]))
    page.fact("used", "never" if entry["used"] is None else _ago(entry["used"]))
    if shadowed := entry["shadowed"]:
        where = devices.dsts(shadowed["dst"])
        page.fact("overrules", f"{shadowed['state']} {where}, said by {shadowed['source']}", "warn")


_RANK = {
    "static": "an operator's word; data cannot change it and it never ages",
    "extern_learn": "a control plane's word; data cannot change it and it never ages",
    "dynamic": "learned from the source address of a frame; it ages",
}

_HISTORY = [
    Column("when"), Column("ago", right=True), Column("event"), Column("dst"), Column("was"),
    Column("detail", fixed=False),
]  # fmt: skip


def _history_row(event: dict[str, Any], devices: Devices) -> output.Row:
    return (
        _clock(event["when"]),
        output.span(event["age"]),
        event["event"],
        devices.dst(event["remote"]) if event["remote"] else "-",
        devices.dst(event["was"]) if event["was"] else "-",
        event["detail"],
    )


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def _ago(seconds: float) -> str:
    return f"{output.span(seconds)} ago"
