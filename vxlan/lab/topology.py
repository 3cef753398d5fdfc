"""Hosts, containers and the wires between them, as network namespaces.

Theory of operation
===================

    namespace                              namespace            namespace
    lab-3f2a-c1        lab-3f2a-a          lab-3f2a-switch      lab-3f2a-b
    +----------+    +------------------+    +------------+    +-----------
    | eth0 ----+----+- c1              |    |            |    |
    | 10.42... |    |  br0             |    |  switch    |    |
    +----------+    |  vxlan42 <- node |    |            |    |
                    |       eth0 ------+----+- a     b --+----+- eth0
                    |       192.0.2.1  |    |            |    |  192.0.2.2
                    +------------------+    +------------+    +-----------

A `Lab` is one switch and any number of hosts on it.  A `Host` has an underlay
link "eth0" and bridges; a `Container` is a namespace whose "eth0" is a port of
one of its host's bridges.  What carries frames between the hosts is put there by
`Host.up` (a pyvxlan node, a real process) or `Host.kernel_vxlan` (the kernel's
driver), so any two ends can be compared.

Every namespace name begins with the lab's prefix, which ends in random digits:
labs side by side never meet, and what a killed lab left is found by its name.
Leaving the `with` block, by an exception or Ctrl-C too, ends the processes by
their pids, then removes the namespaces by their names; links go with them.
"""

from __future__ import annotations

import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, ClassVar

from vxlan import netdev, netns
from vxlan.lab.namespace import Namespace
from vxlan.lab.noderun import Node
from vxlan.lab.wait import LabError

LINK = "eth0"
"""The link of a host to the switch, and of a container to its host."""

NETWORK = "switch"
"""The network of the underlay that hosts are on, unless they name another."""

OVERLAY_MTU = 1450
"""What a container may send when the underlay carries 1500 bytes (IPv4: 50 of overhead)."""

ZERO_MAC = bytes(6)


def segment(
    vni: int, *remotes: str, bridge: str | None = "br0", **keys: object
) -> dict[str, object]:
    """One [[segment]] of a node's configuration; `keys` as in the configuration file."""
    table: dict[str, object] = {"vni": vni, "tap": f"vxlan{vni}", "remotes": list(remotes)}
    if bridge is not None:
        table["bridge"] = bridge
    return table | keys


class Station(Namespace):
    """A namespace with one link to the outside and addresses on it (CIDR)."""

    link = LINK

    def __init__(
        self, name: str, short: str, cidrs: Sequence[str], *, attach: bool = False
    ) -> None:
        super().__init__(name, attach=attach)
        self.short = short
        self.addresses = tuple(str(ip_interface(cidr).ip) for cidr in cidrs)
        self._cidrs = cidrs
        if not attach:
            netdev.set_up("lo", netns=name)

    @property
    def address(self) -> str:
        """The first of its addresses."""
        return self.addresses[0]

    @property
    def mac(self) -> bytes:
        """The MAC of its link."""
        return netdev.link(LINK, self.name).mac

    def set_link(self, up: bool) -> None:
        """Set its link up or down, as if the cable were plugged or pulled."""
        netdev.set_up(LINK, up, netns=self.name)

    def _connect(self, port: str, there: str, bridge: str, mtu: int) -> None:
        """A wire from our link to `port` of a bridge in the namespace `there`."""
        netdev.create_veth(LINK, port, self.name, there, mtu)
        netdev.set_master(port, bridge, netns=there)
        netdev.set_up(port, netns=there)

    def _configure(self) -> None:
        if any(":" in address for address in self.addresses):
            self.allow_ipv6(LINK)
        netdev.set_up(LINK, netns=self.name)
        for cidr in self._cidrs:
            netdev.add_address(LINK, cidr, netns=self.name)


class Container(Station):
    """A station of the overlay: a namespace behind a host's bridge."""

    def __init__(
        self, host: Host, short: str, cidrs: Sequence[str], bridge: str, mtu: int, mac: bytes | None
    ) -> None:
        super().__init__(f"{host.lab.prefix}-{short}", short, cidrs)
        self._connect(short, host.name, bridge, mtu)
        if mac is not None:
            netdev.set_mac(LINK, mac, netns=self.name)
        self._configure()


class Host(Station):
    """A host of the underlay; made by `Lab.host`."""

    def __init__(
        self, lab: Lab, short: str, cidrs: Sequence[str], mtu: int, network: str = NETWORK
    ) -> None:
        super().__init__(f"{lab.prefix}-{short}", short, cidrs)
        self.lab = lab
        self._connect(short, lab.switch.name, network, mtu)
        if lab.wire:
            netdev.set_wire_like(LINK, netns=self.name)
        self._configure()

    def bridge(self, name: str = "br0") -> str:
        """Make a bridge, if it is not there; its name."""
        if not netdev.exists(name, self.name):
            netdev.create_bridge(name, self.name)
            netdev.set_up(name, netns=self.name)
        return name

    def container(
        self,
        short: str,
        *cidrs: str,
        bridge: str = "br0",
        mtu: int = OVERLAY_MTU,
        mac: bytes | None = None,
    ) -> Container:
        """A container with these addresses on its "eth0"; its name is unique in the lab."""
        self.bridge(bridge)
        made = Container(self, short, cidrs, bridge, mtu, mac)
        self.lab.adopt(made)
        return made

    # -- what carries frames to other hosts ------------------------------------------

    def node(self, *segments: Mapping[str, object], engine: str = "auto", **vtep: object) -> Node:
        """A pyvxlan node with this configuration, not yet started (see `Lab.start`)."""
        name = f"{self.name}-{len(self.lab.nodes)}"
        node = Node(self, name, (), self.lab.directory)
        table = {"local": list(self.addresses), "engine": engine, **vtep}
        node.configure(segments, table)
        self.lab.nodes.append(node)
        return node

    def up(self, *segments: Mapping[str, object], engine: str = "auto", **vtep: object) -> Node:
        """A pyvxlan node, running and answering.  Raises LabError with what it said."""
        node = self.node(*segments, engine=engine, **vtep)
        self.lab.start(node)
        return node

    def up_with_flags(self, *flags: str) -> Node:
        """A pyvxlan node from the command line alone: `pyvxlan up FLAGS`."""
        node = Node(self, f"{self.name}-{len(self.lab.nodes)}", flags, self.lab.directory)
        self.lab.nodes.append(node)
        self.lab.start(node)
        return node

    def kernel_vxlan(
        self,
        vni: int,
        remotes: Sequence[str],
        *,
        bridge: str | None = "br0",
        dstport: int = 4789,
        **options: Any,
    ) -> str:
        """The kernel's driver as the other end; the name of its device, "vxlanVNI"."""
        device = f"vxlan{vni}"
        group = [options["remote"]] if "remote" in options else []
        local = _same_family(self.addresses, [*group, *remotes])
        netdev.create_vxlan(device, vni, local=local, dstport=dstport, netns=self.name, **options)
        for remote in remotes:
            netdev.fdb_append(device, ZERO_MAC, remote, netns=self.name)
        if bridge is not None:
            netdev.set_master(device, self.bridge(bridge), netns=self.name)
        netdev.set_up(device, netns=self.name)
        return device


def _same_family(addresses: Sequence[str], remotes: Sequence[str]) -> str:
    """Our address of the remotes' kind: the kernel's driver takes only one kind."""
    v6 = bool(remotes) and ":" in remotes[0]
    try:
        return next(address for address in addresses if (":" in address) == v6)
    except StopIteration:
        raise LabError(
            f"remote {remotes[0]}: the host has no address of its kind: give it one"
        ) from None


class Lab:
    """One switch and the hosts on it; a context manager.

    with Lab("demo") as lab:
        a = lab.host("a", "192.0.2.1/24")
        b = lab.host("b", "192.0.2.2/24")
        c1 = a.container("c1", "10.42.0.11/16")
        a.up(segment(42, b.address))

    Between namespaces the kernel leaves packets unsegmented and without checksums,
    as no wire would.  `wire=True` takes these shortcuts from the underlay links:
    whoever counts packets or compares rates wants that.

    Files of the lab are in a temporary folder, unless `directory` names one: that one
    is the caller's to remove.
    """

    _open: ClassVar[list[Lab]] = []

    def __init__(self, name: str, *, wire: bool = False, directory: Path | None = None) -> None:
        self.prefix = f"{name}-{secrets.token_hex(2)}"
        self.wire = wire
        self._given = directory
        self.directory = directory or Path()
        self._files = ExitStack()
        self._kept = False
        self.nodes: list[Node] = []
        self._namespaces: list[Namespace] = []

    @classmethod
    def open_labs(cls) -> tuple[Lab, ...]:
        """The labs of this process that are not closed yet."""
        return tuple(cls._open)

    def __enter__(self) -> Lab:
        if self._given is None:
            made = tempfile.TemporaryDirectory(prefix=f"{self.prefix}-")
            self.directory = Path(self._files.enter_context(made))
        self._open.append(self)
        try:
            self._plug_in_switch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plug_in_switch(self) -> None:
        self.switch = Namespace(f"{self.prefix}-switch")
        self.adopt(self.switch)
        self.network(NETWORK)

    def network(self, name: str) -> str:
        """Make a network of the underlay, if it is not there; its name.

        What joins networks is a router (vxlan/lab/router.py).
        """
        if not netdev.exists(name, self.switch.name):
            netdev.create_bridge(name, self.switch.name)
            netdev.set_up(name, netns=self.switch.name)
        return name

    def adopt(self, namespace: Namespace) -> None:
        """Remove `namespace` with the lab."""
        self._namespaces.append(namespace)

    def host(self, short: str, *underlay: str, mtu: int = 1500, network: str = NETWORK) -> Host:
        """A host with these underlay addresses (CIDR); its name is unique in the lab."""
        made = Host(self, short, underlay, mtu, self.network(network))
        self.adopt(made)
        return made

    def start(self, *nodes: Node) -> None:
        """Start nodes side by side and wait until all of them answer."""
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()

    def keep(self) -> None:
        """Leave everything as it is, also when the `with` block ends and this process does."""
        self._open.remove(self)
        self._kept = True

    def close(self) -> None:
        """End the processes, remove the namespaces.  May be called twice."""
        if self._kept:
            return
        with undisturbed():
            for node in self.nodes:
                node.stop()
            while self._namespaces:
                self._namespaces.pop().remove()
            self._remove_unfinished()
            self._files.close()
            with suppress(ValueError):
                self._open.remove(self)

    def _remove_unfinished(self) -> None:
        """What was named but never adopted, because an error came in between."""
        for name in netns.names():
            if name.startswith(f"{self.prefix}-"):
                netns.delete(name)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C, or SIGTERM, does not leave half of a lab behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, signal.SIG_IGN) for one in ends]
    try:
        yield
    finally:
        for one, handler in zip(ends, before, strict=True):
            signal.signal(one, handler)
