"""Why packets are discarded, and where that is counted.

Theory of operation
===================

A packet that enters the VTEP either leaves it or is discarded for exactly one
`Drop` reason.  Every discard goes through one call, `Tally.drop`, so a packet
can neither vanish without a reason nor be counted twice.

    Tally            one for each segment, one for the VTEP itself (packets
      |              that never reached a segment: bad header, unknown VNI)
      +- by_remote   {underlay address: Counters}, bounded
      +- local       Counters for what has no remote: a frame from the TAP that
      |              was discarded before a remote was chosen
      +- other       Counters for remotes beyond the bound (a forger can send
                     from any number of addresses; memory must not follow)

Totals are not stored: they are the sum of the parts, so they always agree with
them.  `Drop` and `Count` are also the indices of the counter arrays in the
compiled engine; tests/test_fastpath.py holds the two sides together.

Names are those of the kernel's `enum skb_drop_reason` where it has the same
reason (include/net/dropreason-core.h), so that what `pyvxlan show` prints can
be compared with what `dropwatch` or `perf trace` print of the kernel driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum


class Drop(IntEnum):
    """One reason for each discarded packet; the value is a counter index."""

    # decap side: underlay -> TAP
    HDR_TRUNC = 0
    VXLAN_INVALID_HDR = 1
    VXLAN_RESERVED_BITS = 2
    VXLAN_VNI_NOT_FOUND = 3
    PKT_TOO_SMALL = 4
    OWN_ADDRESS = 5
    UNKNOWN_REMOTE = 6
    MAC_INVALID_SOURCE = 7
    LOCAL_MAC = 8
    VXLAN_ENTRY_EXISTS = 9
    IP_TUNNEL_ECN = 10
    VLAN_POLICY = 11
    SOCKET_RCVBUFF = 12
    # encap side: TAP -> underlay
    NO_TX_TARGET = 13
    PKT_TOO_BIG = 14
    FULL_RING = 15
    # what the kernel answered when we handed a packet over
    UNDERLAY_BUSY = 16
    UNDERLAY_UNREACHABLE = 17
    UNDERLAY_REFUSED = 18
    TAP_BUSY = 19
    TAP_DOWN = 20
    TAP_INVALID = 21
    # on purpose
    FAULT_INJECTED = 22
    # what other VTEPs say of their stations
    ANNOUNCEMENT_REFUSED = 23

    @property
    def meaning(self) -> str:
        """What happened, in one clause."""
        return _TEXT[self][0]

    @property
    def remedy(self) -> str:
        """What an operator does about it, in one clause."""
        return _TEXT[self][1]


_TEXT: dict[Drop, tuple[str, str]] = {
    Drop.HDR_TRUNC: (
        "datagram shorter than the 8-byte VXLAN header",
        "something else sends to this UDP port: look at it with a capture",
    ),
    Drop.VXLAN_INVALID_HDR: (
        "the I flag of the VXLAN header is clear",
        "the sender does not speak VXLAN (RFC 7348) on this port",
    ),
    Drop.VXLAN_RESERVED_BITS: (
        "reserved header bits are set and reserved_bits is strict",
        'the sender uses an extension (GBP, GPE); reserved_bits = "ignore" accepts it',
    ),
    Drop.VXLAN_VNI_NOT_FOUND: (
        "no segment here has this VNI",
        "add the segment here, or take this host out of the sender's remotes",
    ),
    Drop.PKT_TOO_SMALL: (
        "inner frame shorter than an Ethernet header",
        "the sender truncates: look at it with a capture",
    ),
    Drop.OWN_ADDRESS: (
        "datagram came from one of our own addresses",
        "a loop or a forged source: check the underlay's routing",
    ),
    Drop.UNKNOWN_REMOTE: (
        "datagram came from an address that is no remote of the segment",
        'add it with `pyvxlan remote add`, or set accept = "any"',
    ),
    Drop.MAC_INVALID_SOURCE: (
        "inner source MAC is zero or a group address",
        "the station that sent the frame is broken or forging",
    ),
    Drop.LOCAL_MAC: (
        "inner source MAC is our own",
        "a loop: two paths join this segment, or a MAC is used twice",
    ),
    Drop.VXLAN_ENTRY_EXISTS: (
        "inner source MAC is bound to another remote by a static entry",
        "`pyvxlan fdb why MAC` shows the entry; replace or delete it if the station moved",
    ),
    Drop.IP_TUNNEL_ECN: (
        "outer header says Congestion Experienced, inner packet is not ECN-capable",
        "congestion in the underlay (RFC 6040, section 4.2): nothing to mend here",
    ),
    Drop.VLAN_POLICY: (
        "frame carries a VLAN tag and vlan is drop",
        'set vlan = "carry" if tags shall cross the overlay',
    ),
    Drop.SOCKET_RCVBUFF: (
        "the underlay socket's receive buffer was full",
        "raise net.core.rmem_max, or use the fastpath engine",
    ),
    Drop.NO_TX_TARGET: (
        "no entry for the destination and the flood list is empty",
        "add a remote with `pyvxlan remote add`",
    ),
    Drop.PKT_TOO_BIG: (
        "packet does not fit the overlay MTU",
        "lower the MTU of the station that sent it to the overlay MTU",
    ),
    Drop.FULL_RING: (
        "the TAP's queue was full before we could read it",
        "raise the TAP's txqueuelen, or use the fastpath engine",
    ),
    Drop.UNDERLAY_BUSY: (
        "the underlay took no more packets (EAGAIN, ENOBUFS)",
        "the host sends faster than its link: raise net.core.wmem_max or slow down",
    ),
    Drop.UNDERLAY_UNREACHABLE: (
        "the underlay has no way to the remote",
        "check the route to the remote and that its VTEP runs",
    ),
    Drop.UNDERLAY_REFUSED: (
        "the kernel refused to send (EPERM, EACCES, EINVAL)",
        "a local firewall rule or a blackhole route: check the output chain",
    ),
    Drop.TAP_BUSY: (
        "the TAP took no more frames (EAGAIN, ENOBUFS)",
        "the host cannot take in what it receives: check its load",
    ),
    Drop.TAP_DOWN: (
        "the TAP is down or gone",
        "`ip link set TAP up`; a deleted TAP is made anew by itself",
    ),
    Drop.TAP_INVALID: (
        "the kernel refused the frame as invalid (EINVAL)",
        "the inner packet is malformed: look at it with a capture",
    ),
    Drop.FAULT_INJECTED: (
        "a fault that was injected on purpose discarded it",
        "`pyvxlan fault list` shows it, `pyvxlan fault clear` ends it",
    ),
    Drop.ANNOUNCEMENT_REFUSED: (
        "an announcement of stations that is not wanted, not authentic or not fresh",
        "announce = true and the same key_file on both hosts, and clocks that agree",
    ),
}


class Count(IntEnum):
    """What is counted besides discards; the value is a counter index.

    ENCAP counts the datagrams made, a copy for each remote, and DECAP the frames
    taken out; the bytes are those of the inner frames.  A packet that the kernel
    then refuses is counted again as a discard of the kind UNDERLAY_ or TAP_.
    """

    ENCAP_PACKETS = 0
    ENCAP_BYTES = 1
    DECAP_PACKETS = 2
    DECAP_BYTES = 3
    FLOODED = 4
    RESERVED_BITS = 5
    LEARNED = 6
    MOVED = 7
    CONFLICT = 8
    AGED = 9
    EVICTED = 10
    CLAMPED = 11
    FRAGMENTED = 12
    TOO_BIG_ANSWERED = 13
    PROBES = 14
    ANNOUNCEMENTS = 15
    SUPPRESSED = 16


class Counters:
    """`counts` indexed by `Count` and `drops` indexed by `Drop`; they only grow."""

    __slots__ = ("counts", "drops")

    def __init__(self) -> None:
        self.counts = [0] * len(Count)
        self.drops = [0] * len(Drop)

    def add(self, other: Counters) -> None:
        """Add every counter of `other` to this one."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.drops = [a + b for a, b in zip(self.drops, other.drops, strict=True)]

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Names as in `Count` (lower case) and `Drop`; discards only where not zero."""
        return {
            "counts": {which.name.lower(): self.counts[which] for which in Count},
            "drops": {why.name: self.drops[why] for why in Drop if self.drops[why]},
        }


class Tally:
    """The counters of one segment (or of the VTEP itself), by remote.

    `limit` bounds the number of remotes counted apart; the rest share `other`.
    """

    __slots__ = ("by_remote", "limit", "local", "other")

    def __init__(self, limit: int = 4096) -> None:
        self.by_remote: dict[str, Counters] = {}
        self.local = Counters()
        self.other = Counters()
        self.limit = limit

    def of(self, address: str | None) -> Counters:
        """The counters of one underlay address; of the local side for None."""
        if address is None:
            return self.local
        counters = self.by_remote.get(address)
        if counters is None:
            if len(self.by_remote) >= self.limit:
                return self.other
            counters = self.by_remote[address] = Counters()
        return counters

    def reserve(self, address: str) -> None:
        """Count this address apart even where strangers have used up the bound."""
        self.by_remote.setdefault(address, Counters())

    def drop(self, reason: Drop, address: str | None = None, packets: int = 1) -> None:
        """Count a discard.  The only way in which a packet may end without leaving."""
        self.of(address).drops[reason] += packets

    def count(self, which: Count, address: str | None = None, amount: int = 1) -> None:
        """Count something that is no discard."""
        self.of(address).counts[which] += amount

    def total(self) -> Counters:
        """The sum over all remotes and the local side."""
        total = Counters()
        for part in self:
            total.add(part)
        return total

    def __iter__(self) -> Iterator[Counters]:
        yield self.local
        yield from self.by_remote.values()
        yield self.other
