"""The command line: its arguments, `up`, finding the node, and how a command fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.clirun import ROOT, complaint, run
from tests.fakenode import MAC, fake_node, refusal, segment, shown
from vxlan import __version__, api
from vxlan.cli import cli
from vxlan.config import NodeConfig
from vxlan.doctor import Finding, Level

UP_FLAGS = {
    "--vni", "--local", "--remote", "--dstport", "--tap", "--bridge", "--address", "--mtu",
    "--engine", "--name", "--accept", "--vlan", "--dev", "--ageing", "--maxaddress", "--srcport",
    "--ttl", "--tos", "--learning", "--no-learning", "--echo", "--announce", "--no-announce",
    "--restart",
}  # fmt: skip

COMMANDS = [
    ["up"], ["down"], ["reload"], ["show"], ["monitor"], ["doctor"], ["fdb"], ["remote"],
    ["fdb", "show"], ["fdb", "add"], ["fdb", "replace"], ["fdb", "del"], ["fdb", "flush"],
    ["fdb", "why"], ["remote", "show"], ["remote", "add"], ["remote", "del"], ["explain"],
    ["station"], ["station", "show"], ["station", "add"], ["station", "del"],
    ["lab"], ["lab", "up"], ["lab", "down"], ["lab", "status"], ["lab", "graph"],
    ["lab", "ping"], ["lab", "pingall"], ["lab", "enter"], ["lab", "exec"], ["lab", "capture"],
    ["lab", "lessons"], ["lab", "lesson"], ["lab", "check"], ["lab", "explain"],
    ["capture"], ["replay"],
]  # fmt: skip


# -- help, version, start-up --------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: pyvxlan {' '.join(command)}")


def test_version() -> None:
    assert run("--version").stdout == f"pyvxlan {__version__}\n"


def test_no_command_is_wrong_usage_and_shows_the_help() -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_up_has_exactly_the_flags_that_scripts_rely_on() -> None:
    found = {flag for param in cli.commands["up"].params for flag in param.opts}
    found |= {flag for param in cli.commands["up"].params for flag in param.secondary_opts}
    assert found - {"config", "-q", "--quiet", "-v", "--verbose"} == UP_FLAGS


def test_the_manual_page_has_every_command_and_every_flag() -> None:
    page = (ROOT / "packaging" / "pyvxlan.8").read_text().replace("\\-", "-")
    assert [flag for flag in UP_FLAGS if flag not in page] == []
    assert [words for words in COMMANDS if not re.search(words[-1], page)] == []


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff: apt-get install groff")
def test_the_manual_page_is_free_of_warnings() -> None:
    page = ROOT / "packaging" / "pyvxlan.8"
    command = ["groff", "-man", "-ww", "-z", "-Tutf8", str(page)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


def test_a_command_line_is_parsed_without_what_only_a_node_needs() -> None:
    heavy = "{'rich', 'asyncio', 'uvloop', 'pyroute2', 'pytun', 'logging'}"
    code = f"import sys, vxlan.cli; print(*{heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "\n"


def test_completion_offers_the_names_of_nodes() -> None:
    ask = {"_PYVXLAN_COMPLETE": "bash_complete", "COMP_WORDS": "pyvxlan show ", "COMP_CWORD": "2"}
    with fake_node("alpha"), fake_node("beta"):
        result = CliRunner().invoke(cli, [], prog_name="pyvxlan", env=ask)
    assert result.stdout.split() == ["plain,alpha", "plain,beta"]


# -- wrong usage ----------------------------------------------------------------------------


WRONG = {
    "unknown command": (["frobnicate"], "no such command 'frobnicate'"),
    "near miss": (["shwo"], "did you mean 'show'"),
    "unknown option": (["show", "--jsn"], "no such option"),
    "up of nothing": (["up"], "give CONFIG, or --vni"),
    "up without a vni": (["up", "--remote", "192.0.2.2"], "give CONFIG, or --vni"),
    "value missing": (["up", "--vni"], "requires an argument"),
    "vni too large": (["up", "--vni", "16777216", "--local", "192.0.2.1"], "--vni: 16777216"),
    "vni no number": (["up", "--vni", "x", "--local", "192.0.2.1"], "--vni: 'x'"),
    "host name": (["up", "--vni", "1", "--remote", "host.example"], "--remote: 'host.example'"),
    "mtu": (["up", "--vni", "1", "--remote", "192.0.2.2", "--mtu", "big"], "--mtu: 'big'"),
    "engine": (["up", "--vni", "1", "--remote", "192.0.2.2", "--engine", "gpu"], "--engine: 'gpu'"),
    "long tap": (["up", "--vni", "1", "--remote", "192.0.2.2", "--tap", "x" * 16], "--tap"),
    "mac": (["fdb", "add", "zz", "dst", "192.0.2.2"], "'zz' is not a MAC"),
    "no dst": (["fdb", "add", MAC], "add `dst IP`"),
    "word without value": (["fdb", "add", MAC, "dst"], "the word dst wants a value"),
    "strange word": (["fdb", "add", MAC, "via", "192.0.2.2"], "'via' is not understood"),
    "dst": (["fdb", "add", MAC, "dst", "192.0.2.256"], "'192.0.2.256'"),
    "dst twice": (["fdb", "add", MAC, "dst", "192.0.2.2", "--dst", "192.0.2.3"], "given twice"),
    "port": (["fdb", "add", MAC, "dst", "192.0.2.2", "port", "0"], "0 is not a UDP port"),
    "huge port": (["remote", "add", "192.0.2.2", "port", "9" * 5000], "is not a UDP port"),
    "two ports": (["remote", "add", "192.0.2.2:1", "port", "2"], "two ports"),
    "vni word": (["fdb", "show", "vni", "0x2a"], "'0x2a' is not a VNI"),
    "show of two": (["show", "a", "b"], "unexpected extra argument"),
    "multicast": (["remote", "add", "239.1.1.1"], "multicast"),
}


@pytest.mark.parametrize(("args", "says"), WRONG.values(), ids=WRONG.keys())
def test_wrong_usage_is_one_line_that_says_what_to_do(args: list[str], says: str) -> None:
    assert says in complaint(run(*args), 2)


@pytest.mark.parametrize("flag", sorted(UP_FLAGS - {"--name", "--engine", "--restart"}))
def test_up_refuses_a_configuration_together_with_flags(flag: str) -> None:
    value = [] if "learning" in flag or "announce" in flag else ["1"]
    text = complaint(run("up", "office", flag, *value), 2)
    assert f"{flag.replace('no-', '')} and the configuration office exclude each other" in text
    assert "/etc/pyvxlan/office.toml" in text


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=20), max_size=5))
def test_no_argument_makes_a_traceback(args: list[str]) -> None:
    for command in (["fdb", "add"], ["fdb", "show"], ["remote", "del"], ["show"], ["monitor"]):
        result = run(*command, *args)
        assert result.exit_code in (0, 1, 2, 3)
        if result.exit_code:
            assert result.stderr.startswith("pyvxlan: ")
            assert len(result.stderr.splitlines()) == 1 or not result.stderr.isascii()


# -- up -------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """What `up` would have run, on a host where all is well."""
    configs: list[NodeConfig] = []

    def run_node(config: NodeConfig, _store: object) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr("vxlan.node.run_node", run_node)
    monkeypatch.setattr("vxlan.doctor.preflight", lambda _config: [])
    return configs


def test_up_makes_a_configuration_of_every_flag(started: list[NodeConfig]) -> None:
    line = (
        "up --vni 42 --local 192.0.2.1 --local 2001:db8::1 --remote 192.0.2.2 "
        "--remote [2001:db8::2]:8472 --dstport 4790 --tap tap42 --bridge br42 "
        "--address 10.42.0.1/24 --address 2001:db8:42::1/64 --mtu 1400 --engine python "
        "--name office --accept any --vlan drop --dev eth0 --ageing 60 --maxaddress 100 "
        "--srcport 50000-50100 --ttl inherit --tos 184 --no-learning"
    )
    result = run(*line.split())
    assert (result.exit_code, result.output) == (0, "")
    [config] = started
    [one] = config.segments
    assert config.name == "office"
    assert config.vtep.local == ("192.0.2.1", "2001:db8::1")
    assert (config.vtep.dev, config.vtep.dstport, config.vtep.srcport) == (
        "eth0", 4790, (50000, 50100),
    )  # fmt: skip
    assert config.vtep.engine == "python"
    assert [str(remote) for remote in one.remotes] == ["192.0.2.2:4790", "[2001:db8::2]:8472"]
    assert (one.vni, one.tap, one.bridge, one.mtu) == (42, "tap42", "br42", 1400)
    assert one.address == ("10.42.0.1/24", "2001:db8:42::1/64")
    assert (one.accept, one.vlan, one.ageing, one.maxaddress) == ("any", "drop", 60, 100)
    assert (one.ttl, one.tos, one.learning) == (None, 184, False)


def test_up_leaves_what_was_not_said_to_the_configuration(started: list[NodeConfig]) -> None:
    run("up", "--vni", "7", "--local", "192.0.2.1", "--mtu", "auto")
    [config] = started
    assert config.name == "vxlan7"
    assert config.segments[0].tap == "vxlan7"
    assert config.segments[0].mtu is None
    assert config.segments[0].learning is True


def test_up_reads_a_file_and_name_and_engine_overrule_it(
    started: list[NodeConfig], tmp_path: Path
) -> None:
    file = tmp_path / "office.toml"
    file.write_text('[vtep]\nlocal = "192.0.2.1"\n[[segment]]\nvni = 42\n')
    assert run("up", str(file)).exit_code == 0
    assert run("up", str(file), "--name", "other", "--engine", "python").exit_code == 0
    assert [config.name for config in started] == ["office", "other"]
    assert [config.vtep.engine for config in started] == ["auto", "python"]
    assert "'gpu'" in complaint(run("up", str(file), "--engine", "gpu"), 2)


def test_a_wrong_file_fails_with_its_name_and_line(tmp_path: Path) -> None:
    file = tmp_path / "office.toml"
    file.write_text('[vtep]\nlocal = "192.0.2.1"\n[[segment]]\nvni = 16777216\n')
    assert f"{file}:4: segment[0].vni: 16777216" in complaint(run("up", str(file)), 1)


def test_a_name_without_a_file_fails_with_the_path() -> None:
    text = complaint(run("up", "no-such-node-here"), 1)
    assert "/etc/pyvxlan/no-such-node-here.toml: no such file" in text


FOUND = [
    Finding(Level.OK, "fine"),
    Finding(Level.NOTE, "worth knowing"),
    Finding(Level.WARN, "slow", "hurry", "everything"),
]


def test_up_prints_warnings_and_goes_on(
    started: list[NodeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vxlan.doctor.preflight", lambda _config: FOUND)
    result = run("up", "--vni", "7", "--local", "192.0.2.1")
    assert result.stderr == "pyvxlan: warning: slow: hurry (still works: everything)\n"
    assert run("-q", "up", "--vni", "7", "--local", "192.0.2.1").stderr == ""
    assert run("up", "-q", "--vni", "7", "--local", "192.0.2.1").stderr == ""
    assert len(started) == 3


def test_up_does_not_start_where_something_is_missing(
    started: list[NodeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*FOUND[:2], Finding(Level.FAIL, "no tun", "modprobe tun")]
    monkeypatch.setattr("vxlan.doctor.preflight", lambda _config: broken)
    assert "no tun: modprobe tun" in complaint(run("up", "--vni", "7", "--local", "192.0.2.1"), 1)
    assert started == []


def test_up_of_a_node_that_runs(started: list[NodeConfig]) -> None:
    with fake_node("vxlan7"):
        text = complaint(run("up", "--vni", "7", "--local", "192.0.2.1"), 1)
    assert "node vxlan7 runs already: `pyvxlan down vxlan7` ends it" in text
    assert started == []


# -- finding the node -------------------------------------------------------------------------


def test_nothing_runs() -> None:
    assert "no node runs here: start one with `pyvxlan up`" in complaint(run("show"), 3)
    assert "pyvxlan up office" in complaint(run("show", "office"), 3)
    assert complaint(run("fdb", "show", "dev", "vxlan9"), 1)


def test_several_nodes_want_a_name_except_for_reading() -> None:
    with fake_node("alpha"), fake_node("beta"):
        assert "several nodes run (alpha, beta)" in complaint(run("fdb", "flush"), 2)
        assert "several nodes run (alpha, beta)" in complaint(run("show", "--json"), 2)
        shown_ = run("show").stdout
        assert "node alpha\n" in shown_
        assert "node beta\n" in shown_


def test_the_path_of_a_configuration_names_its_node() -> None:
    with fake_node("office", reload={"changed": []}) as node:
        assert run("reload", "./somewhere/office.toml").exit_code == 0
        assert node.asked == [("reload", {})]


def test_dev_finds_node_and_segment() -> None:
    other = {"show": shown("beta", segment(7), segment(8))}
    with fake_node("alpha"), fake_node("beta", fdb_flush={"flushed": 0}, **other) as node:
        assert run("fdb", "flush", "dev", "vxlan8").exit_code == 0
        assert node.asked[-1] == ("fdb.flush", {"vni": 8, "state": "dynamic"})
        assert "no running segment has the TAP vxlan9" in complaint(
            run("fdb", "flush", "--dev", "vxlan9"), 1
        )


@pytest.mark.parametrize(("code", "status"), [("usage", 2), ("conflict", 1), ("not_found", 1)])
def test_a_refusal_is_passed_on(code: str, status: int) -> None:
    with fake_node(fdb_add=refusal("vni 42: MAC is static elsewhere: fdb replace", code)):
        text = complaint(run("fdb", "add", MAC, "dst", "192.0.2.2"), status)
    assert text == "pyvxlan: vni 42: MAC is static elsewhere: fdb replace\n"


def test_a_socket_that_is_not_ours_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(api, "call", refuse)
    assert "use sudo" in complaint(run("show", "lab"), 1)


@pytest.mark.parametrize("answer", [b"", b"half", b"no json\n", b"[]\n", b"{}\n", b'{"ok":true}\n'])
def test_a_node_that_answers_nonsense_or_dies(answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(api.socket_path("lab")))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            assert "node lab " in complaint(run("show", "lab"), 1)
        finally:
            api.socket_path("lab").unlink()
            thread.join(5)


# -- down, reload -----------------------------------------------------------------------------


def test_down_returns_when_the_process_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        threading.Timer(0.3, child.kill).start()
        with fake_node(down={"pid": child.pid}):
            result = run("down", "--json")
        assert child.poll() is not None
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"pid": child.pid})


def test_down_says_so_if_the_process_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vxlan.cli.up.PATIENCE", 0.05)
    with fake_node(down={"pid": os.getpid()}):
        text = complaint(run("down", "lab"), 1)
    assert f"node lab (pid {os.getpid()}) has not ended within 0 s" in text


def test_reload_says_what_changed() -> None:
    with fake_node(reload={"changed": ["segment 42: mtu 1400", "remote 192.0.2.9 added"]}):
        assert run("reload").stderr == "segment 42: mtu 1400\nremote 192.0.2.9 added\n"
        assert run("-q", "reload").stderr == ""
    with fake_node(reload={"changed": []}):
        assert run("reload").stderr == "nothing changed\n"


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_name: str | None) -> str:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("vxlan.cli.session.choose", bug)
    text = complaint(run("down"), 1)
    assert "unexpected RuntimeError: two lines" in text
    monkeypatch.setenv("PYVXLAN_DEBUG", "1")
    assert isinstance(run("down").exception, RuntimeError)
