"""One text, two engines: every contract test runs on each engine that is built here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vxlan.engine import Engine, EngineUnavailable, Policy, choose_engine
from vxlan.fdb import Remote

LOCAL = ("192.0.2.1", "2001:db8::1")
VNI = 42
PEER = Remote("192.0.2.2", 4789)
OTHER = Remote("192.0.2.3", 4789)
PEER6 = Remote("2001:db8::2", 4789)
STRANGER = Remote("198.51.100.66", 4789)

MakeEngine = Callable[..., Engine]


@pytest.fixture(params=["python", "fastpath"])
def make(request: pytest.FixtureRequest) -> MakeEngine:
    """A maker of engines with one segment, VNI 42, whose remotes are PEER and OTHER."""

    def build(*, remotes: tuple[Remote, ...] = (PEER, OTHER), **policy: object) -> Engine:
        try:
            engine = choose_engine(request.param, LOCAL, 4789)
        except EngineUnavailable as missing:
            pytest.skip(str(missing))
        engine.add_segment(VNI, Policy(**policy))  # type: ignore[arg-type]  # fields by name
        for remote in remotes:
            engine.add_remote(VNI, remote, 0.0)
        engine.drain_events()
        return engine

    return build
