"""`pyvxlan fault`: what it asks of a node, and what it prints of the answer."""

from __future__ import annotations

import json

from tests.clirun import complaint, run
from tests.fakenode import fake_node, refusal, shown

ACTIVE = {
    "id": 3,
    "text": "drop 20 % vni 42",
    "fault": {"kind": "drop", "vni": 42, "share": 0.2, "side": "both", "seed": 7},
    "since": 90.0,
    "seen": 50,
    "hits": 11,
}


def test_what_is_given_is_asked_for() -> None:
    with fake_node(fault_add={"id": 3}) as node:
        result = run("fault", "add", "drop", "--vni", "42", "--share", "20%")
        run("fault", "add", "flap", "--vni", "42", "--as", "02:42:0a:2a:00:99", "--period", "2s")
    assert result.stdout == "3\n"
    assert node.asked == [
        ("fault.add", {"kind": "drop", "vni": 42, "share": "20%"}),
        (
            "fault.add",
            {"kind": "flap", "vni": 42, "as": "02:42:0a:2a:00:99", "period": "2s"},
        ),
    ]


def test_faults_are_listed_and_shown_apart_from_drops() -> None:
    with fake_node(fault_list=[ACTIVE], show=shown("lab", faults=[ACTIVE])):
        listed = run("fault", "list").stdout
        as_json = json.loads(run("fault", "list", "--json").stdout)
        text = run("show").stdout
    assert " ".join(listed.splitlines()[1].split()) == "3 drop 20 % vni 42 1m30s 50 11"
    assert as_json == [ACTIVE]
    assert "faults, injected on purpose" in text
    assert "drop 20 % vni 42" in text


def test_one_fault_or_all_are_cleared() -> None:
    with fake_node(fault_clear={"cleared": 1}) as node:
        run("fault", "clear", "3")
        run("fault", "clear")
    assert node.asked == [("fault.clear", {"id": 3}), ("fault.clear", {})]


def test_a_refusal_is_one_line() -> None:
    answer = refusal('fault: faults need engine = "python"', "conflict")
    with fake_node(fault_add=answer):
        assert "engine" in complaint(run("fault", "add", "drop"), 1)
        assert "KIND" in complaint(run("fault", "add", "dorp"), 2)
