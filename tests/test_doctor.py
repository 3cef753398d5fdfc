"""The doctor: every ailment it knows is caused here, really or by a fact that is made up."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakenode import fake_node, shown
from vxlan import doctor, doctor_underlay, host, netdev, netns
from vxlan.config import NodeConfig, from_flags
from vxlan.doctor import Finding, Level, dropping, preflight


def wanted(**flags: object) -> NodeConfig:
    return from_flags(**{"vni": 42, "local": ("127.0.0.1",), **flags})


def found(config: NodeConfig | None, word: str) -> Finding:
    """The one finding that speaks of `word`."""
    [finding] = [one for one in preflight(config) if word in one.line]
    return finding


# -- this host, as it is --------------------------------------------------------------------


def test_every_finding_that_is_not_fine_names_a_remedy() -> None:
    findings = preflight(None)
    assert findings
    assert [one for one in findings if one.level is not Level.OK and not one.remedy] == []
    assert [one for one in findings if "\n" in one.line] == []


def test_a_finding_is_one_line_and_one_object() -> None:
    finding = Finding(Level.WARN, "slow", "hurry", "everything")
    assert finding.line == "slow: hurry (still works: everything)"
    assert Finding(Level.OK, "fine").line == "fine"
    assert finding.as_dict() == {
        "level": "warn", "what": "slow", "remedy": "hurry", "still": "everything",
    }  # fmt: skip


# -- what moves packets ---------------------------------------------------------------------


def test_no_tun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "TUN", tmp_path / "tun")
    finding = found(None, str(tmp_path / "tun"))
    assert finding.level is Level.FAIL
    assert "modprobe tun" in finding.remedy
    assert "--device /dev/net/tun" in finding.remedy
    assert finding.still


def test_tun_that_may_not_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    [finding] = doctor._tun(doctor.Wanted())
    assert (finding.level, "run as root" in finding.remedy) == (Level.FAIL, True)


def test_no_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "has_capability", lambda _number: False)
    finding = found(None, "CAP_NET_ADMIN")
    assert finding.level is Level.FAIL
    assert "--cap-add NET_ADMIN" in finding.remedy


@pytest.mark.parametrize(
    ("door", "package"), [("vxlan.tap", "python-pytun"), ("vxlan.netns", "pyroute2")]
)
def test_a_package_is_missing(door: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        if name == door:
            raise ImportError(f"No module named {package}")

    monkeypatch.setattr(doctor, "import_module", missing)
    finding = found(None, f"{package} cannot be imported")
    assert (finding.level, finding.remedy) == (Level.FAIL, f"`pip install {package}`")


@pytest.mark.parametrize(
    ("engine", "level"), [("fastpath", Level.FAIL), ("auto", Level.WARN), ("python", Level.NOTE)]
)
def test_no_fastpath(engine: str, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        if name == "vxlan._fastpath":
            raise ImportError("no compiler")

    monkeypatch.setattr(doctor, "import_module", missing)
    finding = found(wanted(engine=engine), "fastpath")
    assert finding.level is level
    assert "no compiler" in finding.what
    assert "--engine python" in finding.still


# -- the port -------------------------------------------------------------------------------


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A UDP socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def test_a_free_port(bound: socket.socket) -> None:
    port = bound.getsockname()[1]
    bound.close()
    assert found(wanted(dstport=port), f"port {port}").level is Level.OK


def test_a_port_that_a_process_holds(bound: socket.socket) -> None:
    port = bound.getsockname()[1]
    finding = found(wanted(dstport=port), f"port {port}")
    assert finding.level is Level.FAIL
    assert f"pid {os.getpid()} (" in finding.what
    assert "--dstport" in finding.remedy
    assert finding.still


def test_a_port_that_another_node_holds(
    bound: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYVXLAN_RUNTIME_DIR", str(tmp_path))
    port = bound.getsockname()[1]
    with fake_node("office"):
        finding = found(wanted(dstport=port), f"port {port}")
    assert f"the node office (pid {os.getpid()})" in finding.what


def test_a_port_that_somebody_unseen_holds(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "port_holders", lambda _port: [])
    port = bound.getsockname()[1]
    assert "may not see" in found(wanted(dstport=port), f"port {port}").what


def test_dockers_swarm_is_named(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "port_holders", lambda _port: [])
    monkeypatch.setattr(doctor_underlay, "SWARM_SANDBOX", tmp_path)
    [finding] = doctor_underlay._held("127.0.0.1", 4789)
    assert "Docker swarm" in finding.what
    assert "--data-path-port" in finding.remedy


def test_an_address_of_nobody() -> None:
    finding = found(wanted(local=("192.0.2.77",)), "192.0.2.77")
    assert finding.level is Level.FAIL
    assert "no interface here has the address" in finding.what


def test_a_node_that_runs_is_not_its_own_obstacle() -> None:
    texts = [one for one in preflight(None, running=shown()) if "UDP port" in one.what]
    assert [one.level for one in texts] == [Level.OK]
    assert "held by this node" in texts[0].what


# -- buffers, drops, bridges ------------------------------------------------------------------


def test_a_small_receive_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "receive_buffer", lambda _wanted: 212_992)
    finding = found(None, "receive buffer")
    assert finding.level is Level.WARN
    assert "208 KiB" in finding.what
    assert "sysctl -w net.core.rmem_max=33554432" in finding.remedy
    assert "SOCKET_RCVBUFF" in finding.still


def test_lost_datagrams_are_worth_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "udp_counters", lambda: {"RcvbufErrors": 3, "InCsumErrors": 5})
    assert found(None, "3 datagrams").level is Level.NOTE
    assert found(None, "5 datagrams").level is Level.NOTE
    monkeypatch.setattr(host, "udp_counters", dict)
    assert not [one for one in preflight(None) if "datagrams" in one.what]


@pytest.mark.parametrize(
    ("bridge", "sysctl", "chains", "level"),
    [
        ("br42", 1, ["ip filter FORWARD"], Level.WARN),
        ("br42", 1, [], Level.NOTE),
        ("br42", 0, ["ip filter FORWARD"], None),
        ("br42", None, [], None),
        (None, 1, ["ip filter FORWARD"], None),
    ],
)
def test_bridges_behind_the_packet_filter(
    bridge: str | None,
    sysctl: int | None,
    chains: list[str],
    level: Level | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host, "sysctl", lambda _name: sysctl)
    monkeypatch.setattr(host, "dropping_forward_chains", lambda: chains)
    findings = [one for one in preflight(wanted(bridge=bridge)) if "bridge-nf" in one.what]
    assert [one.level for one in findings] == ([] if level is None else [level])
    assert all("bridge-nf-call-iptables=0" in one.remedy for one in findings if chains)


def test_what_a_node_drops() -> None:
    drops = [{"PKT_TOO_BIG": 1}, {"PKT_TOO_BIG": 2, "TAP_DOWN": 9}]
    findings = dropping(drops, lambda name: (f"meaning of {name}", f"remedy of {name}"))
    assert [one.what for one in findings] == [
        "dropped packets: 9 TAP_DOWN: meaning of TAP_DOWN",
        "dropped packets: 3 PKT_TOO_BIG: meaning of PKT_TOO_BIG",
    ]
    assert findings[0].remedy == "remedy of TAP_DOWN"


# -- facts ------------------------------------------------------------------------------------


def test_the_holder_of_a_port_is_found(bound: socket.socket) -> None:
    [holder] = host.port_holders(bound.getsockname()[1])
    assert (holder.address, holder.pid) == ("127.0.0.1", os.getpid())
    assert holder.command


def test_the_holder_of_an_ipv6_port_is_found() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        [holder] = host.port_holders(sock.getsockname()[1])
    assert (holder.address, holder.pid) == ("::1", os.getpid())


def test_facts_of_this_host() -> None:
    assert host.sysctl("net.core.rmem_max") == int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert host.sysctl("net.no.such.thing") is None
    assert host.receive_buffer(65536) >= 65536
    assert "InDatagrams" in host.udp_counters()
    assert host.has_capability(host.CAP_NET_ADMIN) == (
        int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16) >> 12 & 1
    )


def attribute(kind: int, value: bytes) -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


def chain(table: str, name: str, hook: int, policy: int) -> bytes:
    """The attributes of an nftables chain of type filter."""
    number = struct.Struct(">I").pack
    return b"".join(
        (
            attribute(1, table.encode() + b"\0"),
            attribute(3, name.encode() + b"\0"),
            attribute(4 | 0x8000, attribute(1, number(hook)) + attribute(2, number(0))),
            attribute(5, number(policy)),
            attribute(7, b"filter\0"),
        )
    )


@pytest.mark.parametrize(
    ("family", "hook", "policy", "expected"),
    [
        (2, 2, 0, "ip filter FORWARD"),
        (1, 2, 0, "inet filter FORWARD"),
        (10, 2, 0, "ip6 filter FORWARD"),
        (2, 2, 1, None),
        (2, 3, 0, None),
        (7, 2, 0, None),
    ],
)
def test_chains_that_drop_what_is_forwarded(
    family: int, hook: int, policy: int, expected: str | None
) -> None:
    header = struct.pack("=BBH", family, 0, 0)
    assert host._dropping(header + chain("filter", "FORWARD", hook, policy)) == expected


# -- in a namespace, for real -----------------------------------------------------------------


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"doc{secrets.token_hex(4)}"
    netns.create(name)
    try:
        netdev.set_up("lo", netns=name)
        yield name
    finally:
        netns.delete(name)


@pytest.fixture
def underlay(namespace: str) -> str:
    """The namespace with eth0, MTU 1500, 192.0.2.1/24 and 2001:db8::1/64."""
    netdev.create_veth("eth0", "far0", namespace)
    for name in ("far0", "eth0"):
        netdev.set_up(name, netns=namespace)
    netdev.add_address("eth0", "192.0.2.1/24", namespace)
    netdev.add_address("eth0", "2001:db8::1/64", namespace)
    return namespace


def found_inside(name: str, config: NodeConfig, word: str) -> list[Finding]:
    with netns.inside(name):
        return [one for one in preflight(config) if word in one.line]


@pytest.mark.namespaces
def test_a_kernel_vxlan_device_holds_the_port(namespace: str) -> None:
    netdev.create_vxlan("vx7", 7, local="127.0.0.1", netns=namespace)
    assert [one.level for one in found_inside(namespace, wanted(), "port 4789")] == [Level.OK]
    netdev.set_up("vx7", netns=namespace)
    [finding] = found_inside(namespace, wanted(), "port 4789")
    assert finding.level is Level.FAIL
    assert "the kernel's vxlan device vx7 (vni 7)" in finding.what
    [free] = found_inside(namespace, wanted(dstport=4790), "port 4790")
    assert free.level is Level.OK


@pytest.mark.namespaces
def test_a_kernel_vxlan_device_that_moved_away_still_holds_the_port(namespace: str) -> None:
    """As Docker swarm does with its ingress network."""
    other = f"doc{secrets.token_hex(4)}"
    netns.create(other)
    try:
        netdev.create_vxlan("vx7", 7, local="127.0.0.1", netns=namespace)
        netdev.move("vx7", other, namespace)
        netdev.set_up("vx7", netns=other)
        [finding] = found_inside(namespace, wanted(), "port 4789")
    finally:
        netns.delete(other)
    assert finding.level is Level.FAIL
    assert "moved to another namespace" in finding.what


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("mtu", "remote", "level", "says"),
    [
        ("auto", "192.0.2.2", Level.OK, "overlay MTU 1450"),
        ("auto", "2001:db8::2", Level.OK, "overlay MTU 1430"),
        ("1450", "192.0.2.2", Level.OK, "overlay MTU 1450"),
        ("1451", "192.0.2.2", Level.FAIL, "1450"),
        ("1431", "2001:db8::2", Level.FAIL, "1430"),
        ("1200", "192.0.2.2", Level.WARN, "IPv6 inside wants 1280"),
    ],
)
def test_mtu(underlay: str, mtu: str, remote: str, level: Level, says: str) -> None:
    config = wanted(local=("192.0.2.1", "2001:db8::1"), remote=(remote,), mtu=mtu)
    [finding] = found_inside(underlay, config, "segment 42")
    assert finding.level is level
    assert says in finding.line
    assert "1500" in finding.line


@pytest.mark.namespaces
def test_a_remote_without_a_route(underlay: str) -> None:
    config = wanted(local=("192.0.2.1",), remote=("198.51.100.9", "192.0.2.2"))
    findings = found_inside(underlay, config, "segment 42")
    assert [one.level for one in findings] == [Level.WARN, Level.OK]
    assert "no route to 198.51.100.9" in findings[0].what


@pytest.mark.namespaces
def test_the_address_to_send_from(underlay: str) -> None:
    [chosen] = found_inside(underlay, wanted(local=(), dev="eth0"), "sent from")
    assert chosen.what == "datagrams are sent from 192.0.2.1, 2001:db8::1"
    [missing] = found_inside(underlay, wanted(local=(), dev="far0"), "far0")
    assert missing.level is Level.FAIL


@pytest.mark.namespaces
def test_a_chain_of_the_kernel_is_read(namespace: str) -> None:
    """`iptables -P FORWARD DROP` by netlink: the table ip filter and its chain FORWARD."""
    table = attribute(1, b"filter\0")
    messages = [(16, 0, 10, b""), (0xA00, 2, 0, table)]
    messages += [(0xA03, 2, 0, chain("filter", "FORWARD", 2, 0)), (17, 0, 10, b"")]
    request = b""
    for sequence, (kind, family, resource, attributes) in enumerate(messages):
        body = struct.pack("=BB", family, 0) + struct.pack(">H", resource) + attributes
        flags = 0x401 if kind >= 0xA00 else 1  # NLM_F_REQUEST, NLM_F_CREATE
        request += struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
    with netns.inside(namespace):
        assert host.dropping_forward_chains() == []
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
            netlink.send(request)
        assert host.dropping_forward_chains() == ["ip filter FORWARD"]
        levels = [one.level for one in preflight(wanted(bridge="br42")) if "FORWARD" in one.what]
    assert levels == ([Level.WARN] if host.sysctl("net.bridge.bridge-nf-call-iptables") else [])
