"""Whatever goes in: it leaves unchanged, clamped or in fragments, or is answered or counted."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.conftest import OTHER, PEER, VNI, MakeEngine
from tests.test_differential import frames, policies
from vxlan.clamp import clamp_mss
from vxlan.drop import Count, Counters
from vxlan.engine import Engine, Policy
from vxlan.mtu import max_frame
from vxlan.toobig import fragment_ipv4, too_big_answer
from vxlan.wire import ETH_HLEN, inspect

NARROW = 1330


def totals(engine: Engine) -> Counters:
    whole = Counters()
    for part in engine.counters(VNI).values():
        whole.add(part)
    return whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(frame=frames(), policy=policies, narrow=st.booleans())
def test_every_frame_has_one_of_five_fates(
    make: MakeEngine, frame: bytes, policy: Policy, narrow: bool
) -> None:
    engine = make(remotes=(PEER, OTHER))
    engine.set_policy(VNI, policy, 0.0)
    engine.set_paths({PEER: NARROW if narrow else 9000, OTHER: 9000}, 0.0)
    engine.take_output()
    made = engine.encap(VNI, [frame], 1.0)
    after, answers = totals(engine), [one.data for one in engine.take_output()[1]]
    sent = [one.payload[8:] for one in made if one.remote == PEER]
    assert sent == [one.payload[8:] for one in made if one.remote == OTHER]
    dropped, limit = sum(after.drops), limit_of(policy, narrow, frame)
    assert bool(sent) != bool(dropped), "it leaves, or it is counted: not both, not neither"
    if dropped:
        assert dropped == 1
        assert after.counts[Count.TOO_BIG_ANSWERED] == len(answers)
        if answers:
            assert answers == [too_big_answer(frame, inspect(frame), limit)]
        return
    assert answers == []
    assert all(len(one) - inspect(one).l3 <= limit for one in sent)
    if after.counts[Count.FRAGMENTED]:
        assert sent == fragment_ipv4(frame, inspect(frame), limit)
    elif after.counts[Count.CLAMPED]:
        assert sent == [clamp_mss(frame, limit, None if policy.mss == "clamp" else policy.mss)]
        assert sent != [frame]
    else:
        assert sent == [frame]


def limit_of(policy: Policy, narrow: bool, frame: bytes) -> int:
    """What fits of the packet in a frame."""
    room = policy.max_frame or policy.mtu + ETH_HLEN
    if narrow:
        room = min(room, max_frame(NARROW, 4))
    return min(policy.mtu, room - inspect(frame).l3)
