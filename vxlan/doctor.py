"""What stands in the way of a VTEP on this host, what to do about it, what works anyway.

Theory of operation
===================

A check looks at one thing through vxlan/host.py and the edges, and yields `Finding`s.
It changes nothing and never raises.  `preflight` runs all of them, for one
configuration or, without one, for the host in general:

    level  means                                  `up` prints   `up` goes on
    ok     as it should be                        no            yes
    note   worth knowing                          no            yes
    warn   works, but less well than it could     yes           yes
    fail   a node cannot start                    yes           no

Call it where no event loop runs: it asks netlink synchronously.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vxlan import doctor_underlay, host
from vxlan.config import NodeConfig, VtepConfig
from vxlan.finding import Check, Finding, Level, Wanted

__all__ = ["Finding", "Level", "dropping", "preflight"]

TUN = Path("/dev/net/tun")


def preflight(config: NodeConfig | None, running: Mapping[str, Any] | None = None) -> list[Finding]:
    """All findings.  `running` is what a node that runs answers to `show`."""
    wanted = _wanted(config, running)
    return [finding for check in _CHECKS for finding in check(wanted)]


def _wanted(config: NodeConfig | None, running: Mapping[str, Any] | None) -> Wanted:
    if running is not None:
        vtep = VtepConfig(local=tuple(running["vtep"]["local"]), dstport=running["vtep"]["dstport"])
        bridged = any(segment["bridge"] for segment in running["segments"])
        return Wanted(vtep=vtep, bridged=bridged, pid=running["pid"])
    if config is None:
        return Wanted()
    return Wanted(config, config.vtep, any(segment.bridge for segment in config.segments))


# -- what moves packets -----------------------------------------------------------------


def _tun(_wanted: Wanted) -> Iterator[Finding]:
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        yield Finding(Level.FAIL, f"{TUN}: {error.strerror}", _tun_remedy(error.errno), _NO_TAP)
    else:
        yield Finding(Level.OK, f"{TUN} can be opened")


def _tun_remedy(code: int | None) -> str:
    if code in (errno.EACCES, errno.EPERM):
        return "run as root, or let this user open it; in a container: --device /dev/net/tun"
    return "`modprobe tun`; in a container: --device /dev/net/tun"


_NO_TAP = "doctor, and showing nodes that run"


def _capability(_wanted: Wanted) -> Iterator[Finding]:
    if host.has_capability(host.CAP_NET_ADMIN):
        yield Finding(Level.OK, "CAP_NET_ADMIN is there")
    else:
        yield Finding(
            Level.FAIL,
            "CAP_NET_ADMIN is missing: no TAP can be made",
            "run as root (sudo), or in a container with --cap-add NET_ADMIN",
            _NO_TAP,
        )


def _packages(_wanted: Wanted) -> Iterator[Finding]:
    for door, package in (("tap", "python-pytun"), ("netns", "pyroute2")):
        try:
            import_module(f"vxlan.{door}")
        except ImportError as error:
            yield Finding(
                Level.FAIL, f"{package} cannot be imported ({error})",
                f"`pip install {package}`", _NO_TAP,
            )  # fmt: skip
        else:
            yield Finding(Level.OK, f"{package} can be imported")


_SLOWER = "everything, on the slower Python engine (--engine python)"


def _engine(wanted: Wanted) -> Iterator[Finding]:
    asked = wanted.vtep.engine
    try:
        import_module("vxlan._fastpath")
    except ImportError as error:
        level = {"fastpath": Level.FAIL, "auto": Level.WARN}.get(asked, Level.NOTE)
        remedy = "install the wheel for this platform, or build it with a C compiler"
        yield Finding(level, f"the fastpath engine is not built here: {error}", remedy, _SLOWER)
    else:
        yield Finding(Level.OK, "the fastpath engine is built")
    if find_spec("uvloop") is None:
        yield Finding(
            Level.NOTE, "uvloop is not installed", "`pip install uvloop`",
            "everything, with more time spent for each packet on the Python engine",
        )  # fmt: skip


# -- what else may swallow frames ---------------------------------------------------------


def _bridges(wanted: Wanted) -> Iterator[Finding]:
    """br_netfilter sends bridged IP through the FORWARD chain; Docker's policy there is DROP."""
    if not wanted.bridged or host.sysctl("net.bridge.bridge-nf-call-iptables") != 1:
        return
    what = "bridged packets pass iptables (net.bridge.bridge-nf-call-iptables = 1)"
    if chains := host.dropping_forward_chains():
        yield Finding(
            Level.WARN, f"{what}, and the policy of the chain {chains[0]} is drop",
            "`sysctl -w net.bridge.bridge-nf-call-iptables=0`, or accept the bridge there "
            "(`iptables -I FORWARD -i BRIDGE -o BRIDGE -j ACCEPT`)",
            "what is on this host's own bridge address; containers behind it are cut off",
        )  # fmt: skip
    else:
        yield Finding(
            Level.NOTE, what,
            "if containers behind a bridge cannot be reached, set it to 0",
        )  # fmt: skip


def dropping(
    drops: Iterable[Mapping[str, int]], text: Callable[[str], tuple[str, str]]
) -> list[Finding]:
    """Findings from the drop counters of a node; `text` gives meaning and remedy of a reason."""
    total: dict[str, int] = {}
    for one in drops:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return [
        Finding(Level.WARN, f"dropped packets: {count} {name}: {text(name)[0]}", text(name)[1])
        for name, count in sorted(total.items(), key=lambda item: -item[1])
    ]


_CHECKS: tuple[Check, ...] = (
    _tun, _capability, _packages, _engine, *doctor_underlay.CHECKS, _bridges,
)  # fmt: skip
