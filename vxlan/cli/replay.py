"""`pyvxlan replay`: the frames of a capture, sent or judged once more."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from vxlan.cli import output, session
from vxlan.cli.errors import FAILED, Failure
from vxlan.cli.options import json_option, node_option


@click.command()
@click.argument("path", metavar="FILE|-")
@click.option("--into", metavar="IFACE", help="Send the frames out of this interface.")
@click.option("--at", metavar="PLACE", help="Send them out of eth0 of this host of a lab.")
@click.option("--lab", "lab_name", metavar="LAB", help="Which lab, where more than one is up.")
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, metavar="X",
    help="So many times as fast as captured; 0: without a pause.",
)  # fmt: skip
@click.option("--vni", type=click.IntRange(0, 0xFFFFFF), metavar="N", help="Only this segment.")
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="The first N only.")
@click.option("--dstport", type=click.IntRange(1, 65535), metavar="P", help="The VXLAN port; 4789.")
@click.option("--changed", is_flag=True, help="With -n: only what is decided otherwise now.")
@node_option
@json_option
def replay(path: str, into: str | None, at: str | None, as_json: bool, **said: Any) -> int:
    """Send the frames of a capture again, or ask a node what it would do with them now.

    Of what `pyvxlan capture` wrote, that is what came in; of a datagram to the VXLAN port,
    the frame inside.

    \b
    pyvxlan replay office.pcapng -n office       what would become of each now; nothing is sent
    pyvxlan replay office.pcapng --into vxlan42  as if containers sent it
    pyvxlan replay office.pcapng --at c1         from a container of a lab
    """
    if into and at:
        raise click.UsageError("--into and --at are two places", click.get_current_context())
    node, changed = said["node"], said["changed"]
    if bool(node) == bool(into or at):
        text = "where to: `--into IFACE`, `--at PLACE` of a lab, or `-n NAME` to have it judged"
        raise click.UsageError(text, click.get_current_context())
    if changed and not node:
        raise click.UsageError("--changed goes with -n NAME", click.get_current_context())
    with _readable(path) as stream:
        if node:
            return _judge(stream, as_json, said)
        return _send(stream, into, at, as_json, said)


@contextmanager
def _readable(path: str) -> Iterator[BinaryIO]:
    """The capture; what is wrong with it is a Failure in one line."""
    from vxlan.pcap_read import PcapError

    try:
        if path == "-":
            yield sys.stdin.buffer
        else:
            with Path(path).open("rb") as stream:
                yield stream
    except PcapError as error:
        raise Failure(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise Failure(f"{path}: {error.strerror}: name a capture") from error


def _first(found: Iterator[Any], count: int | None) -> Iterator[Any]:
    """The first `count`; all for None."""
    from itertools import islice

    return found if count is None else islice(found, count)


# -- sending -----------------------------------------------------------------------------


def _send(
    stream: BinaryIO, into: str | None, at: str | None, as_json: bool, said: dict[str, Any]
) -> int:
    from vxlan.pcap_read import packets
    from vxlan.replay import Replay, send
    from vxlan.wire import DSTPORT

    chosen = Replay(said["dstport"] or DSTPORT, said["vni"])
    frames = _first(chosen.frames(packets(stream)), said["count"])
    where = into or "eth0"
    with closing(_socket(said["lab_name"], at)) as link:
        try:
            link.bind((where, 0))
            sent, refused = send(link, frames, said["speed"])
        except OSError as error:
            text = f"{at or where}: {error.strerror}: `ip link` shows what is there"
            raise Failure(text) from error
    if as_json:
        told = {"sent": sent, "refused": dict(refused), "skipped": dict(chosen.skipped)}
        output.emit_json(told)
    else:
        output.note(_told(sent, refused, chosen.skipped))
    return FAILED if refused else 0


def _socket(lab_name: str | None, at: str | None) -> socket.socket:
    """A packet socket, here or at a place of a lab."""
    try:
        if at is None:
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        from vxlan.lab import LabError, manage

        try:
            there = manage.choose(lab_name).place(at)
        except LabError as error:
            raise Failure(str(error)) from error
        return there.socket(socket.AF_PACKET, socket.SOCK_RAW)
    except PermissionError as error:
        raise Failure("sending frames takes root (CAP_NET_RAW): use sudo") from error


def _told(sent: int, refused: Counter[str], skipped: Counter[str]) -> str:
    parts = [f"{sent} frames sent"]
    parts += [f"{count} refused ({why})" for why, count in refused.items()]
    parts += [f"{count} left out ({why})" for why, count in skipped.items()]
    return ", ".join(parts)


# -- judging -----------------------------------------------------------------------------


def _judge(stream: BinaryIO, as_json: bool, said: dict[str, Any]) -> int:
    """One line for each packet that came in; how many were judged how, at the end."""
    from vxlan.cli.replay_judge import Judge, line
    from vxlan.pcap_read import packets

    judge = Judge(session.choose(said["node"]), said["dstport"], said["vni"])
    for answer in _first(judge.answers(packets(stream)), said["count"]):
        if said["changed"] and not answer["changed"]:
            continue
        if as_json:
            output.emit_json_line(answer)
        else:
            click.echo(line(answer))
    if not as_json:
        output.note(judge.told())
    return 0
