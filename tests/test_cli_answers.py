"""The command line: what it asks of a node and what it makes of the answer."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.clirun import ENTRIES, event, process, run
from tests.fakenode import FLOOD, MAC, counters, entry, fake_node, remote, segment, shown
from vxlan.cli import output

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
    path = ["1500", "probe", "1m00s"]
    assert [line.split() for line in lines] == [
        ["dev", "remote", "port", "state", "path", "sent", "received", "dropped"],
        ["vxlan42", "192.0.2.2", "4789", "up", *path, "5", "(700", "B)", "0", "(0", "B)", "0"],
        ["vxlan42", "192.0.2.3", "8472", "down", *path, "0", "(0", "B)", "0", "(0", "B)", "4"],
    ]


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


@pytest.mark.parametrize("columns", [80, 132])
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
