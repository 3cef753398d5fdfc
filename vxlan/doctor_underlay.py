"""Checks of the underlay: the port, the receive buffer, the MTU.  See vxlan/doctor.py."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vxlan import api, host
from vxlan.config import SegmentConfig
from vxlan.finding import Check, Finding, Level, Wanted
from vxlan.mtu import MIN_MTU_IPV6

MODEST_BUFFER = 1 << 20
"""Bytes of receive buffer below which a burst of one stream overflows it."""

WANTED_BUFFER = 32 << 20
SWARM_SANDBOX = Path("/run/docker/netns/ingress_sbox")


def _port(wanted: Wanted) -> Iterator[Finding]:
    port = wanted.vtep.dstport
    if wanted.pid is not None:
        yield Finding(Level.OK, f"UDP port {port} is held by this node (pid {wanted.pid})")
        return
    fine = True
    for address in wanted.vtep.local or _any_addresses():
        problem = _bind_problem(address, port)
        if problem is not None:
            fine = False
            yield from _explain_bind(problem, address, port)
    if fine:
        yield Finding(Level.OK, f"UDP port {port} is free")


def _any_addresses() -> tuple[str, ...]:
    return ("0.0.0.0", "::") if socket.has_ipv6 else ("0.0.0.0",)


def _bind_problem(address: str, port: int) -> int | None:
    """The errno of binding there, or None."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.errno
    return None


def _explain_bind(problem: int, address: str, port: int) -> Iterator[Finding]:
    if problem == errno.EADDRINUSE:
        yield from _held(address, port)
    elif problem == errno.EADDRNOTAVAIL and address not in _any_addresses():
        yield Finding(
            Level.FAIL, f"no interface here has the address {address}",
            "correct local, or give the address to an interface (`ip address add`)",
        )  # fmt: skip
    elif problem in (errno.EACCES, errno.EPERM):
        yield Finding(
            Level.FAIL, f"UDP port {port} is reserved for root",
            "add CAP_NET_BIND_SERVICE, or take a dstport of 1024 or more",
        )  # fmt: skip
    elif address not in _any_addresses():
        yield Finding(
            Level.FAIL, f"{address} port {port}: {os.strerror(problem)}",
            "take a local address of a family that this host speaks",
        )  # fmt: skip


def _held(address: str, port: int) -> Iterator[Finding]:
    level = Level.WARN if address in _any_addresses() else Level.FAIL
    what = f"UDP port {port} on {address} is held by {_holders(address, port)}"
    remedy = f"end it, or take another port on all VTEPs (--dstport {port + 1})"
    if SWARM_SANDBOX.exists() and port == 4789:
        remedy += ", or move Docker's with `docker swarm init --data-path-port`"
    yield Finding(level, what, remedy, "another port, another address, a namespace of its own")


def _holders(address: str, port: int) -> str:
    """A clause that names who holds the port: processes, kernel devices."""
    devices = [one for one in host.vxlan_devices() if one.port == port and one.up]
    names = [f"the kernel's vxlan device {one.name} (vni {one.vni})" for one in devices]
    nodes = {api.listener(api.socket_path(name)): name for name in api.running()}
    names += [
        f"the node {nodes[one.pid]} (pid {one.pid}), which can serve more segments"
        if one.pid in nodes
        else f"pid {one.pid} ({one.command[:60]})"
        for one in host.port_holders(port)
        if one.pid is not None and _collide(one.address, address)
    ]
    if names:
        return " and ".join(dict.fromkeys(names))
    if SWARM_SANDBOX.exists():
        return "the kernel, for Docker swarm's ingress network"
    return (
        "the kernel (a vxlan device that moved to another namespace) "
        "or a process that this user may not see"
    )


def _collide(one: str, other: str) -> bool:
    same_family = (":" in one) == (":" in other)
    wild = bool({one, other} & set(_any_addresses()))
    return one == "::" or (same_family and (one == other or wild))


def _buffer(wanted: Wanted) -> Iterator[Finding]:
    asked = wanted.vtep.rcvbuf or WANTED_BUFFER
    granted = host.receive_buffer(asked)
    enough = wanted.vtep.rcvbuf or MODEST_BUFFER
    if granted >= min(enough, asked):
        yield Finding(Level.OK, f"receive buffer of {granted >> 10} KiB")
    else:
        yield Finding(
            Level.WARN,
            f"the receive buffer is limited to {granted >> 10} KiB by net.core.rmem_max",
            f"`sysctl -w net.core.rmem_max={asked}`",
            "everything; bursts lose packets, counted as SOCKET_RCVBUFF",
        )


def _udp_errors(_wanted: Wanted) -> Iterator[Finding]:
    counters = host.udp_counters()
    if lost := counters.get("RcvbufErrors", 0):
        yield Finding(
            Level.NOTE,
            f"{lost} datagrams were lost since boot because a UDP socket's buffer was full",
            "if it grows while an overlay runs, raise net.core.rmem_max",
        )
    if wrong := counters.get("InCsumErrors", 0):
        yield Finding(
            Level.NOTE, f"{wrong} datagrams had a wrong UDP checksum since boot",
            "if it grows while an overlay runs, look at the underlay's checksum offload",
        )  # fmt: skip


# -- where datagrams go -------------------------------------------------------------------


def _address(wanted: Wanted) -> Iterator[Finding]:
    """An address to send from, where the configuration leaves it to the host."""
    if wanted.config is None or wanted.vtep.local:
        return
    try:
        from vxlan import local_address
    except ImportError:
        return  # pyroute2 is missing: another check says so
    try:
        chosen = local_address.choose(wanted.config)
    except local_address.NoAddress as error:
        yield Finding(Level.FAIL, str(error))
    else:
        yield Finding(Level.OK, f"datagrams are sent from {', '.join(chosen)}")


def _mtu(wanted: Wanted) -> Iterator[Finding]:
    if wanted.config is None:
        return
    try:
        from vxlan import overlay_mtu
    except ImportError:
        return
    for segment in wanted.config.segments:
        remotes = dict.fromkeys(remote.address for remote in segment.all_remotes())
        for address in remotes:
            if overlay_mtu.path_to(address) is None:
                yield _no_way(segment, address)
        ways = overlay_mtu.paths(remotes, wanted.vtep.local)
        if problem := overlay_mtu.misfit(segment, ways):
            yield Finding(Level.FAIL, problem)
        elif limit := overlay_mtu.smallest(ways):
            yield _fits(segment, segment.mtu or limit.mtu, limit.why)


def _no_way(segment: SegmentConfig, address: str) -> Finding:
    return Finding(
        Level.WARN,
        f"segment {segment.vni}: there is no route to {address}",
        "add one (`ip route add`), or correct the remote",
        "the other remotes; this one as soon as there is a route",
    )


def _fits(segment: SegmentConfig, mtu: int, why: str) -> Finding:
    what = f"segment {segment.vni}: overlay MTU {mtu}: {why}"
    if mtu >= MIN_MTU_IPV6:
        return Finding(Level.OK, what)
    return Finding(
        Level.WARN, what,
        f"IPv6 inside wants {MIN_MTU_IPV6}: raise the underlay's MTU by {MIN_MTU_IPV6 - mtu}",
        "IPv4",
    )  # fmt: skip


CHECKS: tuple[Check, ...] = (_address, _port, _buffer, _mtu, _udp_errors)
