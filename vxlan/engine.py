"""The boundary between what moves packets and what governs it.

Theory of operation
===================

An engine carries frames between TAPs and the underlay.  There are two with the
same behaviour: `python` (vxlan/pyengine.py, the specification, to be read) and
`fastpath` (vxlan._fastpath, compiled).  The node never needs to know which runs.

The contract:

- The caller owns every descriptor.  It opens sockets and TAPs, hands them over,
  and closes them after `stop` or `detach` has returned; an engine closes none.
- Tables are written only through the engine, from one thread: the event loop's.
- `encap` and `decap` are the data path without input and output.  They change
  tables and counters exactly as live traffic does, and need neither root nor TAP.
- A frame or datagram that is passed in is never changed; what is returned is new.
- Every packet leaves or is counted under one `Drop` reason.  No input and no
  error of the operating system ends the engine.
- `on_events` is called in the event loop's thread.  What it raises is a bug.
- After `start`, traffic moves until `stop`; both may be called once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from vxlan.drop import Counters
    from vxlan.echo import Echoes
    from vxlan.event import Event
    from vxlan.fault import Fault
    from vxlan.fdb import FdbEntry, Remote, State
    from vxlan.recorder import Batch
    from vxlan.sight import Sight
    from vxlan.tap import Tap
    from vxlan.underlay import Underlay
    from vxlan.vtep import Vtep

EngineName = Literal["python", "fastpath"]

MAX_QUEUES = 4


class EngineUnavailable(Exception):
    """The engine that was asked for cannot run here; the text says why and what to do."""


class FaultRefused(Exception):
    """A fault cannot be injected here; the text says why and what to do."""


class Datagram(NamedTuple):
    """One outer UDP payload and the outer header fields that matter.

    On the encap side `remote` is the destination, `flow` the 32-bit hash of the
    inner flow that chooses the source port, `tos` and `ttl` what the outer header
    shall carry.  On the decap side `remote` is the source, `tos` what the outer
    header carried, and `flow` and `ttl` are 0.
    """

    remote: Remote
    payload: bytes
    flow: int = 0
    tos: int = 0
    ttl: int = 0


class Frame(NamedTuple):
    """One inner Ethernet frame that is to be written to the TAP of segment `vni`."""

    vni: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """What one segment does; the words are those of `ip link add type vxlan`.

    mtu           overlay MTU in bytes: the longest inner packet, headers of
                  Ethernet and VLAN tags not counted
    max_frame     the longest inner frame that the paths carry, all headers
                  counted; 0 = mtu + 14, so that a tag takes from the packet
    ageing        seconds; 0 = never
    maxaddress    bound of the FDB, entries
    accept        "known": only datagrams from remotes of this segment
    vlan          "carry" tags as they are, or "drop" tagged frames
    reserved_bits "ignore" (RFC 7348) or "strict" (the kernel driver)
    ttl, tos      of the outer header; None = inherit from the inner packet
    mss           "clamp" the MSS of TCP to what fits, "off", or a bound in bytes
    """

    mtu: int = 1450
    max_frame: int = 0
    learning: bool = True
    ageing: float = 300.0
    maxaddress: int = 65536
    accept: Literal["known", "any"] = "known"
    vlan: Literal["carry", "drop"] = "carry"
    reserved_bits: Literal["ignore", "strict"] = "ignore"
    ttl: int | None = 64
    tos: int | None = 0
    mss: Literal["clamp", "off"] | int = "clamp"


class PathState(NamedTuple):
    """What is known of the path to one remote (vxlan/pathmtu.py).

    mtu, ceiling  bytes of an outer IP packet: what passes, and what the link takes
    how           "link", "probe", "echo" or "icmp";  phase: "base", "searching", ...
    answers       whether the peer acknowledges probes; None until it is known
    when          monotonic seconds since which `mtu` is known
    """

    mtu: int
    ceiling: int
    how: str
    phase: str
    answers: bool | None
    when: float


class FaultState(NamedTuple):
    """A fault in force: packets that matched it, and those that it hit.

    began  monotonic seconds
    """

    number: int
    fault: Fault
    began: float
    seen: int
    hits: int


class StationState(NamedTuple):
    """A station that is announced in a segment (vxlan/announce.py).

    mac, addresses  6 bytes, and 4 or 16 bytes each
    remote          underlay address of the VTEP that announces it; None: we do
    """

    mac: bytes
    addresses: tuple[bytes, ...]
    remote: str | None = None


@dataclass(slots=True)
class EngineInfo:
    """What the engine is and what the kernel granted it.  Shown by `pyvxlan show`.

    `fallbacks` holds one sentence for each thing that was wanted and not granted.
    """

    name: EngineName
    why: str
    granted: dict[str, bool | int | str] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)


OnEvents = Callable[[Sequence["Event"]], None]


class Engine(Protocol):
    """What the node asks of whatever moves packets.  Times are monotonic seconds.

    queues  of each TAP that is attached, and receivers for each local address, 1 or more
    """

    info: EngineInfo
    queues: int

    # -- tables; KeyError for a VNI that was not added ---------------------------

    def add_segment(self, vni: int, policy: Policy) -> None:
        """Begin to serve a VNI.  ValueError if it is there already."""

    def set_policy(self, vni: int, policy: Policy, now: float) -> None:
        """Change a segment without losing entries or counters."""

    def remove_segment(self, vni: int) -> None:
        """Forget a VNI; datagrams for it are dropped from now on."""

    def set_own_macs(self, vni: int, macs: Iterable[bytes]) -> None:
        """The MACs of this host's own devices: a frame from them is a loop."""

    def add_remote(self, vni: int, remote: Remote, now: float) -> bool:
        """Add to the flood list.  False if it was there, or is one of our addresses."""

    def del_remote(self, vni: int, remote: Remote, now: float) -> bool:
        """Take from the flood list.  False if it was not there."""

    def remotes(self, vni: int) -> tuple[Remote, ...]:
        """The flood list."""

    def fdb_set(
        self,
        vni: int,
        mac: bytes,
        remotes: tuple[Remote, ...],
        state: State,
        source: str,
        now: float,
    ) -> FdbEntry:
        """Write a claim (see vxlan/fdb.py); the entry that speaks.  Raises FdbFull."""

    def fdb_remove(
        self, vni: int, mac: bytes, now: float, state: State | None = None
    ) -> FdbEntry | None:
        """Withdraw a claim; None if there was none."""

    def fdb_flush(
        self, vni: int, now: float, *, state: State | None = None, address: str | None = None
    ) -> int:
        """Withdraw all claims of a state and of a remote; how many."""

    def fdb_get(self, vni: int, mac: bytes) -> FdbEntry | None:
        """A copy of one entry."""

    def fdb_count(self, vni: int) -> int:
        """How many entries there are."""

    def fdb_dump(self, vni: int) -> list[FdbEntry]:
        """A copy of all entries."""

    def counters(self, vni: int | None) -> Mapping[str, Counters]:
        """By underlay address, "local" and "other"; None: what reached no segment."""

    def set_paths(self, ceilings: Mapping[Remote, int], now: float) -> None:
        """All remotes, and the MTU of the link or route to each: probe these paths."""

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        """Stations of a segment that are asked in the place of their VTEPs; None: none."""

    def paths(self) -> Mapping[str, PathState]:
        """Underlay address -> what is known of the path to it."""

    def ping(self, remote: Remote, size: int, flow: int, now: float) -> bytes:
        """Send a probe whose outer IP packet has `size` bytes; its nonce, for `echo`."""

    def echo(self, nonce: bytes) -> float | None:
        """Seconds until the probe of `ping` was acknowledged; None while it is not."""

    def announce_with(self, key: bytes | None, epoch: float) -> None:
        """Sign announcements with a key, and believe no others; None: no key.  `epoch` is
        the wall clock less the monotonic one, in seconds."""

    def set_announcing(self, vni: int, on: bool, now: float) -> None:
        """Tell the remotes of a segment our stations, and believe what they tell."""

    def add_station(self, vni: int, mac: bytes, addresses: tuple[bytes, ...], now: float) -> None:
        """Announce a station.  KeyError where the segment does not announce, ValueError
        beyond the bound."""

    def del_station(self, vni: int, mac: bytes, now: float) -> bool:
        """Announce a station no more; False if it was not.  KeyError as above."""

    def stations(self, vni: int) -> list[StationState]:
        """What is announced in a segment, by us and by others."""

    def leave(self, now: float) -> None:
        """Tell the remotes that our stations are gone: this node ends."""

    def peers_up(self) -> Mapping[str, bool]:
        """Underlay address -> heard since the last error that named it."""

    # -- trouble on purpose (vxlan/fault.py) ---------------------------------------

    def fault_add(self, fault: Fault, now: float) -> int:
        """Inject a fault from now on; its number.  Raises FaultRefused."""

    def fault_clear(self, number: int | None) -> int:
        """End one fault, or all; how many."""

    def faults(self) -> list[FaultState]:
        """The faults in force."""

    # -- asking -------------------------------------------------------------------

    def twin(self, macs: Collection[bytes], source: str = "") -> Vtep:
        """A VTEP that would decide now as this engine about a packet of the stations
        `macs`, which came from the underlay address `source` if it came from there.
        Whatever is done with it changes nothing here."""

    # -- the data path without input and output -----------------------------------

    def encap(self, vni: int, frames: Sequence[bytes], now: float) -> list[Datagram]:
        """Frames from the TAP of `vni` -> datagrams for the underlay."""

    def decap(self, datagrams: Sequence[Datagram], now: float) -> list[Frame]:
        """Datagrams from the underlay -> frames for TAPs."""

    def tick(self, now: float) -> None:
        """Let time pass: ageing, and probes."""

    def take_output(self) -> tuple[list[Datagram], list[Frame]]:
        """What is to be sent besides what `encap` and `decap` returned: probes, their
        acknowledgements and announcements to the underlay; packet-too-big answers and
        those of neighbours to TAPs."""

    def drain_events(self) -> list[Event]:
        """Take out what happened since the last call."""

    # -- what is seen ------------------------------------------------------------------

    def capture(self, wanted: Sight | None) -> None:
        """Record the packets that are wanted, from now on; None: no more.

        What was recorded for another `wanted` and not taken is gone.
        """

    def take_captured(self, held: float = 0.0) -> Batch:
        """Take out what was recorded, in the order in which it was seen; a bounded amount.

        What is younger than `held` seconds may be left: threads write down what they see
        a moment later.
        """

    # -- input and output ------------------------------------------------------------

    def start(self, underlay: Underlay, on_events: OnEvents) -> None:
        """Begin to move packets, in the running event loop."""

    def attach(self, vni: int, tap: Tap) -> None:
        """Connect a TAP to a segment; a TAP attached before is let go."""

    def detach(self, vni: int) -> None:
        """Let go of a segment's TAP."""

    def stop(self) -> None:
        """End within a second; afterwards no descriptor is touched."""


def choose_engine(
    wanted: Literal["auto", "python", "fastpath"],
    local: Iterable[str],
    port: int,
    queues: int = 1,
    *,
    faults: bool = False,
) -> Engine:
    """An engine for a VTEP with the underlay addresses `local` and UDP port `port`.

    "auto" takes the fastpath wherever it was built, but the Python engine where faults
    may be injected; that has one queue.
    Raises EngineUnavailable.
    """
    from vxlan.pyengine import PythonEngine

    if wanted == "python":
        return PythonEngine(local, port, why="asked for")
    if wanted == "auto" and faults:
        return PythonEngine(local, port, why="faults may be injected, which the fastpath cannot")
    fast = _fast_engine()
    if fast is None and wanted == "fastpath":
        raise EngineUnavailable(
            "engine fastpath: the extension vxlan._fastpath is not built here: "
            "install with a C compiler, or use --engine python"
        )
    if fast is None:
        return PythonEngine(local, port, why="the extension vxlan._fastpath is not built here")
    why = "asked for" if wanted == "fastpath" else "built here"
    return fast(local, port, why=why, queues=queues)


def queues_for(cores: int) -> int:
    """How many queues share the load where nothing else is configured.

    A queue has a worker, which is two threads when it is busy, and the cores have
    others to serve besides.
    """
    return max(1, min(MAX_QUEUES, cores // 4))


def _fast_engine() -> Callable[..., Engine] | None:
    """The compiled engine, where it was built."""
    try:
        module = importlib.import_module("vxlan.fastengine")
    except ImportError:
        return None
    return getattr(module, "FastEngine", None)
