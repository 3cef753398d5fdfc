"""Faults in both engines: one injects them while it runs, the other says that it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vxlan.engine import Engine, FaultRefused
from vxlan.fault import Fault, Kind


def test_an_engine_that_does_not_run_takes_no_faults(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    remedy = "after its start" if engine.info.name == "python" else 'engine = "python"'
    with pytest.raises(FaultRefused, match=remedy):
        engine.fault_add(Fault(Kind.DROP), 0.0)
    assert engine.faults() == []
    assert engine.fault_clear(None) == 0
