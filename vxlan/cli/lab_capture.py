"""`pyvxlan lab capture`: packets on the wires of a lab, as lines, drawn, or in a file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from vxlan.cli import lab as labs
from vxlan.cli.errors import Failure

if TYPE_CHECKING:
    from vxlan.lab.running import RunningLab
    from vxlan.lab.topology import Station
    from vxlan.lab.watch import Passed

FOR_GOOD = 1 << 62


@click.command()
@click.argument("places", nargs=-1, metavar="[HOST]...", shell_complete=labs.complete_place)
@labs.lab_option
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="End after N packets.")
@click.option(
    "-s", "--seconds", type=click.FloatRange(min=0.1), metavar="S", help="End after S seconds."
)
@click.option("--vni", type=click.IntRange(0, 0xFFFFFF), metavar="N", help="Only of this VNI.")
@click.option(
    "--decided", is_flag=True,
    help="As the node of one HOST sees them: both sides of its VTEP, and what it decided.",
)  # fmt: skip
@click.option("--draw", is_flag=True, help="Every header, field by field, with its bytes.")
@click.option("-w", "--write", "to", metavar="FILE", help="Write pcapng; - is standard output.")
def capture(
    places: tuple[str, ...],
    lab_name: str | None,
    count: int | None,
    seconds: float | None,
    vni: int | None,
    decided: bool,
    draw: bool,
    to: str | None,
) -> None:
    """Show packets on the wires of hosts and containers, until interrupted.

    Without HOST: on the underlay of all hosts.

    \b
    pyvxlan lab capture b --count 3 --draw
    pyvxlan lab capture a c1 -w both.pcapng
    pyvxlan lab capture a --decided
    """
    if to and draw:
        raise click.UsageError("--draw prints, -w writes pcapng: leave one out")
    there = labs.chosen(lab_name)
    if decided:
        if draw or seconds:
            raise click.UsageError("--decided goes with --count, --vni and -w alone")
        _decided(there, places, path=to, count=count, vni=vni)
        return
    with labs.failures(), _until_interrupted():
        stations = _stations(there, places)
        passed = islice(_wanted(there, stations, seconds, vni), count or FOR_GOOD)
        if to is None:
            _show(there, passed, draw)
        else:
            _write(stations, passed, to)


def _decided(there: RunningLab, places: Sequence[str], **wanted: object) -> None:
    """`pyvxlan capture` of the node of one host."""
    from vxlan.cli.capture import capture as of_node

    if len(places) != 1:
        raise click.UsageError("--decided is what one node decided: name one HOST")
    with labs.failures():
        there.place(places[0])
        if places[0] not in there.hosts:
            raise Failure(f"{places[0]} has no VTEP: {', '.join(there.hosts)} are hosts")
        target = there.hosts[places[0]].node.target
    click.get_current_context().invoke(of_node, name=target, **wanted)


def _stations(there: RunningLab, words: Sequence[str]) -> list[Station]:
    from vxlan.lab.topology import Station

    found = [there.place(word) for word in words] or list(there.hosts.values())
    for word, one in zip(words, found, strict=False):
        if not isinstance(one, Station):
            raise Failure(f"{word} has many wires: name the host at the end of one")
    return [one for one in found if isinstance(one, Station)]


def _wanted(
    there: RunningLab, stations: Sequence[Station], seconds: float | None, vni: int | None
) -> Iterator[Passed]:
    from vxlan.lab import watch

    for passed in watch.listen(stations, seconds):
        headers = watch.headers_of(passed.captured.data, there.ports)
        if vni is None or watch.vni_of(headers) == vni:
            yield passed


def _show(there: RunningLab, packets: Iterator[Passed], draw: bool) -> None:
    from vxlan.lab import dissect, watch

    for place, captured in packets:
        headers = watch.headers_of(captured.data, there.ports)
        clock = watch.clock(captured.when)
        side = "in " if captured.direction == "in" else "out"
        length = len(captured.data)
        click.echo(f"{clock} {place} {side} {watch.summary(headers)} ({length} bytes)")
        if draw:
            for line in dissect.draw(captured.data, watch.port_of(headers)):
                click.echo(line)
            click.echo()
        sys.stdout.flush()


def _write(stations: Sequence[Station], packets: Iterator[Passed], to: str) -> None:
    from vxlan.pcap import ETHERNET, Interface, PcapWriter

    names = [one.short for one in stations]
    with _opened(to) as out:
        writer = PcapWriter(out, [Interface(name, ETHERNET) for name in names])
        out.flush()
        for place, captured in packets:
            when = int(captured.when * 1e9)
            writer.packet(names.index(place), when, captured.data, direction=captured.direction)
            out.flush()


@contextmanager
def _opened(to: str) -> Iterator[BinaryIO]:
    if to != "-":
        try:
            with Path(to).open("wb") as out:
                yield out
        except OSError as error:
            raise Failure(f"{to}: {error.strerror}") from error
        return
    if sys.stdout.isatty():
        raise click.UsageError("-w - writes bytes, not for a terminal: pipe it into tshark -r -")
    yield sys.stdout.buffer


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """^C and SIGTERM end a capture in good order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
