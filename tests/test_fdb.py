"""The forwarding database: rules one by one, then against a model on random histories."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vxlan.event import EventKind
from vxlan.fdb import REFRESH, Fdb, FdbEntry, FdbFull, Learned, Remote, State

R1, R2, R3 = (Remote(f"192.0.2.{n}", 4789) for n in (1, 2, 3))


def mac(number: int) -> bytes:
    return b"\x02" + number.to_bytes(5, "big")


class Log:
    def __init__(self) -> None:
        self.seen: list[tuple[EventKind, bytes, Remote | None, Remote | None]] = []

    def __call__(
        self,
        kind: EventKind,
        now: float,
        mac: bytes,
        remote: Remote | None,
        was: Remote | None,
        detail: str,
    ) -> None:
        self.seen.append((kind, mac, remote, was))

    @property
    def kinds(self) -> list[EventKind]:
        return [kind for kind, *_ in self.seen]


def table(limit: int = 100, ageing: float = 300.0) -> tuple[Fdb, Log]:
    log = Log()
    return Fdb(limit=limit, ageing=ageing, notify=log), log


def entry_of(fdb: Fdb, number: int) -> FdbEntry:
    entry = fdb.get(mac(number))
    assert entry is not None
    return entry


def test_an_unknown_station_has_no_remotes() -> None:
    fdb, _ = table()
    assert fdb.lookup(mac(1), 0.0) == ()


def test_learning_and_use() -> None:
    fdb, log = table()
    assert fdb.learn(mac(1), R1, 1.0) is Learned.NEW
    assert fdb.lookup(mac(1), 5.0) == (R1,)
    assert entry_of(fdb, 1).used == 5.0
    assert log.seen == [(EventKind.LEARNED, mac(1), R1, None)]


def test_a_station_moves() -> None:
    fdb, log = table()
    fdb.learn(mac(1), R1, 1.0)
    assert fdb.learn(mac(1), R2, 2.0) is Learned.MOVED
    assert fdb.lookup(mac(1), 3.0) == (R2,)
    assert log.seen[-1] == (EventKind.MOVED, mac(1), R2, R1)
    assert entry_of(fdb, 1).since == 2.0


def test_only_frames_from_a_station_keep_it_young() -> None:
    fdb, log = table(ageing=10.0)
    fdb.learn(mac(1), R1, 0.0)
    fdb.learn(mac(2), R1, 0.0)
    assert fdb.learn(mac(1), R1, 8.0) is Learned.KNOWN
    fdb.lookup(mac(2), 9.0)
    assert fdb.age(10.0) == 1
    assert fdb.get(mac(2)) is None
    assert entry_of(fdb, 1).updated == 8.0
    assert log.kinds[-1] is EventKind.AGED


def test_a_busy_station_is_touched_once_in_a_while() -> None:
    fdb, _ = table()
    fdb.learn(mac(1), R1, 0.0)
    fdb.learn(mac(1), R1, REFRESH / 2)
    assert entry_of(fdb, 1).updated == 0.0
    fdb.learn(mac(1), R1, REFRESH)
    assert entry_of(fdb, 1).updated == REFRESH


def test_ageing_zero_means_never() -> None:
    fdb, _ = table(ageing=0.0)
    fdb.learn(mac(1), R1, 0.0)
    assert fdb.age(1e9) == 0


@pytest.mark.parametrize("state", [State.STATIC, State.EXTERN_LEARN])
def test_configured_entries_do_not_age(state: State) -> None:
    fdb, _ = table(ageing=1.0)
    fdb.set(mac(1), (R1,), state, "test", 0.0)
    fdb.age(1e9)
    assert fdb.lookup(mac(1), 1e9) == (R1,)


def test_data_against_a_static_entry_is_refused_and_told() -> None:
    fdb, log = table()
    fdb.set(mac(1), (R1,), State.STATIC, "config", 0.0)
    assert fdb.learn(mac(1), R2, 1.0) is Learned.REFUSED
    assert fdb.learn(mac(1), R1, 1.0) is Learned.KNOWN
    assert fdb.lookup(mac(1), 1.0) == (R1,)
    assert log.seen[-1] == (EventKind.CONFLICT, mac(1), R1, R2)


def test_data_against_a_control_plane_is_told_and_may_pass() -> None:
    fdb, log = table()
    fdb.set(mac(1), (R1,), State.EXTERN_LEARN, "evpn", 0.0)
    assert fdb.learn(mac(1), R2, 1.0) is Learned.CONTRADICTED
    assert fdb.lookup(mac(1), 1.0) == (R1,)
    assert log.kinds[-1] is EventKind.CONFLICT


def test_a_control_plane_overrules_what_was_learned() -> None:
    fdb, _ = table()
    fdb.learn(mac(1), R1, 0.0)
    entry = fdb.set(mac(1), (R2,), State.EXTERN_LEARN, "evpn", 1.0)
    assert entry.remotes == (R2,)
    assert fdb.lookup(mac(1), 2.0) == (R2,)


def test_a_claim_under_a_static_entry_speaks_again_when_that_goes() -> None:
    fdb, log = table()
    fdb.set(mac(1), (R1,), State.STATIC, "config", 0.0)
    assert fdb.set(mac(1), (R2,), State.EXTERN_LEARN, "evpn", 1.0).remotes == (R1,)
    assert log.kinds[-1] is EventKind.CONFLICT
    fdb.remove(mac(1), 2.0)
    assert fdb.lookup(mac(1), 3.0) == (R2,)
    assert entry_of(fdb, 1).source == "evpn"


def test_a_static_entry_keeps_the_claim_that_it_overrules() -> None:
    fdb, _ = table()
    fdb.set(mac(1), (R2,), State.EXTERN_LEARN, "evpn", 0.0)
    fdb.set(mac(1), (R1,), State.STATIC, "operator", 1.0)
    fdb.set(mac(1), (R3,), State.STATIC, "operator", 2.0)
    shadowed = entry_of(fdb, 1).shadowed
    assert shadowed is not None
    assert shadowed.remotes == (R2,)
    fdb.remove(mac(1), 3.0)
    assert fdb.lookup(mac(1), 4.0) == (R2,)


def test_a_control_plane_withdraws_its_own_claim_only() -> None:
    fdb, _ = table()
    fdb.set(mac(1), (R2,), State.EXTERN_LEARN, "evpn", 0.0)
    fdb.set(mac(1), (R1,), State.STATIC, "operator", 1.0)
    removed = fdb.remove(mac(1), 2.0, state=State.EXTERN_LEARN)
    assert removed is not None
    assert removed.source == "evpn"
    assert fdb.lookup(mac(1), 2.0) == (R1,)
    assert fdb.remove(mac(1), 3.0, state=State.EXTERN_LEARN) is None
    fdb.remove(mac(1), 4.0)
    assert fdb.get(mac(1)) is None


def test_a_dynamic_claim_never_overrules_a_static_one() -> None:
    fdb, _ = table()
    fdb.set(mac(1), (R1,), State.STATIC, "config", 0.0)
    assert fdb.set(mac(1), (R2,), State.DYNAMIC, "operator", 1.0).remotes == (R1,)
    assert entry_of(fdb, 1).shadowed is None


def test_two_control_planes_that_disagree_are_told() -> None:
    fdb, log = table()
    fdb.set(mac(1), (R1,), State.EXTERN_LEARN, "etcd", 0.0)
    fdb.set(mac(1), (R2,), State.EXTERN_LEARN, "evpn", 1.0)
    assert EventKind.CONFLICT in log.kinds
    assert fdb.lookup(mac(1), 1.0) == (R2,)


def test_writing_the_same_claim_again_keeps_its_birth() -> None:
    fdb, _ = table()
    fdb.set(mac(1), (R1,), State.STATIC, "config", 1.0)
    fdb.set(mac(1), (R1,), State.STATIC, "config", 9.0)
    assert (entry_of(fdb, 1).since, entry_of(fdb, 1).updated) == (1.0, 9.0)


def test_a_flooder_loses_its_own_stations_only() -> None:
    fdb, log = table(limit=10)
    for number in range(4):
        fdb.learn(mac(number), R1, 0.0)
    for number in range(100, 200):
        fdb.learn(mac(number), R2, 1.0)
    assert len(fdb) == 10
    assert all(fdb.get(mac(number)) for number in range(4))
    assert [entry.mac for entry in fdb if entry.remotes == (R2,)] == [
        mac(n) for n in range(194, 200)
    ]
    assert set(log.kinds) == {EventKind.LEARNED, EventKind.EVICTED}


def test_the_oldest_is_the_one_unseen_for_longest() -> None:
    fdb, _ = table(limit=2)
    fdb.learn(mac(1), R1, 0.0)
    fdb.learn(mac(2), R1, 1.0)
    fdb.learn(mac(1), R1, 5.0)
    fdb.learn(mac(3), R1, 6.0)
    assert {entry.mac for entry in fdb} == {mac(1), mac(3)}


def test_a_configured_entry_makes_its_room() -> None:
    fdb, _ = table(limit=2)
    fdb.learn(mac(1), R1, 0.0)
    fdb.set(mac(2), (R1,), State.STATIC, "config", 0.0)
    fdb.set(mac(3), (R1,), State.STATIC, "config", 0.0)
    assert {entry.mac for entry in fdb} == {mac(2), mac(3)}
    with pytest.raises(FdbFull, match="all 2 entries"):
        fdb.set(mac(4), (R1,), State.STATIC, "config", 0.0)
    assert fdb.learn(mac(5), R1, 0.0) is Learned.UNKEPT
    assert len(fdb) == 2


def test_a_smaller_bound_throws_out_what_was_learned() -> None:
    fdb, _ = table()
    for number in range(5):
        fdb.learn(mac(number), R1, 0.0)
    fdb.set(mac(9), (R1,), State.STATIC, "config", 0.0)
    fdb.resize(2, 1.0)
    assert {entry.mac for entry in fdb} == {mac(4), mac(9)}


def test_flush_takes_what_is_wanted() -> None:
    fdb, _ = table()
    fdb.learn(mac(1), R1, 0.0)
    fdb.learn(mac(2), R2, 0.0)
    assert fdb.flush(lambda entry: entry.names("192.0.2.1"), 1.0) == 1
    assert fdb.get(mac(1)) is None
    assert fdb.get(mac(2)) is not None


def test_configured_counts_who_is_named_above_dynamic() -> None:
    fdb, _ = table()
    fdb.learn(mac(1), R1, 0.0)
    fdb.set(mac(2), (R2, R3), State.STATIC, "config", 0.0)
    fdb.set(mac(3), (R2,), State.EXTERN_LEARN, "evpn", 0.0)
    assert fdb.configured == {"192.0.2.2": 2, "192.0.2.3": 1}
    fdb.remove(mac(2), 1.0)
    assert fdb.configured == {"192.0.2.2": 1}


class Model(RuleBasedStateMachine):
    """The same rules said slowly: one list of claims, searched from end to end."""

    LIMIT = 6
    AGEING = 5.0

    @initialize()
    def begin(self) -> None:
        self.fdb, self.log = table(limit=self.LIMIT, ageing=self.AGEING)
        self.now = 0.0
        self.learned: dict[bytes, tuple[Remote, float]] = {}
        self.counted_since: dict[Remote, list[int]] = {}
        self.static: dict[bytes, Remote] = {}
        self.extern: dict[bytes, Remote] = {}
        self.steps = 0

    macs = st.integers(0, 9).map(mac)
    remotes = st.sampled_from([R1, R2, R3])

    def size(self) -> int:
        return len(self.static.keys() | self.extern.keys() | self.learned.keys())

    def held(self, remote: Remote) -> list[bytes]:
        return sorted(
            (m for m, (r, _) in self.learned.items() if r == remote),
            key=lambda m: self.learned[m][1],
        )

    def room(self) -> bool:
        if self.size() < self.LIMIT:
            return True
        most = max((len(self.held(r)) for r in (R1, R2, R3)), default=0)
        if not most:
            return False
        fullest = [r for r in (R1, R2, R3) if len(self.held(r)) == most]
        evicted = [m for kind, m, *_ in self.log.seen if kind is EventKind.EVICTED][-1:]
        assert evicted, "a full table made room without saying so"
        owner = self.learned[evicted[0]][0]
        assert owner in fullest
        ages = [self.learned[m][1] for m in self.held(owner)]
        assert self.learned[evicted[0]][1] == min(ages)
        del self.learned[evicted[0]]
        return True

    @rule(step=st.sampled_from([0.0, 0.4, 1.5, 4.0]))
    def wait(self, step: float) -> None:
        self.now += step
        self.fdb.age(self.now)
        for m, (_, updated) in list(self.learned.items()):
            if self.now - updated >= self.AGEING:
                del self.learned[m]

    @rule(m=macs, remote=remotes)
    def learn(self, m: bytes, remote: Remote) -> None:
        self.log.seen.clear()
        outcome = self.fdb.learn(m, remote, self.now)
        if m in self.static:
            assert outcome is (Learned.KNOWN if self.static[m] == remote else Learned.REFUSED)
        elif m in self.extern:
            assert outcome is (Learned.KNOWN if self.extern[m] == remote else Learned.CONTRADICTED)
        elif m in self.learned:
            known = self.learned[m][0] == remote
            assert outcome is (Learned.KNOWN if known else Learned.MOVED)
            if not known or self.now - self.learned[m][1] >= REFRESH:
                self.learned[m] = (remote, self.now)
        elif self.room():
            assert outcome is Learned.NEW
            self.learned[m] = (remote, self.now)
        else:
            assert outcome is Learned.UNKEPT

    @rule(m=macs, remote=remotes, state=st.sampled_from([State.STATIC, State.EXTERN_LEARN]))
    def write(self, m: bytes, remote: Remote, state: State) -> None:
        self.log.seen.clear()
        new = m not in self.static and m not in self.extern and m not in self.learned
        try:
            self.fdb.set(m, (remote,), state, "model", self.now)
        except FdbFull:
            assert new
            assert len(self.static.keys() | self.extern.keys()) == self.LIMIT
            return
        if new:
            assert self.room()
        self.learned.pop(m, None)
        (self.static if state is State.STATIC else self.extern)[m] = remote

    @rule(m=macs)
    def remove(self, m: bytes) -> None:
        removed = self.fdb.remove(m, self.now)
        for claims in (self.static, self.extern, self.learned):
            if m in claims:
                assert removed is not None
                del claims[m]  # type: ignore[attr-defined]  # three dicts of different value types
                return
        assert removed is None

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "fdb"):
            return
        speaking = {m: r for m, (r, _) in self.learned.items()} | self.extern | self.static
        assert {entry.mac: entry.remotes[0] for entry in self.fdb} == speaking
        assert len(self.fdb) <= self.LIMIT


TestModel: Callable[[], object] = Model.TestCase
Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
