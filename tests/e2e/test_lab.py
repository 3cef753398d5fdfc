"""The lab that all end-to-end tests stand on: it measures rightly and leaves nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest
from packets import probe_frame, tagged
from worlds import VNI

from vxlan import netdev, netns
from vxlan.lab import (
    FAR,
    Host,
    Lab,
    LabError,
    LabTimeout,
    Router,
    Sniffer,
    ping,
    segment,
    tcp_transfer,
    wait_until,
)

pytestmark = pytest.mark.namespaces


# -- it leaves nothing -------------------------------------------------------------------


def break_in_the_middle(lab: Lab, engine: str) -> None:
    with lab:
        host = lab.host("a", "192.0.2.1/24")
        host.up(segment(VNI, "192.0.2.2", bridge=None), engine=engine)
        assert namespaces_of(lab)
        raise ZeroDivisionError


def namespaces_of(lab: Lab) -> list[str]:
    return [name for name in netns.names() if name.startswith(lab.prefix)]


def test_a_lab_leaves_nothing_when_a_step_raises(engine_name: str) -> None:
    lab = Lab("boom")
    with pytest.raises(ZeroDivisionError):
        break_in_the_middle(lab, engine_name)
    assert [node.returncode for node in lab.nodes] == [0]
    assert namespaces_of(lab) == []
    assert lab not in Lab.open_labs()


def test_labs_side_by_side_do_not_meet() -> None:
    with Lab("twin") as one, Lab("twin") as two:
        first, second = one.host("a", "192.0.2.1/24"), two.host("b", "192.0.2.2/24")
        assert ping(first, second.address, timeout=0.2).received == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_leaves_nothing_when_its_process_is_interrupted(number: signal.Signals) -> None:
    program = """
import signal, sys
from vxlan.lab import Lab
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with Lab("sig") as lab:
    lab.host("a", "192.0.2.1/24").container("c", "10.42.0.1/16")
    print(lab.prefix, flush=True)
    signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        prefix = process.stdout.readline().decode().strip()
        assert [name for name in netns.names() if name.startswith(prefix)]
        process.send_signal(number)
        assert process.wait(10) != 0
    assert [name for name in netns.names() if name.startswith(prefix)] == []


def test_an_unknown_configuration_is_reported_with_what_the_node_said(lab: Lab) -> None:
    host = lab.host("a", "192.0.2.1/24")
    with pytest.raises(LabError, match="colour"):
        host.up(segment(VNI, "192.0.2.2", colour="red"))


# -- it measures rightly --------------------------------------------------------------------


def test_ping_counts_what_is_lost(lab: Lab) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    assert ping(a, b.address, 4, interval=0.01).received == 4
    b.set_link(up=False)
    seen = ping(a, b.address, 4, interval=0.01, timeout=0.1)
    assert (seen.sent, seen.received, seen.lost) == (4, 0, 4)


def test_a_transfer_to_nobody_times_out(lab: Lab) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    assert tcp_transfer(a, b, b.address, 1 << 20).intact
    b.set_link(up=False)
    with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
        tcp_transfer(a, b, b.address, 1 << 20, timeout=0.3)


def test_the_sniffer_shows_tags_and_directions(lab: Lab) -> None:
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    frame = tagged(probe_frame(b"tagged"), 100)
    with Sniffer(a, "eth0") as near, Sniffer(b, "eth0") as far:
        sender = a.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("eth0", 0))
        sender.send(frame)
        assert near.wait_for(lambda one: one.data == frame).direction == "out"
        assert far.wait_for(lambda one: one.data == frame).direction == "in"
        assert near.lost == far.lost == 0


def test_waiting_says_what_did_not_happen() -> None:
    with pytest.raises(LabTimeout, match=r"the moon: did not happen within 0\.05 s"):
        wait_until(lambda: None, 0.05, "the moon")


# -- a router between two networks ------------------------------------------------------------


def two_networks(lab: Lab) -> tuple[Router, Host, Host]:
    near, far = (
        ["192.0.2.254/24", "2001:db8:1::fe/64"],
        ["198.51.100.254/24", "2001:db8:2::fe/64"],
    )
    router = Router(lab, "r", near, far)
    a = lab.host("a", "192.0.2.1/24", "2001:db8:1::1/64")
    b = lab.host("b", "198.51.100.1/24", "2001:db8:2::1/64", network=FAR)
    router.serve(a, b)
    return router, a, b


@pytest.mark.parametrize("silent", [False, True])
def test_a_router_is_as_narrow_and_as_silent_as_was_asked(lab: Lab, silent: bool) -> None:
    router, a, b = two_networks(lab)
    router.carry(1400, a, b)
    if silent:
        router.be_silent()
    for here, there in ((a, b), (b, a)):
        for address in there.addresses:
            assert ping(here, address, size=1450, timeout=0.2).received == 0
            assert ping(here, address, size=1340).received == 1
            assert netdev.route_to(address, here.name).learned is not silent


def test_a_router_grows_again(lab: Lab) -> None:
    router, a, b = two_networks(lab)
    router.be_silent()
    router.carry(1400, b)
    assert ping(a, b.address, size=1450, timeout=0.2).received == 0
    router.carry(1500, b)
    assert ping(a, b.address, size=1450).received == 1
