"""Records of what an engine sees, until somebody fetches them; bounded.

Theory of operation
===================

    put    an engine tells of a packet; what the `Sight` does not want goes no further
    take   whoever captures fetches records, some times a second

There is room for LIMIT bytes.  When it is used up a record is counted as lost, and the
packet goes its way: a capture that is too slow loses packets of the capture, never of
the overlay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vxlan.drop import Drop
from vxlan.engine import Datagram
from vxlan.fdb import FdbEntry, Remote, State
from vxlan.sight import MAX_AGE, NO_FLAGS, Flag, Found, Seen, Sight, Where, pack, vni_of

LIMIT = 4 << 20
"""Bytes of records that wait."""

_FOUND = {
    State.DYNAMIC: Found.DYNAMIC,
    State.EXTERN_LEARN: Found.EXTERN_LEARN,
    State.STATIC: Found.STATIC,
}


class Batch(NamedTuple):
    """Whole records one behind the other, how many, and how many were lost before them."""

    records: bytes
    packets: int
    lost: int


NOTHING = Batch(b"", 0, 0)


class Recorder:
    """What was seen, for a `Sight`; `clock` gives nanoseconds since 1970."""

    def __init__(self, sight: Sight, clock: Callable[[], int], limit: int = LIMIT) -> None:
        self.sight = sight
        self._clock = clock
        self._limit = limit
        self._records: list[bytes] = []
        self._waiting = 0
        self._lost = 0

    def put(self, seen: Seen, remotes: tuple[Remote, ...] = ()) -> None:
        """Keep a packet if it is wanted; `remotes` are all that it goes to."""
        if not self.sight.wants(seen, remotes):
            return
        kept = seen.data[: self.sight.snaplen]
        record = pack(seen._replace(data=kept, when=seen.when or self._clock()))
        if not self.store(record):
            self._lost += 1

    def store(self, record: bytes) -> bool:
        """Let a record wait; False if there is no room.  The compiled engine's has a ring."""
        if self._waiting + len(record) > self._limit:
            return False
        self._records.append(record)
        self._waiting += len(record)
        return True

    def take(self) -> Batch:
        """All that waits."""
        batch = Batch(b"".join(self._records), len(self._records), self._lost)
        self._records.clear()
        self._waiting = self._lost = 0
        return batch

    def written(
        self, vni: int, frame: bytes, source: Remote | None, segments: int, reason: Drop | None
    ) -> None:
        """A frame was given to a TAP, which took it unless there is a reason.

        Without a source it is of the VTEP itself.
        """
        flags = NO_FLAGS if source is not None else Flag.OWN
        self.put(
            Seen(
                Where.TAP_OUT, frame, len(frame), vni=vni, reason=reason, remote=source,
                targets=segments, flags=flags,
            )
        )  # fmt: skip


def tell_sent(
    recorder: Recorder,
    source_port: Callable[[Datagram], int],
    datagrams: Sequence[Datagram],
    refused: Sequence[tuple[Datagram, Drop]],
) -> None:
    """Datagrams were given to the kernel, which refused some.

    What names no VNI is of the VTEP itself: a probe, or its acknowledgement.
    """
    if recorder.sight.drops and not refused:
        return
    reasons = {id(datagram): why for datagram, why in refused}
    for datagram in datagrams:
        remote, payload, _, tos, ttl = datagram
        vni = vni_of(payload)
        recorder.put(
            Seen(
                Where.UNDERLAY_OUT, payload, len(payload), vni=vni, remote=remote,
                reason=reasons.get(id(datagram)), flags=Flag.OWN if vni is None else NO_FLAGS,
                srcport=source_port(datagram), tos=tos, ttl=ttl,
            )
        )  # fmt: skip


def how_found(entry: FdbEntry | None, now: float) -> tuple[Found, int | None]:
    """How the target of a frame was found, and for how many milliseconds that is so."""
    if entry is None:
        return Found.FLOOD, None
    return _FOUND[entry.state], min(max(0, int((now - entry.since) * 1000)), MAX_AGE)
