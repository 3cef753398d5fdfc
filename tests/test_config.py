"""The configuration: what is taken, and that every refusal names file, line, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from vxlan import config
from vxlan.config import ConfigError, NodeConfig, StaticEntry
from vxlan.engine import Policy, queues_for
from vxlan.fdb import Remote

FULL = """\
group = "netdev"

[vtep]
local   = ["192.0.2.1", "2001:db8::1"]
dstport = 8472
srcport = [50000, 50999]
engine  = "python"
udpcsum = false

[[segment]]
vni     = 42
tap     = "tap42"
bridge  = "br42"
address = ["10.42.0.1/24", "2001:db8:42::1/64"]
mtu     = 1400
remotes = ["192.0.2.2", "192.0.2.3:4789", "[2001:db8::3]:4790", "2001:DB8::4"]
ttl     = "inherit"
tos     = 16
accept  = "any"
mac     = "02:42:00:00:00:01"

[[segment.fdb]]
mac = "02-00-00-00-00-AA"
dst = ["192.0.2.2", "192.0.2.9"]
port = 4791

[[segment]]
vni = 7
"""

SMALL = '[vtep]\nlocal = "192.0.2.1"\n[[segment]]\nvni = 42\n'


def read(tmp_path: Path, text: str, name: str = "lab") -> NodeConfig:
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return config.load(path)


def refusal(tmp_path: Path, text: str) -> str:
    """The refusal of a file, without the folder in front."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path}/lab.toml:")
    return message.removeprefix(f"{tmp_path}/")


def test_everything_that_a_file_may_say(tmp_path: Path) -> None:
    node = read(tmp_path, FULL)
    assert node.name == "lab"
    assert node.group == "netdev"
    assert node.path == tmp_path / "lab.toml"
    assert node.vtep.local == ("192.0.2.1", "2001:db8::1")
    assert node.vtep.srcport == (50000, 50999)
    assert node.vtep.engine == "python"
    assert node.vtep.udpcsum is False
    segment = node.segments[0]
    assert (segment.tap, segment.bridge, segment.mtu) == ("tap42", "br42", 1400)
    assert segment.address == ("10.42.0.1/24", "2001:db8:42::1/64")
    assert segment.remotes == (
        Remote("192.0.2.2", 8472),
        Remote("192.0.2.3", 4789),
        Remote("2001:db8::3", 4790),
        Remote("2001:db8::4", 8472),
    )
    both = (Remote("192.0.2.2", 4791), Remote("192.0.2.9", 4791))
    assert segment.fdb == (StaticEntry(bytes.fromhex("0200000000aa"), both),)
    assert segment.mac == "02:42:00:00:00:01"
    assert len(segment.all_remotes()) == 6


def test_what_a_file_leaves_out_is_as_the_kernel_has_it(tmp_path: Path) -> None:
    node = read(tmp_path, SMALL)
    segment = node.segments[0]
    assert node.vtep.dstport == 4789
    assert node.vtep.engine == "auto"
    assert (segment.tap, segment.bridge, segment.mtu) == ("vxlan42", None, None)
    assert segment.policy(1450, 1464) == Policy(mtu=1450, max_frame=1464)


@pytest.mark.parametrize(("written", "meant"), [("'auto'", 0), ("1", 1), ("4", 4)])
def test_queues_are_a_number_or_left_to_the_cores(tmp_path: Path, written: str, meant: int) -> None:
    text = f"[vtep]\nlocal = '192.0.2.1'\nqueues = {written}\n[[segment]]\nvni = 1\n"
    assert read(tmp_path, text).vtep.queues == meant


@pytest.mark.parametrize(("cores", "queues"), [(1, 1), (2, 1), (7, 1), (8, 2), (16, 4), (128, 4)])
def test_few_cores_have_one_queue(cores: int, queues: int) -> None:
    assert queues_for(cores) == queues


def test_the_policy_carries_every_word_of_the_segment(tmp_path: Path) -> None:
    words = (
        "learning = false\nageing = 10\nmaxaddress = 100\naccept = 'any'\nvlan = 'drop'\n"
        "reserved_bits = 'strict'\nttl = 'inherit'\ntos = 'inherit'\n"
    )
    policy = read(tmp_path, SMALL + words).segments[0].policy(1300)
    assert policy == Policy(1300, 0, False, 10.0, 100, "any", "drop", "strict", None, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vni = 16777216", "segment[1].vni: 16777216 is not a VNI: it must be 0 to 16777215"),
        ("vni = true", "segment[1].vni: True is not a VNI"),
        ('vni = "42"', "segment[1].vni: '42' is not a VNI"),
        ("vnii = 5", "segment[1].vnii: no such key: did you mean vni?"),
        ("vni = 42", "segment[1].vni: VNI 42 is already segment[0]'s: change one"),
        ('vni=5\ntap = "vxlan42"', "segment[1].tap: the TAP vxlan42 is already segment[0]'s"),
        ('vni=5\ntap = "abcdefghijklmnop"', "has 16 characters: the kernel takes at most 15"),
        ('vni=5\ntap = "a/b"', "contains '/'"),
        ('vni=5\nbridge = "vxlan42"', "segment[1].bridge: vxlan42 is a TAP's name"),
        ('vni=5\nbridge = "vxlan5"', "segment[1].bridge: vxlan5 is the TAP's name"),
        ('bridge="b"\nvni=5\n[[segment]]\nvni=6\nbridge="b"', "b is already segment[1]'s: one"),
        ('vni=5\nmtu=1000\naddress="2001:db8:42::1/64"', "IPv6 needs 1280"),
        ('vni=5\naddress = "10.42.0.1"', "has no prefix length: write it like 10.42.0.1/24"),
        ('vni=5\naddress = ["10.42.0.300/24"]', "is not an address with a prefix length"),
        ('vni=5\nmtu = "big"', "segment[1].mtu: 'big' is not an MTU or \"auto\""),
        ("vni=5\nmtu = 40", "segment[1].mtu: 40 is not an MTU"),
        ("vni=5\nmtu = 1e3", "segment[1].mtu: 1000.0 is not an MTU"),
        ("vni=5\nageing = -1", "segment[1].ageing: -1 is not a number of seconds"),
        ("vni=5\nageing = nan", "segment[1].ageing: nan is not a number of seconds"),
        ("vni=5\nlearning = 1", "segment[1].learning: 1 is neither true nor false"),
        ("vni=5\nttl = 0", 'segment[1].ttl: 0 is not a number or "inherit": it must be 1 to 255'),
        ("vni=5\nmaxaddress = 0", "segment[1].maxaddress: 0 is not a number of entries"),
        ('vni=5\naccept = "all"', "segment[1].accept: 'all' is not one of known, any"),
        ('vni=5\nmac = "01:00:5e:00:00:01"', "segment[1].mac: 01:00:5e:00:00:01 is a group"),
        ('vni=5\nmac = "02:00"', "segment[1].mac: '02:00' is not a MAC address"),
        ('vni=5\nremotes = ["host"]', "segment[1].remotes[0]: 'host' is not an IP address"),
        ('vni=5\nremotes = ["239.1.1.1"]', "239.1.1.1 is a multicast group"),
        ('vni=5\nremotes = ["fe80::1"]', "fe80::1 is link-local"),
        ('vni=5\nremotes = ["fe80::1%eth0"]', "fe80::1%eth0 is mapped or scoped"),
        ('vni=5\nremotes = ["::ffff:192.0.2.1"]', "is mapped or scoped"),
        ('vni=5\nremotes = ["0.0.0.0"]', "0.0.0.0 is not the address of one host"),
        ('vni=5\nremotes = ["192.0.2.2:0"]', "segment[1].remotes[0]: 0 is not a UDP port"),
        ('vni=5\nremotes = ["192.0.2.2:99999"]', "99999 is not a UDP port"),
        ('vni=5\nremotes = ["192.0.2.2", "192.0.2.2:4789"]', "192.0.2.2:4789 is there twice"),
        ('vni=5\nremotes = ["2001:db8::3"]', "2001:db8::3 is IPv6 and local has no IPv6 address"),
        ("vni=5\nremotes = [5]", "segment[1].remotes[0]: 5 is not a text"),
        ("vni=5\nfdb = 3", "segment[1].fdb: it is not a list of tables: write [[segment.fdb]]"),
        ("tap = 'x'", "segment[1]: it has no vni"),
        ("vni=5\n[[segment.fdb]]\nmac='02:00:00:00:00:01'", "segment[1].fdb[0]: it has no dst"),
        (
            "vni=5\n[[segment.fdb]]\nmac='02:00:00:00:00:01'\ndst=[]",
            "segment[1].fdb[0].dst: it names no remote",
        ),
        (
            "vni=5\n[[segment.fdb]]\nmac='00:00:00:00:00:00'\ndst='192.0.2.2'",
            "segment[1].fdb[0].mac: the all-zero MAC stands for the flood list",
        ),
        (
            "vni=5\n" + 2 * "[[segment.fdb]]\nmac='02:00:00:00:00:01'\ndst='192.0.2.2'\n",
            "segment[1].fdb[1].mac: the MAC 02:00:00:00:00:01 is already segment[1].fdb[0]'s",
        ),
    ],
)
def test_a_refused_segment_names_the_key_and_the_remedy(
    tmp_path: Path, line: str, expected: str
) -> None:
    assert expected in refusal(tmp_path, f"{SMALL}\n[[segment]]\n{line}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lab.toml:1: segment: there is no segment"),
        ("[[segment]]\nvni = 1\n", "vtep: no address to send from: set local or dev"),
        ("x = [\n", "lab.toml: not TOML:"),
        ("[vtap]\n" + SMALL, "lab.toml:1: vtap: no such key: did you mean vtep?"),
        ("vtep = 3\n[[segment]]\nvni = 1\n", "lab.toml:1: vtep: it is not a table: write [vtep]"),
        ("[segment]\nvni = 1\n", "lab.toml:1: segment: it is not a list of tables"),
        ("group = ''\n" + SMALL, "lab.toml:1: group: '' is not a text"),
        ("[vtep]\nlocal = ['192.0.2.1', '192.0.2.2']\n[[segment]]\nvni=1", "two addresses of one"),
        ("[vtep]\nlocal = '192.0.2.1'\ndstport = 70000\n[[segment]]\nvni=1", ":3: vtep.dstport:"),
        ("[vtep]\nlocal = '192.0.2.1'\nsrcport = '5-3'\n[[segment]]\nvni=1", "5-3 is empty"),
        ("[vtep]\nlocal = '192.0.2.1'\nsrcport = 'a-b'\n[[segment]]\nvni=1", "'a' is not a UDP"),
        ("[vtep]\nlocal = '192.0.2.1'\nsrcport = 7\n[[segment]]\nvni=1", "7 is not a range"),
        ("[vtep]\nlocal = '192.0.2.1'\nengine = 'c'\n[[segment]]\nvni=1", "not one of auto, "),
        ("[vtep]\nlocal = '192.0.2.1'\nqueues = 5\n[[segment]]\nvni=1", "must be 1 to 4"),
        ("[vtep]\nlocal = '192.0.2.1'\nqueues = 0\n[[segment]]\nvni=1", 'queues or "auto"'),
    ],
)
def test_a_refused_file(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert expected in str(caught.value)


def test_the_line_is_that_of_the_key(tmp_path: Path) -> None:
    text = FULL.replace("192.0.2.9", "192.0.2.900")
    number = text.splitlines().index('dst = ["192.0.2.2", "192.0.2.900"]') + 1
    assert refusal(tmp_path, text).startswith(f"lab.toml:{number}: segment[0].fdb[0].dst[1]: ")


def test_the_line_of_a_table_written_inline_is_that_of_its_parent(tmp_path: Path) -> None:
    text = "[vtep]\nlocal = '192.0.2.1'\n[[segment]]\nvni = 1\nfdb = [\n{mac = '2'}]\n"
    assert refusal(tmp_path, text).startswith("lab.toml:5: segment[0].fdb[0]: ")


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file: make it"):
        config.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)
    (tmp_path / "bin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(tmp_path / "bin.toml")


def test_where_a_name_is_looked_for() -> None:
    assert config.find("lab") == Path("/etc/pyvxlan/lab.toml")
    assert config.find("./lab") == Path("lab")
    assert config.find("lab.toml") == Path("lab.toml")


def test_the_name_overrules_the_stem_and_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(SMALL)
    assert config.load(path, "blue").name == "blue"
    with pytest.raises(ConfigError, match=r"name: '\.\./x' is no node name"):
        config.load(path, "../x")


def test_flags_as_the_command_line_gives_them() -> None:
    node = config.from_flags(
        vni="42",
        local="192.0.2.1",
        remote=("192.0.2.2", "192.0.2.3:8472"),
        dstport=4790,
        tap="vx0",
        bridge=None,
        address=("10.42.0.1/24",),
        mtu="1400",
        engine="python",
        accept="any",
        vlan="drop",
        dev=None,
        ageing="30",
        maxaddress="5",
        srcport="50000-50010",
        ttl="inherit",
        tos="0x10",
        learning=False,
    )
    segment = node.segments[0]
    assert node.name == "vxlan42"
    assert node.path is None
    assert node.vtep.srcport == (50000, 50010)
    assert segment.remotes == (Remote("192.0.2.2", 4790), Remote("192.0.2.3", 8472))
    assert (segment.mtu, segment.ttl, segment.tos, segment.ageing) == (1400, None, 16, 30.0)
    assert segment.learning is False


def test_a_station_is_named_by_flag_or_by_table(tmp_path: Path) -> None:
    flags = config.from_flags(
        vni=42, local=("192.0.2.1",), remote=["192.0.2.2"], address=("10.42.0.1/24",),
        echo=("192.0.2.2=10.42.0.2",),
    )  # fmt: skip
    table = read(tmp_path, f"{SMALL}remotes = ['192.0.2.2']\naddress = '10.42.0.1/24'\n"
                 "echo = { '192.0.2.2' = '10.42.0.2' }\n")  # fmt: skip
    assert [*map(str, flags.segments[0].echo)] == ["192.0.2.2=10.42.0.2"]
    assert table.segments[0].echo == flags.segments[0].echo


@pytest.mark.parametrize(
    ("echo", "address", "expected"),
    [
        ("192.0.2.2=10.42.0.2", "10.43.0.1/24", "echoes need an address of that network"),
        ("192.0.2.2=10.42.0.1", "10.42.0.1/24", "echoes need an address of that network"),
        ("192.0.2.3=10.42.0.2", "10.42.0.1/24", "192.0.2.3 is no remote of the segment"),
        ("192.0.2.2", "10.42.0.1/24", "'' is not the IP address of a station"),
        ("192.0.2.2=station", "10.42.0.1/24", "write REMOTE=STATION"),
        ("host=10.42.0.2", "10.42.0.1/24", "'host' is not an IP address"),
    ],
)
def test_a_station_that_cannot_be_asked_is_refused(echo: str, address: str, expected: str) -> None:
    with pytest.raises(config.ConfigError, match="--echo: ") as caught:
        config.from_flags(vni=1, remote=["192.0.2.2"], address=(address,), echo=(echo,))
    assert expected in str(caught.value)


def test_flags_that_were_not_given_leave_the_defaults() -> None:
    node = config.from_flags(name="blue", vni=1, dev="eth0", mtu="auto", remote=(), local=None)
    assert node.name == "blue"
    assert node.vtep.dev == "eth0"
    assert node.segments[0].mtu is None
    assert node.segments[0].remotes == ()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"vni": 1 << 24}, "--vni: 16777216 is not a VNI"),
        ({"vni": 1, "remote": ["x"]}, "--remote: 'x' is not an IP address"),
        ({"vni": 1, "local": "192.0.2.1", "remote": ["2001:db8::1"]}, "--remote: 2001:db8::1 is"),
        ({"vni": 1, "dev": "eth0", "srcport": "9-1"}, "--srcport: the range 9-1 is empty"),
        ({"vni": 1}, "no address to send from: set local or dev"),
        ({"vni": 1, "dev": "eth0", "name": "a/b"}, "--name: 'a/b' is no node name"),
        ({"dev": "eth0"}, "it has no vni"),
    ],
)
def test_a_refused_flag_is_named(flags: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_flags(**flags)
    assert expected in str(caught.value)
