"""What a VTEP tells people: stations learned and moved, remotes up and down.

Theory of operation
===================

Events are for people and control planes, never for packets: no decision of the
data path waits for one.  The core appends them to an `EventLog` and the engine
hands them on after each batch.  The log is bounded.  A reader that is too slow
loses the newest events, and the loss itself is counted; packets are not
affected.  The compiled engine keeps the same log as a ring in C memory.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vxlan.fdb import Remote


class EventKind(StrEnum):
    """The kinds of event; the value is the word on the control socket."""

    LEARNED = "learned"  # a station was heard for the first time
    MOVED = "moved"  # a learned station is now behind another remote
    AGED = "aged"  # a learned station was silent for the ageing time
    EVICTED = "evicted"  # the table was full and this entry made room
    CONFLICT = "conflict"  # data or a control plane contradicts a higher-ranked entry
    FDB_SET = "fdb_set"  # an entry was written by an operator or a control plane
    FDB_DELETED = "fdb_deleted"  # an entry was deleted or flushed
    REMOTE_ADDED = "remote_added"  # a remote joined the flood list
    REMOTE_REMOVED = "remote_removed"  # a remote left the flood list
    REMOTE_UP = "remote_up"  # a datagram from a remote that was not known to be up
    REMOTE_DOWN = "remote_down"  # the underlay says that a remote cannot be reached
    MTU_CHANGED = "mtu_changed"  # the overlay MTU of a segment is now another
    PATH_MTU = "path_mtu"  # the path to a remote carries more or less than was known
    TOO_BIG = "too_big"  # a frame did not fit, and nobody could be told
    TAP_LOST = "tap_lost"  # the TAP was deleted or failed
    TAP_BACK = "tap_back"  # the TAP was made anew
    FAULT = "fault"  # a fault was injected or ended on purpose
    UNDERLAY_ERROR = "underlay_error"  # an error of the underlay that names no remote


class Event(NamedTuple):
    """Something that happened; fields that do not apply are None.

    `when` is monotonic seconds.  `was` is the former remote of a station that
    moved, or the remote that a conflicting claim named.
    """

    kind: EventKind
    when: float
    vni: int | None = None
    mac: bytes | None = None
    remote: Remote | None = None
    was: Remote | None = None
    detail: str = ""


class EventLog:
    """A bounded queue of events; `lost` counts those that found it full."""

    __slots__ = ("_queue", "limit", "lost")

    def __init__(self, limit: int = 4096) -> None:
        self._queue: deque[Event] = deque()
        self.limit = limit
        self.lost = 0

    def put(self, event: Event) -> None:
        """Append `event`, or count it as lost."""
        if len(self._queue) < self.limit:
            self._queue.append(event)
        else:
            self.lost += 1

    def drain(self) -> list[Event]:
        """Take out everything, oldest first."""
        events = list(self._queue)
        self._queue.clear()
        return events

    def __len__(self) -> int:
        return len(self._queue)
