"""DPLPMTUD against simulated paths: no network, no sleep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.pathmtu import CLAIM_TIMER, CONFIRM_TIMER, RAISE_TIMER, How, PathMtu, Phase

STEP = 0.1


class Path:
    """A path that carries `carries` bytes to a peer that acknowledges, or does not."""

    def __init__(
        self, ceiling: int = 1500, carries: int = 1500, *, answers: bool = True, icmp: bool = False
    ) -> None:
        self.carries, self.answers, self.icmp = carries, answers, icmp
        self.mtu = PathMtu(ceiling, 4)
        self.now = 0.0
        self.probes: list[int] = []

    def run(self, seconds: float) -> PathMtu:
        end = self.now + seconds
        while self.now < end:
            size = self.mtu.poll(self.now)
            if size is not None:
                self.probes.append(size)
                self._deliver(size)
            self.now += STEP
        return self.mtu

    def _deliver(self, size: int) -> None:
        if size <= self.carries:
            if self.answers:
                self.mtu.acknowledged(size, self.now)
        elif self.icmp:
            self.mtu.quoted(size, self.carries, self.now)


def test_a_path_as_wide_as_the_link_needs_one_probe() -> None:
    path = Path()
    mtu = path.run(1.0)
    assert (mtu.mtu, mtu.phase, mtu.how) == (1500, Phase.COMPLETE, How.PROBE)
    assert path.probes == [1500]


def test_until_something_is_known_the_link_is_believed() -> None:
    assert (PathMtu(9000, 4).mtu, PathMtu(9000, 4).how) == (9000, How.LINK)


@given(st.integers(1330, 9000))
def test_any_width_is_found_exactly_without_icmp(width: int) -> None:
    mtu = Path(ceiling=9000, carries=width).run(25.0)
    assert (mtu.mtu, mtu.phase) == (width, Phase.COMPLETE)


def test_a_black_hole_is_left_within_two_seconds() -> None:
    path = Path(carries=1400)
    assert path.run(2.0).mtu >= 1330
    assert path.mtu.mtu <= 1400


def test_an_icmp_that_quotes_the_probe_saves_the_search() -> None:
    path = Path(carries=1400, icmp=True)
    mtu = path.run(2.0)
    assert (mtu.mtu, mtu.phase) == (1400, Phase.COMPLETE)
    assert len(path.probes) <= 5


def test_a_path_that_shrinks_is_found_at_the_next_confirmation() -> None:
    path = Path()
    path.run(2.0)
    path.carries = 1400
    path.run(CONFIRM_TIMER + 2.0)
    assert path.mtu.mtu <= 1400
    assert path.run(8.0).mtu == 1400


def test_a_path_that_grows_is_found_after_a_while() -> None:
    path = Path(carries=1400)
    path.run(15.0)
    path.carries = 1500
    mtu = path.run(RAISE_TIMER + CONFIRM_TIMER + 2.0)
    assert (mtu.mtu, mtu.phase) == (1500, Phase.COMPLETE)


def test_a_search_upwards_that_finds_nothing_changes_nothing() -> None:
    path = Path(carries=1400)
    path.run(15.0)
    for _ in range(100):
        assert path.run(1.0).mtu == 1400


def test_a_peer_that_acknowledges_nothing_keeps_the_link_mtu_and_is_left_in_peace() -> None:
    path = Path(answers=False)
    mtu = path.run(60.0)
    assert (mtu.mtu, mtu.phase, mtu.answers) == (1500, Phase.BASE, False)
    assert len(path.probes) == 6


def test_a_peer_that_comes_up_later_is_asked_again() -> None:
    path = Path(answers=False)
    path.run(10.0)
    path.answers = True
    path.mtu.heard(path.now)
    assert path.run(1.0).phase is Phase.COMPLETE


@pytest.mark.parametrize("late", [0.3, 0.6, 0.9, 1.2, 1.5, 2.0, 5.0])
def test_a_peer_that_starts_later_is_found_whole(late: float) -> None:
    """Whatever was lost before it came up is not held against the path."""
    path = Path(answers=False)
    path.run(late)
    path.answers = True
    path.mtu.heard(path.now)
    mtu = path.run(2.0)
    assert (mtu.mtu, mtu.phase) == (1500, Phase.COMPLETE)


@pytest.mark.parametrize("away", [0.5, 0.8, 1.0, 1.3, 2.0, 20.0])
def test_a_peer_that_was_away_for_a_while_is_found_whole_again(away: float) -> None:
    path = Path()
    path.run(CONFIRM_TIMER)
    path.answers = False
    path.run(away)
    path.answers = True
    mtu = path.run(2 * CONFIRM_TIMER)
    assert (mtu.mtu, mtu.phase) == (1500, Phase.COMPLETE)


def test_probes_of_a_peer_do_not_delay_the_way_out_of_a_black_hole() -> None:
    path = Path(carries=1400)
    for _ in range(20):
        path.run(STEP)
        path.mtu.heard(path.now)
    assert path.mtu.mtu <= 1400


def test_icmp_is_heeded_for_a_while_where_nobody_acknowledges() -> None:
    path = Path(answers=False)
    path.run(5.0)
    path.mtu.claimed(1400, path.now)
    assert (path.mtu.mtu, path.mtu.how) == (1400, How.ICMP)
    path.run(CLAIM_TIMER - 10)
    assert path.mtu.mtu == 1400
    assert path.run(20.0).mtu == 1500


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("claim", [0, 67, 600, 1329])
def test_a_claim_below_the_floor_is_ignored(answers: bool, claim: int) -> None:
    path = Path(answers=answers)
    path.run(5.0)
    path.mtu.claimed(claim, path.now)
    assert path.mtu.mtu == 1500
    assert path.run(5.0).mtu == 1500


def test_a_forged_claim_costs_a_probe_and_nothing_else() -> None:
    path = Path()
    path.run(2.0)
    before = len(path.probes)
    path.mtu.claimed(1400, path.now)
    for _ in range(40):
        assert path.run(STEP).mtu == 1500
    assert len(path.probes) == before + 1


def test_until_the_first_answer_icmp_waits() -> None:
    path = Path()
    path.mtu.claimed(1400, 0.0)
    assert path.mtu.mtu == 1500


def test_a_true_claim_is_found_true_within_a_second_or_so() -> None:
    path = Path()
    path.run(2.0)
    path.carries = 1400
    path.mtu.claimed(1400, path.now)
    path.run(2.0)
    assert path.mtu.mtu in range(1330, 1401)
    assert path.run(3.0).mtu == 1400


def test_a_peer_that_goes_silent_keeps_its_mtu() -> None:
    path = Path(carries=1400)
    path.run(15.0)
    path.answers = False
    mtu = path.run(20.0)
    assert (mtu.mtu, mtu.phase) == (1400, Phase.ERROR)
    path.answers = True
    mtu = path.run(CONFIRM_TIMER + 10)
    assert (mtu.mtu, mtu.phase) == (1400, Phase.COMPLETE)


def test_a_link_that_shrinks_is_believed_at_once_and_one_that_grows_is_tried() -> None:
    path = Path()
    path.run(2.0)
    path.carries = 1300
    path.mtu.set_ceiling(1300, path.now)
    assert path.mtu.mtu == 1300
    path.run(2.0)
    path.carries = 9000
    path.mtu.set_ceiling(9000, path.now)
    assert path.run(2.0).mtu == 9000


@given(st.data())
def test_whatever_happens_the_mtu_stays_between_floor_and_ceiling(data: st.DataObject) -> None:
    path = Path(ceiling=data.draw(st.sampled_from([1400, 1500, 9000])))
    for _ in range(data.draw(st.integers(1, 12))):
        what = data.draw(
            st.sampled_from(["run", "claim", "quote", "ack", "ceiling", "heard", "path"])
        )
        size = data.draw(st.integers(0, 9001))
        if what == "run":
            path.run(data.draw(st.sampled_from([0.1, 1.0, 7.0])))
        elif what == "claim":
            path.mtu.claimed(size, path.now)
        elif what == "quote":
            path.mtu.quoted(size, size // 2, path.now)
        elif what == "ceiling":
            path.mtu.set_ceiling(max(size, 1330), path.now)
        elif what == "heard":
            path.mtu.heard(path.now)
        elif what == "path":
            path.carries, path.answers = size, data.draw(st.booleans())
        assert path.mtu.floor <= path.mtu.mtu <= path.mtu.ceiling
