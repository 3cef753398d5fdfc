"""The command line: what it asks of a node, what it prints, how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.fakenode import FLOOD, MAC, counters, entry, fake_node, refusal, remote, segment, shown
from vxlan import __version__, api
from vxlan.cli import cli, output, words
from vxlan.cli.errors import Failure
from vxlan.config import NodeConfig
from vxlan.doctor import Finding, Level

ROOT = Path(__file__).resolve().parent.parent

UP_FLAGS = {
    "--vni", "--local", "--remote", "--dstport", "--tap", "--bridge", "--address", "--mtu",
    "--engine", "--name", "--accept", "--vlan", "--dev", "--ageing", "--maxaddress", "--srcport",
    "--ttl", "--tos", "--learning", "--no-learning",
}  # fmt: skip

COMMANDS = [
    ["up"], ["down"], ["reload"], ["show"], ["monitor"], ["doctor"], ["fdb"], ["remote"],
    ["fdb", "show"], ["fdb", "add"], ["fdb", "replace"], ["fdb", "del"], ["fdb", "flush"],
    ["fdb", "why"], ["remote", "show"], ["remote", "add"], ["remote", "del"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's nodes."""
    monkeypatch.setenv("PYVXLAN_RUNTIME_DIR", str(tmp_path))


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def complaint(result: Result, status: int) -> str:
    """The one line on standard error of a command that ended with `status`."""
    assert (result.exit_code, result.stdout) == (status, ""), result.stderr
    assert result.stderr.startswith("pyvxlan: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@contextmanager
def process(*args: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`python -m vxlan ...` as a process of its own."""
    command = [sys.executable, "-m", "vxlan", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        try:
            yield child
        finally:
            child.kill()


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


@pytest.mark.parametrize("flag", sorted(UP_FLAGS - {"--name", "--engine"}))
def test_up_refuses_a_configuration_together_with_flags(flag: str) -> None:
    value = [] if "learning" in flag else ["1"]
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

    def run_node(config: NodeConfig) -> int:
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
        assert "node lab " in complaint(run("show", "lab"), 1)
        thread.join(5)


# -- show -------------------------------------------------------------------------------------


def test_show_prints_the_object_of_the_api() -> None:
    with fake_node():
        assert json.loads(run("show", "--json").stdout) == shown("lab")


def test_show_tells_engine_segment_remotes_and_drops() -> None:
    dropping = segment(counters=counters({"UNKNOWN_REMOTE": 12, "NEWER": 1}, reserved_bits=3))
    with fake_node(show=shown("lab", dropping)):
        text = run("show").stdout
    for expected in (
        "python (asked for)",
        "vnet_hdr yes, uso no, queues 1",
        "no USO: UDP is segmented by the host",
        "192.0.2.1 port 4789",
        "segment 42 on vxlan42",
        "1450 (auto; path to 192.0.2.2 by eth0: 1500 less 50)",
        "learning on, ageing 300, accept known, tos inherit",
        "1234 (1.0 MiB)",
        "3 datagrams with reserved bits set",
        "UNKNOWN_REMOTE",
        "datagram came from an address that is no remote of the segment",
        "add it with `pyvxlan remote add`",
        "a reason that this version does not know",
    ):
        assert expected in text


def test_show_of_a_segment_without_remotes_says_how_to_add_one() -> None:
    with fake_node(show=shown("lab", segment(remotes=[], bridge=None, address=[]))):
        assert "none: add one with `pyvxlan remote add`" in run("show").stdout


# -- fdb --------------------------------------------------------------------------------------

ENTRIES = [
    entry(FLOOD, "192.0.2.2", "2001:db8::3", state="static", source="flood list", used=None),
    entry(MAC, "192.0.2.2"),
    entry("02:42:0a:2a:00:03", "192.0.2.3", vni=7, state="extern_learn", source="evpn"),
]
ENTRIES[2]["dst"][0]["port"] = 8472


def test_fdb_show_in_the_words_of_bridge() -> None:
    with fake_node(fdb_show=ENTRIES, show=shown("lab", segment(), segment(7))):
        lines = run("fdb", "show").stdout.splitlines()
    start = f"{FLOOD} dev vxlan42 dst"
    end = "vni 42 static age 12s source flood-list self"
    assert lines == [
        f"{start} 192.0.2.2 {end}",
        f"{start} 2001:db8::3 {end}",
        f"{MAC} dev vxlan42 dst 192.0.2.2 vni 42 dynamic age 12s source data self",
        (
            "02:42:0a:2a:00:03 dev vxlan7 dst 192.0.2.3 port 8472 vni 7 extern_learn age 12s "
            "source evpn self"
        ),
    ]


@pytest.mark.parametrize(
    ("args", "indices"),
    [
        ([], [0, 1, 2]),
        (["lab"], [0, 1, 2]),
        (["dynamic"], [1]),
        (["permanent"], [0]),
        (["dst", "192.0.2.2"], [0, 1]),
        (["--dst", "192.0.2.3:8472"], [2]),
        (["lab", "dst", "192.0.2.3", "port", "4789"], []),
    ],
)
def test_fdb_show_selects(args: list[str], indices: list[int]) -> None:
    with fake_node(fdb_show=ENTRIES):
        result = run("fdb", "show", *args, "--json")
    assert json.loads(result.stdout) == [ENTRIES[index] for index in indices]


@pytest.mark.parametrize(
    "args",
    [
        ["dst", "192.0.2.3", "port", "8472", "vni", "42", "extern_learn"],
        ["extern_learn", "vni", "42", "dst", "192.0.2.3:8472", "self"],
        ["--vni", "42", "--dst", "192.0.2.3", "--port", "8472", "extern_learn"],
        ["dev", "vxlan42", "dst", "192.0.2.3", "--port", "8472", "extern_learn"],
        ["extern_learn", "--node", "lab", "--dev", "vxlan42", "--dst", "192.0.2.3:8472"],
    ],
    ids=" ".join,
)
def test_words_and_options_say_the_same(args: list[str]) -> None:
    with fake_node(fdb_add=None) as node:
        result = run("fdb", "add", MAC.upper().replace(":", "-"), *args)
    assert (result.exit_code, result.output) == (0, "")
    assert node.asked[-1] == (
        "fdb.add",
        {"vni": 42, "mac": MAC, "dst": "192.0.2.3", "port": 8472, "state": "extern_learn"},
    )


def test_fdb_replace_del_and_flush() -> None:
    with fake_node(fdb_replace=None, fdb_del=None, fdb_flush={"flushed": 3}) as node:
        assert run("fdb", "replace", MAC, "dst", "2001:0db8::0003").exit_code == 0
        assert run("fdb", "del", MAC).exit_code == 0
        flushed = run("fdb", "flush", "static", "dst", "192.0.2.2")
        assert json.loads(run("fdb", "flush", "--json").stdout) == {"flushed": 3}
    assert (flushed.stdout, flushed.stderr) == ("", "flushed 3 static entries\n")
    assert node.asked == [
        ("fdb.replace", {"mac": MAC, "dst": "2001:db8::3"}),
        ("fdb.del", {"mac": MAC}),
        ("fdb.flush", {"state": "static", "dst": "192.0.2.2"}),
        ("fdb.flush", {"state": "dynamic"}),
    ]


def event(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "event": kind, "time": 1_800_000_000.25, "when": 1_800_000_000.25, "age": 60.0, "vni": 42,
        "mac": MAC, "remote": {"address": "192.0.2.2", "port": 4789}, "was": None,
        "detail": "data", **changes,
    }  # fmt: skip


def test_fdb_why_tells_the_story() -> None:
    below = entry(MAC, "192.0.2.9", state="extern_learn", source="evpn")
    top = entry(MAC, "192.0.2.2", state="static", source="config", shadowed=below)
    moved = event("moved", was={"address": "192.0.2.3", "port": 8472})
    with fake_node(fdb_why={"entry": top, "history": [event("learned"), moved]}) as node:
        text = run("fdb", "why", MAC).stdout
    assert node.asked[0] == ("fdb.why", {"mac": MAC})
    for expected in (
        f"{MAC} dev vxlan42 vni 42",
        "static, said by config",
        "1m00s ago",
        "extern_learn 192.0.2.9, said by evpn",
        "192.0.2.3 port 8472",
    ):
        assert expected in text
    assert text.index("learned") < text.index("moved")


def test_fdb_why_of_a_station_that_is_not_there() -> None:
    with fake_node(fdb_why={"entry": None, "history": []}):
        result = run("fdb", "why", MAC)
        assert (result.exit_code, result.stdout) == (
            0, f"{MAC}: no entry; frames to it go to the whole flood list\n",
        )  # fmt: skip
        assert json.loads(run("fdb", "why", MAC, "--json").stdout)["entry"] is None


# -- remote -----------------------------------------------------------------------------------


def test_remote_add_and_del() -> None:
    with fake_node(remote_add=None, remote_del=None) as node:
        assert run("remote", "add", "[2001:db8::3]:8472", "vni", "42").exit_code == 0
        assert run("remote", "del", "192.0.2.3").exit_code == 0
    assert node.asked == [
        ("remote.add", {"vni": 42, "dst": "2001:db8::3", "port": 8472}),
        ("remote.del", {"dst": "192.0.2.3"}),
    ]


def test_remote_show() -> None:
    remotes = [remote("192.0.2.2", encap_packets=5, encap_bytes=700), remote("192.0.2.3", 8472)]
    remotes[1] |= {"state": "down", "counters": counters({"UNDERLAY_UNREACHABLE": 4})}
    with fake_node(remote_show=remotes):
        lines = run("remote", "show", "lab").stdout.splitlines()
        assert json.loads(run("remote", "show", "--json").stdout) == remotes
    assert [line.split() for line in lines] == [
        ["dev", "remote", "port", "state", "sent", "received", "dropped"],
        ["vxlan42", "192.0.2.2", "4789", "up", "5", "(700", "B)", "0", "(0", "B)", "0"],
        ["vxlan42", "192.0.2.3", "8472", "down", "0", "(0", "B)", "0", "(0", "B)", "4"],
    ]


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


# -- monitor ----------------------------------------------------------------------------------


def test_monitor_prints_events_until_interrupted() -> None:
    moved = event("moved", was={"address": "192.0.2.3", "port": 8472})
    lost = {"event": "events_lost", "count": 9}
    with fake_node() as node, process("monitor", env={**os.environ, "TZ": "UTC"}) as child:
        node.publish(moved, lost)
        assert child.stdout is not None
        assert child.stdout.readline() == (
            f"08:00:00.250 moved {MAC} dst 192.0.2.2 was 192.0.2.3 port 8472 vni 42: data\n"
        )
        assert "events_lost 9" in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=10) == ("", "")
        assert child.returncode == 0


def test_monitor_gives_objects_and_ends_with_the_node() -> None:
    with fake_node() as node, process("monitor", "lab", "vni", "42", "--json") as child:
        node.publish(event("aged", vni=7), event("learned"))
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == event("learned")
        node.stop()
        out, err = child.communicate(timeout=10)
        assert (child.returncode, out) == (3, "")
        assert err == "pyvxlan: node lab has ended: `pyvxlan up lab` starts it again\n"


# -- where output goes --------------------------------------------------------------------------


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    many = [entry(f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", "192.0.2.2") for n in range(20_000)]
    with fake_node(fdb_show=many), process("fdb", "show") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(10) == 0


def test_output_that_cannot_be_written_is_an_error() -> None:
    with fake_node(), open("/dev/full", "w") as full, process("show", stdout=full) as child:
        assert child.stderr is not None
        assert child.stderr.read() == "pyvxlan: standard output: No space left on device\n"
        assert child.wait(10) == 1


def on_terminal(columns: int, *args: str, **environment: str) -> str:
    """What a terminal of that width shows of a command."""
    parent, child = os.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **environment}
    with process(*args, stdout=child, env=env) as running:
        os.close(child)
        shown_ = b""
        try:
            while part := os.read(parent, 65536):
                shown_ += part
        except OSError:
            pass  # Linux says EIO when the other end is closed
        finally:
            os.close(parent)
        assert running.wait(10) == 0
    return shown_.decode()


ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("args", [["show"], ["fdb", "show"], ["remote", "show"]], ids=" ".join)
def test_tables_fit_the_terminal(columns: int, args: list[str]) -> None:
    long = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:3"
    wide = segment(
        tap="a-long-tap-name",
        remotes=[remote(long, encap_packets=10**9, encap_bytes=10**12)],
        counters=counters({"UNKNOWN_REMOTE": 10**9, "PKT_TOO_BIG": 1}),
    )
    answers = {
        "fdb_show": [entry(MAC, long, "192.0.2.2"), *ENTRIES[1:]],
        "remote_show": wide["remotes"],
        "show": shown("lab", wide, segment(7)),
    }
    with fake_node(**answers):
        text = ESCAPE.sub("", on_terminal(columns, *args))
    assert max(len(line) for line in text.splitlines()) <= columns
    assert long in re.sub(r"\s+", "", text) or columns == 80


def test_colour_only_where_it_is_wanted() -> None:
    with fake_node(remote_show=[remote("192.0.2.2")]):
        assert "32" in ESCAPE.findall(on_terminal(80, "remote", "show"))
        plain = on_terminal(80, "remote", "show", NO_COLOR="1")
        assert not [code for code in ESCAPE.findall(plain) if re.search(r"\b3\d\b", code)]
        assert not ESCAPE.search(on_terminal(80, "remote", "show", TERM="dumb"))
        assert not ESCAPE.search(run("remote", "show").stdout)


def test_numbers_for_people() -> None:
    assert [output.size(n) for n in (0, 1023, 1536, 1 << 30, 1 << 60)] == [
        "0 B", "1023 B", "1.5 KiB", "1.0 GiB", "1024.0 PiB",
    ]  # fmt: skip
    assert [output.span(n) for n in (0.9, 59, 61, 4000, 90_000)] == [
        "0s", "59s", "1m01s", "1h06m", "1d01h",
    ]  # fmt: skip


def test_words_keep_what_they_do_not_know() -> None:
    assert words.parse(["a", "dst", "192.0.2.2", "b"]).rest == ("a", "b")


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_name: str | None) -> str:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("vxlan.cli.session.choose", bug)
    text = complaint(run("down"), 1)
    assert "unexpected RuntimeError: two lines" in text
    monkeypatch.setenv("PYVXLAN_DEBUG", "1")
    assert isinstance(run("down").exception, RuntimeError)


def test_a_failure_carries_its_status() -> None:
    assert Failure("text", 3).status == 3
