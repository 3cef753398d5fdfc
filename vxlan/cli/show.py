"""`pyvxlan show`: what runs, what moves its packets, and what was dropped and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from vxlan.cli import output, remote, session
from vxlan.cli.drops import drop_text
from vxlan.cli.fault import print_faults
from vxlan.cli.options import json_option, name_argument
from vxlan.cli.output import Cell, Column, Page
from vxlan.cli.watch import period_of, watch


@click.command()
@name_argument
@click.option(
    "--watch",
    "period",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value="1",
    callback=period_of,
    help="Rates instead, again and again (each second).",
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="With --watch: end after N rounds."
)
@json_option
def show(name: str | None, period: float | None, count: int | None, as_json: bool) -> None:
    """Show a node: engine, segments, remotes, counters, drops with their remedy.

    Without NAME all nodes that run are shown; --json and --watch show one.
    """
    if period is not None:
        watch(session.choose(name), period, count, as_json)
        return
    if count is not None:
        raise click.UsageError("--count goes with --watch", click.get_current_context())
    if as_json:
        output.emit_json(session.call(session.choose(name), "show"))
        return
    names = [session.choose(name)] if name else session.running() or [session.choose(None)]
    page = output.page()
    for index, one in enumerate(names):
        if index:
            page.gap()
        _print_node(page, session.call(one, "show"))


def _print_node(page: Page, node: dict[str, Any]) -> None:
    vtep = node["vtep"]
    page.heading(f"node {node['name']}")
    page.fact("running", f"{output.span(node['uptime'])}, pid {node['pid']}")
    if "kept" in node:
        _print_kept(page, node["kept"])
    _print_engine(page, node["engine"])
    low, high = vtep["srcport"]
    page.fact("local", f"{', '.join(vtep['local'])} port {vtep['dstport']}")
    page.fact("srcport", f"{low}-{high}, chosen by the hash of the inner flow")
    if node.get("faults"):
        page.heading("  faults, injected on purpose")
        print_faults(page, node["faults"])
    _print_drops(page, vtep["counters"]["drops"], "dropped before a segment was found")
    for segment in node["segments"]:
        page.gap()
        _print_segment(page, segment)


def _print_kept(page: Page, kept: dict[str, Any]) -> None:
    """What a node that is killed would lose; and how often it was restarted, if that is known."""
    if kept["by"] is None:
        page.fact("kept", "nothing: if it is killed, packets are lost (`pyvxlan up --restart`)")
        return
    text = f"{kept['descriptors']} descriptors by {kept['by']}, restarts: {kept['restarts']}"
    page.fact(
        "kept", "; ".join((text, *kept["fallbacks"])), "warn" if kept["fallbacks"] else "plain"
    )


def _print_engine(page: Page, engine: dict[str, Any]) -> None:
    page.fact("engine", f"{engine['name']} ({engine['why']})")
    if engine["granted"]:
        page.fact("granted", ", ".join(_granted(engine["granted"])))
    for sentence in engine["fallbacks"]:
        page.fact("fallback", sentence, "warn")


def _granted(granted: dict[str, Any]) -> Iterable[str]:
    words = {True: "yes", False: "no"}
    for what, value in granted.items():
        yield f"{what} {words[value] if isinstance(value, bool) else value}"


def _print_segment(page: Page, segment: dict[str, Any]) -> None:
    counters = segment["counters"]
    page.heading(f"segment {segment['vni']} on {segment['tap']}")
    page.fact("bridge", segment["bridge"] or "none")
    if segment["address"]:
        page.fact("address", ", ".join(segment["address"]))
    page.fact("mtu", _mtu(segment))
    page.fact("policy", ", ".join(_policy(segment["policy"])))
    page.fact("fdb", f"{segment['fdb_entries']} entries; {_changes(counters)}")
    page.fact("sent", _traffic(counters, "encap") + f", {counters['flooded']} copies by flooding")
    page.fact("received", _traffic(counters, "decap"))
    if counters["reserved_bits"]:
        page.fact("note", f"{counters['reserved_bits']} datagrams with reserved bits set", "warn")
    if segment["remotes"]:
        page.table(remote.COLUMNS, [remote.row(one) for one in segment["remotes"]])
    else:
        page.fact("remotes", "none: add one with `pyvxlan remote add`", "warn")
    _print_drops(page, counters["drops"], "dropped")


def _mtu(segment: dict[str, Any]) -> str:
    how = "auto" if segment["mtu_auto"] else "configured"
    return f"{segment['mtu']} ({how}; {segment['mtu_limit']})"


_NO_POLICY = {"mtu", "max_frame"}  # what the paths allow; `mtu` is shown by itself


def _policy(policy: dict[str, Any]) -> Iterable[str]:
    """`ageing 300, accept known, ...`: what the configuration calls them."""
    for key, value in policy.items():
        if key in _NO_POLICY:
            continue
        if isinstance(value, bool):
            yield f"{key} {'on' if value else 'off'}"
        elif value is None:
            yield f"{key} inherit"
        else:
            yield f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"


def _changes(counters: dict[str, Any]) -> str:
    words = ("learned", "moved", "conflict", "aged", "evicted")
    return ", ".join(f"{word} {counters[word]}" for word in words)


def _traffic(counters: dict[str, Any], side: str) -> str:
    packets, octets = counters[f"{side}_packets"], counters[f"{side}_bytes"]
    return f"{packets} packets, {output.size(octets)}"


# -- drops ------------------------------------------------------------------------------

_DROPS = [
    Column("packets", right=True), Column("reason"),
    Column("meaning", fixed=False), Column("remedy", fixed=False),
]  # fmt: skip


def _print_drops(page: Page, drops: dict[str, int], title: str) -> None:
    if drops:
        page.heading(f"  {title}")
        most_first = sorted(drops.items(), key=lambda drop: -drop[1])
        page.table(_DROPS, [_drop_row(name, count) for name, count in most_first])


def _drop_row(name: str, count: int) -> output.Row:
    meaning, remedy = drop_text(name)
    return str(count), Cell(name, "warn"), meaning, remedy
