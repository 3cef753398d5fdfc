"""A router between two networks of a lab, as narrow and as silent as a test wants it.

Theory of operation
===================

    host a        network "switch"       router          network "far"       host b
    192.0.2.1 ------------------- eth0  lab-3f2a-r  eth1 ------------- 198.51.100.1

`carry` says how many bytes of a packet the router forwards to a host.  The number
stands in its route to that host, which Linux obeys when it forwards; so both
directions can be narrowed, as by a tunnel or PPPoE on the way, and the links keep
their MTU.  A packet that is too big is answered with ICMP, or, after `be_silent`,
lost without a word: the black hole that a router with filtered ICMP is.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_interface

from vxlan import netdev
from vxlan.lab.namespace import Namespace
from vxlan.lab.topology import LINK, NETWORK, Host, Lab

FAR_LINK = "eth1"
FAR = "far"
"""The network behind the router: `lab.host(..., network=FAR)`."""


class Router(Namespace):
    """Forwards between the networks NETWORK and FAR; removed with its lab.

    `near` and `far` are its addresses there (CIDR), of one IP version or of both.
    """

    def __init__(
        self, lab: Lab, short: str, near: Sequence[str], far: Sequence[str], mtu: int = 1500
    ) -> None:
        super().__init__(f"{lab.prefix}-{short}")
        lab.adopt(self)
        self._gateways = {LINK: near, FAR_LINK: far}
        netdev.set_up("lo", netns=self.name)
        for link, network in ((LINK, NETWORK), (FAR_LINK, FAR)):
            self._plug_in(lab, short, link, lab.network(network), mtu)
        self.sysctl("net/ipv4/ip_forward", "1")
        self.sysctl("net/ipv6/conf/all/forwarding", "1")

    def _plug_in(self, lab: Lab, short: str, link: str, network: str, mtu: int) -> None:
        port, there = f"{short}-{link}", lab.switch.name
        netdev.create_veth(link, port, self.name, there, mtu)
        netdev.set_master(port, network, netns=there)
        netdev.set_up(port, netns=there)
        if any(":" in cidr for cidr in self._gateways[link]):
            self.allow_ipv6(link)
        if lab.wire:
            netdev.set_wire_like(link, netns=self.name)
        netdev.set_up(link, netns=self.name)
        for cidr in self._gateways[link]:
            netdev.add_address(link, cidr, netns=self.name)

    def serve(self, *hosts: Host) -> None:
        """Be the way of these hosts to the other network."""
        for host in hosts:
            for address in host.addresses:
                gateway = str(self._beside(address)[1])
                netdev.add_route("default", via=gateway, netns=host.name)

    def carry(self, mtu: int, *hosts: Host) -> None:
        """Forward packets of at most `mtu` bytes to these hosts from now on."""
        for host in hosts:
            for address in host.addresses:
                link = self._beside(address)[0]
                netdev.replace_route(address, dev=link, mtu=mtu, netns=self.name)

    def _beside(self, address: str) -> tuple[str, object]:
        """Our link on which a host's address is, and our own address there."""
        return next(
            (link, gateway.ip)
            for link, cidrs in self._gateways.items()
            for gateway in map(ip_interface, cidrs)
            if ip_address(address) in gateway.network
        )

    def be_silent(self) -> None:
        """Send no ICMP any more; forwarding goes on."""
        for family in (4, 6):
            netdev.blackhole_own_packets(family, self.name)
