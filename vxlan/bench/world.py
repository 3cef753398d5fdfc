"""Two hosts for each overlay, a container on each, all of them there at the same time.

Theory of operation
===================

Overlays take turns by the second, so all stand side by side, each with hosts, bridges
and containers of its own: none can disturb another, and an idle one costs nothing.

    c1 --- br0 --- overlay --- eth0 ======= eth0 --- overlay --- br0 --- c2
    10.42.0.11     host a  192.0.2.1     192.0.2.2   host b      10.42.0.12

The hosts are joined by one cable, a veth; the switch of a lab (vxlan/lab) would add a
hop to every packet and make everything look alike.  In "wire" mode the offloads of the
cable are off, and every datagram is a real packet.  What arrives may be merged (GRO),
as any network card does.

Everything is removed by name and by pid when the world closes, by Ctrl-C, too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, NamedTuple

from vxlan import netdev
from vxlan.bench import load
from vxlan.bench.ends import LocalAgent
from vxlan.bench.generator import LoadError
from vxlan.lab import Host, Lab, LabError, Namespace, wait_until
from vxlan.lab.topology import LINK

VNI = 42
UNDERLAY = ("192.0.2.1/24", "192.0.2.2/24")
OVERLAY = ("10.42.0.11/16", "10.42.0.12/16")
STOP_TIMEOUT = 5.0
READY_TIMEOUT = 15.0


class Kind(NamedTuple):
    """What the cable between the hosts is like."""

    mtu: int = 1500
    wire: bool = True

    def __str__(self) -> str:
        return f"mtu {self.mtu}, {'every datagram a packet' if self.wire else 'offloads on'}"


class Site:
    """Two hosts and a cable, in which one overlay is built.

    An overlay makes containers with `containers`, starts programs with `spawn`, and sets
    `reached_at` where the addresses to dial are not those of the containers.
    """

    def __init__(self, lab: Lab, tag: str, kind: Kind) -> None:
        self.tag, self.kind, self.lab = tag, kind, lab
        self.hosts = tuple(
            lab.host(f"{tag}{side}", cidr, mtu=kind.mtu)
            for side, cidr in zip("ab", UNDERLAY, strict=True)
        )
        self.a, self.b = self.hosts
        self._cable()
        self.stations: tuple[Namespace, ...] = ()
        self.cidrs: tuple[str, ...] = ()
        self.reached_at: tuple[str, ...] = ()
        self.pids: list[int] = []
        self._spawned: list[subprocess.Popen[bytes]] = []

    def _cable(self) -> None:
        for host in self.hosts:
            netdev.delete(LINK, netns=host.name)
        netdev.create_veth(LINK, LINK, self.a.name, self.b.name, self.kind.mtu)
        for host, cidr in zip(self.hosts, UNDERLAY, strict=True):
            netdev.set_offloads(LINK, {"rx-gro": True}, netns=host.name)
            if self.kind.wire:
                netdev.set_wire_like(LINK, netns=host.name)
            netdev.add_address(LINK, cidr, netns=host.name)
            netdev.set_up(LINK, netns=host.name)

    # -- for overlays ------------------------------------------------------------------

    def sides(self) -> Iterable[tuple[Host, Host]]:
        """Each host with the one it speaks to."""
        return (self.a, self.b), (self.b, self.a)

    def containers(self, overhead: int, cidrs: Sequence[str] = OVERLAY) -> None:
        """A container behind a bridge on each host; `overhead` bytes are taken from its MTU."""
        self.mtu = mtu = self.kind.mtu - overhead
        pairs = zip(self.hosts, "12", cidrs, strict=True)
        self.place(
            [host.container(f"{self.tag}{n}", cidr, mtu=mtu) for host, n, cidr in pairs], cidrs
        )

    def place(self, stations: Sequence[Namespace], cidrs: Sequence[str]) -> None:
        """Say which namespaces are the containers, and their addresses."""
        self.stations, self.cidrs = tuple(stations), tuple(cidrs)

    def address(self, station: Namespace, cidr: str) -> None:
        """Give a container's link its address, and set it up."""
        netdev.add_address(LINK, cidr, netns=station.name)
        netdev.set_up(LINK, netns=station.name)

    def bare(self, number: str) -> Namespace:
        """A container that is not behind a bridge."""
        made = Namespace(f"{self.lab.prefix}-{self.tag}{number}")
        self.lab.adopt(made)
        netdev.set_up("lo", netns=made.name)
        return made

    def folder(self, host: Host) -> Path:
        """A directory of one host's programs."""
        made = self.lab.directory / host.name
        made.mkdir(exist_ok=True)
        return made

    def spawn(self, host: Host, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that belongs to the tunnel end point of `host`."""
        log = (self.folder(host) / f"{Path(command[0]).name}.log").open("wb")
        with log:
            started = host.popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        self._spawned.append(started)
        self.pids.append(started.pid)
        return started

    def attach(self, host: Host, device: str) -> None:
        """Wait until a program of `host` has made its device, and plug it into the bridge."""
        wait_until(lambda: self._has(host, device), READY_TIMEOUT, f"device {device}")
        netdev.set_mtu(device, self.mtu, netns=host.name)
        netdev.set_master(device, "br0", netns=host.name)
        netdev.set_up(device, netns=host.name)

    def _has(self, host: Host, device: str) -> bool:
        if any(process.poll() is not None for process in self._spawned):
            raise LabError(f"a program ended: {self.last_words(host)}")
        return netdev.exists(device, host.name)

    def last_words(self, host: Host) -> str:
        """The end of what the programs of a host printed."""
        lines = [
            line
            for log in sorted(self.folder(host).glob("*.log"))
            for line in log.read_text(errors="replace").split("\n")
            if line.strip()
        ]
        return " / ".join(lines[-3:]) or "it said nothing"

    # -- for whoever measures ------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the containers."""
        return tuple(str(ip_interface(cidr).ip) for cidr in self.cidrs)

    def open_ends(self) -> tuple[load.End, load.End]:
        """Agents in both containers, once traffic passes.  Raises LoadError."""
        self._agents = [LocalAgent(station) for station in self.stations]
        dial = self.reached_at or self.addresses
        parts = zip(self._agents, dial, self.addresses, self.stations, strict=True)
        first, second = (load.End(*part) for part in parts)
        self.ends = first, second
        load.wait_until_open(self.ends)
        return self.ends

    def close(self) -> None:
        """End what was started here; the lab removes the rest."""
        for agent in getattr(self, "_agents", ()):
            agent.close()
        for process in self._spawned:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._spawned:
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def vteps(self) -> tuple[int, ...]:
        """Pids of the processes that are the tunnel end points."""
        return (*self.pids, *(n.pid for n in self.lab.nodes if n.name.startswith(self.hosts_named)))

    @property
    def hosts_named(self) -> tuple[str, ...]:
        """How the names of this site's nodes begin."""
        return tuple(f"{host.name}-" for host in self.hosts)

    @property
    def agents(self) -> tuple[int, ...]:
        """Pids of the processes that make the traffic."""
        return tuple(agent.pid for agent in getattr(self, "_agents", ()))


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours with a few more words, for programs that are set up so."""
    import os

    return {**os.environ, **extra}


def why_not(error: Exception) -> str:
    """One line out of an error that kept an overlay from being built."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or error.stdout or "").strip().splitlines()
        return f"{error.cmd[0]}: {said[-1] if said else f'ended with status {error.returncode}'}"
    return " ".join(str(error).split())


BUILD_ERRORS = (LabError, LoadError, netdev.NetdevError, OSError, subprocess.SubprocessError)
