"""Topology files for tests of labs."""

from __future__ import annotations

PAIR = """\
title = "Two hosts, one segment"

[[segment]]
vni = 42

[[host]]
name    = "a"
address = "192.0.2.1/24"
[[host.container]]
name    = "c1"
address = "10.42.0.11/16"

[[host]]
name    = "b"
address = "192.0.2.2/24"
[[host.container]]
name    = "c2"
address = "10.42.0.12/16"
"""

ROUTED = """\
title = "A narrow router"

[router]
name  = "r"
near  = "192.0.2.254/24"
far   = "198.51.100.254/24"
carry = { b = 1400 }
icmp  = "filtered"

[[segment]]
vni    = 42
ageing = 30
vlan   = "drop"

[[segment]]
vni   = 43
hosts = ["a", "k"]

[[host]]
name    = "a"
address = "192.0.2.1/24"
link    = { mtu = 1600, delay = 5, loss = 1 }
[[host.container]]
name    = "c1"
address = "10.42.0.11/16"
vni     = 42
[[host.container]]
name    = "d1"
address = "10.43.0.11/16"
vni     = 43

[[host]]
name    = "b"
address = "198.51.100.1/24"
network = "far"
[[host.segment]]
vni     = 42
ageing  = 10
remotes = ["a"]
[[host.container]]
name    = "c2"
address = "10.42.0.12/16"

[[host]]
name    = "k"
address = "192.0.2.3/24"
vtep    = "kernel"
[[host.container]]
name    = "d3"
address = "10.43.0.13/16"
vni     = 43
mac     = "02:00:00:00:00:13"

[[host]]
name    = "x"
address = "192.0.2.4/24"
vtep    = "none"
"""

SIX = """\
title  = "IPv6 below and above"
engine = "auto"

[router]
name = "r"
near = ["192.0.2.254/24", "2001:db8:1::ff/64"]
far  = ["198.51.100.254/24", "2001:db8:2::ff/64"]

[[segment]]
vni = 16777215

[[host]]
name    = "a"
address = ["192.0.2.1/24", "2001:db8:1::1/64"]
[[host.container]]
name    = "c1"
address = ["10.42.0.11/16", "2001:db8:42::11/64"]

[[host]]
name    = "b"
address = "2001:db8:2::2/64"
network = "far"
dstport = 8472
[[host.container]]
name    = "c2"
address = "2001:db8:42::12/64"

[[host]]
name    = "z"
address = "192.0.2.9/24"
vtep    = "none"
[[host.container]]
name    = "p1"
address = "10.9.0.1/24"
[[host.container]]
name    = "p2"
address = "10.9.0.2/24"
"""
