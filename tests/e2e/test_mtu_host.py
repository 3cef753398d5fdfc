"""MTU at the host: devices, clamp, forged ICMP, peers that are no pyvxlan, and what people see."""

from __future__ import annotations

import shutil
import socket
import struct

import pytest
from packets import outer, sum16
from routed import (
    IP_PMTUDISC_DO,
    NARROW,
    Udp,
    drop_icmp,
    narrow,
    with_nodes,
)
from worlds import VNI, Pair, kernel_pair, two_hosts

from tests.clirun import run
from vxlan import netdev
from vxlan.attachment import PORT_MTU
from vxlan.lab import (
    Host,
    Lab,
    LabError,
    Node,
    Sniffer,
    ping,
    segment,
    tcp_transfer,
    wait_until,
)

pytestmark = pytest.mark.namespaces

LENGTH = 2 << 20


# -- devices ------------------------------------------------------------------------------


def mtus(node: Node, namespace: str, *devices: str) -> dict[str, int]:
    overlay = {"overlay": int(node.segment(VNI)["mtu"])}
    return overlay | {name: netdev.link(name, namespace).mtu for name in devices}


def test_jumbo_frames_by_itself_and_a_link_that_changes(lab: Lab, engine_name: str) -> None:
    """The bridge that the node made carries the overlay MTU; its TAP there stays large."""
    a, b = (lab.host(name, f"192.0.2.{n}/24", mtu=9000) for n, name in enumerate("ab", 1))
    node = a.node(segment(VNI, b.address, bridge="br42", address=["10.42.0.1/16"]),
                  engine=engine_name)  # fmt: skip
    other = b.node(segment(VNI, a.address, bridge=None, address=["10.42.0.2/16"]),
                   engine=engine_name)  # fmt: skip
    lab.start(node, other)
    tap = f"vxlan{VNI}"
    assert mtus(node, a.name, "br42", tap) == {"overlay": 8950, "br42": 8950, tap: PORT_MTU}
    assert mtus(other, b.name, tap) == {"overlay": 8950, tap: 8950}
    assert Udp(a, b, "10.42.0.2", IP_PMTUDISC_DO).arrives(8950)
    for host in (a, b):
        netdev.set_mtu("eth0", 1500, host.name)
    small = {"overlay": 1450, "br42": 1450, tap: PORT_MTU}
    wait_until(lambda: mtus(node, a.name, "br42", tap) == small, 5.0, f"{small}")
    wait_until(
        lambda: mtus(other, b.name, tap) == {"overlay": 1450, tap: 1450}, 5.0, "the TAP's MTU"
    )
    assert Udp(a, b, "10.42.0.2", IP_PMTUDISC_DO).arrives(1450)


def test_devices_follow_a_path_that_was_probed(lab: Lab, engine_name: str) -> None:
    world = narrow(lab, silent=False)
    node = world.a.up(
        segment(VNI, world.b.address, bridge="br42", address=["10.42.0.1/16"]), engine=engine_name
    )
    world.b.up(segment(VNI, world.a.address), engine=engine_name)
    tap = f"vxlan{VNI}"
    fits = NARROW - 50
    expected = {"overlay": fits, "br42": fits, tap: PORT_MTU}
    wait_until(lambda: mtus(node, world.a.name, "br42", tap) == expected, 10.0, f"{expected}")


def test_a_configured_mtu_that_cannot_fit_is_refused_with_the_numbers(
    lab: Lab, engine_name: str
) -> None:
    a = lab.host("a", "192.0.2.1/24")
    with pytest.raises(LabError, match=r"carries 1500, VXLAN over IPv4 takes 50: at most 1450"):
        a.up(segment(VNI, "192.0.2.2", mtu=1500), engine=engine_name)


# -- the clamp alone ---------------------------------------------------------------------------


def deaf_pair(lab: Lab, engine: str, mss: str) -> Pair:
    """Containers of MTU 1500 on an overlay of 1450; no ICMP reaches them."""
    if shutil.which("nft") is None:
        pytest.skip("needs nft to drop ICMP inside a container")
    a, b, c1, c2 = two_hosts(lab, mtu=1500)
    nodes = (
        a.node(segment(VNI, b.address, mss=mss), engine=engine),
        b.node(segment(VNI, a.address, mss=mss), engine=engine),
    )
    lab.start(*nodes)
    for container in (c1, c2):
        drop_icmp(container)
    return Pair(lab, a, b, c1, c2, nodes)


def test_the_clamp_alone_carries_tcp_to_containers_without_icmp(lab: Lab, engine_name: str) -> None:
    pair = deaf_pair(lab, engine_name, "clamp")
    for address in pair.c2.addresses:
        assert tcp_transfer(pair.c1, pair.c2, address, LENGTH).intact
    counters = pair.node.segment(VNI)["counters"]
    assert counters["clamped"] >= 2
    assert counters["drops"] == {}


def test_without_the_clamp_they_stall(lab: Lab, engine_name: str) -> None:
    pair = deaf_pair(lab, engine_name, "off")
    with pytest.raises(OSError, match="timed out"):
        tcp_transfer(pair.c1, pair.c2, pair.c2.address, 5 * LENGTH, timeout=1.5)
    assert pair.node.segment(VNI)["counters"]["drops"]["PKT_TOO_BIG"] >= 1


# -- forged ICMP ----------------------------------------------------------------------------------


def forge(attacker: Host, victim: str, quoted: bytes, mtu: int) -> None:
    """An ICMP fragmentation-needed about a packet that the victim really sent."""
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted[:128]
    message = message[:2] + struct.pack("!H", 0xFFFF ^ sum16(message)) + message[4:]
    with attacker.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
        sender.sendto(message, (victim, 0))


def test_forged_icmp_stops_nothing(shared_pair: Pair) -> None:
    """The kernel of host a believes the forgery; the node does not."""
    pair = shared_pair
    for claim in (NARROW, 600):
        real = datagram_of(pair)
        for _ in range(5):
            forge(pair.b, pair.a.address, real, claim)
        wait_until(lambda claim=claim: believed(pair) == claim, 2.0, f"a route of {claim}")
        large = ping(pair.c1, pair.c2.address, 10, size=1450 - 28, interval=0.05)
        assert (large.sent, large.received) == (10, 10)
    path = pair.node.segment(VNI)["remotes"][0]["path"]
    assert (path["mtu"], path["how"]) == (1500, "probe")
    assert pair.node.segment(VNI)["mtu"] == 1450


def datagram_of(pair: Pair) -> bytes:
    """A large IP packet that host a sent to host b."""
    with Sniffer(pair.a, "eth0") as seen:
        assert ping(pair.c1, pair.c2.address, size=1400).received == 1
        real = seen.wait_for(lambda one: one.direction == "out" and is_large(one.data))
    decoded = outer(real.data)
    assert decoded is not None
    assert decoded.dst == pair.b.address
    return real.data[14:]


def is_large(data: bytes) -> bool:
    """Whether it is a large VXLAN packet, and not a probe."""
    return len(data) > 1400 and outer(data) is not None


def believed(pair: Pair) -> int | None:
    return netdev.route_to(pair.b.address, pair.a.name).mtu


# -- what the kernel's driver does there ----------------------------------------------------------


@pytest.mark.parametrize("outer", [4, 6])
def test_the_kernel_loses_what_is_too_big_without_a_word(lab: Lab, outer: int) -> None:
    """DF as pyvxlan has it (`df set`); over IPv6 no router ever fragments."""
    world = narrow(lab, outer)
    device = world.a.kernel_vxlan(VNI, [world.b.address], df=1)
    world.b.kernel_vxlan(VNI, [world.a.address], df=1)
    assert ping(world.c1, world.c2.address, 5, interval=0.05).received >= 4
    with pytest.raises(OSError, match="timed out"):
        tcp_transfer(world.c1, world.c2, world.c2.address, LENGTH, timeout=1.5)
    udp = Udp(world.c1, world.c2, world.c2.addresses[1], IP_PMTUDISC_DO)
    assert not any(udp.arrives(1400, timeout=0.1) for _ in range(3))
    assert udp.arrives(1300)
    assert udp.mtu == 1500
    stats = netdev.link(device, world.a.name).stats
    assert (stats.tx_errors, stats.tx_dropped) == (0, 0)


def test_a_kernel_peer_discards_probes_and_goes_on(lab: Lab, engine_name: str) -> None:
    pair = kernel_pair(lab, engine_name)
    stats = netdev.link(f"vxlan{VNI}", pair.b.name).stats
    assert ping(pair.c1, pair.c2.address, 40, interval=0.04).lost == 0
    path = wait_until(lambda: silent(pair.node), 5.0, "probes that nobody acknowledges")
    assert (path["mtu"], path["how"], path["phase"]) == (1500, "link", "base")
    assert tcp_transfer(pair.c1, pair.c2, pair.c2.address, LENGTH).intact
    after = netdev.link(f"vxlan{VNI}", pair.b.name).stats
    assert (after.rx_errors, after.rx_dropped) == (stats.rx_errors, stats.rx_dropped)
    said = run("ping", pair.b.address, "-n", pair.node.name)
    assert said.exit_code == 1
    assert "frames came from there, but no probe is acknowledged" in said.stdout
    assert f"{pair.b.address} acknowledges no probes, so it is no pyvxlan" in doctor(pair.node)


def test_for_a_kernel_peer_icmp_is_heeded(lab: Lab, engine_name: str) -> None:
    """The router says what it carries; who sends too much inside is told."""
    world = narrow(lab, silent=False)
    world.b.kernel_vxlan(VNI, [world.a.address])
    node = world.a.up(segment(VNI, world.b.address), engine=engine_name)
    assert tcp_transfer(world.c1, world.c2, world.c2.address, LENGTH).intact
    wait_until(lambda: node.segment(VNI)["mtu"] == NARROW - 50, 5.0, "the overlay MTU 1350")
    path = node.segment(VNI)["remotes"][0]["path"]
    assert (path["mtu"], path["how"]) == (NARROW, "icmp")
    udp = Udp(world.c1, world.c2, world.c2.addresses[1], IP_PMTUDISC_DO)
    udp.send(1450)
    wait_until(lambda: udp.mtu == NARROW - 50, 5.0, "what the container is told")


def silent(node: Node) -> dict[str, object] | None:
    path: dict[str, object] = node.segment(VNI)["remotes"][0]["path"]
    return path if path["answers"] is False else None


# -- what people see ------------------------------------------------------------------------------


def doctor(node: Node) -> str:
    return run("doctor", node.name).stdout


def test_ping_and_doctor_tell_where_a_path_stops(lab: Lab, engine_name: str) -> None:
    world = with_nodes(narrow(lab), engine_name)
    world.wait_path(NARROW)
    node, remote = world.node, world.b.address
    said = run("ping", remote, "-n", node.name)
    assert said.exit_code == 0
    assert "8 of 8 answered, median " in said.stdout
    assert "path MTU 1400, 1350 inside (known by probes" in said.stdout
    assert "the link carries 1500: something on the way is narrower" in said.stdout
    large = run("ping", remote, "--size", "1500", "--ports", "2", "-n", node.name).stdout
    assert large.count("1500 bytes from port") == large.count("no answer") == 2
    assert "small probes pass, 1500 bytes do not from any source port" in large
    assert f"the path to {remote} carries 1400 (found by probe); round trip" in doctor(node)
    assert "the link towards 198.51.100.1 carries 1500, the path 1400" in doctor(node)
    table = run("remote", "show", "-n", node.name).stdout
    assert "1400 probe" in table


def test_ping_and_doctor_of_a_peer_that_died(lab: Lab, engine_name: str) -> None:
    a, b, _, _ = two_hosts(lab)
    node = a.up(segment(VNI, b.address), engine=engine_name)
    said = run("ping", b.address, "-n", node.name)
    assert said.exit_code == 1
    assert "the underlay says that it cannot be reached" in said.stdout
    assert f"warn  {b.address}: the underlay says that it cannot be reached" in doctor(node)


def test_ping_of_a_stranger_is_refused(shared_pair: Pair) -> None:
    said = run("ping", "192.0.2.77", "-n", shared_pair.node.name)
    assert said.exit_code == 1
    assert "192.0.2.77 is no remote of this node" in said.stderr
