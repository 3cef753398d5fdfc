"""How the bench turns samples into figures, and when it refuses to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.bench import method, noise

QUIET = [0.0] * 5
POSITIVE = st.floats(0.01, 1e6)


def test_summary_is_the_median_and_the_middle_half() -> None:
    assert method.summary([5, 1, 3, 2, 4]) == method.Summary(3, 2, 4)
    assert method.summary([7]) == method.Summary(7, 7, 7)
    assert method.summary([]) is None


def test_spread_is_relative_to_the_median() -> None:
    assert method.Summary(4, 3, 5).spread == 0.5
    assert method.Summary(0, 0, 0).spread == 0


@given(st.integers(0, 50), st.integers(0, 12))
def test_each_round_has_every_overlay_once(round_: int, count: int) -> None:
    names = [f"o{index}" for index in range(count)]
    assert sorted(method.turns(names, round_)) == sorted(names)


def test_the_overlay_that_begins_rotates() -> None:
    first = [next(method.turns("abc", round_)) for round_ in range(4)]
    assert first == ["a", "b", "c", "a"]


def test_ratios_compare_values_of_one_round() -> None:
    assert method.ratios([2.0, None, 9.0, 4.0], [1.0, 1.0, 3.0, None]) == [2.0, 3.0]
    assert method.ratios([1.0], [0.0]) == []


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=3, max_size=9))
def test_a_drift_of_the_machine_does_not_change_a_ratio(drift: list[tuple[float, float]]) -> None:
    base = [speed for speed, _ in drift]
    own = [2 * speed for speed in base]
    assert method.ratios(own, base) == pytest.approx([2.0] * len(base))


@pytest.mark.parametrize(
    ("values", "compared", "others", "verdict"),
    [
        ([10, 10, 11, 10, 10], [1.0, 1.0, 1.1, 1.0, 1.0], QUIET, "ok"),
        ([1, 9, 1, 9, 5], [1.0, 1.0, 1.1, 1.0, 1.0], QUIET, "ok"),
        ([10, 10, 11, 10, 10], [0.5, 1.0, 2.0, 1.5, 0.7], QUIET, "too noisy"),
        ([1, 9, 1, 9, 5], [], QUIET, "too noisy"),
        ([10, 10, 11, 10, 10], [1.0, 1.0, 1.1, 1.0, 1.0], [0.4] * 5, "too noisy"),
        ([10, 10], [1.0, 1.0], QUIET, "too few rounds"),
        ([], [], [], "failed"),
    ],
)
def test_verdict(
    values: list[float], compared: list[float], others: list[float], verdict: str
) -> None:
    assert method.verdict(values, compared, others) == verdict


def test_samples_fit_the_budget_but_are_never_too_short() -> None:
    assert method.seconds_for_each(100, 200, 0.1) == pytest.approx(0.4)
    assert method.seconds_for_each(10, 200, 0.1) == 0.15
    assert method.seconds_for_each(10, 0, 0.1) == pytest.approx(9.9)


# -- what else the machine did ----------------------------------------------------------------


def test_machine_seconds_leave_out_idle_time_and_guests() -> None:
    ticks = noise.TICKS
    fields = (1, 2, 3, 400, 500, 6, 7, 8, 1000, 1000)
    stat = "cpu  " + " ".join(str(field * ticks) for field in fields) + "\ncpu0 1 2 3\n"
    assert noise.machine_seconds(stat) == (1 + 2 + 3 + 6 + 7, 8)


def test_process_seconds_of_a_name_with_blanks_and_brackets() -> None:
    fields = ["S", "77", *("0" for _ in range(9)), "50", "25", "0"]
    assert noise.process_seconds(f"12 (a) b (c) {' '.join(fields)}") == (77, 75 / noise.TICKS)


def test_only_the_work_of_others_is_a_disturbance() -> None:
    before = noise.Reading(10.0, 100.0, 5.0, {1: 1.0, 2: 1.0})
    after = noise.Reading(12.0, 103.0, 5.5, {1: 2.0, 2: 1.25, 3: 0.5})
    used = noise.between(before, after, ours={1})
    assert used == noise.Use(elapsed=2.0, busy=3.0, steal=0.5, others=0.75)
    assert used.disturbance == pytest.approx(1.25 / (2 * noise.CORES))
    assert used.stolen == pytest.approx(0.5 / (2 * noise.CORES))


def test_the_frequency_is_the_mean_of_the_cores() -> None:
    text = "cpu MHz\t\t: 2000.0\nflags\t: a\n\ncpu MHz\t\t: 3000.0\n"
    assert noise.frequency(text) == 2500.0
    assert noise.frequency("BogoMIPS : 50\n") == 0.0


def test_cpu_of_this_process_grows_with_its_work() -> None:
    import os

    before = noise.cpu_of([os.getpid()])
    sum(range(200_000))
    assert noise.cpu_of([os.getpid()]) > before > 0
