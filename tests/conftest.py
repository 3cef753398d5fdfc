"""What all tests share: the engines there are, and when a test needs root.

`engine_name` runs a test once for each engine that is built here, with the ids
"python" and "fastpath", so that a failure says which one disagrees.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from vxlan.engine import Engine, choose_engine

settings.register_profile("no-clock", deadline=None)  # no test asserts a speed
settings.load_profile("no-clock")


def _engines() -> list[str]:
    if importlib.util.find_spec("vxlan._fastpath") is None:
        return ["python"]
    from vxlan import _fastpath

    return ["python", "fastpath"] if hasattr(_fastpath, "Workers") else ["python"]


def _why_no_namespaces() -> str:
    """Why no network namespaces and TAPs can be made here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces and TAP devices"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun: modprobe tun"
    try:
        from vxlan import netns

        netns.names()
        Path("/run/netns").mkdir(exist_ok=True)
    except OSError as error:
        return f"needs network namespaces: {error}"
    return ""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "namespaces: needs root, namespaces and TAP devices")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _why_no_namespaces()
    if reason:
        for item in items:
            if item.get_closest_marker("namespaces"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", params=_engines())
def engine_name(request: pytest.FixtureRequest) -> str:
    """The engine under test."""
    return str(request.param)


@pytest.fixture
def make_engine(engine_name: str) -> Callable[..., Engine]:
    """make_engine(*local, port=4789): a new engine of the kind under test."""

    def make(*local: str, port: int = 4789) -> Engine:
        return choose_engine(engine_name, local or ("192.0.2.1",), port)

    return make


@pytest.fixture(scope="session", autouse=True)
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Control sockets and state of nodes under test stay out of /run and /var/lib."""
    sockets, state = (tmp_path_factory.mktemp(name) for name in ("run", "state"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYVXLAN_RUNTIME_DIR", str(sockets))
        patch.setenv("PYVXLAN_STATE_DIR", str(state))
        yield sockets
