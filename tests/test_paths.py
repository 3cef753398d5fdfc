"""The paths of a VTEP: rooms for the data path, datagrams to send, events for people."""

from __future__ import annotations

from vxlan.engine import Datagram
from vxlan.event import EventKind, EventLog
from vxlan.fdb import Remote
from vxlan.mtu import max_frame
from vxlan.paths import Paths
from vxlan.probe import ANSWER, PROBE, ProbeHeader, nonce_of, pack_probe, parse_probe

REMOTE = Remote("192.0.2.2", 4789)
SIX = Remote("2001:db8::2", 4789)


def paths(mtu: int = 1500) -> tuple[Paths, EventLog]:
    log = EventLog()
    made = Paths(log)
    made.set({REMOTE: mtu}, 0.0)
    return made, log


def taken(made: Paths) -> list[Datagram]:
    output, made.output = made.output, []
    return output


def acknowledge(made: Paths, probe: Datagram, now: float) -> None:
    header = parse_probe(probe.payload)
    assert header is not None
    payload = pack_probe(header._replace(kind=ANSWER))
    assert made.take(Datagram(REMOTE, payload, 0, 0, 64), REMOTE, now)


def black_hole(made: Paths) -> None:
    """The first probe was lost, the next one arrives."""
    for step in range(8):
        made.tick(step / 4)
    acknowledge(made, taken(made)[-1], 2.0)


def test_the_room_is_that_of_the_link_until_probes_say_less() -> None:
    made, log = paths()
    assert made.rooms == {REMOTE.address: max_frame(1500, 4)}
    black_hole(made)
    assert made.rooms == {REMOTE.address: max_frame(1330, 4)}
    [event] = log.drain()
    assert (event.kind, event.remote, event.detail) == (
        EventKind.PATH_MTU, REMOTE, "1330 by probe",
    )  # fmt: skip


def test_a_confirmation_is_no_news() -> None:
    made, log = paths()
    acknowledge(made, taken(made)[0], 0.1)
    assert log.drain() == []
    assert made.states()[REMOTE.address].how == "probe"


def test_a_path_over_ipv6_has_20_bytes_less() -> None:
    made = Paths(EventLog())
    made.set({SIX: 1500}, 0.0)
    assert made.rooms == {SIX.address: max_frame(1500, 6)} == {SIX.address: 1444}


def test_probes_of_others_are_answered_at_their_vxlan_port() -> None:
    made, _ = paths()
    taken(made)
    payload = pack_probe(ProbeHeader(PROBE, bytes(8), 1500), 1472)
    assert made.take(Datagram(Remote(REMOTE.address, 50000), payload, 0, 0, 64), REMOTE, 0.1)
    [answer] = taken(made)
    assert answer.remote == REMOTE
    assert parse_probe(answer.payload) == ProbeHeader(ANSWER, bytes(8), 1500)


def test_what_is_no_probe_is_left_to_others() -> None:
    made, _ = paths()
    taken(made)
    assert not made.take(Datagram(REMOTE, bytes(64), 0, 0, 64), REMOTE, 0.1)
    assert taken(made) == []


def test_icmp_counts_where_nobody_acknowledges() -> None:
    made, log = paths()
    made.claimed(REMOTE.address, 1400, b"data", 0.1)
    assert made.rooms == {REMOTE.address: max_frame(1500, 4)}  # not known yet who that is
    for step in range(40):
        made.tick(step / 10)
    made.claimed(REMOTE.address, 1400, b"data", 5.0)
    assert made.rooms == {REMOTE.address: max_frame(1400, 4)}
    assert [event.detail for event in log.drain()] == ["1400 by icmp"]


def test_a_claim_below_the_floor_changes_nothing() -> None:
    made, log = paths()
    made.claimed(REMOTE.address, 600, b"data", 0.1)
    assert made.rooms == {REMOTE.address: max_frame(1500, 4)}
    assert log.drain() == []


def test_a_ping_is_sent_once_and_its_time_told_once() -> None:
    made, _ = paths()
    taken(made)
    nonce = made.ping(REMOTE, 1500, 7, 1.0)
    [probe] = taken(made)
    assert (nonce_of(probe), probe.flow, len(probe.payload)) == (nonce, 7, 1472)
    assert made.echo(nonce) is None
    acknowledge(made, probe, 1.25)
    assert made.echo(nonce) == 0.25
    assert made.echo(nonce) is None


def test_a_remote_that_went_takes_its_room_along() -> None:
    made, log = paths()
    made.set({}, 1.0)
    assert made.rooms == {}
    assert made.states() == {}
    assert log.drain() == []
