"""How much fits: the arithmetic of an overlay inside an underlay.

Theory of operation
===================

The names in the drawing are the names in the code:

    |<----------------------- path_mtu -------------------------->|
    +---------+-----+-------+----------------+--------------------+
    | outer   | UDP | VXLAN | inner Ethernet | inner IP packet    |
    | IP      |     |       | [802.1Q tag]   |                    |
    +---------+-----+-------+----------------+--------------------+
    | 20 | 40 |  8  |   8   |  14 [+ 4]      |                    |
    |<---------- OVERHEAD[family] ---------->|<--- overlay_mtu -->|

An MTU never counts its own link's Ethernet header, so the underlay's is not in
the sum, and the inner one is.  50 bytes over IPv4, 70 over IPv6.

An 802.1Q tag is 4 bytes more in the same room.  The overlay MTU counts what lies
behind the tags, as for every Linux device, so a tagged packet of that length
fits only where the paths have those bytes to spare: `Policy.max_frame` is the
room for the whole inner frame, and a frame has to pass both bounds.
"""

from __future__ import annotations

from vxlan.wire import ETH_HLEN, IPV4_HLEN, IPV6_HLEN, UDP_HLEN, VXLAN_HLEN

OVERHEAD = {
    4: IPV4_HLEN + UDP_HLEN + VXLAN_HLEN + ETH_HLEN,
    6: IPV6_HLEN + UDP_HLEN + VXLAN_HLEN + ETH_HLEN,
}
"""Bytes of a path's MTU that an overlay packet cannot use, by outer IP version."""

MIN_MTU = 68
"""The smallest link MTU that IPv4 allows (RFC 791)."""

MIN_MTU_IPV6 = 1280
"""The smallest link MTU that IPv6 allows (RFC 8200, section 5)."""

MAX_MTU = 65535 - UDP_HLEN - VXLAN_HLEN - ETH_HLEN - IPV4_HLEN
"""The longest inner packet that one outer IP packet can hold."""


def family_of(address: str) -> int:
    """4 or 6: the IP version of an address in text form."""
    return 6 if ":" in address else 4


def overlay_mtu(path_mtu: int, family: int) -> int:
    """The overlay MTU of a path; `family` is the outer IP version, 4 or 6."""
    return path_mtu - OVERHEAD[family]


def max_frame(path_mtu: int, family: int) -> int:
    """The longest inner frame, tags counted, that a path carries."""
    return overlay_mtu(path_mtu, family) + ETH_HLEN


def path_mtu_needed(mtu: int, family: int) -> int:
    """The path MTU without which an overlay MTU cannot be had."""
    return mtu + OVERHEAD[family]
