"""Fixtures of the end-to-end tests.

A lab is cheap (a few hundred milliseconds), a node process less so.  Tests that
leave a world as they found it share one for their module; the others make their
own.  When a test fails, the logs of all nodes of its labs are shown.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtime import Box, Runtime, conf, ranges
from worlds import VNI, Pair, kernel_pair, python_pair, restore

from vxlan import api
from vxlan.lab import Lab, manage, segment, store


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


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Labs of these tests are written down here, and all removed at the end."""
    folder = tmp_path_factory.mktemp("labs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYVXLAN_LAB_DIR", str(folder / "run"))
        yield folder
        for name in store.names():
            manage.down(name)


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


# -- container runtimes ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtimes() -> Iterator[tuple[Runtime, Runtime]]:
    """Two hosts of one segment, each with a node and a runtime."""
    with Lab("cni") as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        nodes = a.node(segment(VNI, b.address)), b.node(segment(VNI, a.address))
        lab.start(*nodes)
        yield (
            Runtime(a, conf(nodes[0].name)),
            Runtime(b, conf(nodes[1].name, ranges("10.42.2.1", "10.42.2.9"))),
        )


@pytest.fixture
def here(runtimes: tuple[Runtime, Runtime]) -> Runtime:
    return runtimes[0]


@pytest.fixture
def box(here: Runtime) -> Iterator[Callable[[], Box]]:
    """Makes containers; whatever a test left attached is taken away."""
    made: list[Box] = []

    def make(name: str = "") -> Box:
        made.append(Box(f"box-{secrets.token_hex(4)}{name}"))
        return made[-1]

    yield make
    for one in made:
        for node in api.running():
            api.call(node, "detach", container=one.name)
        one.remove()
