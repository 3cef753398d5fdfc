"""Offload settings of a link, as ethtool(8) shows and sets them, by the kernel's names.

Comparisons over a veth flatter the kernel: both ends are the same host, so it
never segments a packet and never computes a checksum.  `set_wire_like` takes
those shortcuts away, and every datagram is then a real packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from vxlan.ifname import check_ifname
from vxlan.netns import NetdevError, inside

WIRE_LIKE = (
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-generic-segmentation",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-checksum-ip-generic",
)
"""What a veth is granted that no wire has: without them every packet is a real packet."""


def offloads(name: str, netns: str | None = None) -> dict[str, bool]:
    """Which offloads of a link are active, by the long names of ethtool(8)."""
    with _ethtool(name, netns) as tool:
        return {str(word): bool(active) for word, active, *_ in tool.get_features()}


def set_offloads(name: str, wanted: Mapping[str, bool], netns: str | None = None) -> None:
    """Turn offloads on or off; NetdevError if the link has no such offload or keeps it."""
    from pyroute2.ethtool.ioctl import NotSupportedError

    with _ethtool(name, netns) as tool:
        features = tool.get_features()
        for word, active in wanted.items():
            if word not in features:
                raise NetdevError(f"link {name}: no offload {word}: see `ethtool -k {name}`")
            features[word] = active
        with suppress(NotSupportedError):  # some were not taken: which ones, the next lines tell
            tool.set_features(features)
        now = tool.get_features()
        kept = sorted(word for word, active in wanted.items() if now[word] != active)
    if kept:
        raise NetdevError(f"link {name}: the driver keeps {', '.join(kept)} as it was")


def set_wire_like(name: str, netns: str | None = None) -> None:
    """Make a veth behave as a wire: no segmentation and no checksum left for later."""
    set_offloads(name, dict.fromkeys(WIRE_LIKE, False), netns)


@contextmanager
def _ethtool(name: str, netns: str | None) -> Iterator[Any]:
    """pyroute2's ethtool on one link; its socket keeps the namespace it was made in."""
    from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

    check_ifname(name)
    try:
        with inside(netns):
            tool = IoctlEthtool(name)
        try:
            yield tool
        finally:
            tool.close()
    except (OSError, EthtoolError) as error:
        raise NetdevError(
            f"link {name}: no offload settings: {error or type(error).__name__}"
        ) from error
