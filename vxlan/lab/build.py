"""Make a planned lab, and leave it running.

Theory of operation
===================

The lab is made of the same pieces as a lab of the tests (vxlan/lab/topology.py): its
hosts and containers are namespaces, its nodes are processes, `pyvxlan up FILE`, in
sessions of their own.  They live on when this process ends.  What was made is written
down (vxlan/lab/store.py), and whoever comes later finds it there (vxlan/lab/running.py).

If anything fails on the way, everything is removed again, and the error is raised.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vxlan import netdev, netem
from vxlan.lab import plan as plans
from vxlan.lab import processes, store
from vxlan.lab.noderun import Node
from vxlan.lab.plan import Plan
from vxlan.lab.plan_rules import node_tables
from vxlan.lab.router import Router
from vxlan.lab.topology import LINK, Container, Host, Lab

VERSION = 1
"""Of state.json."""

PLAIN_BRIDGE = "br0"
"""Where containers are whose host has no segment for them."""

_KERNEL_WORDS = {"maxaddress": "limit", "group": "remote"}


def build(plan: Plan, name: str, source: Path, lesson: str | None) -> None:
    """Make the lab `name` and write it down, with a copy of `source`, its file.

    Raises LabError, NetdevError and OSError; then nothing is left.
    """
    directory = store.directory(name)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    state: dict[str, Any] = {
        "version": VERSION, "name": name, "title": plan.title, "source": str(source.resolve()),
        "lesson": lesson, "ready": False, "notes": [],
    }  # fmt: skip
    try:
        (directory / store.TOPOLOGY).write_bytes(source.read_bytes())
        lab = Lab(name, wire=plan.wire, directory=directory)
        state["prefix"] = lab.prefix
        store.write(name, state)  # before the first namespace: `down` finds what was killed
        with lab:
            _Builder(lab, plan, state).run()
            store.write(name, {**state, "ready": True})
            lab.keep()
    except BaseException:
        store.forget(name)
        raise


class _Builder:
    """The steps; `state` is filled on the way."""

    def __init__(self, lab: Lab, plan: Plan, state: dict[str, Any]) -> None:
        self._lab = lab
        self._plan = plan
        self._state = state
        self._hosts: dict[str, Host] = {}
        self._nodes: dict[str, Node] = {}

    def run(self) -> None:
        lab = self._lab
        self._state["switch"] = lab.switch.name
        made = [self._host(host) for host in self._plan.hosts]
        self._state["router"] = self._router()
        for host in self._plan.hosts:
            self._disturb(host)
        lab.start(*self._nodes.values())
        for host, state in zip(self._plan.hosts, made, strict=True):
            if host.name in self._nodes:
                self._nodes[host.name].inject(host.faults)
                state["node"] = node_state(self._nodes[host.name])
        self._state["hosts"] = made

    def _host(self, host: plans.Host) -> dict[str, Any]:
        made = self._lab.host(host.name, *host.address, mtu=host.link.mtu, network=host.network)
        self._hosts[host.name] = made
        for segment in host.segments:
            made.bridge(segment.bridge)
        containers = [self._container(made, one) for one in host.containers]
        if host.vtep == "kernel":
            for segment in host.segments:
                _kernel_vxlan(made, host, segment)
        elif host.vtep == "pyvxlan" and host.segments:
            self._nodes[host.name] = self._node(made, host)
        return _host_state(host, made.name, containers)

    def _container(self, host: Host, plan: plans.Container) -> dict[str, Any]:
        bridge = PLAIN_BRIDGE if plan.vni is None else f"br{plan.vni}"
        made: Container = host.container(
            plan.name, *plan.address, bridge=bridge, mtu=plan.mtu, mac=plan.mac
        )
        return {
            "name": plan.name, "namespace": made.name, "addresses": list(plan.address),
            "vni": plan.vni, "bridge": bridge, "mtu": plan.mtu, "mac": made.mac.hex(":"),
        }  # fmt: skip

    def _node(self, host: Host, plan: plans.Host) -> Node:
        directory = self._lab.directory / plan.name
        directory.mkdir(mode=0o700)
        node = Node(host, plan.name, (), directory, own_runtime=True)
        vtep, segments = node_tables(plan)
        node.configure(segments, vtep)
        self._lab.nodes.append(node)
        return node

    def _router(self) -> dict[str, Any] | None:
        plan = self._plan.router
        if plan is None:
            return None
        router = Router(self._lab, plan.name, plan.near, plan.far, plan.mtu)
        router.serve(*self._hosts.values())
        for name, size in plan.carry.items():
            router.carry(size, self._hosts[name])
        if plan.silent:
            router.be_silent()
        return {
            "name": plan.name, "namespace": router.name, "near": list(plan.near),
            "far": list(plan.far), "mtu": plan.mtu, "carry": dict(plan.carry),
            "icmp": "filtered" if plan.silent else "sent",
        }  # fmt: skip

    def _disturb(self, host: plans.Host) -> None:
        """Delay and loss on both ends of a host's wire, each for what it sends."""
        if not host.link.disturbed:
            return
        try:
            for name, there in ((LINK, self._hosts[host.name].name),
                                (host.name, self._lab.switch.name)):  # fmt: skip
                netem.disturb(name, host.link.delay, host.link.loss, there)
        except netdev.NetdevError as error:
            if not netem.is_missing(error):
                raise
            self._state["notes"].append(
                f"host {host.name}: link.delay and link.loss are not in force: "
                f"the kernel {os.uname().release} has no netem (`modprobe sch_netem`)"
            )


def _kernel_vxlan(made: Host, host: plans.Host, segment: plans.Segment) -> None:
    options: dict[str, Any] = {
        _KERNEL_WORDS.get(key, key): int(value) if key != "group" else value
        for key, value in segment.keys.items()
        if value != "inherit"
    }
    if "group" in segment.keys:
        options["dev"] = LINK
    made.kernel_vxlan(
        segment.vni, segment.remotes, bridge=segment.bridge, dstport=host.dstport, **options
    )


def _host_state(
    plan: plans.Host, namespace: str, containers: list[dict[str, Any]]
) -> dict[str, Any]:
    segments = [
        {
            "vni": segment.vni, "device": segment.device, "bridge": segment.bridge,
            "remotes": list(segment.remotes), "group": segment.keys.get("group"),
        }
        for segment in plan.segments
    ]  # fmt: skip
    return {
        "name": plan.name, "namespace": namespace, "addresses": list(plan.address),
        "network": plan.network, "vtep": plan.vtep, "engine": plan.engine,
        "dstport": plan.dstport, "node": None,
        "link": {"mtu": plan.link.mtu, "delay": plan.link.delay, "loss": plan.link.loss},
        "segments": segments, "containers": containers,
        "faults": [dict(one) for one in plan.faults],
    }  # fmt: skip


def node_state(node: Node) -> dict[str, Any]:
    """What is written down of a node that runs."""
    process = processes.of_pid(node.pid)
    return {
        "name": node.name,
        "socket": node.target,
        "config": str(node.config_path),
        "log": str(node.log_path),
        "pid": node.pid,
        "started": process.started if process else 0,
    }
