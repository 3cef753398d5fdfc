"""`pyvxlan monitor`: what happens, as it happens."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from vxlan.cli import output, session, words
from vxlan.cli.devices import Devices
from vxlan.cli.errors import NOT_RUNNING, Failure
from vxlan.cli.options import json_option


@click.command()
@click.argument("args", nargs=-1, metavar="[NAME] [vni N] [dev TAP]")
@words.segment_options
@json_option
def monitor(args: tuple[str, ...], as_json: bool, node: str | None, **options: str | None) -> None:
    """Print events until interrupted: stations learned, moved, aged; remotes up, down.

    With --json one object a line.
    """
    (name, vni), _ = words.shown(args, node, **options)
    devices = Devices(name)
    try:
        for event in session.stream(name, "monitor", vni=vni):
            _print(event, devices, as_json)
    except KeyboardInterrupt:
        return
    raise Failure(f"node {name} has ended: `pyvxlan up {name}` starts it again", NOT_RUNNING)


def _print(event: dict[str, Any], devices: Devices, as_json: bool) -> None:
    if as_json:
        output.emit_json_line(event)
    else:
        click.echo(line(event, devices))
        sys.stdout.flush()


def line(event: dict[str, Any], devices: Devices) -> str:
    """An event in one line: time, what, and in bridge(8)'s words whom it concerns."""
    if event["event"] == "events_lost":
        return f"{_clock(time.time())} events_lost {event['count']}: this reader was too slow"
    parts = [_clock(event["time"]), event["event"]]
    parts += [event["mac"]] if event["mac"] else []
    parts += [f"dst {devices.dst(event['remote'])}"] if event["remote"] else []
    parts += [f"was {devices.dst(event['was'])}"] if event["was"] else []
    parts += [f"vni {event['vni']}"] if event["vni"] is not None else []
    return " ".join(parts) + (f": {event['detail']}" if event["detail"] else "")


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when)) + f".{int(when % 1 * 1000):03}"
