"""`pyvxlan bench serve` and `pyvxlan bench remote`: between two real hosts."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import click

from vxlan.cli import output
from vxlan.cli.bench_run import announce, ended_by_sigterm, progress
from vxlan.cli.errors import INTERRUPTED, Failure
from vxlan.cli.options import Seconds, json_option
from vxlan.cli.output import Cell, Column

if TYPE_CHECKING:
    from vxlan.bench.remote import Row


@click.command()
@click.option("--address", metavar="IP", help="Listen here.  [default: the overlay address]")
def serve(address: str | None) -> None:
    """Let `pyvxlan bench remote` on another host of the overlay measure against this one.

    It listens on an overlay address only, and ends with Ctrl-C.
    """
    from vxlan.bench import remote as hosts

    chosen = address or next(iter(hosts.here().overlay), None)
    if chosen is None:
        raise Failure("no node here has an overlay address: give one with --address")
    try:
        hosts.serve(chosen, hosts.here, output.note)
    except OSError as error:
        raise Failure(f"{chosen}, port {hosts.PORT}: {_reason(error)}") from error


@click.command()
@click.argument("host")
@click.option("--beside", metavar="IP", help="Its address in the underlay.  [default: asked]")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--seconds", type=Seconds(0.1, 60), default=2.0, show_default=True)
@json_option
def remote(host: str, beside: str | None, rounds: int, seconds: float, as_json: bool) -> int:
    """Measure to another host, over the overlay and beside it, in turn.

    HOST is its overlay address; there, `pyvxlan bench serve` must run.
    """
    from vxlan.bench import remote as hosts
    from vxlan.bench.generator import LoadError
    from vxlan.bench.load import QUICK

    place = hosts.here()
    try:
        with (
            ended_by_sigterm(),
            progress() as tell,
            hosts.connected(host, beside, place.remotes) as paths,
        ):
            announce(*paths.generators)
            found = hosts.measure(paths, QUICK, rounds, seconds, place.pids, tell)
    except LoadError as error:
        raise Failure(str(error)) from error
    if as_json:
        output.emit_json({"version": 1, "host": host, **found._asdict()})
    else:
        titles = ("test", "overlay", "beside", "", "ratio", "middle half", "verdict")
        cells = [_cells(row) for row in found.rows]
        output.page().table([Column(title) for title in titles], cells)
    if found.interrupted:
        output.note("bench: interrupted: these are the rounds that were finished")
    return INTERRUPTED if found.interrupted else 0


def _reason(error: OSError) -> str:
    """In one line, and what to do: asyncio and socket add their own words to strerror."""
    known = {
        errno.EADDRNOTAVAIL: "no address of this host: give one of its own",
        errno.EADDRINUSE: "in use: another `bench serve` runs here",
    }
    found = known.get(error.errno or 0)
    return found or (os.strerror(error.errno) if error.errno else str(error))


def _cells(row: Row) -> output.Row:
    from vxlan.bench.report import digits, span

    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    verdict = Cell(row["verdict"], "good" if row["verdict"] == "ok" else "warn")
    return (
        row["test"],
        digits(row["overlay"]),
        digits(row["beside"]),
        row["unit"],
        "?" if ratio and row["verdict"] != "ok" else ratio,
        span(row["ratio_low"], row["ratio_high"], 2),
        verdict,
    )
