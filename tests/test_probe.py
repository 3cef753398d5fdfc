"""Probes as bytes, and a prober that is told the time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.engine import Datagram
from vxlan.fdb import Remote
from vxlan.pathmtu import How, Phase
from vxlan.probe import (
    ANSWER,
    MAX_WAITING,
    PROBE,
    PROBE_HLEN,
    ProbeHeader,
    Prober,
    answer_to,
    nonce_of,
    outer_size,
    pack_probe,
    parse_probe,
)
from vxlan.wire import parse_vxlan

FOUR, SIX = Remote("192.0.2.2", 4789), Remote("2001:db8::2", 4789)
NONCE = bytes(range(8))


def prober(**ceilings: int) -> Prober:
    made = Prober(random.Random(1).randbytes)
    made.set_paths({{"four": FOUR, "six": SIX}[name]: mtu for name, mtu in ceilings.items()}, 0.0)
    return made


def acknowledge(to: Prober, probe: Datagram, now: float, source: str | None = None) -> None:
    """What another pyvxlan would do with a probe."""
    header = parse_probe(probe.payload)
    assert header is not None
    answer = parse_probe(answer_to(header, probe, probe.remote).payload)
    assert answer is not None
    to.answered(answer, source or probe.remote.address, now)


# -- bytes ---------------------------------------------------------------------------------


def test_a_probe_on_the_wire() -> None:
    packed = pack_probe(ProbeHeader(PROBE, NONCE, 1500), 40)
    assert packed == bytes(8) + b"PVXP" + b"\x01\0\0\0" + NONCE + b"\x05\xdc" + bytes(6) + bytes(8)


def test_no_vtep_takes_a_probe_for_data() -> None:
    header = parse_vxlan(pack_probe(ProbeHeader(PROBE, NONCE, 1500)))
    assert header is not None
    assert not header.valid


@given(
    st.builds(ProbeHeader, st.sampled_from((PROBE, ANSWER)), st.binary(min_size=8, max_size=8),
              st.integers(0, 65535)),
    st.integers(0, 9000),
)  # fmt: skip
def test_what_was_packed_is_parsed(header: ProbeHeader, length: int) -> None:
    packed = pack_probe(header, length)
    assert len(packed) == max(length, PROBE_HLEN)
    assert parse_probe(packed) == header


@given(st.binary(max_size=64))
def test_nothing_else_is_a_probe(payload: bytes) -> None:
    found = parse_probe(payload)
    assert (found is not None) == (
        len(payload) >= PROBE_HLEN
        and payload[:12] == bytes(8) + b"PVXP"
        and payload[12] in (PROBE, ANSWER)
    )


@pytest.mark.parametrize("change", [{0: 8}, {7: 1}, {8: 0}, {12: 0}, {12: 3}])
def test_a_flag_another_magic_or_kind_is_no_probe(change: dict[int, int]) -> None:
    packed = bytearray(pack_probe(ProbeHeader(PROBE, NONCE, 1500)))
    for at, value in change.items():
        packed[at] = value
    assert parse_probe(bytes(packed)) is None


def test_an_acknowledgement_is_never_longer_than_its_probe() -> None:
    datagram = Datagram(FOUR, pack_probe(ProbeHeader(PROBE, NONCE, 1500), 1472), 0, 0, 64)
    header = parse_probe(datagram.payload)
    assert header is not None
    answer = answer_to(header, datagram, FOUR)
    assert parse_probe(answer.payload) == ProbeHeader(ANSWER, NONCE, 1500)
    assert len(answer.payload) == PROBE_HLEN


@pytest.mark.parametrize(("remote", "size"), [(FOUR, 1500), (SIX, 1500), (FOUR, 9000), (SIX, 1350)])
def test_a_probe_has_the_size_that_was_asked_for(remote: Remote, size: int) -> None:
    probe = prober().probe(remote, size, 0.0)
    assert outer_size(probe.payload, 6 if remote is SIX else 4) == size


# -- the prober ------------------------------------------------------------------------------


def test_each_remote_is_asked_for_its_own_ceiling() -> None:
    sizes = {
        probe.remote: outer_size(probe.payload, 6 if probe.remote is SIX else 4)
        for probe in prober(four=1500, six=9000).poll(0.0)
    }
    assert sizes == {FOUR: 1500, SIX: 9000}


def test_an_acknowledgement_completes_the_path_and_tells_the_time() -> None:
    one = prober(four=1500)
    [probe] = one.poll(0.0)
    acknowledge(one, probe, 0.015)
    path = one.paths[FOUR.address]
    assert (path.mtu, path.how, path.phase) == (1500, How.PROBE, Phase.COMPLETE)
    assert one.echo(nonce_of(probe)) == pytest.approx(0.015)
    assert one.echo(nonce_of(probe)) is None


def test_an_acknowledgement_from_elsewhere_or_twice_counts_for_nothing() -> None:
    one = prober(four=1500, six=1500)
    probe = next(one_of for one_of in one.poll(0.0) if one_of.remote is FOUR)
    acknowledge(one, probe, 0.1, source=SIX.address)
    assert one.echo(nonce_of(probe)) is None
    assert one.paths[SIX.address].answers is None
    acknowledge(one, probe, 0.1)
    assert one.echo(nonce_of(probe)) is not None
    acknowledge(one, probe, 0.2)
    assert one.echo(nonce_of(probe)) is None


def test_a_probe_that_was_cut_short_confirms_nothing() -> None:
    one = prober(four=1500)
    [probe] = one.poll(0.0)
    one.answered(ProbeHeader(ANSWER, nonce_of(probe), 1400), FOUR.address, 0.1)
    assert one.paths[FOUR.address].answers is None


def test_an_icmp_that_quotes_a_probe_is_its_loss_and_one_that_makes_up_a_nonce_is_nothing() -> None:
    one = prober(four=1500)
    [probe] = one.poll(0.0)
    forged = pack_probe(ProbeHeader(PROBE, NONCE, 1500), 1472)
    one.claimed(FOUR.address, 1400, forged, 0.05)
    assert one.poll(0.05) == []
    one.claimed(FOUR.address, 1400, probe.payload, 0.06)
    [floor] = one.poll(0.06)
    assert outer_size(floor.payload, 4) == 1330
    acknowledge(one, floor, 0.07)
    [hinted] = one.poll(0.07)
    assert outer_size(hinted.payload, 4) == 1400


def test_a_claim_about_somebody_else_is_nothing() -> None:
    one = prober(four=1500)
    [probe] = one.poll(0.0)
    one.claimed(SIX.address, 1400, probe.payload, 0.05)
    assert one.paths[FOUR.address].mtu == 1500


def test_a_probe_that_this_host_refuses_shortens_the_search() -> None:
    one = prober(four=1500)
    [probe] = one.poll(0.0)
    one.refused(probe, 0.0)
    assert [outer_size(found.payload, 4) for found in one.poll(0.0)] == [1330]


def test_remotes_that_go_are_forgotten_and_those_that_stay_are_kept() -> None:
    one = prober(four=1500, six=1500)
    kept = one.paths[FOUR.address]
    one.set_paths({FOUR: 1500}, 1.0)
    assert one.paths == {FOUR.address: kept}
    with pytest.raises(KeyError):
        one.remote_of(SIX.address)


def test_what_waits_is_bounded() -> None:
    one = prober(four=1500)
    first, *_ = [one.probe(FOUR, 100, 0.0) for _ in range(MAX_WAITING + 1)]
    acknowledge(one, first, 0.1)
    assert one.echo(nonce_of(first)) is None


def test_a_probe_of_a_person_widens_the_path_up_to_its_ceiling() -> None:
    one = prober(four=1500)
    [probe] = one.poll(0.0)
    one.claimed(FOUR.address, 1400, probe.payload, 0.0)
    [floor] = one.poll(0.0)
    acknowledge(one, floor, 0.0)
    acknowledge(one, one.probe(FOUR, 1450, 0.1), 0.1)
    assert one.paths[FOUR.address].mtu == 1450
    acknowledge(one, one.probe(FOUR, 9000, 0.2), 0.2)
    assert one.paths[FOUR.address].mtu == 1500
