"""A lab that runs, seen from any process.

    from vxlan.lab import RunningLab, ping

    lab = RunningLab.load("pair")
    lab.hosts["a"].node.show()                       what `pyvxlan show` prints
    ping(lab.containers["c1"], lab.containers["c2"].address)
    lab.place("a").run(["ip", "address"])            host, container or router

Hosts and containers are stations (vxlan/lab/topology.py): they have addresses, a MAC, and
run what is wanted in their namespace.  Loading opens nothing and changes nothing.
`state` is what state.json holds, as a picture of the lab needs it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vxlan import api, netns
from vxlan.config_reading import meant
from vxlan.lab import processes, store
from vxlan.lab.build import node_state
from vxlan.lab.namespace import Namespace
from vxlan.lab.noderun import Node, NodeCalls, config_text, environment
from vxlan.lab.topology import Station
from vxlan.lab.wait import LabError

_PATIENCE = 10.0


class RunningNode(NodeCalls):
    """The node of a host: ask it (`show`, `fdb`, `segment`, `call`), read its files."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.name = str(state["name"])
        self.target = str(state["socket"])
        self.config_path = Path(state["config"])
        self.log_path = Path(state["log"])
        self._process = processes.Process(state["pid"], state["started"])

    @property
    def pid(self) -> int | None:
        """The process that listens on its control socket; None: nobody does."""
        return api.listener(Path(self.target))

    def configure(
        self, segments: Sequence[Mapping[str, object]], vtep: Mapping[str, object]
    ) -> None:
        """Write its configuration file anew; `call("reload")` makes it follow."""
        self.config_path.write_text(config_text(vtep, segments))

    def stop(self, patience: float = _PATIENCE) -> None:
        """End it in good order, after `patience` seconds by force."""
        found = [self._process]
        if (pid := self.pid) is not None and (other := processes.of_pid(pid)):
            found.append(other)
        processes.end(dict.fromkeys(found), patience)


class RunningContainer(Station):
    """A station of the overlay.  `vni` None: its host has no segment for it."""

    def __init__(self, host: RunningHost, state: Mapping[str, Any]) -> None:
        super().__init__(state["namespace"], state["name"], state["addresses"], attach=True)
        self.host = host
        self.vni: int | None = state["vni"]
        self.bridge: str = state["bridge"]
        self.mtu: int = state["mtu"]


class RunningHost(Station):
    """A host of the underlay; `vtep` is "pyvxlan", "kernel" or "none"."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(state["namespace"], state["name"], state["addresses"], attach=True)
        self.state = state
        self.vtep: str = state["vtep"]
        self.network: str = state["network"]
        self.vnis: list[int] = [segment["vni"] for segment in state["segments"]]
        self.containers = [RunningContainer(self, one) for one in state["containers"]]
        self._node = RunningNode(state["node"]) if state["node"] else None

    @property
    def has_node(self) -> bool:
        """Whether a pyvxlan node carries its frames."""
        return self._node is not None

    @property
    def node(self) -> RunningNode:
        """Its node.  Raises LabError where it has none."""
        if self._node is None:
            raise LabError(f"host {self.short} has no pyvxlan node: its vtep is {self.vtep}")
        return self._node

    def start_node(self) -> dict[str, Any]:
        """Start the node again, which has ended; what state.json says of it from now on."""
        path = self.node.config_path
        node = Node(self, self.short, (), path.parent, own_runtime=True)
        node.start()
        node.wait_ready()
        node.inject(self.state.get("faults", ()))
        state = node_state(node)
        self._node = RunningNode(state)
        return state


class RunningLab:
    """Everything of one lab by name; made by `load`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.name: str = state["name"]
        self.title: str = state["title"]
        self.lesson: str | None = state["lesson"]
        self.prefix: str = state["prefix"]
        self.directory = store.directory(self.name)
        self.hosts = {one["name"]: RunningHost(one) for one in state.get("hosts", ())}
        self.containers = {
            container.short: container
            for host in self.hosts.values()
            for container in host.containers
        }
        router = state.get("router")
        self.router = (
            Station(router["namespace"], router["name"], [*router["near"], *router["far"]],
                    attach=True) if router else None
        )  # fmt: skip

    @property
    def topology_path(self) -> Path:
        """The topology file that it was made from, as it was then."""
        return self.directory / store.TOPOLOGY

    @classmethod
    def load(cls, name: str) -> RunningLab:
        """The lab of that name.  Raises LabError where none is up."""
        return cls(store.read(name))

    @property
    def places(self) -> dict[str, Namespace]:
        """Hosts, containers, the router and the switch by name."""
        found: dict[str, Namespace] = {**self.hosts, **self.containers}
        if self.router:
            found[self.router.short] = self.router
        if "switch" in self.state:
            found["switch"] = Namespace(self.state["switch"], attach=True)
        return found

    def place(self, word: str) -> Namespace:
        """The host, container or router of that name.  Raises LabError."""
        places = self.places
        if word not in places:
            raise LabError(f"lab {self.name} has no host {word}: {meant(word, list(places))}")
        if not netns.exists(places[word].name):
            raise LabError(
                f"the namespace of {word}, {places[word].name}, is gone: "
                f"`pyvxlan lab down {self.name}`, then up again"
            )
        return places[word]

    def environment(self, word: str) -> dict[str, str]:
        """For a process at a place: there `pyvxlan` is ours, and finds the node of that host."""
        found = environment(self.directory / word)
        path = found.get("PATH", os.defpath)
        here = str(Path(sys.executable).parent)
        return found | {
            "PATH": f"{here}{os.pathsep}{path}",
            "PYVXLAN_LAB": self.name,
            "PYVXLAN_PLACE": word,
            "PYVXLAN_CONFIG": str(self.directory / word / f"{word}.toml"),
        }

    @property
    def ports(self) -> frozenset[int]:
        """The UDP ports of its VTEPs."""
        return frozenset(host.state["dstport"] for host in self.hosts.values())

    @property
    def namespaces(self) -> list[str]:
        """Its namespaces that are there, also those of a lab that was never finished."""
        return [name for name in netns.names() if name.startswith(f"{self.prefix}-")]

    @property
    def whole(self) -> bool:
        """Whether it was finished and all its namespaces are still there."""
        names = {place.name for place in self.places.values()}
        return bool(self.state["ready"]) and names <= set(self.namespaces)

    def silent_hosts(self) -> list[RunningHost]:
        """Hosts whose node does not run."""
        return [one for one in self.hosts.values() if one.has_node and one.node.pid is None]

    def restart_nodes(self) -> list[str]:
        """Start the nodes that do not run; the names of their hosts."""
        silent = self.silent_hosts()
        for host in silent:
            state = next(one for one in self.state["hosts"] if one["name"] == host.short)
            state["node"] = host.start_node()
            store.write(self.name, self.state)
        return [host.short for host in silent]

    def down(self) -> None:
        """End its nodes and whatever else runs in it, remove its namespaces and files."""
        for host in self.hosts.values():
            if host.has_node:
                host.node.stop()
        others = processes.inside(self.namespaces)
        processes.end(others, _PATIENCE, signal.SIGHUP, signal.SIGTERM)
        for name in self.namespaces:
            with suppress(FileNotFoundError):
                netns.delete(name)
        store.forget(self.name)
