"""`pyvxlan docker ...`: networks of Docker's containers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vxlan.cli import output
from vxlan.cli.errors import FAILED, Failure
from vxlan.cli.options import json_option, node_option, verbosity_options
from vxlan.cli.output import Column

if TYPE_CHECKING:
    from vxlan.plugins.docker_state import Store

STATE = "/var/lib/pyvxlan/docker"

_STATE = click.option(
    "--state", metavar="DIR", default=lambda: os.environ.get("STATE_DIRECTORY", STATE),
    help=f"Where networks and addresses are kept.  [{STATE}]",
)  # fmt: skip
_PLUGIN = click.option(
    "--plugin", metavar="NAME", default="pyvxlan",
    help="Name of the driver, for `docker network create -d NAME`.  [pyvxlan]",
)  # fmt: skip
_SOCKETS = click.option(
    "--sockets", metavar="DIR", default="/run/docker/plugins",
    help="Where Docker looks for NAME.sock.  [/run/docker/plugins]",
)  # fmt: skip


@click.group()
def docker() -> None:
    """Networks of Docker's containers over VXLAN.

    \b
    pyvxlan docker serve
    docker network create -d pyvxlan --subnet 10.42.0.0/16 --ip-range 10.42.1.0/24 \\
        -o vni=42 -o remotes=192.0.2.1,192.0.2.2 net
    docker run --network net ...
    """


@docker.command()
@node_option
@click.option(
    "--share", metavar="N/M",
    help="This host's part of each subnet, for --ipam-driver pyvxlan: 2/4 is the second of four.",
)  # fmt: skip
@_PLUGIN
@_STATE
@_SOCKETS
@verbosity_options
def serve(node: str | None, share: str | None, plugin: str, state: str, sockets: str) -> int:
    """Be a network driver of Docker's, in the foreground until SIGTERM or SIGINT.

    A node has to run (`pyvxlan up`); it carries the packets.  Networks, and the
    connections of containers, outlive this process.
    """
    from vxlan import config_values
    from vxlan.cli import logs
    from vxlan.plugins.docker import Settings, serve
    from vxlan.plugins.docker_addresses import parse_share

    try:
        name = config_values.node_name(plugin)
        part = parse_share(share) if share else None
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    logs.to_stderr()
    return serve(Settings(name, node, part, state=Path(state), sockets=Path(sockets)))


@docker.command(hidden=True)
@verbosity_options
def managed() -> int:
    """What Docker runs in the managed plugin that `make docker-plugin` builds."""
    from vxlan.cli import logs
    from vxlan.plugins.docker import serve_managed

    logs.to_stderr()
    return serve_managed()


@docker.command()
@_PLUGIN
@_STATE
@json_option
def show(plugin: str, state: str, as_json: bool) -> None:
    """Show the networks that the plugin keeps, and their endpoints."""
    store = _kept(Path(state), plugin)
    if as_json:
        output.emit_json(_json(store))
        return
    columns = [Column("network"), Column("vni", right=True), Column("attach"),
               Column("subnets", fixed=False), Column("remotes", fixed=False),
               Column("endpoint"), Column("address", fixed=False), Column("mac")]  # fmt: skip
    output.page().table(columns, _rows(store))


def _kept(folder: Path, plugin: str) -> Store:
    from vxlan.plugins.docker_state import StateError, Store

    store = Store(folder, plugin)
    try:
        store.read()
    except StateError as error:
        raise Failure(str(error), FAILED) from error
    return store


def _rows(store: Store) -> list[output.Row]:
    rows: list[output.Row] = []
    for key, network in store.networks.items():
        remotes = ", ".join(network.segment.get("remotes", ())) or "none"
        head = (key[:12], str(network.vni), network.attach, ", ".join(network.pools), remotes)
        for name, endpoint in network.endpoints.items():
            both = ", ".join(one for one in (endpoint.address, endpoint.address6) if one)
            rows.append((*head, name[:12], both, endpoint.mac))
        if not network.endpoints:
            rows.append((*head, "none", "", ""))
    return rows


def _json(store: Store) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "version": 1,
        "networks": {key: asdict(network) for key, network in store.networks.items()},
        "pools": {key: asdict(pool) for key, pool in store.pools.items()},
    }
