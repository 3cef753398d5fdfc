"""The worlds that end-to-end tests run in: two hosts, and what joins them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vxlan.lab import Container, Host, Lab, Node, RunningLab, manage, segment
from vxlan.lab.topology import OVERLAY_MTU

VNI = 42


@dataclass(frozen=True)
class Pair:
    """Two hosts, a container on each, and what carries frames between them.

    `nodes` are the pyvxlan nodes: one where the other end is the kernel's driver.
    """

    lab: Lab
    a: Host
    b: Host
    c1: Container
    c2: Container
    nodes: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """The node of host a."""
        return self.nodes[0]


def two_hosts(
    lab: Lab,
    underlay: tuple[str, str] = ("192.0.2.1/24", "192.0.2.2/24"),
    mtu: int = OVERLAY_MTU,
) -> tuple[Host, Host, Container, Container]:
    """Hosts a and b with containers c1 and c2, nothing yet between them."""
    a, b = (lab.host(name, address) for name, address in zip("ab", underlay, strict=True))
    c1 = a.container("c1", "10.42.0.11/16", "2001:db8:42::11/64", mtu=mtu)
    c2 = b.container("c2", "10.42.0.12/16", "2001:db8:42::12/64", mtu=mtu)
    return a, b, c1, c2


def python_pair(
    lab: Lab, engine: str, vtep: Mapping[str, object] | None = None, **keys: object
) -> Pair:
    """Both ends pyvxlan; `vtep` and `keys` are of their [vtep] and their segment."""
    a, b, c1, c2 = two_hosts(lab)
    nodes = (
        a.node(segment(VNI, b.address, **keys), engine=engine, **(vtep or {})),
        b.node(segment(VNI, a.address, **keys), engine=engine, **(vtep or {})),
    )
    lab.start(*nodes)
    return Pair(lab, a, b, c1, c2, nodes)


def kernel_pair(lab: Lab, engine: str) -> Pair:
    """pyvxlan on a, the kernel's driver on b."""
    a, b, c1, c2 = two_hosts(lab)
    b.kernel_vxlan(VNI, [a.address])
    return Pair(lab, a, b, c1, c2, (a.up(segment(VNI, b.address), engine=engine),))


def restore(pair: Pair, engine: str) -> None:
    """The node of host a as it was after its start, but for history and counters."""
    node, remote = pair.node, pair.b.address
    node.configure([segment(VNI, remote)], {"local": [pair.a.address], "engine": engine})
    node.call("reload")
    remotes = [one["address"] for one in node.call("remote.show", vni=VNI)]
    if remote not in remotes:
        node.call("remote.add", vni=VNI, dst=remote)
    for other in set(remotes) - {remote}:
        node.call("remote.del", vni=VNI, dst=other)
    node.call("fdb.flush", vni=VNI)


def lab_of(labs: Path, text: str) -> RunningLab:
    """A lab from the text of a topology, which stays up until the fixture `labs` ends."""
    path = labs / f"t-{secrets.token_hex(3)}.toml"
    path.write_text(text)
    return manage.up(path).lab
