"""`pyvxlan ping REMOTE`: is the other VTEP there, and what does the path carry?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
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
    probes = answer["probes"]
    times = [one["rtt"] for one in probes if one["rtt"] is not None]
    return [
        f"{len(times)} of {len(probes)} answered" + _median(times),
        *_path(answer["path"], answer["overhead"]),
        *_stops(answer),
    ]


def _median(times: list[float]) -> str:
    return f", median {statistics.median(times) * 1000:.2f} ms" if times else ""


def _path(path: dict[str, Any] | None, overhead: int) -> Iterator[str]:
    """What the path carries and how that is known."""
    if path is None:
        return
    when = "" if path["since"] is None else f" {output.span(path['since'])} ago"
    how = {"probe": "by probes", "icmp": "by ICMP", "link": "from the link's MTU"}[path["how"]]
    fits = f"{path['mtu'] - overhead} inside"
    yield f"path MTU {path['mtu']}, {fits} (known {how}{when}; {path['phase']})"
    if path["mtu"] < path["ceiling"]:
        yield f"the link carries {path['ceiling']}: something on the way is narrower"


def _stops(answer: dict[str, Any]) -> Iterator[str]:
    from vxlan.doctor_paths import where_it_stops

    if stops := where_it_stops(answer):
        yield ": ".join(stops)
