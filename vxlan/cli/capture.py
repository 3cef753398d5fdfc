"""`pyvxlan capture`: what a node sees on both sides, and what it decided."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vxlan.cli import output, session
from vxlan.cli.errors import NOT_RUNNING, Failure
from vxlan.cli.options import json_option, name_argument

if TYPE_CHECKING:
    from vxlan.sight import Seen

DEFAULT_SIZE = 100
_MEGA = 1_000_000


@click.command()
@name_argument
@click.option("-w", "--write", "path", metavar="FILE", help="Write pcapng; - is standard output.")
@click.option("--vni", type=click.IntRange(0, 0xFFFFFF), metavar="N", help="Of this segment.")
@click.option("--mac", metavar="MAC", help="From or to this station.")
@click.option("--ip", metavar="IP", help="From or to this inner address, ARP included.")
@click.option("--remote", metavar="IP", help="From or to this VTEP.")
@click.option("--drops", is_flag=True, help="Only what is dropped.")
@click.option("--side", type=click.Choice(["inner", "outer"]), help="Only TAPs, or the underlay.")
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="End after N packets.")
@click.option("--ring", type=click.IntRange(min=1), metavar="N", help="Keep the last N files.")
@click.option(
    "--size",
    type=click.IntRange(min=1),
    metavar="MB",
    help=f"Of each file of a ring; {DEFAULT_SIZE} without it.",
)
@click.option(
    "--snaplen",
    type=click.IntRange(16, 262144),
    metavar="BYTES",
    help="Keep so much of each packet; all without it.",
)
@json_option
def capture(
    name: str | None,
    path: str | None,
    count: int | None,
    ring: int | None,
    size: int | None,
    as_json: bool,
    drops: bool,
    **wanted: Any,
) -> None:
    """Show or write packets of a running node until interrupted: both sides of the
    VTEP, each with what was decided about it, dropped ones too.

    \b
    pyvxlan capture --drops
    pyvxlan capture -w office.pcapng --vni 42 --ip 10.42.0.2
    pyvxlan capture -w - | wireshark -k -i -
    """
    _refuse_contradictions(path, ring, size, as_json)
    node = session.choose(name)
    about, packets = session.capture(node, drops=drops or None, **wanted)
    with closing(packets), _ended_by_signals(packets):
        counted = _Counted(packets, count)
        if path is None:
            _show(counted, about, as_json)
        else:
            files = Files(path, wanted["snaplen"], ring, (size or DEFAULT_SIZE) * _MEGA)
            _write(files, counted, about)
    if counted.left != 0 and not packets.finished:
        text = f"node {node} has ended: `pyvxlan up {node}` starts it again"
        raise Failure(text, NOT_RUNNING)


@contextmanager
def _ended_by_signals(packets: session.Packets) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends a capture in order, the next one at once."""

    def finish(number: int, _frame: object) -> None:
        signal.signal(number, before[number])
        packets.finish()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.signal(number, finish) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


class Files(NamedTuple):
    """Where to write: `keep` files of `limit` bytes, or one without a bound."""

    path: str
    snaplen: int | None
    keep: int | None
    limit: int


def _refuse_contradictions(
    path: str | None, ring: int | None, size: int | None, as_json: bool
) -> None:
    context = click.get_current_context()
    if ring is not None and path in (None, "-"):
        raise click.UsageError("--ring needs files: add `-w FILE`", context)
    if size is not None and ring is None:
        raise click.UsageError("--size is that of a ring's files: add `--ring N`", context)
    if path is not None and as_json:
        raise click.UsageError("--json prints, -w writes pcapng: leave one out", context)
    if path == "-" and sys.stdout.isatty():
        raise click.UsageError(
            "-w - writes bytes, not for a terminal: `pyvxlan capture -w - | tshark -r -`", context
        )


class _Counted:
    """The same packets, `left` of them at the most; what was lost is not counted."""

    def __init__(self, packets: Iterable[list[Seen]], left: int | None) -> None:
        self._packets = packets
        self.left = left

    def __iter__(self) -> Iterator[list[Seen]]:
        for some in self._packets:
            yield some if self.left is None else self._first(some)
            if self.left == 0:
                return

    def _first(self, some: list[Seen]) -> list[Seen]:
        kept: list[Seen] = []
        for seen in some:
            kept.append(seen)
            self.left = (self.left or 0) - (not seen.is_loss)
            if not self.left:
                break
        return kept


def _show(packets: Iterable[list[Seen]], about: dict[str, Any], as_json: bool) -> None:
    from vxlan.cli import capture_text

    taps = {one["vni"]: one["tap"] for one in about["segments"]}
    for some in packets:
        for seen in some:
            if as_json:
                output.emit_json_line(capture_text.as_json(seen, about["dstport"]))
            else:
                click.echo(capture_text.line(seen, taps, about["dstport"]))
        sys.stdout.flush()


def _write(files: Files, packets: Iterable[list[Seen]], about: dict[str, Any]) -> None:
    from vxlan.cli.capture_file import Ring

    with _failures(files.path):
        ring = Ring(files.path, about, files.snaplen, files.keep, files.limit)
        output.note(f"capturing node {about['name']} into {files.path}, until ^C")
        try:
            for some in packets:
                for seen in some:
                    ring.put(seen)
                ring.flush()
        finally:
            ring.close()
            output.note(ring.told())


@contextmanager
def _failures(path: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        text = f"{path}: {error.strerror or error}: write to another place"
        raise Failure(text) from error
