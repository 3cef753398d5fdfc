"""The worlds that end-to-end tests run in.

A lab is cheap (a few hundred milliseconds), a node process less so.  Tests that
leave a world as they found it share one for their module; the others make their
own.  When a test fails, the logs of all nodes of its labs are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from vxlan.lab import Container, Host, Lab, Node, segment

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        for lab in Lab.open_labs():
            for node in lab.nodes:
                report.sections.append((f"log of {node.name}", node.log()))  # type: ignore[attr-defined]
    return report  # noqa: B901  a wrapper hook returns the report it was given


def two_hosts(lab: Lab, underlay: tuple[str, str] = ("192.0.2.1/24", "192.0.2.2/24")) -> tuple[
    Host, Host, Container, Container
]:
    """Hosts a and b with containers c1 and c2, nothing yet between them."""
    a, b = (lab.host(name, address) for name, address in zip("ab", underlay, strict=True))
    c1 = a.container("c1", "10.42.0.11/16", "2001:db8:42::11/64")
    c2 = b.container("c2", "10.42.0.12/16", "2001:db8:42::12/64")
    return a, b, c1, c2


def python_pair(lab: Lab, engine: str, **keys: object) -> Pair:
    """Both ends pyvxlan."""
    a, b, c1, c2 = two_hosts(lab)
    nodes = (
        a.node(segment(VNI, b.address, **keys), engine=engine),
        b.node(segment(VNI, a.address, **keys), engine=engine),
    )
    lab.start(*nodes)
    return Pair(lab, a, b, c1, c2, nodes)


def kernel_pair(lab: Lab, engine: str) -> Pair:
    """pyvxlan on a, the kernel's driver on b."""
    a, b, c1, c2 = two_hosts(lab)
    b.kernel_vxlan(VNI, [a.address])
    return Pair(lab, a, b, c1, c2, (a.up(segment(VNI, b.address), engine=engine),))


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of the test's own."""
    with Lab("e2e") as made:
        yield made


@pytest.fixture
def pair(lab: Lab, engine_name: str) -> Pair:
    """Two pyvxlan hosts of the test's own."""
    return python_pair(lab, engine_name)


@pytest.fixture(scope="module", params=["pyvxlan", "kernel"])
def any_pair(request: pytest.FixtureRequest, engine_name: str) -> Iterator[Pair]:
    """A pair for the module: the far end is pyvxlan, then the kernel's driver."""
    with Lab("e2e") as made:
        build = python_pair if request.param == "pyvxlan" else kernel_pair
        yield build(made, engine_name)
