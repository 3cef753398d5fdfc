"""Topology files: what they mean, how they are refused, how they are drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.clirun import complaint, run
from tests.topologies import PAIR, ROUTED
from vxlan.config_reading import ConfigError
from vxlan.lab import graph, plan, store
from vxlan.lab.plan import Link, Plan
from vxlan.lab.svg import svg


def read(folder: Path, text: str) -> Plan:
    path = folder / "lab.toml"
    path.write_text(text)
    return plan.load(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}/")


# -- what a file means -----------------------------------------------------------------


def test_a_segment_joins_all_hosts_unless_it_names_them(tmp_path: Path) -> None:
    hosts = {host.name: host for host in read(tmp_path, ROUTED).hosts}
    found = {
        name: {segment.vni: segment.remotes for segment in host.segments}
        for name, host in hosts.items()
    }
    assert found == {
        "a": {42: ("198.51.100.1", "192.0.2.3"), 43: ("192.0.2.3",)},
        "b": {42: ("192.0.2.1",)},
        "k": {42: ("192.0.2.1", "198.51.100.1"), 43: ("192.0.2.1",)},
        "x": {},
    }


def test_keys_of_the_host_overrule_those_of_the_lab(tmp_path: Path) -> None:
    hosts = {host.name: host for host in read(tmp_path, ROUTED).hosts}
    assert hosts["a"].segments[0].keys == {"ageing": 30, "vlan": "drop"}
    assert hosts["b"].segments[0].keys == {"ageing": 10, "vlan": "drop"}
    # the kernel's driver has no such rule for tags
    assert hosts["k"].segments[0].keys == {"ageing": 30}


def test_containers_have_the_mtu_and_the_mac_that_one_expects(tmp_path: Path) -> None:
    made = {one.name: one for one in read(tmp_path, ROUTED).containers}
    assert (made["c1"].mtu, made["c2"].mtu) == (1550, 1450)
    assert made["c1"].mac == bytes.fromhex("02420a2a000b")
    assert made["d3"].mac == bytes.fromhex("020000000013")
    assert {name: one.vni for name, one in made.items()} == {"c1": 42, "d1": 43, "c2": 42, "d3": 43}


def test_router_and_links(tmp_path: Path) -> None:
    lab = read(tmp_path, ROUTED)
    assert lab.router is not None
    assert (lab.router.silent, lab.router.carry, lab.router.mtu) == (True, {"b": 1400}, 1500)
    assert lab.hosts[0].link == Link(1600, 5.0, 1.0)
    assert lab.hosts[0].link.disturbed
    assert not lab.hosts[1].link.disturbed


def test_another_port_and_another_family_are_found_by_name(tmp_path: Path) -> None:
    text = """
[[segment]]
vni = 1
[[host]]
name = "a"
address = ["192.0.2.1/24", "2001:db8::1/64"]
[[host]]
name = "b"
address = "2001:db8::2/64"
dstport = 8472
"""
    a, b = read(tmp_path, text).hosts
    assert a.segments[0].remotes == ("[2001:db8::2]:8472",)
    assert b.segments[0].remotes == ("[2001:db8::1]:4789",)


# -- how it is refused ------------------------------------------------------------------

HOST = '[[host]]\nname = "a"\naddress = "192.0.2.1/24"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("titel = 'x'\n" + HOST, "lab.toml:1: titel: no such key: did you mean title?"),
        ("", "lab.toml:1: host: there is no host"),
        ("host = 3\n", "lab.toml:1: host: it is not a list of tables: write [[host]]"),
        (HOST + "colour = 1\n", "lab.toml:4: host[0].colour: no such key: known are name"),
        (HOST + "vtep = 'linux'\n", "lab.toml:4: host[0].vtep: 'linux' is not one of pyvxlan"),
        (HOST + HOST, "lab.toml:5: host[1].name: the name a is already host[0]'s"),
        (HOST.replace('"a"', '"Host_1"'), "lab.toml:2: host[0].name: 'Host_1' is no name"),
        (HOST.replace('"a"', '"eth0"'), "lab.toml:2: host[0].name: eth0 is the name of something"),
        ('[[host]]\nname = "a"\n', "lab.toml:1: host[0]: it has no address"),
        (HOST.replace("/24", ""), "lab.toml:3: host[0].address: '192.0.2.1' has no prefix length"),
        (HOST + HOST.replace('"a"', '"b"'), "lab.toml:6: host[1].address: 192.0.2.1 is"),
        (HOST + "network = 'far'\n", "lab.toml:4: host[0].network: nothing leads to far"),
        (HOST + "link = { mtu = 10 }\n", "lab.toml:4: host[0].link.mtu: 10 is not an MTU"),
        (HOST + "link = { loss = 101 }\n", "lab.toml:4: host[0].link.loss: 101 is not a share"),
        ("[[segment]]\nhosts = ['a']\n" + HOST, "lab.toml:1: segment[0]: it has no vni"),
        (
            "[[segment]]\nvni = 1\nhosts = ['aa']\n" + HOST,
            "lab.toml:3: segment[0].hosts: no host is named aa: did you mean a?",
        ),
        (
            "[[segment]]\nvni = 16777216\n" + HOST,
            "lab.toml:2: segment[0].vni: 16777216 is not a VNI: it must be 0 to 16777215",
        ),
        (
            HOST + "[[host.segment]]\nvni = 1\nremotes = ['b']\n",
            "lab.toml:1: host[0]: no host is named b: known are a",
        ),
        (
            HOST + "[[host.segment]]\nvni = 1\nmtu = 9000\nageing = -1\n",
            "lab.toml:7: host[0].segment[0].ageing: -1 is not a number of seconds",
        ),
        (
            HOST + "[[host.segment]]\nvni = 1\naddress='2001:db8::1/64'\nmtu = 1000\n",
            "lab.toml:1: host[0]: its node would be refused: segment[0].mtu: 1000 is too small",
        ),
        (
            HOST + "vtep = 'kernel'\n[[host.segment]]\nvni = 1\nmss = 'off'\n",
            "lab.toml:7: host[0].segment[0].mss: no such key: known are vni",
        ),
        (
            HOST + "[[host.container]]\nname = 'c'\naddress = '10.42.0.1/16'\nvni = 9\n",
            "lab.toml:7: host[0].container[0].vni: host a has no VNI 9: it has none",
        ),
        (
            HOST + "[[host.container]]\nname = 'a'\naddress = '10.42.0.1/16'\n",
            "lab.toml:5: host[0].container[0].name: a is already a host",
        ),
        (
            "[router]\nname = 'r'\nnear = '192.0.2.254/24'\nfar = '198.51.100.9/24'\n"
            + HOST
            + "network = 'far'\n",
            "lab.toml:7: host[0].address: 192.0.2.1 is not beside router.far (198.51.100.9/24)",
        ),
        (
            "[router]\nname = 'r'\nnear = '192.0.2.254/24'\nfar = '198.51.100.9/24'\n"
            "carry = { c = 1400 }\n" + HOST,
            "lab.toml:5: router.carry: no host is named c: known are a",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert refusal(tmp_path, text).startswith(expected)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert "not TOML" in refusal(tmp_path, "[[host\n")
    with pytest.raises(ConfigError, match="no such file"):
        plan.load(tmp_path / "missing.toml")


# -- how it is drawn -------------------------------------------------------------------


def test_the_tree_tells_everything_once(tmp_path: Path) -> None:
    drawn = graph.text(read(tmp_path, ROUTED))
    assert "├─ a  192.0.2.1/24  pyvxlan (python)  mtu 1600, delay 5 ms, loss 1 %" in drawn
    assert "router to far  carries 1400 to b, ICMP filtered" in drawn
    assert "VNI 42  br42 + vxlan42 → 198.51.100.1, 192.0.2.3" in drawn
    assert drawn.count("10.43.0.13/16") == 1
    assert drawn.index("network switch") < drawn.index("k  192.0.2.3") < drawn.index("network far")


def test_mermaid_has_every_station_and_every_wire(tmp_path: Path) -> None:
    lines = graph.mermaid(read(tmp_path, ROUTED)).splitlines()
    assert lines[0] == "graph TD"
    assert sum(line.strip().startswith("subgraph") for line in lines) == 4
    assert sum(line.strip() == "end" for line in lines) == 4
    assert '    n_c2("c2<br/>10.42.0.12/16") --- n_b_42' in lines
    assert "  net_switch --- n_r --- net_far" in lines


@pytest.mark.parametrize("text", [PAIR, ROUTED])
def test_the_picture_is_xml_without_anything_from_outside(tmp_path: Path, text: str) -> None:
    lab = read(tmp_path, text.replace("Two hosts", "<Two> & hosts"))
    root = ET.fromstring(svg(lab))
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert lab.title in words
    assert {one.name for one in lab.containers} <= set(words)
    assert not any("href" in key for element in root.iter() for key in element.attrib)
    wide = float(root.attrib["width"])
    for element in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(element.get("x", "0")) + float(element.attrib["width"]) <= wide


# -- commands that need no lab ----------------------------------------------------------


@pytest.fixture
def no_labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYVXLAN_LAB_DIR", str(tmp_path / "labs"))
    return tmp_path


def test_a_file_is_drawn_without_root(no_labs: Path) -> None:
    (no_labs / "pair.toml").write_text(PAIR)
    assert run("lab", "graph", str(no_labs / "pair.toml")).stdout.startswith("Two hosts, one")
    target = no_labs / "pair.svg"
    assert run("lab", "graph", str(no_labs / "pair.toml"), "--format", "svg", "-o", str(target))
    assert target.read_text().startswith("<svg")
    complaint(run("lab", "graph", str(no_labs / "pair.toml"), "-o", "/proc/none"), 1)


def test_a_wrong_file_is_one_line(no_labs: Path) -> None:
    (no_labs / "pair.toml").write_text(PAIR + "colour = 1\n")
    assert "colour: no such key" in complaint(run("lab", "up", str(no_labs / "pair.toml")), 1)
    assert not (no_labs / "labs").exists()


def test_without_root_every_command_says_so(no_labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    (no_labs / "pair.toml").write_text(PAIR)
    for words in (["up", str(no_labs / "pair.toml")], ["down"], ["status"], ["pingall"],
                  ["enter", "a"], ["exec", "a", "--", "true"]):  # fmt: skip
        assert "as root" in complaint(run("lab", *words), 1)


@pytest.mark.parametrize("name", ["", "Up", "a/b", "../x", "x" * 25])
def test_names_of_labs_are_names_of_folders(name: str) -> None:
    with pytest.raises(store.LabError, match="no name of a lab"):
        store.directory(name)


def test_a_name_is_made_of_any_file() -> None:
    assert store.name_from("My Lab_2") == "my-lab-2"
    assert store.name_from("---") == "lab"
