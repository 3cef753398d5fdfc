"""Rows, tables and answers out of samples made by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vxlan.bench import claim, report
from vxlan.bench.load import Sample
from vxlan.bench.matrix import Key, Results, Settings
from vxlan.bench.world import Kind

WIRE, SUPER = Kind(1500, True), Kind(1500, False)
KEYS = {"overlay", "test", "wire", "median", "ratio_to_kernel", "rounds"}


def results(**rates: list[float | None]) -> Results:
    """tcp-1 of overlays, a value for each round."""
    made = Results(Settings(tuple(rates), ("tcp-1",), (WIRE,)))
    for overlay, values in rates.items():
        for value in values:
            sample = None if value is None else Sample({"tcp-1": value})
            made.take(Key(WIRE, overlay, "tcp-1"), sample, "no answer")
    return made


def only(found: Results, overlay: str) -> dict[str, Any]:
    (row,) = (row for row in report.rows(found) if row["overlay"] == overlay)
    return row


def test_a_row_holds_what_scripts_rely_on() -> None:
    row = only(results(kernel=[4.0, 5.0, 4.0], fastpath=[6.0, 7.5, 6.0]), "fastpath")
    assert row.keys() >= KEYS
    assert (row["test"], row["wire"], row["median"]) == ("tcp-1", True, 6.0)
    assert row["ratio_to_kernel"] == 1.5
    assert row["rounds"] == [6.0, 7.5, 6.0]
    assert row["verdict"] == "ok"


def test_ratios_are_of_one_round_even_if_another_failed() -> None:
    row = only(results(kernel=[1.0, None, 2.0, 4.0], python=[0.5, 9.0, 1.0, 2.0]), "python")
    assert row["ratios"] == [0.5, 0.5, 0.5]


def test_a_row_says_what_the_machine_did_meanwhile() -> None:
    made = Results(Settings(("none",), ("rr",), (WIRE,)))
    for others, stolen, mhz in ((0.1, 0.02, 2000.0), (0.3, 0.04, 2400.0), (0.2, 0.03, 3000.0)):
        sample = Sample({"rr-p50": 9.0}, others, stolen, mhz)
        made.take(Key(WIRE, "none", "rr"), sample)
    row = only(made, "none")
    assert (row["others"], row["steal"], row["mhz"]) == (0.2, 0.03, 2400.0)


def test_without_the_kernel_there_is_no_ratio() -> None:
    row = only(results(python=[1.0, 1.0, 1.1]), "python")
    assert row["ratio_to_kernel"] is None
    assert row["verdict"] == "ok"


def test_what_failed_says_why() -> None:
    row = only(results(kernel=[1.0, 1.0, 1.0], vde=[None, None, None]), "vde")
    assert (row["median"], row["verdict"], row["why"]) == (None, "failed", "no answer")


def test_what_cannot_run_is_a_row() -> None:
    found = results(kernel=[1.0])
    found.reasons[WIRE, "tinc"] = "tincd not installed: install tinc"
    row = only(found, "tinc")
    assert row.keys() >= KEYS
    assert (row["test"], row["verdict"], row["rounds"]) == (None, "cannot run", [])
    assert "install tinc" in report.cells(row)[-1]


def test_a_loss_has_no_ratio() -> None:
    found = Results(Settings(("kernel",), ("udp-64",), (WIRE,)))
    for _ in range(3):
        found.take(Key(WIRE, "kernel", "udp-64"), Sample({"udp-64": 9e4, "udp-64-loss": 2.0}))
    by_test = {row["test"]: row for row in report.rows(found)}
    assert by_test["udp-64"]["ratio_to_kernel"] == 1.0
    assert by_test["udp-64-loss"]["ratio_to_kernel"] is None


def test_a_noisy_ratio_is_not_printed_as_a_digit() -> None:
    found = results(kernel=[1.0, 1.0, 1.0, 1.0], python=[0.1, 2.0, 0.4, 1.1])
    cells = dict(zip(report.TITLES, report.cells(only(found, "python")), strict=False))
    assert cells["to kernel"] == "?"
    assert cells["verdict"] == "too noisy"


def test_rows_of_a_cable_stand_together_by_test() -> None:
    found = results(kernel=[1.0], none=[2.0])
    found.take(Key(SUPER, "kernel", "tcp-1"), Sample({"tcp-1": 3.0}))
    grouped = dict(report.groups(report.rows(found)))
    assert [row["overlay"] for row in grouped[WIRE]] == ["kernel", "none"]
    assert [row["median"] for row in grouped[SUPER]] == [3.0]


def test_json_is_json() -> None:
    found = report.as_dict(results(kernel=[4.0, 5.0, 4.0]), "pyvxlan bench --quick")
    assert json.loads(json.dumps(found)) == found


def test_markdown_has_overlays_down_and_figures_across() -> None:
    made = results(kernel=[4.0, 5.0, 4.0], fastpath=[6.0, 7.5, 6.0], python=[0.1, 2.0, 0.4])
    made.reasons[WIRE, "tinc"] = "tincd not installed"
    text = report.markdown(report.as_dict(made, "pyvxlan bench --quick"))
    assert "`pyvxlan bench --quick`" in text
    assert text.splitlines()[4:] == [
        "| overlay | tcp-1, Gbit/s |",
        "| --- | ---: |",
        "| kernel | 4.00 |",
        "| fastpath | 6.00 (1.50) |",
        "| python | 0.40 (?) |",
        "",
        "- tinc: tincd not installed",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (123456.7, "123,457")],
)
def test_about_three_digits(value: float | None, text: str) -> None:
    assert report.digits(value) == text


# -- the claim --------------------------------------------------------------------------------


def claimed(latency: float, rate: float, noise: float = 0.0) -> list[claim.Answer]:
    """The kernel's answer where no overlay has 100 us and 10 Gbit/s."""
    found = Results(Settings(("none", "kernel"), claim.TESTS, (WIRE,)))
    for overlay, trip, speed in (("none", 100.0, 10.0), ("kernel", latency, rate)):
        for _ in range(3):
            found.take(Key(WIRE, overlay, "tcp-1"), Sample({"tcp-1": speed}, noise))
            found.take(Key(WIRE, overlay, "rr"), Sample({"rr-p50": trip}, noise))
    return claim.answers(found)


def test_the_claim_is_answered_in_words() -> None:
    (answer,) = claimed(115.0, 4.0)
    assert "adds 15 % latency (15 to 15), takes 60 % throughput" in claim.sentence(answer)
    assert "its latency is as claimed, its loss as claimed" in claim.conclusion([answer])


def test_the_claim_can_be_wrong_either_way() -> None:
    assert "latency is less than claimed" in claim.conclusion(claimed(101.0, 4.0))
    assert "loss more than claimed" in claim.conclusion(claimed(115.0, 1.0))


def test_noise_leaves_the_claim_open() -> None:
    found = claimed(115.0, 4.0, noise=0.5)
    assert "too noisy" in claim.sentence(found[0])
    assert "open" in claim.conclusion(found)


def test_what_cannot_run_has_no_answer() -> None:
    found = Results(Settings(("none", "kernel"), claim.TESTS, (WIRE,)))
    found.reasons[WIRE, "kernel"] = "this kernel has no support for it"
    (answer,) = claim.answers(found)
    assert "cannot run: this kernel" in claim.sentence(answer)
    assert answer.as_dict()["throughput_taken_percent"] is None
    assert "open" in claim.conclusion([answer])
