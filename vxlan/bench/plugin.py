"""pyvxlan as Docker's network driver, asked what dockerd asks when it starts a container.

What a container gets is the driver's: dockerd only moves the interface that `Join` names
into the container, and gives it MAC and addresses.  That is done here in its place.
"""

from __future__ import annotations

import json
import sys
from ipaddress import ip_interface
from typing import Any

from vxlan import netdev
from vxlan.bench.world import OVERLAY, READY_TIMEOUT, VNI, Site
from vxlan.lab import Host, LabError, Namespace, Node, wait_until
from vxlan.lab.topology import LINK
from vxlan.plugins.unix_http import UnixConnection
from vxlan.wire import mac_bytes

TIMEOUT = 30.0
NETWORK, ENDPOINT = "benchnetwork", "benchendpoint"


def driver(attach: str, site: Site) -> None:
    """On both hosts a node without segments, the plugin, and a container by its answers.

    `attach` is -o attach of the network.
    """
    nodes = [host.node() for host in site.hosts]
    site.lab.start(*nodes)
    site.place([site.bare(number) for number in "12"], OVERLAY)
    parts = zip(site.sides(), nodes, site.stations, OVERLAY, strict=True)
    for (host, peer), node, station, cidr in parts:
        _Plugin(site, host, node).join(station, cidr, peer.address, attach)


class _Plugin:
    """`pyvxlan docker serve` on one host."""

    def __init__(self, site: Site, host: Host, node: Node) -> None:
        self._site, self._host = site, host
        self._path = site.folder(host) / f"{host.name}.sock"
        made = Namespace(f"{host.name}-docker")  # the plugin's own, which it would leave behind
        site.lab.adopt(made)
        places = ["--state", str(site.folder(host)), "--sockets", str(site.folder(host))]
        names = ["--plugin", host.name, "--node", node.name]
        site.spawn(host, sys.executable, "-P", "-m", "vxlan", "docker", "serve", *names, *places)
        wait_until(self._path.exists, READY_TIMEOUT, f"{site.last_words(host)}: the plugin")

    def join(self, station: Namespace, cidr: str, peer: str, attach: str) -> None:
        """A network with one container in it."""
        options = {"vni": str(VNI), "remotes": peer, "attach": attach}
        network = {"NetworkID": NETWORK}
        endpoint = {**network, "EndpointID": ENDPOINT, "SandboxKey": f"/run/netns/{station.name}"}
        pool = str(ip_interface(cidr).network)
        self._ask(
            "CreateNetwork",
            **network,
            Options={"com.docker.network.generic": options},
            IPv4Data=[{"Pool": pool}],
        )
        made = self._ask("CreateEndpoint", **endpoint, Interface={"Address": cidr})
        given = self._ask("Join", **endpoint)["InterfaceName"]["SrcName"]
        self._put(given, station, made["Interface"]["MacAddress"], cidr)

    def _put(self, link: str, station: Namespace, mac: str, cidr: str) -> None:
        """What dockerd does with the interface that it is told of."""
        netdev.move(link, station.name, netns=self._host.name)
        netdev.rename(link, LINK, netns=station.name)
        netdev.set_mac(LINK, mac_bytes(mac), netns=station.name)
        self._site.address(station, cidr)

    def _ask(self, method: str, **body: Any) -> dict[str, Any]:
        connection = UnixConnection(str(self._path), TIMEOUT)
        try:
            connection.request("POST", f"/NetworkDriver.{method}", json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer.get("Err"):
            raise LabError(f"{method}: {answer['Err']}")
        return answer
