"""What a click asks for is checked before anything is done to a lab."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scapy.layers.l2 import ARP, Ether

from vxlan import netdev
from vxlan.lab import LabError
from vxlan.lab.view.actions import Actions, _announcement
from vxlan.lab.view.feed import Feed
from vxlan.lab.view.scene import ContainerView, HostView, Scene, SegmentView

C1 = ContainerView("c1", "a", "br42", ("10.42.0.11",), "02:00:00:00:00:c1", 42)
C2 = ContainerView("c2", "b", "br42", ("10.42.0.12",), "02:00:00:00:00:c2", 42)
SIX = ContainerView("six", "b", "br42", ("2001:db8:42::1",), "02:00:00:00:00:06", 42)
A, B = (
    HostView(name, (address,), "switch", "pyvxlan", name, (SegmentView(42, "vxlan42", "br42"),))
    for name, address in (("a", "192.0.2.1"), ("b", "192.0.2.2"))
)
BARE = HostView("bare", ("192.0.2.3",), "switch", "none", None, ())


@pytest.fixture
def actions() -> Actions:
    scene = Scene(
        "test", "A test", ("switch",), (A, B, BARE), (C1, C2, SIX), (), {}, cast(Any, None), {}
    )
    return Actions(lambda: scene, Feed())


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown action": ("reboot", {}, "there are ping, forget, flap, shrink"),
    "unknown container": ("ping", {"from": "c9", "to": "c1"}, "'c9': there are c1, c2, six"),
    "nothing said": ("ping", {}, "there are c1, c2, six"),
    "not a name": ("ping", {"from": ["c1"], "to": {}}, "there are c1, c2, six"),
    "itself": ("ping", {"from": "c1", "to": "c1"}, "cannot ping itself"),
    "too long": ("ping", {"from": "c1", "to": "c2", "size": 9000}, "a number from 0 to 8972"),
    "not a number": ("ping", {"from": "c1", "to": "c2", "size": "many"}, "a number from"),
    "truth": ("ping", {"from": "c1", "to": "c2", "size": True}, "a number from"),
    "other kind": ("ping", {"from": "c1", "to": "six"}, "no address of the same kind"),
    "where it is": ("flap", {"station": "c2", "host": "b"}, "c2 is on b: choose another host"),
    "no such VNI": ("flap", {"station": "c2", "host": "bare"}, "VNI 42, which bare does not have"),
    "too narrow": ("shrink", {"host": "a", "mtu": 100}, "a number from 1280 to 9000"),
    "a container": ("shrink", {"host": "c1", "mtu": 1400}, "there are a, b, bare"),
}


@pytest.mark.parametrize(("action", "said", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_makes_no_sense_is_one_line(
    actions: Actions, action: str, said: dict[str, Any], why: str
) -> None:
    with pytest.raises(LabError) as refused:
        actions.do(action, said)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_long_name_is_cut(actions: Actions) -> None:
    with pytest.raises(LabError) as refused:
        actions.do("x" * 9999, {})
    assert len(str(refused.value)) < 120


def test_a_flapped_mac_is_announced_as_a_host_that_has_moved_does() -> None:
    arp = ARP(hwsrc=C2.mac, psrc="10.42.0.12", hwdst="00:00:00:00:00:00", pdst="10.42.0.12")
    assert _announcement(C2) == bytes(Ether(src=C2.mac, dst="ff:ff:ff:ff:ff:ff") / arp)


# -- wires ---------------------------------------------------------------------------------


@pytest.fixture
def wires() -> Actions:
    hosts = (replace(A, mtu=1600), B)
    switch = cast(Any, SimpleNamespace(name="switch"))
    scene = Scene("test", "A test", ("switch",), hosts, (), (), {}, switch, {})
    return Actions(lambda: scene, Feed())


def test_one_wire_that_is_gone_keeps_no_other_from_its_width(
    wires: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    monkeypatch.setattr(netdev, "set_mtu", lambda name, mtu, netns: done.append((name, mtu)))
    wires.do("shrink", {"host": "a", "mtu": 1400})
    wires.do("shrink", {"host": "b", "mtu": 1400})
    done.clear()

    def set_mtu(name: str, mtu: int, netns: str) -> None:
        if name == "a":
            raise netdev.NetdevError("netns switch: there is none of that name")
        done.append((name, mtu))

    monkeypatch.setattr(netdev, "set_mtu", set_mtu)
    wires.undo()
    assert done == [("b", 1500)]


def test_a_wire_is_widened_after_the_click_that_was_on_its_way(
    wires: Actions, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[tuple[str, int]] = []

    def set_mtu(name: str, mtu: int, netns: str) -> None:
        begun.set()
        if mtu == 1400:
            assert go_on.wait(10.0)
        done.append((name, mtu))

    monkeypatch.setattr(netdev, "set_mtu", set_mtu)
    click = threading.Thread(target=wires.do, args=("shrink", {"host": "a", "mtu": 1400}))
    click.start()
    assert begun.wait(10.0)
    undo = threading.Thread(target=wires.undo)
    undo.start()
    undo.join(0.2)
    go_on.set()
    for thread in (click, undo):
        thread.join(10.0)
    assert done == [("a", 1400), ("a", 1600)]
    with pytest.raises(LabError, match="closed"):
        wires.do("shrink", {"host": "a", "mtu": 1400})
