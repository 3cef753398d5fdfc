"""The main job, shown on one machine: `python -m vxlan.lab.demo`.

Two hosts as network namespaces, each with `pyvxlan up` and a container behind a
bridge.  Every step is checked, and the first that fails ends the demo with exit
status 1 and one line that says why.  Nothing is left behind either way.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vxlan import api, netdev, wire
from vxlan.drop import Drop
from vxlan.lab.dissect import Header, dissect, draw
from vxlan.lab.namespace import Namespace
from vxlan.lab.noderun import Node
from vxlan.lab.probe import Ping, ping, tcp_transfer
from vxlan.lab.sniffer import Captured, Sniffer
from vxlan.lab.topology import Container, Host, Lab, segment
from vxlan.lab.wait import LabError, wait_until

VNI = 42
STRANGE_VNI = 99
TRANSFER = 16 << 20

PICTURE = """\
     c1 10.42.0.11                                   c2 10.42.0.12
         |                                               |
        br0 --- vxlan42 (TAP)           vxlan42 (TAP) --- br0
                   |                           |
               pyvxlan up                  pyvxlan up
                   |                           |
          a eth0 192.0.2.1 ====== VNI 42 ====== b eth0 192.0.2.2
"""


class Screen:
    """Text on standard output: light colour and a pace to read at, on a terminal only."""

    def __init__(self) -> None:
        self._tty = sys.stdout.isatty()
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._bold, self._green, self._reset = (
            ("\033[1m", "\033[32m", "\033[0m") if self._tty and not plain else ("", "", "")
        )

    def step(self, title: str) -> None:
        """Begin a step."""
        print(f"\n{self._bold}{title}{self._reset}", flush=True)

    def line(self, text: str = "") -> None:
        """One line of what is seen."""
        print(f"  {text}", flush=True)

    def good(self, text: str) -> None:
        """The result of a check that held."""
        print(f"  {self._green}ok{self._reset}  {text}", flush=True)
        if self._tty:
            time.sleep(0.5)


@dataclass(frozen=True)
class World:
    """What the steps work on."""

    a: Host
    b: Host
    c1: Container
    c2: Container
    node_a: Node
    node_b: Node
    wire_b: Sniffer
    settled: dict[str, Counter[str]]
    """Discards from before both ends were up, by host."""

    @property
    def ends(self) -> tuple[tuple[str, Node], tuple[str, Node]]:
        """Both nodes with the letter of their host."""
        return ("a", self.node_a), ("b", self.node_b)


def check(condition: object, otherwise: str) -> None:
    """Raise LabError with the reason unless `condition` holds."""
    if not condition:
        raise LabError(otherwise)


# -- the steps -------------------------------------------------------------------------


def build(lab: Lab, screen: Screen, engine: str) -> World:
    """Two hosts, two containers, two nodes."""
    screen.step("Two hosts, each with a container behind a bridge")
    print(PICTURE)
    screen.line(f"as network namespaces: {lab.prefix}-a, -b, -c1, -c2, -switch")
    a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    c1 = a.container("c1", "10.42.0.11/16")
    c2 = b.container("c2", "10.42.0.12/16")
    wire_b = Sniffer(b, b.link)
    node_a = a.node(segment(VNI, b.address), engine=engine)
    node_b = b.node(segment(VNI, a.address), engine=engine)
    lab.start(node_a, node_b)
    for letter, node in (("a", node_a), ("b", node_b)):
        shown = node.show()["engine"]
        screen.good(f"host {letter}: pyvxlan runs, pid {node.pid}, engine {shown['name']}")
    settled = {"a": _drops(node_a), "b": _drops(node_b)}
    return World(a, b, c1, c2, node_a, node_b, wire_b, settled)


def show_arp(world: World, screen: Screen) -> None:
    """The first packet makes c1 ask everybody for c2's MAC."""
    screen.step("ARP: c1 asks everybody, and the question crosses the overlay")
    first = ping(world.c1, world.c2.address)
    check(first.received == 1, f"{world.c2.address} did not answer: {_why(world)}")
    for captured in world.wire_b.packets():
        for header in dissect(captured.data):
            if header.name == "ARP" and header.depth:
                screen.line(_arp_line(header))
    known = {one.address: one.mac for one in netdev.neighbours("eth0", world.c1.name)}
    check(known.get(world.c2.address) == world.c2.mac, "c1 has not learned the MAC of c2")
    screen.good(f"c1 knows: {world.c2.address} is at {wire.mac_text(world.c2.mac)}")


def _arp_line(header: Header) -> str:
    seen = {field.name: field.meaning for field in header.fields}
    if seen["operation"] == "who has?":
        return f"{seen['sender address']:<11} who has {seen['target address']}?"
    return f"{seen['sender address']:<11} is at {seen['sender MAC']}"


def show_ping(world: World, screen: Screen) -> None:
    """Echo requests; the last one stays in the sniffer's buffer for `show_packet`."""
    screen.step(f"ping: c1 to c2, {world.c2.address}")
    seen = ping(world.c1, world.c2.address, 5, interval=0.1)
    for sequence, rtt in enumerate(seen.rtts):
        screen.line(f"seq={sequence} " + (f"time={rtt * 1e3:.2f} ms" if rtt else "lost"))
    check(not seen.lost, f"{_loss(seen)}: {_why(world)}")
    screen.good(_loss(seen))


def _loss(seen: Ping) -> str:
    return f"{seen.received} of {seen.sent} answered"


def show_transfer(world: World, screen: Screen) -> None:
    """A TCP transfer whose both ends are hashed."""
    screen.step(f"TCP: {TRANSFER >> 20} MiB of random bytes from c1 to c2")
    try:
        done = tcp_transfer(world.c1, world.c2, world.c2.address, TRANSFER)
    except OSError as error:
        raise LabError(f"the TCP transfer failed ({error}): {_why(world)}") from error
    screen.line(f"sent      sha256 {done.sent_sha256}")
    screen.line(f"received  sha256 {done.received_sha256}")
    check(done.intact, "what arrived is not what was sent")
    screen.good(f"intact, {done.seconds:.2f} s, {done.megabits:.0f} Mbit/s")


def show_fdb(world: World, screen: Screen) -> None:
    """Each side learned the other's container from its frames."""
    screen.step("What both sides learned (pyvxlan fdb show)")
    expected = (world.c2, world.b), (world.c1, world.a)
    for (letter, node), (container, host) in zip(world.ends, expected, strict=True):
        entry = node.fdb(VNI).get(wire.mac_text(container.mac))
        check(entry, f"host {letter} has not learned {wire.mac_text(container.mac)}")
        for line in _fdb_lines(node):
            screen.line(f"{letter}: {line}")
        check(_remotes(entry) == [host.address], f"host {letter} learned a wrong remote")
        screen.good(f"host {letter}: {container.short} is behind {host.address}")


def _fdb_lines(node: Node) -> Iterator[str]:
    for mac, entry in node.fdb(VNI).items():
        yield f"{mac}  dst {', '.join(_remotes(entry))}  {entry['state']}  age {entry['age']:.0f} s"


def _remotes(entry: dict[str, Any] | None) -> list[str]:
    return [remote["address"] for remote in entry["dst"]] if entry else []


def show_packet(world: World, screen: Screen) -> None:
    """One echo request on the wire between the hosts, octet by octet."""
    screen.step("One of these packets on the wire between the hosts")
    world.wire_b.clear()
    ping(world.c1, world.c2.address)
    packet = world.wire_b.wait_for(_is_echo_request, what="an echo request inside VXLAN").data
    for line in draw(packet):
        screen.line(line)
    headers = {(header.name, header.depth): header for header in dissect(packet)}
    vni = next(one for one in headers["VXLAN", 0].fields if one.name == "VNI")
    check(vni.meaning == str(VNI), f"the packet carries VNI {vni.meaning}, not {VNI}")
    outer = sum(header.length for (_, depth), header in headers.items() if not depth)
    screen.good(f"VNI {VNI}; {outer} bytes of outer headers around the frame of c1")


def _is_echo_request(captured: Captured) -> bool:
    found = [header for header in dissect(captured.data) if header.name == "ICMP" and header.depth]
    return bool(found) and found[0].fields[0].meaning == "echo request"


def show_counters(world: World, screen: Screen) -> None:
    """What was counted, after one datagram that must be discarded."""
    screen.step(f"Counters, after b sent one datagram for VNI {STRANGE_VNI}, which a does not have")
    _send_strange(world.b, world.a.address)
    wait_until(lambda: _new_drops(world)["a"], 5.0, "the stray datagram to be counted")
    dropped = _new_drops(world)
    for letter, node in world.ends:
        counters = node.segment(VNI)["counters"]
        for word in ("encap", "decap"):
            packets, size = counters[f"{word}_packets"], counters[f"{word}_bytes"]
            screen.line(f"{letter}: {word}  {packets:>7} packets {size:>10} bytes")
        for name, number in dropped[letter].items():
            screen.line(f"{letter}: drop   {number:>7} {name}: {Drop[name].meaning}")
    check(
        dropped == {"a": {"VXLAN_VNI_NOT_FOUND": 1}, "b": {}},
        "there are discards that nobody asked for (see above)",
    )
    screen.good("one discard, with its reason; every other packet arrived")


def _send_strange(source: Namespace, address: str) -> None:
    with source.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        frame = wire.BROADCAST + bytes.fromhex("020000000001") + bytes(48)
        sender.sendto(wire.vxlan_header(STRANGE_VNI) + frame, (address, wire.DSTPORT))


def _drops(node: Node) -> Counter[str]:
    """All discards of a node by reason: of the segment, and of what reached none."""
    shown = node.show()
    parts = [shown["vtep"], *shown["segments"]]
    return sum((Counter(part["counters"]["drops"]) for part in parts), Counter())


def _new_drops(world: World) -> dict[str, Counter[str]]:
    """Discards since both ends were up, by host."""
    return {letter: _drops(node) - world.settled[letter] for letter, node in world.ends}


def _why(world: World) -> str:
    """The discards, which mostly say what went wrong."""
    found = [
        f"{letter} {name} {number}"
        for letter, dropped in _new_drops(world).items()
        for name, number in dropped.items()
    ]
    return "discards: " + (", ".join(found) or "none")


STEPS: Sequence[Callable[[World, Screen], None]] = (
    show_arp,
    show_ping,
    show_transfer,
    show_fdb,
    show_packet,
    show_counters,
)


# -- the whole -------------------------------------------------------------------------


def run(engine: str) -> None:
    """Build the world, take all steps, remove everything."""
    screen, start = Screen(), time.monotonic()
    with Lab("demo", wire=True) as lab:
        world = build(lab, screen, engine)
        for step in STEPS:
            step(world, screen)
        screen.step("Both nodes end on SIGTERM")
        for letter, node in world.ends:
            status = node.stop()
            check(status == 0, f"host {letter}: pyvxlan ended with status {status}")
            screen.good(f"host {letter}: pyvxlan ended")
    print(f"\nAll of it held, in {time.monotonic() - start:.1f} s. Nothing is left behind.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all steps held, 1 one failed, 2 usage, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m vxlan.lab.demo", description="pyvxlan's main job, shown on this machine."
    )
    parser.add_argument("--engine", choices=("auto", "python", "fastpath"), default="auto")
    engine = parser.parse_args(arguments).engine
    if os.geteuid() != 0:
        return _fail("it makes network namespaces and TAP devices: run it as root")
    try:
        run(engine)
    except (LabError, api.ApiError, netdev.NetdevError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted; everything was removed", 130)
    return 0


def _fail(why: str, status: int = 1) -> int:
    print(f"demo failed: {why}", file=sys.stderr)
    return status


def _end(number: int, _: object) -> None:
    """SIGTERM unwinds the stack, so that the lab is removed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
