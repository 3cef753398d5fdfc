"""Fixtures of the end-to-end tests.

A lab is cheap (a few hundred milliseconds), a node process less so.  Tests that
leave a world as they found it share one for their module; the others make their
own.  When a test fails, the logs of all nodes of its labs are shown.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from worlds import Pair, kernel_pair, python_pair, restore

from vxlan.lab import Lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        for lab in Lab.open_labs():
            for node in lab.nodes:
                report.sections.append((f"log of {node.name}", node.log()))
    return report


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A lab of the test's own."""
    with Lab("e2e") as made:
        yield made


@pytest.fixture
def pair(lab: Lab, engine_name: str) -> Pair:
    """Two pyvxlan hosts of the test's own."""
    return python_pair(lab, engine_name)


@pytest.fixture(scope="module")
def module_pair(engine_name: str) -> Iterator[Pair]:
    with Lab("e2e", wire=True) as made:
        yield python_pair(made, engine_name)


@pytest.fixture
def shared_pair(module_pair: Pair, engine_name: str) -> Iterator[Pair]:
    """Two pyvxlan hosts of the module; whatever a test does by command or file is undone.

    Between them every datagram is a packet of its own.
    """
    yield module_pair
    restore(module_pair, engine_name)


@pytest.fixture(scope="module", params=["pyvxlan", "kernel"])
def any_pair(request: pytest.FixtureRequest, engine_name: str) -> Iterator[Pair]:
    """A pair for the module: the far end is pyvxlan, then the kernel's driver."""
    with Lab("e2e") as made:
        build = python_pair if request.param == "pyvxlan" else kernel_pair
        yield build(made, engine_name)
