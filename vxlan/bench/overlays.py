"""What joins the two hosts, and how each is built.  A new overlay is one more function.

`build` is given a Site (vxlan/bench/world.py) and leaves two containers that reach each
other.  Whatever it raises becomes the row's reason.  `needs` are programs it starts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vxlan import netdev
from vxlan.bench import attach, docker, plugin, tools
from vxlan.bench.world import VNI, Site
from vxlan.lab import segment
from vxlan.lab.topology import LINK

VXLAN_OVERHEAD = 50
"""IPv4, UDP, VXLAN and the inner Ethernet header."""


class Overlay(NamedTuple):
    """One way to join containers of two hosts."""

    name: str
    text: str
    build: Callable[[Site], None]
    needs: tuple[str, ...] = ()
    package: str = ""

    def missing(self) -> str:
        """What is not installed; empty if nothing."""
        absent = [program for program in self.needs if shutil.which(program) is None]
        return f"{', '.join(absent)} not installed: install {self.package}" if absent else ""


def directly(site: Site) -> None:
    """The cable is a port of both bridges: what the containers could do without an overlay."""
    site.containers(0)
    for host in site.hosts:
        netdev.set_master(LINK, "br0", netns=host.name)


def kernel(site: Site) -> None:
    """The kernel's vxlan device."""
    site.containers(VXLAN_OVERHEAD)
    for host, peer in site.sides():
        device = host.kernel_vxlan(VNI, [peer.address])
        netdev.set_mtu(device, site.mtu, netns=host.name)


def pyvxlan(engine: str, site: Site) -> None:
    """`pyvxlan up` on both hosts, as shipped."""
    site.containers(VXLAN_OVERHEAD)
    nodes = [h.node(segment(VNI, peer.address), engine=engine) for h, peer in site.sides()]
    site.lab.start(*nodes)


OVERLAYS = {
    overlay.name: overlay
    for overlay in (
        Overlay("none", "no overlay: the containers share a wire", directly),
        Overlay("kernel", "the kernel's vxlan driver", kernel),
        Overlay("fastpath", "pyvxlan, compiled engine", partial(pyvxlan, "fastpath")),
        Overlay("fastpath-tap", "the same, the TAP itself as a container's eth0", attach.tap),
        Overlay("fastpath-macvlan", "the same, a macvlan on the TAP", attach.macvlan),
        Overlay(
            "docker-pyvxlan",
            "the same, as Docker's network driver",
            partial(plugin.driver, "macvlan"),
        ),
        Overlay(
            "docker-pyvxlan-bridge", "the same, attach=bridge", partial(plugin.driver, "bridge")
        ),
        Overlay("python", "pyvxlan, Python engine", partial(pyvxlan, "python")),
        Overlay(
            "ovs",
            "Open vSwitch, userspace datapath, VXLAN",
            tools.openvswitch,
            ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"),
            "openvswitch-switch",
        ),
        Overlay("vde", "vdeplug, VXLAN", tools.vde, ("vde_plug",), "vdeplug"),
        Overlay("socat", "socat, TAP to UDP", tools.socat, ("socat",), "socat"),
        Overlay("openvpn", "OpenVPN, TAP, no cipher", tools.openvpn, ("openvpn",), "openvpn"),
        Overlay("tinc", "tinc, switch mode, no cipher", tools.tinc, ("tincd",), "tinc"),
        Overlay(
            "docker-bridge",
            "docker's bridge driver: a published port, by NAT",
            docker.published_port,
            ("nft",),
            "nftables",
        ),
        Overlay("macvlan", "docker's macvlan driver", docker.macvlan),
        Overlay("ipvlan-l3", "docker's ipvlan driver, mode L3", docker.ipvlan),
    )
}

BASE = "kernel"
"""What the others are compared with."""
