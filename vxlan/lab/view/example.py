"""A lab to begin with: three hosts, a container on each, one VNI.

MACs end in the name of their container, and learned entries age after a minute, so
that a class can watch it.
"""

from __future__ import annotations

from vxlan.lab.topology import Lab, segment

VNI = 42
AGEING = 60.0
HOSTS = "abc"


def furnish(lab: Lab, engine: str = "auto") -> None:
    """Put hosts, containers and running nodes into an open lab.  Raises LabError."""
    hosts = [lab.host(name, f"192.0.2.{number}/24") for number, name in enumerate(HOSTS, 1)]
    for number, host in enumerate(hosts, 1):
        mac = bytes.fromhex(f"0200000000c{number}")
        host.container(f"c{number}", f"10.42.0.{10 + number}/16", mac=mac)
    nodes = [
        host.node(
            segment(VNI, *(other.address for other in hosts if other is not host), ageing=AGEING),
            engine=engine,
        )
        for host in hosts
    ]
    lab.start(*nodes)
