"""`pyvxlan show --watch`: rates of each segment and remote, and what is being dropped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import click

from vxlan.cli import output, session
from vxlan.cli.drops import drop_text
from vxlan.cli.output import Cell, Column, Page
from vxlan.cli.rates import between

SHORTEST, LONGEST = 0.1, 3600.0
"""Seconds between two rounds."""


def period_of(ctx: click.Context, _param: click.Parameter, said: str | None) -> float | None:
    """The value of --watch; a node's name behind a bare --watch is told from it."""
    if said is None:
        return None
    try:
        period = float(said)
    except ValueError:
        text = f"--watch: {said!r} is no number of seconds: write `show {said} --watch`"
        raise click.UsageError(text, ctx) from None
    if not SHORTEST <= period <= LONGEST:
        text = f"--watch: {said} seconds: it must be {SHORTEST:g} to {LONGEST:g}"
        raise click.UsageError(text, ctx)
    return period


def watch(name: str, period: float, count: int | None, as_json: bool) -> None:
    """Print rates each `period` seconds, `count` times or until interrupted."""
    rounds = _rounds(name, period, count)
    try:
        if as_json:
            for rates in rounds:
                output.emit_json_line(rates)
        elif output.on_terminal():
            _live(rounds)
        else:
            for rates in rounds:
                print_rates(output.page(), rates)
                click.echo()
    except KeyboardInterrupt:
        return


def _rounds(name: str, period: float, count: int | None) -> Iterator[dict[str, Any]]:
    before = session.call(name, "show")
    due = time.monotonic()
    while count is None or count > 0:
        due = max(due + period, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))
        after = session.call(name, "show")
        yield between(before, after, time.time())
        before, count = after, None if count is None else count - 1


def _live(rounds: Iterator[dict[str, Any]]) -> None:
    """Always the same place of the terminal; what does not fit is cut at the bottom."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for rates in rounds:
            with console.capture() as drawn:
                print_rates(output.RichPage(console), rates)
            live.update(Text.from_ansi(drawn.get()), refresh=True)


# -- one round ---------------------------------------------------------------------------

_RATES = [
    Column("vni"), Column("remote"), Column("state"), Column("sent", right=True),
    Column("", right=True), Column("received", right=True), Column("", right=True),
    Column("dropped", right=True),
]  # fmt: skip
_DROPS = [
    Column("now", right=True), Column("in all", right=True), Column("vni"), Column("reason"),
    Column("meaning", fixed=False), Column("remedy", fixed=False),
]  # fmt: skip
_TONES: dict[str, output.Tone] = {"up": "good", "down": "bad"}


def print_rates(page: Page, rates: dict[str, Any]) -> None:
    """One round for a person."""
    clock = time.strftime("%H:%M:%S", time.localtime(rates["time"]))
    page.heading(f"node {rates['name']} at {clock}, over {rates['interval']:.1f} s")
    page.table(_RATES, [row for segment in rates["segments"] for row in _segment_rows(segment)])
    rows = _drop_rows(rates)
    if rows:
        page.heading("  drops")
        page.table(_DROPS, rows)
    else:
        page.fact("drops", "none since the node began", "good")


def _segment_rows(segment: dict[str, Any]) -> Iterator[output.Row]:
    yield str(segment["vni"]), "all", "", *_numbers(segment)
    for remote in segment["remotes"]:
        state = Cell(remote["state"], _TONES.get(remote["state"], "faint"))
        yield "", remote["address"], state, *_numbers(remote)


def _numbers(rates: dict[str, Any]) -> Iterator[str | Cell]:
    for side in ("encap", "decap"):
        yield f"{rates[f'{side}_pps']:.0f}/s"
        yield bits(rates[f"{side}_bps"])
    dropped = sum(drop["pps"] for drop in rates["drops"].values())
    yield Cell(f"{dropped:.0f}/s", "bad" if dropped else "plain")


def _drop_rows(rates: dict[str, Any]) -> list[output.Row]:
    """What is dropped now comes first."""
    found = [("-", reason, drop) for reason, drop in rates["drops"].items()]
    for segment in rates["segments"]:
        found += [(str(segment["vni"]), reason, drop) for reason, drop in segment["drops"].items()]
    found.sort(key=lambda one: (-one[2]["pps"], -one[2]["total"]))
    return [_drop_row(*one) for one in found]


def _drop_row(vni: str, reason: str, drop: dict[str, float]) -> output.Row:
    meaning, remedy = drop_text(reason)
    now = Cell(f"{drop['pps']:.0f}/s", "bad" if drop["pps"] else "faint")
    return now, str(drop["total"]), vni, Cell(reason, "warn"), meaning, remedy


def bits(amount: float) -> str:
    """12_300_000.0 -> "12.3 Mbit/s"."""
    for unit in ("", "k", "M", "G"):
        if amount < 1000:
            return f"{amount:.1f} {unit}bit/s" if unit else f"{amount:.0f} bit/s"
        amount /= 1000
    return f"{amount:.1f} Tbit/s"
