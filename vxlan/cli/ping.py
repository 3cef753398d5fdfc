"""`pyvxlan ping REMOTE`: is the other VTEP there, and what does the path carry?"""

from __future__ import annotations

import statistics
from typing import Any

import click

from vxlan.cli import output, session
from vxlan.cli.options import json_option

WIDEST = 65535


@click.command()
@click.argument("remote", metavar="REMOTE")
@click.option(
    "--ports",
    default=4,
    type=click.IntRange(1, 64),
    show_default=True,
    help="From how many source ports: as many ways through a load-balanced underlay.",
)
@click.option(
    "--size",
    type=click.IntRange(100, WIDEST),
    metavar="BYTES",
    help="Bytes of the outer IP packet; otherwise what the path is believed to carry.",
)
@click.option("-n", "--node", metavar="NAME", help="Which node, if several run.")
@json_option
def ping(remote: str, ports: int, size: int | None, node: str | None, as_json: bool) -> None:
    """Probe the VTEP of a remote: round-trip time, path MTU, and where it stops.

    Only another pyvxlan answers; a kernel device discards probes, harmlessly.
    Exit status 1 if nothing was answered.
    """  # fmt: skip
    answer = session.call(session.choose(node), "ping", dst=remote, ports=ports, size=size)
    if as_json:
        output.emit_json(answer)
    else:
        for line in lines(answer):
            click.echo(line)
    if not any(one["rtt"] is not None for one in answer["probes"]):
        raise SystemExit(1)


def lines(answer: dict[str, Any]) -> list[str]:
    """The answer in words, a line for each probe and then the sum."""
    to = answer["address"]
    each = [
        f"{to}: {one['size']} bytes from port {one['srcport']}: {_time(one['rtt'])}"
        for one in answer["probes"]
    ]
    return [*each, *_sum(answer)]


def _time(rtt: float | None) -> str:
    return "no answer" if rtt is None else f"{rtt * 1000:.2f} ms"


def _sum(answer: dict[str, Any]) -> list[str]:
    probes, path = answer["probes"], answer["path"]
    times = [one["rtt"] for one in probes if one["rtt"] is not None]
    said = [f"{len(times)} of {len(probes)} answered" + _median(times)]
    if path is not None:
        overlay = path["mtu"] - answer["overhead"]
        said.append(
            f"path MTU {path['mtu']} (found by {path['how']}, {path['phase']}): overlay {overlay}"
        )
    return [*said, *_stops(answer, times)]


def _median(times: list[float]) -> str:
    return f", median {statistics.median(times) * 1000:.2f} ms" if times else ""


def _stops(answer: dict[str, Any], times: list[float]) -> list[str]:
    """Where it stops, in words."""
    if not times:
        if answer["path"] and answer["path"]["answers"] is False:
            return ["nothing answers: no pyvxlan there (a kernel device never answers), or no way"]
        return ["nothing answers: is pyvxlan up there, with this host among its remotes?"]
    largest = max(one["size"] for one in answer["probes"])
    lost = [one for one in answer["probes"] if one["rtt"] is None]
    if lost and all(one["size"] == largest for one in lost):
        ports = ", ".join(str(one["srcport"]) for one in lost)
        return [
            f"small probes pass, {largest} bytes do not (port {ports}): a black hole on the way"
        ]
    if lost:
        ports = ", ".join(sorted({str(one["srcport"]) for one in lost}))
        return [f"some ways are broken: nothing comes back for port {ports}"]
    return []
