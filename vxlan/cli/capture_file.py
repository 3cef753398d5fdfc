"""Where a capture is written: one pcapng, a pipe, or a ring of files.

Theory of operation
===================

    underlay     IP packets, their headers made up (vxlan/outer.py)
    each TAP     frames; one for each segment, also for those that come later

A ring names its files FILE_00001.pcapng and so on; the oldest is deleted when there are
more than the ring holds.  Each file is a whole capture, with its own count of losses.
A file is made anew, readable by its owner alone: what is in it was private to others.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vxlan import outer
from vxlan.fdb import Remote
from vxlan.pcap import ETHERNET, MAX_SNAPLEN, RAW_IP, Interface, PcapWriter
from vxlan.sight import Seen
from vxlan.sight_words import say

UNDERLAY = 0
_LOSS = "the capture was too slow for {} packets: the overlay carried them all the same"


class CaptureFile:
    """One pcapng of what a node saw; `about` is the answer to the operation `capture`."""

    def __init__(self, out: BinaryIO, about: Mapping[str, Any], snaplen: int | None) -> None:
        self._out = out
        self._dstport = about["dstport"]
        self._local = {6 if ":" in one else 4: one for one in about["local"]}
        self._snaplen = snaplen or MAX_SNAPLEN
        self._taps = {one["vni"]: at for at, one in enumerate(about["segments"], 1)}
        self._began = time.time_ns()
        self._seen = [0] * (len(self._taps) + 1)
        self._lost = self._lost_before = 0
        text = f"pyvxlan capture of node {about['name']}"
        self._writer = PcapWriter(out, _interfaces(about, self._snaplen), text)
        self.flush()  # whoever reads a pipe knows at once that it is a capture

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._writer.size

    def put(self, seen: Seen) -> None:
        """Write a packet; one that is not there counts as lost."""
        if seen.is_loss:
            self._lost += seen.targets
            self._lost_before += seen.targets
            return
        at = self._interface(seen)
        data, length = (seen.data, seen.length) if seen.where.inner else self._packet(seen)
        self._writer.packet(
            at,
            seen.when,
            data,
            length=length,
            direction="in" if seen.where.incoming else "out",
            comment=say(seen, self._dstport),
            lost=self._lost_before,
        )
        self._seen[at] += 1
        self._lost_before = 0

    def flush(self) -> None:
        """Let a reader at the other end have what was written."""
        self._out.flush()

    def finish(self) -> None:
        """Write the statistics: how many packets there were, and how many were lost."""
        ended = time.time_ns()
        for at, seen in enumerate(self._seen):
            lost = 0 if at else self._lost
            comment = _LOSS.format(lost) if lost else ""
            self._writer.statistics(
                at, self._began, ended, seen=seen + lost, lost=lost, comment=comment
            )
        self._out.flush()

    def _interface(self, seen: Seen) -> int:
        if not seen.where.inner or seen.vni is None:
            return UNDERLAY
        if seen.vni not in self._taps:
            later = Interface(
                f"vni{seen.vni}", ETHERNET, f"inner: segment {seen.vni}", self._snaplen
            )
            self._taps[seen.vni] = self._writer.add(later)
            self._seen.append(0)
        return self._taps[seen.vni]

    def _packet(self, seen: Seen) -> tuple[bytes, int]:
        """An outer IP packet and its length."""
        remote = seen.remote or Remote("0.0.0.0", 0)
        family = 6 if ":" in remote.address else 4
        here = self._local.get(family, "::" if family == 6 else "0.0.0.0")
        there = (remote.address, remote.port)
        incoming = seen.where.incoming
        ours = (here, self._dstport if incoming else seen.srcport)
        src, dst = (there, ours) if incoming else (ours, there)
        marks = {"tos": seen.tos, "ttl": seen.ttl}
        packet = outer.datagram(seen.data, src, dst, length=seen.length, **marks)
        return packet, len(packet) - len(seen.data) + seen.length


def _interfaces(about: Mapping[str, Any], snaplen: int) -> list[Interface]:
    taps = [
        Interface(one["tap"], ETHERNET, f"inner: segment {one['vni']}", snaplen)
        for one in about["segments"]
    ]
    where = ", ".join(about["local"])
    headers = 48  # of IPv6 and UDP, which are made up
    longest = min(snaplen + headers, MAX_SNAPLEN)
    return [Interface("underlay", RAW_IP, f"outer: {where}", longest), *taps]


class Ring:
    """Files that follow each other; `limit` bytes each, the last `keep` of them stay.

    With `keep` None it is one file.  Every method raises OSError.
    """

    def __init__(
        self,
        path: str,
        about: Mapping[str, Any],
        snaplen: int | None,
        keep: int | None,
        limit: int,
    ) -> None:
        self._path = path
        self._about, self._snaplen = about, snaplen
        self._keep, self._limit = keep, limit
        self._number = 0
        self._files: deque[Path] = deque()
        self._written = self._lost = 0
        self._open()

    def put(self, seen: Seen) -> None:
        """Write a packet, in the next file if this one is full."""
        if self._keep is not None and self._file.size >= self._limit:
            self.close()
            self._open()
        self._file.put(seen)
        if seen.is_loss:
            self._lost += seen.targets
        else:
            self._written += 1

    def told(self) -> str:
        """How much was written, in words."""
        lost = f", {self._lost} more could not be kept" if self._lost else ""
        return f"{self._written} packets written{lost}"

    def flush(self) -> None:
        """Let readers have what was written."""
        self._file.flush()

    def close(self) -> None:
        """End the file that is written to."""
        self._file.finish()
        if self._path != "-":
            self._out.close()

    def _open(self) -> None:
        self._number += 1
        self._out = sys.stdout.buffer if self._path == "-" else self._made(self._next())
        self._file = CaptureFile(self._out, self._about, self._snaplen)

    def _next(self) -> Path:
        path = Path(self._path)
        if self._keep is None:
            return path
        while len(self._files) >= self._keep:
            self._files.popleft().unlink(missing_ok=True)
        path = path.with_name(f"{path.stem}_{self._number:05}{path.suffix or '.pcapng'}")
        self._files.append(path)
        return path

    @staticmethod
    def _made(path: Path) -> BinaryIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o600), "wb")
