"""The other ways in which docker joins containers, built as its drivers build them.

No docker daemon is needed: what a packet costs is decided by the devices and rules
that the driver leaves behind, and those are made here.
"""

from __future__ import annotations

import subprocess
from typing import Literal

from vxlan import netdev
from vxlan.bench.world import Site
from vxlan.lab import Host
from vxlan.lab.topology import LINK
from vxlan.netchild import create_child

INSIDE = ("10.42.1.11/24", "10.42.2.12/24")
GATEWAYS = ("10.42.1.1/24", "10.42.2.1/24")
NEIGHBOURS = ("192.0.2.11/24", "192.0.2.12/24")
ROUTED = ("10.42.1.11/32", "10.42.2.12/32")

NAT = """
table ip nat {{
  chain published {{
    type nat hook prerouting priority dstnat;
    iifname "{link}" ip daddr {host} meta l4proto {{ tcp, udp }} dnat to {container}
  }}
  chain outbound {{
    type nat hook postrouting priority srcnat;
    ip saddr {container} oifname "{link}" masquerade
  }}
}}
"""


def published_port(site: Site) -> None:
    """A bridge with NAT on each host; containers are reached at their host's address."""
    site.containers(0, INSIDE)
    parts = zip(site.hosts, site.stations, site.addresses, GATEWAYS, strict=True)
    for host, station, address, gateway in parts:
        netdev.add_address("br0", gateway, netns=host.name)
        netdev.add_route("0.0.0.0/0", via=gateway.partition("/")[0], netns=station.name)
        host.sysctl("net/ipv4/ip_forward", "1")
        _nft(host, NAT.format(link=LINK, host=host.address, container=address))
    site.reached_at = tuple(host.address for host in site.hosts)


def _nft(host: Host, rules: str) -> None:
    loader = host.popen(
        ["nft", "-f", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = loader.communicate(rules.encode(), timeout=20)
    if loader.returncode:
        raise subprocess.CalledProcessError(loader.returncode, ["nft"], out, errors.decode())


def macvlan(site: Site) -> None:
    """A container's device sits on the host's own link, with a MAC of its own."""
    _children(site, "macvlan", NEIGHBOURS)


def ipvlan(site: Site) -> None:
    """A container's device shares the host's link and MAC; the host routes to it."""
    _children(site, "ipvlan", ROUTED)
    for number, host in enumerate(site.hosts):
        other = 1 - number
        netdev.add_route(ROUTED[other], via=site.hosts[other].address, netns=host.name)
        netdev.add_route("0.0.0.0/0", dev=LINK, netns=site.stations[number].name)


def _children(site: Site, kind: Literal["macvlan", "ipvlan"], cidrs: tuple[str, str]) -> None:
    made = [site.bare(number) for number in "12"]
    for host, station, cidr in zip(site.hosts, made, cidrs, strict=True):
        create_child(kind, LINK, LINK, host.name, station.name)
        site.address(station, cidr)
    site.place(made, cidrs)
