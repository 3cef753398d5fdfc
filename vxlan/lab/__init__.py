"""Labs: hosts, containers and wires on one machine, made of network namespaces.

    from vxlan.lab import Lab, ping, segment

    with Lab("try") as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        c1 = a.container("c1", "10.42.0.11/16")
        c2 = b.container("c2", "10.42.0.12/16")
        a.up(segment(42, b.address))
        b.up(segment(42, a.address))
        print(ping(c1, c2.address, count=3).rtts)

A lab needs root.  `python -m vxlan.lab.demo` shows one.  Another kind of lab is made from
a file by `pyvxlan lab up FILE` and stays until `pyvxlan lab down`; any process finds it:

    from vxlan.lab import RunningLab, ping

    lab = RunningLab.load("pair")                   # LabError where none is up
    lab.hosts["a"].node.call("show")                # the control socket of a host's node
    lab.hosts["a"].node.segment(42)["counters"]
    c1, c2 = lab.containers["c1"], lab.containers["c2"]
    print(c1.name, c1.mac, c1.host.short, c1.vni)   # name: that of the namespace
    print(ping(c1, c2.address).received)
    lab.place("r").run(["ip", "route"])             # a host, a container or the router
    lab.state                                       # all of it as JSON: hosts, links, sockets

The pieces:

    topology   Lab, Host, Container: what is there
    router     Router: joins two networks, narrow and silent if asked
    noderun    Node: pyvxlan as a process in a host
    namespace  what is run inside one namespace
    probe      traffic: ping, checked TCP and UDP
    sniffer    what passes an interface
    wait       conditions with a deadline
    plan       a lab's file, read and checked; graph, svg: drawn
    build      makes a planned lab and leaves it running
    store      where running labs are written down
    running    RunningLab: a lab that runs, seen from any process
    manage     up and down, twice without harm
    reach      who reaches whom
"""

from vxlan.lab.namespace import Namespace
from vxlan.lab.noderun import Node
from vxlan.lab.probe import Ping, Transfer, ping, tcp_transfer, udp_exchange
from vxlan.lab.router import FAR, Router
from vxlan.lab.running import RunningContainer, RunningHost, RunningLab, RunningNode
from vxlan.lab.sniffer import Captured, Sniffer
from vxlan.lab.topology import Container, Host, Lab, segment
from vxlan.lab.wait import LabError, LabTimeout, wait_until

__all__ = [
    "FAR",
    "Captured",
    "Container",
    "Host",
    "Lab",
    "LabError",
    "LabTimeout",
    "Namespace",
    "Node",
    "Ping",
    "Router",
    "RunningContainer",
    "RunningHost",
    "RunningLab",
    "RunningNode",
    "Sniffer",
    "Transfer",
    "ping",
    "segment",
    "tcp_transfer",
    "udp_exchange",
    "wait_until",
]
