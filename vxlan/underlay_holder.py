"""Who holds a UDP port, in words for people: /proc says it, netlink is not needed."""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterator
from pathlib import Path


def holder_of(address: str, port: int) -> str:
    """Who has a UDP port of the caller's namespace, in words for people."""
    for inode in _inodes_on(address, port):
        for pid in _pids_with(inode):
            return f"process {pid} ({_name_of(pid)})"
    return "a kernel vxlan device (`ip -d link show type vxlan`) or a process not visible from here"


def _inodes_on(address: str, port: int) -> Iterator[int]:
    """Inodes of the sockets bound to `port` on this address or on all addresses."""
    ours = ipaddress.ip_address(address)
    for table in ("udp", "udp6"):
        path = Path("/proc/thread-self/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            columns = line.split()
            host, _, number = columns[1].partition(":")
            theirs = _address_of(host)
            same = theirs == ours or theirs.is_unspecified or ours.is_unspecified
            if int(number, 16) == port and same:
                yield int(columns[9])


def _address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """/proc/net prints addresses as 32-bit words in the host's byte order."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    return ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words))


def _pids_with(inode: int) -> Iterator[int]:
    for directory in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = list(directory.iterdir())
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
        if any(_target_of(link) == f"socket:[{inode}]" for link in links):
            yield int(directory.parent.name)


def _target_of(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
