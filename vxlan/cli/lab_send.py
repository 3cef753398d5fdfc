"""`pyvxlan lab send`: some bytes over TCP from one place of a lab to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vxlan.cli import lab as labs
from vxlan.cli import output
from vxlan.cli.errors import FAILED, Failure

if TYPE_CHECKING:
    from vxlan.lab.running import RunningLab
    from vxlan.lab.topology import Station


@click.command()
@click.argument("source", metavar="FROM", shell_complete=labs.complete_place)
@click.argument("target", metavar="TO", shell_complete=labs.complete_place)
@labs.lab_option
@click.option("--bytes", "length", type=click.IntRange(1, 1 << 30), default=400_000,
              show_default=True, metavar="N", help="How many.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=30.0, show_default=True,
              metavar="S", help="Seconds that it may stand still.")  # fmt: skip
def send(source: str, target: str, lab_name: str | None, length: int, timeout: float) -> int:
    """Send bytes over TCP from one place to another, and compare what arrives.

    Exit status 1 if they do not arrive whole.
    """
    from vxlan.lab import tcp_transfer

    there = labs.chosen(lab_name)
    with labs.failures():
        sender, sink = _station(there, source), _station(there, target)
    try:
        seen = tcp_transfer(sender, sink, sink.address, length, timeout)
    except OSError as error:
        text = f"no TCP from {source} to {target}, {sink.address}: {error.strerror or error}"
        raise Failure(text) from error
    whole = "arrived whole" if seen.intact else "did not arrive as they were sent"
    output.note(f"{length} bytes {whole}, in {seen.seconds:.2f} s ({seen.megabits:.0f} Mbit/s)")
    return 0 if seen.intact else FAILED


def _station(there: RunningLab, word: str) -> Station:
    from vxlan.lab.topology import Station

    place = there.place(word)
    if not isinstance(place, Station):
        raise Failure(f"{word} has no address")
    return place
