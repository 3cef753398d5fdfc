"""`pyvxlan doctor`: what this host lacks, what to do about it, and what works anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vxlan.cli import output, session
from vxlan.cli.drops import drop_text
from vxlan.cli.errors import FAILED, Failure
from vxlan.cli.options import json_option
from vxlan.cli.output import Cell, Column

if TYPE_CHECKING:
    from vxlan.config import NodeConfig
    from vxlan.doctor import Finding

_TONE: dict[str, output.Tone] = {"ok": "good", "note": "faint", "warn": "warn", "fail": "bad"}


@click.command()
@click.argument("what", required=False, metavar="[NAME|CONFIG]")
@json_option
def doctor(what: str | None, as_json: bool) -> int:
    """Check this host, or what a configuration or a running node wants of it.

    Exit status 1 if something is missing without which a node cannot start.
    """
    from vxlan.doctor import Level, preflight

    findings = _live(what) if what in session.running() else preflight(_load(what))
    if as_json:
        output.emit_json({"version": 1, "findings": [one.as_dict() for one in findings]})
    else:
        _print(findings)
    return FAILED if any(one.level is Level.FAIL for one in findings) else 0


def _load(what: str | None) -> NodeConfig | None:
    from vxlan import config

    if what is None:
        return None
    try:
        return config.load(config.find(what))
    except config.ConfigError as error:
        raise Failure(str(error)) from error


def _live(name: str | None) -> list[Finding]:
    """Of a node that runs: the host, the paths to its remotes, and what its counters say."""
    from vxlan.doctor import dropping, preflight
    from vxlan.doctor_paths import paths

    node = session.choose(name)
    shown = session.call(node, "show")
    drops = [shown["vtep"]["counters"]["drops"]]
    drops += [segment["counters"]["drops"] for segment in shown["segments"]]
    found = paths(shown, lambda address: session.call(node, "ping", dst=address))
    return preflight(None, running=shown) + found + dropping(drops, drop_text)


def _print(findings: list[Finding]) -> None:
    if output.on_terminal():
        columns = [Column(""), Column("", fixed=False)]
        output.page().table(columns, [_row(one) for one in findings])
        return
    for one in findings:
        click.echo(f"{one.level:<4}  {one.line}")


def _row(finding: Finding) -> output.Row:
    remedy = f"\n-> {finding.remedy}" if finding.remedy else ""
    still = f"\nstill works: {finding.still}" if finding.still else ""
    return Cell(finding.level, _TONE[finding.level]), finding.what + remedy + still
