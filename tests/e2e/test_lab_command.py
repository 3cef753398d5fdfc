"""`pyvxlan lab`: up, down, twice, side by side, and nothing left behind."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.clirun import complaint, process, run
from tests.topologies import PAIR, ROUTED, SIX
from vxlan import netns, pcap_read
from vxlan.lab import RunningLab, manage, processes, store, wait_until, watch

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module")
def pair(labs: Path) -> RunningLab:
    """Two pyvxlan hosts, made by the command."""
    return made(labs, PAIR)


def made(labs: Path, text: str) -> RunningLab:
    name = f"t-{secrets.token_hex(3)}"
    path = labs / f"{name}.toml"
    path.write_text(text)
    result = run("lab", "up", str(path))
    assert result.exit_code == 0, result.stderr
    return RunningLab.load(name)


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    with process("lab", *words, **options) as child:
        out, err = child.communicate(timeout=60)
        return subprocess.CompletedProcess(words, child.returncode, out, err)


# -- it works ---------------------------------------------------------------------------


def test_everybody_reaches_everybody(pair: RunningLab) -> None:
    result = run("lab", "pingall", "--lab", pair.name, "--json")
    ways = {(way["source"], way["target"]): way for way in json.loads(result.stdout)}
    assert set(ways) == {("a", "b"), ("b", "a"), ("c1", "c2"), ("c2", "c1")}
    assert all(way["rtt"] for way in ways.values()), result.stdout
    assert result.exit_code == 0
    assert ways["c1", "c2"]["vni"] == 42


def test_up_twice_changes_nothing(pair: RunningLab, labs: Path) -> None:
    before = [host.node.pid for host in pair.hosts.values()]
    result = run("lab", "up", str(labs / f"{pair.name}.toml"))
    assert result.exit_code == 0
    assert "is up already" in result.stderr
    assert [host.node.pid for host in RunningLab.load(pair.name).hosts.values()] == before


def test_another_text_under_the_same_name_is_refused(pair: RunningLab, labs: Path) -> None:
    other = labs / "other.toml"
    other.write_text(ROUTED)
    result = run("lab", "up", str(other), "--name", pair.name)
    assert "another topology" in complaint(result, 1)
    assert RunningLab.load(pair.name).whole


def test_a_node_that_ended_is_seen_and_started_again(pair: RunningLab, labs: Path) -> None:
    pair.hosts["a"].node.stop()
    assert "node ended" in run("lab", "status", pair.name).stdout
    result = run("lab", "up", str(labs / f"{pair.name}.toml"))
    assert "started again: the node of a" in result.stderr
    assert RunningLab.load(pair.name).silent_hosts() == []


def test_status_as_json_is_the_whole_lab(pair: RunningLab) -> None:
    (lab,) = json.loads(run("lab", "status", pair.name, "--json").stdout)
    assert (lab["name"], lab["whole"]) == (pair.name, True)
    host = lab["hosts"][0]
    assert host["node"]["running"]
    assert Path(host["node"]["socket"]).is_socket()
    assert [one["name"] for one in host["containers"]] == ["c1"]
    assert oct(Path(host["node"]["socket"]).parent.stat().st_mode)[-3:] == "700"
    assert oct(store.directory(pair.name).stat().st_mode)[-3:] == "700"


def test_a_command_runs_where_it_is_told_to(pair: RunningLab) -> None:
    done = command("exec", "--lab", pair.name, "c1", "--", "ip", "-br", "address")
    assert "10.42.0.11/16" in done.stdout
    done = command("exec", "--lab", pair.name, "b", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7
    done = command("exec", "--lab", pair.name, "b", "--", "no-such-command")
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)


def test_pyvxlan_means_the_node_of_the_host_one_is_on(pair: RunningLab) -> None:
    done = command("exec", "--lab", pair.name, "b", "--", "pyvxlan", "show", "--json")
    assert json.loads(done.stdout)["pid"] == pair.hosts["b"].node.pid
    done = command("exec", "--lab", pair.name, "c1", "--", "pyvxlan", "show")
    assert done.returncode == 3
    socket = pair.hosts["b"].node.target
    assert json.loads(run("show", socket, "--json").stdout)["name"] == "b"


def test_a_shell_says_where_it_is(pair: RunningLab) -> None:
    with process("lab", "enter", "--lab", pair.name, "c2", stdin=subprocess.PIPE) as shell:
        out, _ = shell.communicate("echo $PYVXLAN_LAB $PYVXLAN_PLACE\nip -br address\n", timeout=30)
    assert f"{pair.name} c2" in out
    assert "10.42.0.12/16" in out


@pytest.mark.parametrize("words", [["exec", "zz", "--", "true"], ["enter", "zz"]])
def test_a_host_that_is_not_there_is_one_line(pair: RunningLab, words: list[str]) -> None:
    assert "has no host zz" in complaint(run("lab", words[0], "--lab", pair.name, *words[1:]), 1)


def test_labs_that_are_not_up_are_one_line(labs: Path) -> None:
    for words in (["pingall"], ["exec", "a", "--", "true"], ["enter", "a"], ["graph"]):
        assert "no lab named nix is up" in complaint(
            run("lab", words[0], "--lab", "nix", *words[1:]), 1
        )
    assert "no lab named nix is up" in complaint(run("lab", "status", "nix"), 1)


# -- several, routed, with the kernel -----------------------------------------------------


def test_a_second_lab_beside_the_first_and_both_go(pair: RunningLab, labs: Path) -> None:
    other = made(labs, ROUTED)
    assert [note for note in other.state["notes"] if "has no netem" not in note] == []
    if {pair.name, other.name} == set(store.names()):
        assert "several labs" in complaint(run("lab", "pingall"), 1)
        assert "several labs" in complaint(run("lab", "down"), 2)
    result = run("lab", "pingall", "--lab", other.name, "--timeout", "3")
    assert result.exit_code == 0, result.stdout
    assert "d1" in result.stdout
    namespaces, nodes = other.namespaces, [one.node.pid for one in other.hosts.values()
                                           if one.has_node]  # fmt: skip
    assert len(namespaces) == 10
    with other.containers["c1"].popen(["sleep", "600"]) as stray:
        assert run("lab", "down", other.name).exit_code == 0
        assert stray.wait(10) == -signal.SIGHUP
    assert set(namespaces) & set(netns.names()) == set()
    assert [pid for pid in nodes if pid and processes.of_pid(pid)] == []
    assert not store.directory(other.name).exists()
    assert RunningLab.load(pair.name).whole


def test_ipv6_below_and_above_through_a_router_and_another_port(labs: Path) -> None:
    lab = made(labs, SIX)
    result = run("lab", "pingall", "--lab", lab.name, "--timeout", "3")
    assert result.exit_code == 0, result.stdout
    through = {tuple(line.split()[:2]): line.split()[3] for line in result.stdout.splitlines()[1:]}
    assert through == {
        ("a", "b"): "underlay", ("b", "a"): "underlay",
        ("a", "z"): "underlay", ("z", "a"): "underlay",
        ("c1", "c2"): "VNI", ("c2", "c1"): "VNI",
        ("p1", "p2"): "bridge", ("p2", "p1"): "bridge",
    }  # fmt: skip


def test_a_lab_that_lost_a_namespace_says_so_and_is_made_anew(labs: Path) -> None:
    lab = made(labs, PAIR)
    netns.delete(lab.containers["c1"].name)
    assert "not whole" in run("lab", "status", lab.name).stdout
    words = ("lab", "ping", "--lab", lab.name, "c1", "c2")
    assert f"is gone: `pyvxlan lab down {lab.name}`" in complaint(run(*words), 1)
    assert run("lab", "up", str(labs / f"{lab.name}.toml")).exit_code == 0
    assert run(*words).exit_code == 0
    assert run("lab", "down", lab.name).exit_code == 0


def test_down_of_nothing_is_no_error(labs: Path) -> None:
    result = run("lab", "down", "nothing")
    assert (result.exit_code, result.stderr) == (0, "no lab named nothing is up\n")


def test_a_lab_that_cannot_be_made_leaves_nothing(labs: Path) -> None:
    name = f"t-{secrets.token_hex(3)}"
    path = labs / f"{name}.toml"
    # a node refuses an MTU that its path does not carry
    path.write_text(PAIR.replace("vni = 42", "vni = 42\nmtu = 1500"))
    result = run("lab", "up", str(path))
    assert "mtu 1500 does not fit" in complaint(result, 1)
    assert not store.directory(name).exists()
    assert [one for one in netns.names() if one.startswith(name)] == []


def test_an_up_that_was_killed_is_cleared_away_by_down(labs: Path) -> None:
    name = f"t-{secrets.token_hex(3)}"
    path = labs / f"{name}.toml"
    path.write_text(ROUTED)
    with process("lab", "up", str(path)) as child:
        wait_until(lambda: store.directory(name).joinpath("b/b.sock").exists(), 20, "a node")
        child.kill()
        child.wait()
    assert [one for one in netns.names() if one.startswith(name)] != []
    assert run("lab", "down", name).exit_code == 0
    assert [one for one in netns.names() if one.startswith(name)] == []
    assert not store.directory(name).exists()


def test_a_lab_is_written_down_before_its_first_namespace(
    labs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"t-{secrets.token_hex(3)}"
    path = labs / f"{name}.toml"
    path.write_text(PAIR)
    written: list[str] = []

    def create(made: str) -> None:
        written.append(store.read(name)["prefix"])
        assert made.startswith(written[0])
        raise netns.NetdevError("not now")

    monkeypatch.setattr(netns, "create", create)
    assert "not now" in complaint(run("lab", "up", str(path)), 1)
    assert len(written) == 1
    assert not store.directory(name).exists()


# -- packets on its wires -----------------------------------------------------------------


def test_packets_of_a_vni_are_shown_and_drawn(pair: RunningLab) -> None:
    words = ("capture", "--lab", pair.name, "b", "--vni", "42", "--count", "2", "--draw")
    with process("lab", *words) as child:
        lines = pinged_until_it_ends(pair, child).splitlines()
    heads = [line for line in lines if line and not line.startswith(" ")]
    assert len(heads) == 2
    assert all(" b " in line and "| VXLAN VNI 42 |" in line for line in heads)
    assert sum("VNI" in line and "00 00 2a" in line for line in lines) == 2


def test_listening_goes_on_when_a_link_was_down(pair: RunningLab) -> None:
    host = pair.hosts["b"]
    packets = watch.listen([host], 30.0)
    host.set_link(False)
    try:
        found = list(watch.listen([host], 1.0))
    finally:
        host.set_link(True)
    assert found == []
    with pinging(pair):
        assert next(packets).place == "b"
        host.set_link(False)
        host.set_link(True)
        last = time.time()
        assert next(one for one in packets if one.captured.when > last).place == "b"


def test_a_capture_of_a_lab_that_is_taken_down_is_one_line(labs: Path) -> None:
    lab = made(labs, PAIR)
    with process("lab", "capture", "--lab", lab.name, "a", "c1", "-w", "-", text=False) as child:
        assert child.stdout is not None
        child.stdout.read(1)  # it listens, or is about to
        manage.down(lab.name)
        _, err = child.communicate(timeout=20)
    assert child.returncode == 1
    assert b"the lab was taken down" in cast(bytes, err)
    assert cast(bytes, err).count(b"\n") == 1


@contextmanager
def pinging(lab: RunningLab) -> Iterator[None]:
    """Something passes the underlay all the time."""
    command = [sys.executable, "-m", "vxlan", "lab", "ping", "--lab", lab.name, "a", "b"]
    with subprocess.Popen([*command, "-c", "1000"], stdout=subprocess.DEVNULL) as child:
        try:
            yield
        finally:
            child.kill()


def test_packets_are_written_for_others_to_read(pair: RunningLab, labs: Path) -> None:
    path = labs / "both.pcapng"
    words = ("capture", "--lab", pair.name, "a", "c1", "--count", "6", "-w", str(path))
    with process("lab", *words) as child:
        assert pinged_until_it_ends(pair, child) == ""
    with path.open("rb") as stream:
        found = list(pcap_read.packets(stream))
    assert len(found) == 6
    assert [one.when for one in found] == sorted(one.when for one in found)


def test_what_the_node_of_a_host_decided_is_told(pair: RunningLab) -> None:
    words = ("capture", "--lab", pair.name, "a", "--decided", "--vni", "42", "--count", "3")
    with process("lab", *words) as child:
        lines = pinged_until_it_ends(pair, child).splitlines()
    assert len(lines) == 3
    assert any("encap vni 42 -> 192.0.2.2" in line for line in lines), lines
    refused = run("lab", "capture", "--lab", pair.name, "c1", "--decided")
    assert "c1 has no VTEP" in complaint(refused, 1)
    assert "name one HOST" in complaint(run("lab", *words[:3], "--decided"), 2)


def pinged_until_it_ends(pair: RunningLab, child: subprocess.Popen[str]) -> str:
    """What a capture printed, which ends by itself once there was enough to see."""

    def ended() -> bool:
        run("lab", "ping", "--lab", pair.name, "c1", "c2", "-c", "1")
        return child.poll() is not None

    wait_until(ended, 20, "the capture to have seen enough")
    return child.communicate()[0]


def test_a_wire_that_is_none_is_one_line(pair: RunningLab) -> None:
    words = ("lab", "capture", "--lab", pair.name)
    assert "has no host zz" in complaint(run(*words, "zz"), 1)
    assert "many wires" in complaint(run(*words, "switch"), 1)
    assert "No such file" in complaint(run(*words, "a", "-w", "/nowhere/x", "-c", "1"), 1)


def test_ping_takes_names_and_addresses(pair: RunningLab) -> None:
    for target in ("c2", "10.42.0.12"):
        result = run("lab", "ping", "--lab", pair.name, "c1", target, "-c", "2")
        assert result.exit_code == 0
        assert result.stderr == "2 of 2 answered by 10.42.0.12\n"
    lost = run("lab", "ping", "--lab", pair.name, "c1", "10.42.0.99", "-c", "1")
    assert (lost.exit_code, lost.stdout) == (1, "seq=0 lost\n")
    assert "has no host c9" in complaint(run("lab", "ping", "--lab", pair.name, "c1", "c9"), 1)
