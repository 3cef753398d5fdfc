"""The node as Docker's plugin sees it: asked, refusing, gone and back again."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.fakenode import FakeNode, fake_node, refusal, segment, shown
from vxlan import config
from vxlan.lab.wait import wait_until
from vxlan.plugins.docker_http import Refusal
from vxlan.plugins.docker_node import NodeLink, why_not
from vxlan.plugins.docker_state import Network

NETWORK = Network(42, {"remotes": ["192.0.2.2"], "mtu": 1400})
SOCKET = "/run/pyvxlan.taps"
ADDED = {"added": True, "segment": segment(42)}


def link_to(name: str | None) -> NodeLink:
    return NodeLink(name, "docker (x)", SOCKET)


def test_a_network_is_asked_for_with_its_keys_and_owner() -> None:
    with fake_node("docker", segment_add=ADDED, segment_del={}) as node:
        link = link_to("docker")
        assert link.add(NETWORK)["tap"] == "vxlan42"
        link.delete(42)
        both = {"vni": 42, "owner": "docker (x)"}
        assert node.asked == [
            ("segment.add", {**both, "tap_from": SOCKET, "remotes": ["192.0.2.2"], "mtu": 1400}),
            ("segment.del", both),
        ]


def test_only_what_is_ours_is_owned() -> None:
    segments = (segment(7, owner="config"), segment(42, owner="docker (x)"))
    with fake_node("docker", show=shown("docker", *segments)):
        assert link_to("docker").owned() == [42]


def test_what_the_node_refuses_is_refused_in_its_words() -> None:
    taken = refusal("VNI 42 is taken by the configuration: choose another", "conflict")
    theirs = shown("docker", segment(42, owner="config"))
    with fake_node("docker", segment_add=taken, segment_del=taken, show=theirs):
        link = link_to("docker")
        for ask in (lambda: link.add(NETWORK), lambda: link.delete(42)):
            with pytest.raises(Refusal, match="VNI 42 is taken by the configuration"):
                ask()


def test_what_an_earlier_version_asked_for_is_replaced() -> None:
    answers: list[object] = [refusal("segment 42: tap_from: it differs", "conflict"), ADDED]

    def add(_args: dict[str, object]) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ours = shown("docker", segment(42, owner="docker (x)"))
    with fake_node("docker", segment_add=add, segment_del={}, show=ours) as node:
        assert link_to("docker").add(NETWORK)["tap"] == "vxlan42"
        assert [op for op, _ in node.asked] == [
            "segment.add", "show", "segment.del", "segment.add",
        ]  # fmt: skip


def test_what_is_gone_already_is_deleted() -> None:
    with fake_node("docker", segment_del=refusal("no segment 42 here", "not_found")):
        link_to("docker").delete(42)
    link_to("docker").delete(42)  # no node at all


def test_the_only_node_that_runs_is_meant() -> None:
    with fake_node("office", segment_add=ADDED) as node:
        link_to(None).add(NETWORK)
        assert len(node.asked) == 1
        with fake_node("other"):
            assert link_to(None).name == "docker"


def test_everything_is_asked_for_again_when_the_node_comes_back() -> None:
    came: list[str] = []
    events: list[str] = []
    went: list[str] = []
    ended = threading.Event()
    link = link_to("docker")

    def happened(event: dict[str, str]) -> None:
        events.append(event["event"])

    following = threading.Thread(
        target=link.follow,
        args=(lambda: came.append("x"), happened, lambda: went.append("x"), ended),
        daemon=True,
    )
    following.start()
    wait_until(lambda: went, 10, "it to be noticed that there is no node")
    for times in (1, 2):
        node = FakeNode("docker", {})
        node.start()
        wait_until(lambda times=times: len(came) == times, 10, "the node to be noticed")
        node.publish({"event": "tap_back", "vni": 42})
        wait_until(lambda times=times: len(events) == times, 10, "the event to be heard")
        went.clear()
        if times == 2:
            ended.set()
        node.stop()
        wait_until(lambda: went, 10, "the node's end to be noticed")
    following.join(10)
    assert not following.is_alive()
    assert events == ["tap_back"] * 2


def test_why_no_node_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DIRECTORY", tmp_path)
    assert "no node named docker runs: " in why_not("docker")
    assert "docker.toml: no such file: make it" in why_not("docker")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        (tmp_path / "docker.toml").write_text(f'[vtep]\nlocal = "127.0.0.1"\ndstport = {port}\n')
        said = why_not("docker")
    assert said.startswith("no node named docker runs: ")
    assert str(port) in said or "CAP_NET_ADMIN" in said or "/dev/net/tun" in said
    assert "\n" not in said
