"""Faults in topology files: what their names mean, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_lab_plan import read, refusal
from tests.topologies import PAIR
from vxlan.lab.plan_rules import node_tables


def with_fault(text: str, *lines: str) -> str:
    """A topology with a fault on its last host, which is b."""
    return "\n".join([text, "[[host.fault]]", *lines])


def test_names_stand_for_addresses_and_macs(tmp_path: Path) -> None:
    text = with_fault(PAIR, 'kind = "drop"', 'remote = "a"', 'mac = "c1"', "share = 0.5")
    text = with_fault(text, 'kind = "flap"', "vni = 42", 'as = "02:00:00:00:00:09"')
    a, b = read(tmp_path, text).hosts
    assert a.faults == ()
    assert b.faults == (
        {"kind": "drop", "remote": "192.0.2.1", "mac": "02:42:0a:2a:00:0b", "share": 0.5},
        {"kind": "flap", "vni": 42, "as": "02:00:00:00:00:09"},
    )


@pytest.mark.parametrize(
    ("engine", "faults", "allowed"),
    [("python", False, True), ("fastpath", False, True), ("auto", False, False),
     ("auto", True, True)],
)  # fmt: skip
def test_nodes_take_faults_where_that_costs_no_engine(
    tmp_path: Path, engine: str, faults: bool, allowed: bool
) -> None:
    text = f'engine = "{engine}"\n{PAIR}'
    host = read(tmp_path, with_fault(text, 'kind = "drop"') if faults else text).hosts[-1]
    assert node_tables(host)[0]["faults"] is allowed


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (['kind = "dorp"'], "'dorp' is not one of drop, delay"),
        (['kind = "drop"', "vni = 7"], "host b has no VNI 7: it has 42"),
        (['kind = "drop"', 'remote = "z"'], "'z' is not an IP address"),
        (['kind = "shrink"'], "shrink needs mtu"),
        (['kind = "drop"', "shrae = 1"], "did you mean share?"),
    ],
)
def test_a_wrong_fault_is_one_line(tmp_path: Path, lines: list[str], complaint: str) -> None:
    said = refusal(tmp_path, with_fault(PAIR, *lines))
    assert "host[1].fault[0]" in said
    assert complaint in said


def test_hosts_that_cannot_are_refused(tmp_path: Path) -> None:
    kernel = PAIR.replace('"192.0.2.2/24"', '"192.0.2.2/24"\nvtep = "kernel"')
    assert "no pyvxlan node" in refusal(tmp_path, with_fault(kernel, 'kind = "drop"'))
    fast = PAIR.replace('"192.0.2.2/24"', '"192.0.2.2/24"\nengine = "fastpath"')
    assert 'engine = "python"' in refusal(tmp_path, with_fault(fast, 'kind = "drop"'))
