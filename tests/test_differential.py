"""Two engines, one behaviour: random histories through both must leave the same trace.

A history mixes operations of an operator and a control plane with frames and datagrams,
well-formed, bent and cut.  After each step both must have given the same output, told
the same events and counted the same; at the end their tables must be equal.
"""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.frames import BROADCAST, ether, ipv4, ipv6, tagged, tcp, udp, vxlan
from tests.test_clamp import mss, syn
from vxlan.drop import Counters
from vxlan.engine import Datagram, Engine, Policy
from vxlan.fdb import FdbFull, Remote, State
from vxlan.probe import PROBE, ProbeHeader, pack_probe
from vxlan.pyengine import PythonEngine

fastengine = pytest.importorskip("vxlan.fastengine", reason="the extension is not built here")

LOCAL = ("192.0.2.1", "2001:db8::1")
ADDRESSES = ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::2", "198.51.100.9")
VNIS = (42, 43)
MACS = [b"\x02\0\0\0\0" + bytes((number,)) for number in range(8)]

macs = st.sampled_from(MACS)
remotes = st.builds(Remote, st.sampled_from(ADDRESSES[1:4]), st.sampled_from([4789, 8472]))
octets = st.integers(0, 255)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    dst, src = draw(st.one_of(macs, st.just(BROADCAST))), draw(macs)
    tos, ttl = draw(octets), draw(octets)
    payload = draw(st.sampled_from([b"", b"x", bytes(1000), bytes(1440), bytes(1600)]))
    kind = draw(st.sampled_from(["raw", "udp4", "udp6", "tcp4", "syn4", "syn6"]))
    df = draw(st.sampled_from([0x4000, 0, 0x2000, 0x0005]))
    if kind == "raw":
        made = ether(dst, src, draw(st.sampled_from([0x0800, 0x86DD, 0x0806, 0x88B5])), payload)
    elif kind == "udp4":
        made = ether(dst, src, 0x0800, ipv4(udp(payload=payload), tos=tos, ttl=ttl, flags=df))
    elif kind == "udp6":
        made = ether(dst, src, 0x86DD, ipv6(udp(payload=payload), tos=tos, ttl=ttl))
    elif kind == "tcp4":
        made = ether(dst, src, 0x0800, ipv4(tcp(payload), protocol=6, tos=tos, flags=df))
    else:
        options = draw(st.sampled_from([b"", b"\1", b"\1\1\1"])) + mss(draw(st.integers(0, 65535)))
        one = syn(options, six=kind == "syn6", finished=draw(st.booleans()))
        made = dst + src + one[12:]
    for _ in range(draw(st.integers(0, 2))):
        made = tagged(made, tpid=draw(st.sampled_from([0x8100, 0x88A8])))
    return draw(bent(made))


@st.composite
def bent(draw: st.DrawFn, data: bytes) -> bytes:
    """Mostly the data itself, sometimes with bytes changed, sometimes cut."""
    how = draw(st.sampled_from(["whole", "whole", "changed", "cut"]))
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how == "changed" and data:
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 3))):
            changed[draw(st.integers(0, min(len(data), 80) - 1))] = draw(octets)
        return bytes(changed)
    return data


@st.composite
def datagrams(draw: st.DrawFn) -> Datagram:
    address = draw(st.sampled_from(ADDRESSES))
    if draw(st.integers(0, 9)) == 0:
        payload = pack_probe(ProbeHeader(PROBE, b"12345678", 1400), draw(st.integers(32, 100)))
    else:
        flags = draw(st.sampled_from([8, 8, 8, 8, 0, 0x88, 0xFF]))
        vni = draw(st.sampled_from([42, 42, 42, 43, 44]))
        reserved = draw(st.sampled_from([b"\0\0\0", b"\0\0\0", b"\1\0\0"]))
        payload = vxlan(vni, draw(frames()), flags=flags, reserved=reserved, last=0)
    return Datagram(Remote(address, 50000), draw(bent(payload)), tos=draw(octets))


policies = st.builds(
    Policy,
    mtu=st.sampled_from([1450, 1280, 1000]),
    max_frame=st.sampled_from([0, 1464, 1500]),
    learning=st.booleans(),
    ageing=st.sampled_from([0.0, 5.0, 300.0]),
    maxaddress=st.sampled_from([1, 2, 3, 5, 100]),
    accept=st.sampled_from(["known", "known", "any"]),
    vlan=st.sampled_from(["carry", "carry", "drop"]),
    reserved_bits=st.sampled_from(["ignore", "strict"]),
    ttl=st.sampled_from([64, 1, 255, None]),
    tos=st.sampled_from([0, 0xB8, 255, None]),
    mss=st.sampled_from(["clamp", "off", 500, 1460]),
)
vnis = st.sampled_from(VNIS)
states = st.sampled_from(list(State))
targets = st.lists(remotes, min_size=1, max_size=3, unique=True).map(tuple)

steps = st.one_of(
    st.tuples(st.just("encap"), vnis, st.lists(frames(), max_size=4)),
    st.tuples(st.just("encap"), vnis, st.lists(frames(), max_size=4)),
    st.tuples(st.just("decap"), st.lists(datagrams(), max_size=6)),
    st.tuples(st.just("decap"), st.lists(datagrams(), max_size=6)),
    st.tuples(st.just("tick"), st.sampled_from([0.3, 1.0, 4.0, 400.0])),
    st.tuples(st.just("add_remote"), vnis, remotes),
    st.tuples(st.just("del_remote"), vnis, remotes),
    st.tuples(st.just("fdb_set"), vnis, macs, targets, states, st.sampled_from(["a", "b"])),
    st.tuples(st.just("fdb_remove"), vnis, macs, st.one_of(st.none(), states)),
    st.tuples(st.just("fdb_flush"), vnis, st.one_of(st.none(), states)),
    st.tuples(st.just("set_policy"), vnis, policies),
    st.tuples(st.just("own"), vnis, st.lists(macs, max_size=2)),
    st.tuples(
        st.just("paths"), st.dictionaries(remotes, st.sampled_from([1300, 1400, 1500, 9000]))
    ),
)


class Runner:
    """One engine, and what it says to each step."""

    def __init__(self, engine: Engine, policy: Policy) -> None:
        self.engine = engine
        self.now = 1.0
        for vni in VNIS:
            engine.add_segment(vni, policy)
            engine.add_remote(vni, Remote("192.0.2.2", 4789), 0.0)

    def do(self, step: tuple[Any, ...]) -> Any:
        self.now += 0.01
        result = getattr(self, f"_{step[0]}")(*step[1:])
        return result, self.engine.take_output()[1], self.events()

    def events(self) -> Any:
        """What was told; a flush may go through the table in any order."""
        return dict(Multiset(self.engine.drain_events()))

    def _encap(self, vni: int, batch: list[bytes]) -> Any:
        return self.engine.encap(vni, batch, self.now)

    def _decap(self, batch: list[Datagram]) -> Any:
        return self.engine.decap(batch, self.now)

    def _tick(self, seconds: float) -> None:
        self.now += seconds
        self.engine.tick(self.now)

    def _add_remote(self, vni: int, remote: Remote) -> Any:
        return self.engine.add_remote(vni, remote, self.now)

    def _del_remote(self, vni: int, remote: Remote) -> Any:
        return self.engine.del_remote(vni, remote, self.now)

    def _fdb_set(self, vni: int, mac: bytes, to: Any, state: State, source: str) -> Any:
        if state is State.DYNAMIC:
            to = to[:1]
        try:
            return self.engine.fdb_set(vni, mac, to, state, source, self.now)
        except FdbFull as full:
            return str(full)

    def _fdb_remove(self, vni: int, mac: bytes, state: State | None) -> Any:
        return self.engine.fdb_remove(vni, mac, self.now, state)

    def _fdb_flush(self, vni: int, state: State | None) -> Any:
        return self.engine.fdb_flush(vni, self.now, state=state)

    def _set_policy(self, vni: int, policy: Policy) -> None:
        self.engine.set_policy(vni, policy, self.now)

    def _own(self, vni: int, macs: list[bytes]) -> None:
        self.engine.set_own_macs(vni, macs)

    def _paths(self, ceilings: dict[Remote, int]) -> None:
        self.engine.set_paths(ceilings, self.now)

    def books(self) -> dict[Any, Any]:
        tables = {
            vni: sorted(self.engine.fdb_dump(vni), key=lambda entry: entry.mac) for vni in VNIS
        }
        counted = {
            (vni, name): (counters.counts, counters.drops)
            for vni in (None, *VNIS)
            for name, counters in self.engine.counters(vni).items()
            if any(counters.counts) or any(counters.drops)
        }
        floods = [self.engine.remotes(vni) for vni in VNIS]
        return {
            "tables": tables,
            "counted": counted,
            "floods": floods,
            "up": self.engine.peers_up(),
        }


def both(policy: Policy) -> Iterator[Runner]:
    yield Runner(PythonEngine(LOCAL, 4789), policy)
    yield Runner(fastengine.FastEngine(LOCAL, 4789), policy)


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(policy=policies, history=st.lists(steps, max_size=25))
def test_one_history_leaves_one_trace(policy: Policy, history: list[tuple[Any, ...]]) -> None:
    python, fast = both(policy)
    for step in history:
        assert fast.do(step) == python.do(step), step
    assert fast.books() == python.books()


def test_the_counter_indices_are_the_same() -> None:
    whole = Counters()
    core = fastengine.FastEngine(LOCAL, 4789).core
    counts, drops = core.counters(None)[0]
    assert (len(counts), len(drops)) == (len(whole.counts), len(whole.drops))
