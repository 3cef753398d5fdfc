"""`pyvxlan lab fault HOST ...`: faults in the node of one host of a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vxlan.cli import fault as faults
from vxlan.cli import lab as labs
from vxlan.cli.errors import Failure

if TYPE_CHECKING:
    from vxlan.lab.running import RunningHost, RunningLab


@click.group()
@click.argument("host", shell_complete=labs.complete_place)
@labs.lab_option
@click.pass_context
def fault(ctx: click.Context, host: str, lab_name: str | None) -> None:
    """Inject faults into the node of HOST, as `pyvxlan fault` does.

    Names of the lab stand for what they mean: `--remote b`, `--as c1`.

    \b
    pyvxlan lab fault a add drop --vni 42 --share 20%
    pyvxlan lab fault b add flap --vni 42 --as c1
    pyvxlan lab fault a list
    pyvxlan lab fault a clear
    """
    ctx.obj = (lab_name, host)


def _chosen(options: dict[str, Any]) -> str:
    """The control socket of the host's node; names in `options` are replaced on the way."""
    lab_name, word = click.get_current_context().obj
    there = labs.chosen(options.pop("lab_name") or lab_name)
    host = there.hosts.get(word)
    if host is None:
        with labs.failures():
            there.place(word)
        raise Failure(f"{word} is no host with a VTEP: {', '.join(there.hosts)} are hosts")
    with labs.failures():
        node = host.node
        options |= _resolved(options, there, host)
    return node.target


def _resolved(options: dict[str, Any], there: RunningLab, host: RunningHost) -> dict[str, Any]:
    from vxlan.lab.plan_faults import resolved

    families = {":" in address for address in host.addresses}
    addresses = {
        name: next((one for one in other.addresses if (":" in one) in families), "")
        for name, other in there.hosts.items()
    }
    macs = {
        one["name"]: one["mac"] for other in there.state["hosts"] for one in other["containers"]
    }
    return resolved(options, addresses, macs)


for _command in faults.commands(_chosen):
    fault.add_command(labs.lab_option(_command))
