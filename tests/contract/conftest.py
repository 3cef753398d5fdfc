"""One text, two engines: every contract test runs on each engine that is built here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vxlan.engine import Engine, Policy, choose_engine
from vxlan.fdb import Remote

LOCAL = ("192.0.2.1", "2001:db8::1")
VNI = 42
PEER = Remote("192.0.2.2", 4789)
OTHER = Remote("192.0.2.3", 4789)
PEER6 = Remote("2001:db8::2", 4789)
STRANGER = Remote("198.51.100.66", 4789)

MakeEngine = Callable[..., Engine]


def _engine(name: str) -> Engine:
    if name == "fastpath":
        module = pytest.importorskip("vxlan.fastengine", reason="the extension is not built here")
        engine: Engine = module.FastEngine(LOCAL, 4789)
        return engine
    return choose_engine("python", LOCAL, 4789)


@pytest.fixture(params=["python", "fastpath"])
def make(request: pytest.FixtureRequest) -> MakeEngine:
    """A maker of engines with one segment, VNI 42, whose remotes are PEER and OTHER."""

    def build(*, remotes: tuple[Remote, ...] = (PEER, OTHER), **policy: object) -> Engine:
        engine = _engine(request.param)
        engine.add_segment(VNI, Policy(**policy))  # type: ignore[arg-type]  # fields by name
        for remote in remotes:
            engine.add_remote(VNI, remote, 0.0)
        engine.drain_events()
        return engine

    return build
