"""`pyvxlan up`, `down`, `reload`: the life of a node."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vxlan.cli import output, session
from vxlan.cli.errors import FAILED, USAGE, Failure
from vxlan.cli.options import json_option, name_argument, verbosity_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vxlan.config import NodeConfig

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE = 10.0
"""Seconds that `down` waits for the process to end; the node itself needs about one."""

_ALSO_WITH_CONFIG = {"name", "engine"}

_FLAGS = [
    click.option("--vni", metavar="N", help="VXLAN Network Identifier, 0 to 16777215."),
    click.option(
        "--local", metavar="IP", multiple=True,
        help="Underlay address to send from; one IPv4 and one IPv6 at the most.",
    ),
    click.option("--dev", metavar="IF", help="Underlay interface; its addresses, if no --local."),
    click.option("--remote", metavar="IP[:PORT]", multiple=True, help="A remote VTEP; repeatable."),
    click.option("--dstport", metavar="P", help="UDP port of the VTEPs.  [4789]"),
    click.option("--srcport", metavar="MIN-MAX", help="Outer source ports.  [49152-65535]"),
    click.option("--tap", metavar="NAME", help="Name of the TAP.  [vxlanN]"),
    click.option("--bridge", metavar="NAME", help="Bridge to plug the TAP in; made when missing."),
    click.option(
        "--address", metavar="CIDR", multiple=True,
        help="Overlay address of this host, on the bridge or else on the TAP; repeatable.",
    ),
    click.option(
        "--echo", metavar="REMOTE=STATION", multiple=True,
        help="Probe the path to a remote that is no pyvxlan by pinging a station behind it.",
    ),
    click.option("--mtu", metavar="auto|N", help="Overlay MTU.  [auto: what the paths allow]"),
    click.option("--accept", metavar="known|any", help="Whose datagrams to take.  [known]"),
    click.option("--vlan", metavar="carry|drop", help="Tagged inner frames.  [carry]"),
    click.option("--learning/--no-learning", default=None, help="Learn stations.  [learning]"),
    click.option("--announce/--no-announce", default=None, help="Tell stations.  [no-announce]"),
    click.option("--ageing", metavar="S", help="Forget silent stations; 0 = never.  [300]"),
    click.option("--maxaddress", metavar="N", help="Bound of the forwarding table.  [65536]"),
    click.option("--ttl", metavar="N|inherit", help="TTL of the outer packet.  [64]"),
    click.option("--tos", metavar="N|inherit", help="TOS of the outer packet.  [0]"),
    click.option("--engine", metavar="auto|python|fastpath", help="What moves packets.  [auto]"),
    click.option("--name", metavar="NAME", help="Name of the node.  [CONFIG's, or vxlanN]"),
]  # fmt: skip


def _flags(command: F) -> F:
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@click.command()
@click.argument("config", required=False)
@_flags
@click.option(
    "--restart",
    is_flag=True,
    help="Start it again at once if it is killed or crashes; packets wait meanwhile.",
)
@verbosity_options
def up(config: str | None, restart: bool, **flags: Any) -> int:
    """Run a node in the foreground until SIGTERM or SIGINT; SIGHUP reloads.

    CONFIG is a name (/etc/pyvxlan/NAME.toml) or a path.  Flags describe a node of
    one segment; of them only --engine and --name go together with CONFIG.

    \b
    pyvxlan up --vni 42 --local 192.0.2.1 --remote 192.0.2.2 \\
               --bridge br42 --address 10.42.0.1/24
    """
    from vxlan.fdstore import FdStore, held_by_parent

    if restart and not held_by_parent(os.environ):
        holder = [sys.executable, "-P", "-m", "vxlan.holder", *sys.argv[1:]]
        os.execv(sys.executable, holder)  # which starts this very command as its child
    store = FdStore(os.environ)
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    node = _from_file(config, given) if config else _from_flags(given)
    if not store.offers:  # what was checked then holds now, and what is kept is in nobody's way
        _check_host(node)
    from vxlan.cli import logs
    from vxlan.node import run_node

    logs.to_stderr()
    return run_node(node, store)


def _from_file(name_or_path: str, given: dict[str, Any]) -> NodeConfig:
    from vxlan import config

    if extra := [f"--{key}" for key in given if key not in _ALSO_WITH_CONFIG]:
        raise _usage(
            f"{extra[0]} and the configuration {name_or_path} exclude each other: "
            f"write it into {config.find(name_or_path)}, or give flags alone"
        )
    with _config_errors(FAILED):
        node = config.load(config.find(name_or_path), given.get("name"))
    if engine := given.get("engine"):
        if engine not in ("auto", "python", "fastpath"):
            raise _usage(f"--engine: {engine!r} is not one of auto, python, fastpath")
        node = replace(node, vtep=replace(node.vtep, engine=engine))
    return node


def _from_flags(given: dict[str, Any]) -> NodeConfig:
    from vxlan import config

    if "vni" not in given:
        raise _usage("nothing says what to run: give CONFIG, or --vni N with --remote IP")
    with _config_errors(USAGE):
        return config.from_flags(**given)


@contextmanager
def _config_errors(status: int) -> Iterator[None]:
    from vxlan.config import ConfigError

    try:
        yield
    except ConfigError as error:
        raise Failure(str(error), status) from error


def _usage(text: str) -> click.UsageError:
    return click.UsageError(text, click.get_current_context(silent=True))


def _check_host(node: NodeConfig) -> None:
    """Say what this host lacks; end here if the node could not start anyway."""
    from vxlan.doctor import Level, preflight

    if node.name in session.running():
        raise Failure(f"node {node.name} runs already: `pyvxlan down {node.name}` ends it")
    findings = preflight(node)
    for finding in findings:
        if finding.level is Level.WARN:
            output.note(f"pyvxlan: warning: {finding.line}")
    failed = [finding for finding in findings if finding.level is Level.FAIL]
    for finding in failed[:-1]:
        click.echo(f"pyvxlan: {finding.line}", err=True)
    if failed:
        raise Failure(failed[-1].line)


# -- down, reload -----------------------------------------------------------------------


@click.command()
@name_argument
@json_option
def down(name: str | None, as_json: bool) -> None:
    """End a node and wait until it is gone, with all that it made."""
    name = session.choose(name)
    result = session.call(name, "down")
    if not _gone(result["pid"]) and name in session.running():
        raise Failure(
            f"node {name} (pid {result['pid']}) has not ended within {PATIENCE:.0f} s: "
            "look at its log; `kill -9` leaves its bridge behind"
        )
    if as_json:
        output.emit_json(result)


def _gone(pid: int) -> bool:
    """Wait for the process; True as well if it cannot be seen from here."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        return bool(select.select([process], [], [], PATIENCE)[0])
    finally:
        with suppress(OSError):
            os.close(process)


@click.command()
@name_argument
@json_option
def reload(name: str | None, as_json: bool) -> None:
    """Read the configuration again and change only what differs.

    A configuration that is wrong is refused whole; the node goes on with the old one.
    """
    result = session.call(session.choose(name), "reload")
    if as_json:
        output.emit_json(result)
        return
    for sentence in result["changed"] or ["nothing changed"]:
        output.note(sentence)
    sys.stderr.flush()
