"""What this host says about itself: /proc, /sys and two netlink questions.  No judgement.

Everything here only looks.  What cannot be read (no permission, no such file, another
kernel) is reported as unknown (None, or an empty list), never as an exception: it is
vxlan/doctor.py that decides what follows.

Files of the network are read through /proc/thread-self, which belongs to the calling
thread's namespace; /proc/net belongs to the main thread's.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CAP_NET_ADMIN = 12

_NET = Path("/proc/thread-self/net")
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a UDP port.  pid None: the kernel, or a process that we may not see."""

    address: str
    pid: int | None
    command: str


@dataclass(frozen=True, slots=True)
class VxlanDevice:
    """A vxlan device of the kernel in this namespace."""

    name: str
    vni: int
    port: int
    up: bool


# -- processes and limits ---------------------------------------------------------------


def has_capability(number: int) -> bool:
    """Whether this thread has a capability in its effective set."""
    for line in _text(Path("/proc/thread-self/status")).splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def sysctl(name: str) -> int | None:
    """A whole number below /proc/sys, such as net.core.rmem_max."""
    with suppress(ValueError):
        return int(_text(Path("/proc/sys", *name.split("."))))
    return None


def receive_buffer(wanted: int) -> int:
    """Bytes of receive buffer that a UDP socket of ours really gets when it asks for `wanted`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except OSError:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles it


def udp_counters() -> dict[str, int]:
    """The counters of all UDP sockets of this namespace since boot, IPv4 and IPv6 together."""
    counters: dict[str, int] = {}
    lines = [line.split() for line in _text(_NET / "snmp").splitlines() if line[:4] == "Udp:"]
    if len(lines) == 2:
        counters = {name: int(n) for name, n in zip(lines[0][1:], lines[1][1:], strict=True)}
    for line in _text(_NET / "snmp6").splitlines():
        name, _, count = line.partition(" ")
        if name.startswith("Udp6"):
            counters[name[4:]] = counters.get(name[4:], 0) + int(count)
    return counters


# -- who holds a port -------------------------------------------------------------------


def port_holders(port: int) -> list[Holder]:
    """Every socket of this namespace that is bound to a UDP port."""
    sockets = dict(_sockets_on(port))
    if not sockets:
        return []
    owners = _owners(set(sockets))
    return [Holder(address, *owners.get(inode, (None, ""))) for inode, address in sockets.items()]


def _sockets_on(port: int) -> Iterator[tuple[str, str]]:
    for table in ("udp", "udp6"):
        for line in _text(_NET / table).splitlines()[1:]:
            fields = line.split()
            address, _, bound = fields[1].partition(":")
            if int(bound, 16) == port:
                yield fields[9], _address(address)


def _address(shown: str) -> str:
    """What /proc/net/udp prints: words of 32 bits, each in the host's byte order."""
    words = [int(shown[at : at + 8], 16) for at in range(0, len(shown), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _owners(inodes: set[str]) -> dict[str, tuple[int, str]]:
    """inode -> (pid, command) for the sockets that a visible process has open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[str, tuple[int, str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        for target in _open_files(process):
            if target in wanted:
                owners.setdefault(wanted[target], (int(process.name), _command(process)))
    return owners


def _open_files(process: Path) -> Iterator[str]:
    with suppress(OSError):
        for entry in os.scandir(process / "fd"):
            with suppress(OSError):
                yield os.readlink(entry.path)


def _command(process: Path) -> str:
    words = _text(process / "cmdline").split("\0")
    return " ".join(words).strip() or _text(process / "comm").strip()


def vxlan_devices() -> list[VxlanDevice]:
    """The kernel's vxlan devices of this namespace; they hold their port while they are up."""
    try:
        from vxlan.netns import NetdevError, netlink
    except ImportError:
        return []
    try:
        with netlink(None, "links") as session:
            return [device for message in session.get_links() if (device := _vxlan_of(message))]
    except NetdevError:
        return []


def _vxlan_of(message: object) -> VxlanDevice | None:
    info = message.get_attr("IFLA_LINKINFO")  # type: ignore[attr-defined]  # untyped pyroute2
    if not info or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return None
    data = info.get_attr("IFLA_INFO_DATA")
    return VxlanDevice(
        name=str(message.get_attr("IFLA_IFNAME")),  # type: ignore[attr-defined]
        vni=int(data.get_attr("IFLA_VXLAN_ID") or 0),
        port=int(data.get_attr("IFLA_VXLAN_PORT") or 0),
        up=bool(message["flags"] & 1),  # type: ignore[index]
    )


# -- the packet filter ------------------------------------------------------------------

_NETLINK_NETFILTER = 12
_GETCHAIN = 10 << 8 | 4  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN
_REQUEST_DUMP = 0x301
_TABLE, _NAME, _HOOK, _POLICY, _HOOKNUM = 1, 3, 4, 5, 1
_FORWARD, _DROP = 2, 0
_NESTED = 0x7FFF


def dropping_forward_chains() -> list[str]:
    """The nftables chains at the forward hook whose policy is drop, as "FAMILY TABLE CHAIN".

    iptables-nft makes such a chain for `iptables -P FORWARD DROP`; the rules of
    iptables-legacy are not seen here.
    """
    request = struct.pack("=IHHIIBBH", 20, _GETCHAIN, _REQUEST_DUMP, 1, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.settimeout(1.0)
            netlink.bind((0, 0))
            netlink.send(request)
            return [chain for chain in _chains(netlink) if chain]
    except OSError:
        return []


def _chains(netlink: socket.socket) -> Iterator[str | None]:
    while True:
        buffer = netlink.recv(1 << 16)
        while len(buffer) >= 16:
            length, kind = struct.unpack_from("=IH", buffer)
            if kind in (2, 3) or length < 16:  # NLMSG_ERROR, NLMSG_DONE
                return
            yield _dropping(buffer[16:length])
            buffer = buffer[(length + 3) & ~3 :]
        if not buffer:
            continue
        return


def _dropping(message: bytes) -> str | None:
    """The chain's name, if it is at the forward hook of IP traffic and its policy is drop."""
    families = {1: "inet", 2: "ip", 10: "ip6"}
    attributes = dict(_attributes(message[4:]))
    hook = dict(_attributes(attributes.get(_HOOK, b"")))
    if message[0] not in families or hook.get(_HOOKNUM) != struct.pack(">I", _FORWARD):
        return None
    if attributes.get(_POLICY) != struct.pack(">I", _DROP):
        return None
    names = (attributes.get(key, b"").rstrip(b"\0").decode() for key in (_TABLE, _NAME))
    return " ".join([families[message[0]], *names])


def _attributes(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(buffer) >= 4:
        length, kind = struct.unpack_from("=HH", buffer)
        if length < 4:
            return
        yield kind & _NESTED, buffer[4:length]
        buffer = buffer[(length + 3) & ~3 :]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
