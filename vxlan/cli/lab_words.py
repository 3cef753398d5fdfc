"""A running lab in words: one line, a page, or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vxlan.cli.output import Cell, Column, Page, Row

if TYPE_CHECKING:
    from vxlan.lab.running import RunningHost, RunningLab


def summary(lab: RunningLab) -> str:
    """2 hosts, 2 containers, VNI 42"""
    vnis = sorted({vni for host in lab.hosts.values() for vni in host.vnis})
    words = [_count(lab.hosts, "host"), _count(lab.containers, "container")]
    words += [f"VNI {', '.join(map(str, vnis))}"] if vnis else []
    return ", ".join(words)


def _count(things: dict[str, Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def as_json(lab: RunningLab) -> dict[str, Any]:
    """What state.json holds, and whether it all is still there."""
    silent = {host.short for host in lab.silent_hosts()}
    hosts = [
        {**one, "node": {**one["node"], "running": one["name"] not in silent}}
        if one["node"]
        else one
        for one in lab.state.get("hosts", ())
    ]
    return {**lab.state, "hosts": hosts, "whole": lab.whole}


def show(page: Page, lab: RunningLab) -> None:
    """A page about one lab."""
    page.heading(f"lab {lab.name}: {lab.title}")
    page.fact("from", lab.state["source"])
    if not lab.whole:
        page.fact("state", f"not whole: `pyvxlan lab down {lab.name}`, then up again", "bad")
    for note in lab.state["notes"]:
        page.fact("note", note, "warn")
    columns = [Column("name"), Column("address", fixed=False), Column("in"), Column("VNI"),
               Column("state"), Column("namespace")]  # fmt: skip
    page.table(columns, _rows(lab))


def _rows(lab: RunningLab) -> Iterator[Row]:
    for host in lab.hosts.values():
        vnis = ",".join(map(str, host.vnis)) or "-"
        yield host.short, ", ".join(host.addresses), host.network, vnis, _node(host), host.name
        for one in host.containers:
            vni = "-" if one.vni is None else str(one.vni)
            yield one.short, ", ".join(one.addresses), host.short, vni, "container", one.name
    if lab.router:
        router = lab.router
        yield router.short, ", ".join(router.addresses), "switch,far", "-", "router", router.name


def _node(host: RunningHost) -> Cell | str:
    if not host.has_node:
        return "kernel vxlan" if host.vtep == "kernel" else "no VTEP"
    pid = host.node.pid
    return Cell("node ended", "bad") if pid is None else Cell(f"node, pid {pid}", "good")
