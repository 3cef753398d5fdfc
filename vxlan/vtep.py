"""The VTEP as a state machine: frames in, datagrams out, and the other way round.

Theory of operation
===================

    container -> TAP -> encap(vni, frame, now)  -> [Datagram, ...] -> underlay
    container <- TAP <- decap(datagram, now)    <- underlay

A `Vtep` is one tunnel end point (RFC 7348): some underlay addresses, one UDP
port, any number of segments.  It holds no socket and reads no clock: the time
comes in as `now`, monotonic seconds, and what is to be sent comes out as values.
So every rule below can be tested without a network, and `pyvxlan explain` can
ask it what would happen to a packet.

Encap, in this order.  The first rule that refuses a frame names the reason:

    1  an Ethernet header is there                       PKT_TOO_SMALL
    2  the source MAC is that of one station             MAC_INVALID_SOURCE
    3  vlan = "drop": the frame has no tag               VLAN_POLICY
    -> a question that an announced station answers is answered here (vxlan/neighbour.py)
    4  somebody is to have it                            NO_TX_TARGET
    5  the packet fits, or can be made to (vxlan/fit.py)  PKT_TOO_BIG
    -> one datagram for each target: the segment's VXLAN header and the frame

Decap, in this order:

    1  the VXLAN header is whole, its I flag set         HDR_TRUNC, VXLAN_INVALID_HDR
    2  we have a segment of this VNI                     VXLAN_VNI_NOT_FOUND
    3  the sender is not ourselves                       OWN_ADDRESS
    4  the sender is a remote of the segment             UNKNOWN_REMOTE
    5  reserved_bits = "strict": they are zero           VXLAN_RESERVED_BITS
    6  an Ethernet header is inside                      PKT_TOO_SMALL
    7  vlan = "drop": the frame has no tag               VLAN_POLICY
    8  the source MAC is that of one station             MAC_INVALID_SOURCE
    9  and not one of our own devices                    LOCAL_MAC
    10 congestion marks can be passed on                 IP_TUNNEL_ECN
    11 no static entry puts the source elsewhere         VXLAN_ENTRY_EXISTS
    -> the source is learned, the frame goes to the segment's TAP

A frame that is refused teaches nothing: learning is the last step.  Rules 1 and
2 have no segment to be counted in, so the VTEP has counters of its own for them.

Besides, a VTEP sends on its own account: probes of the path to each remote and
their acknowledgements (`paths.output`, vxlan/probe.py), the stations that it announces
(`announcer.output`, vxlan/announce.py), and frames for the TAP: what it has to say of
packets that are too big, and of neighbours (`answers`).  They wait until somebody takes
them.  Probes and announcements of others have the I flag clear: rule 1 looks at them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from vxlan import fit
from vxlan.announce import SOURCE, Announcer, Change, is_announced
from vxlan.announcement import is_announcement
from vxlan.drop import Count, Drop, Tally
from vxlan.echo import Echoes
from vxlan.engine import Datagram, Frame, Policy
from vxlan.event import Event, EventKind, EventLog
from vxlan.fdb import FdbFull, Remote, State
from vxlan.paths import Paths
from vxlan.segment import Segment
from vxlan.wire import (
    DSTPORT,
    ECN_DECAP,
    ECN_MASK,
    ETH_HLEN,
    VXLAN_HLEN,
    ZERO_MAC,
    Inner,
    VxlanHeader,
    inspect,
    is_tagged,
    parse_vxlan,
    set_ecn,
)

DEFAULT_TTL = 64
MAX_PEERS = 4096
"""How many underlay addresses are remembered as up or down."""


class Vtep:
    """One tunnel end point with the underlay addresses `local` and a UDP port."""

    def __init__(self, local: Iterable[str], port: int = DSTPORT) -> None:
        addresses = tuple(local)
        self.local = frozenset(addresses)
        self.port = port
        self.segments: dict[int, Segment] = {}
        self.tally = Tally()
        self.log = EventLog()
        self.peers: dict[str, bool] = {}
        self.paths = Paths(self.log)
        self.announcer = Announcer(addresses, lambda vni: self.segments[vni].flood_list)
        self.answers: list[Frame] = []

    # -- segments ----------------------------------------------------------------------

    def add_segment(self, vni: int, policy: Policy) -> Segment:
        """Begin to serve a VNI.  ValueError if it is none, or is there already."""
        if vni in self.segments:
            raise ValueError(f"VNI {vni} is there already")
        segment = self.segments[vni] = Segment(vni, policy, self.port, self.log)
        return segment

    def remove_segment(self, vni: int) -> None:
        """Forget a VNI.  KeyError if it is not there."""
        self.announcer.close(vni, 0.0)
        del self.segments[vni]
        self.paths.set_echoes(vni, None, 0.0)

    def add_remote(self, vni: int, remote: Remote, now: float) -> bool:
        """Add to a flood list; False if it is there, or if it is ourselves.

        Were we our own remote, every flooded frame would come back and be flooded
        again by whatever is behind the TAP.
        """
        if remote.address in self.local:
            return False
        return self.segments[vni].add_remote(remote, now)

    # -- TAP -> underlay ---------------------------------------------------------------

    def encap(self, vni: int, frame: bytes, now: float) -> list[Datagram]:
        """What a frame from the TAP becomes: one datagram for each target, or nothing."""
        segment = self.segments[vni]
        refused = refuse_to_encap(segment, frame)
        if refused is not None:
            segment.tally.drop(refused)
            return []
        if self.announcer.answers(vni) and self._answer(segment, frame):
            return []
        targets = segment.targets(frame[0:6], now)
        if not targets:
            segment.tally.drop(Drop.NO_TX_TARGET)
            return []
        inner = inspect(frame)
        limit = fit.limit_of(segment, inner.l3, targets, self.paths.rooms)
        if len(frame) - inner.l3 > limit:
            return encap_too_big(segment, frame, targets, limit, self.answers, now)
        frame = fit.clamped(segment, frame, targets, self.paths.rooms)
        return replicate(segment, frame, inner, targets)

    def _answer(self, segment: Segment, frame: bytes) -> bool:
        """Whether a frame asked for a neighbour that is known here, and was answered."""
        answer = self.announcer.answer(segment.vni, frame)
        if answer is None:
            return False
        segment.tally.count(Count.SUPPRESSED)
        self.answers.append(Frame(segment.vni, answer))
        return True

    # -- underlay -> TAP ---------------------------------------------------------------

    def decap(self, datagram: Datagram, now: float) -> Frame | None:
        """What a datagram from the underlay becomes: a frame for a TAP, or nothing."""
        source = datagram.remote.address
        header = parse_vxlan(datagram.payload)
        segment = self.segments.get(header.vni) if header and header.valid else None
        if header is None or segment is None:
            self._take_without_segment(header, datagram, now)
            return None
        refused = self._refuse_sender(segment, source)
        if refused is not None:
            segment.tally.drop(refused, source)
            return None
        if not self.peers.get(source):
            self._set_peer(Remote(source, self.port), True, now, "")
        return self._decap_into(segment, header, datagram, now)

    def _take_without_segment(
        self, header: VxlanHeader | None, datagram: Datagram, now: float
    ) -> None:
        """What is for us and no segment of ours: a probe, an announcement, or nothing."""
        source = datagram.remote.address
        segment = next((one for one in self.segments.values() if one.knows(source)), None)
        if is_announcement(datagram.payload):
            self._take_announcement(segment, datagram, now)
        elif segment and self.paths.take(datagram, segment.remote_at(source), now):
            self.tally.count(Count.PROBES, source)
        else:
            self.tally.drop(_why_no_segment(header), source)

    def _take_announcement(self, segment: Segment | None, datagram: Datagram, now: float) -> None:
        source = datagram.remote.address
        remote = segment.remote_at(source) if segment else None
        changes = self.announcer.take(datagram, remote, now) if remote else None
        if changes is None:
            self.tally.drop(Drop.ANNOUNCEMENT_REFUSED, source)
        else:
            self.tally.count(Count.ANNOUNCEMENTS, source)
            self.follow(changes, now)

    def follow(self, changes: Iterable[Change], now: float) -> None:
        """Write the entries that announcements make."""
        for vni, mac, remote in changes:
            segment = self.segments[vni]
            entry = segment.fdb.get(mac)
            if remote is not None:
                to = (segment.remote_at(remote),)
                if not is_announced(entry, to):
                    with suppress(FdbFull):
                        segment.fdb.set(mac, to, State.EXTERN_LEARN, SOURCE, now)
            elif is_announced(entry):
                segment.fdb.remove(mac, now, state=State.EXTERN_LEARN)

    def _refuse_sender(self, segment: Segment, source: str) -> Drop | None:
        if source in self.local:
            return Drop.OWN_ADDRESS
        if not segment.admits(source):
            return Drop.UNKNOWN_REMOTE
        return None

    def _decap_into(
        self, segment: Segment, header: VxlanHeader, datagram: Datagram, now: float
    ) -> Frame | None:
        remote = segment.remote_at(datagram.remote.address)
        frame = datagram.payload[VXLAN_HLEN:]
        refused = _refuse_to_decap(segment, header, frame)
        if refused is None:
            frame, refused = _pass_on_congestion(frame, datagram.tos & ECN_MASK)
        if refused is None:
            refused = segment.learn(frame[6:12], remote, now)
        counters = segment.tally.of(remote.address)
        if refused is not None:
            counters.drops[refused] += 1
            return None
        counters.counts[Count.DECAP_PACKETS] += 1
        counters.counts[Count.DECAP_BYTES] += len(frame)
        if header.reserved:
            counters.counts[Count.RESERVED_BITS] += 1
        if frame[0:6] == segment.asks_as and self._take_reply(frame, remote.address, now):
            return None
        frame = fit.clamped(segment, frame, (remote,), self.paths.rooms)
        return Frame(segment.vni, frame)

    # -- what the paths carry ----------------------------------------------------------

    def set_echoes(self, vni: int, echoes: Echoes | None, now: float) -> None:
        """Which stations of a segment are asked in the place of their VTEPs; None: none."""
        self.segments[vni].asks_as = echoes.mac if echoes else b""
        self.paths.set_echoes(vni, echoes, now)

    def _take_reply(self, frame: bytes, source: str, now: float) -> bool:
        """Whether a frame for this host was the answer to an echo of ours."""
        if not self.paths.replied(frame, source, now):
            return False
        self.tally.count(Count.PROBES, source)
        return True

    # -- what is no packet -------------------------------------------------------------

    def unreachable(self, remote: Remote, now: float, why: str) -> None:
        """The underlay says that a remote cannot be reached (ICMP, or the routing table)."""
        if self.peers.get(remote.address) is not False:
            self._set_peer(remote, False, now, why)

    def _set_peer(self, remote: Remote, up: bool, now: float, why: str) -> None:
        if remote.address in self.peers or len(self.peers) < MAX_PEERS:
            self.peers[remote.address] = up
            kind = EventKind.REMOTE_UP if up else EventKind.REMOTE_DOWN
            if up:
                self.paths.heard(remote.address, now)
            self.log.put(Event(kind, now, remote=remote, detail=why))

    def tick(self, now: float) -> None:
        """Let time pass.  To be called a few times a second."""
        for segment in self.segments.values():
            segment.fdb.age(now)
        self.follow(self.announcer.tick(now), now)
        self.paths.tick(now)


def refuse_to_encap(segment: Segment, frame: bytes) -> Drop | None:
    """Why a frame from the TAP goes no further, whatever it is for."""
    if len(frame) < ETH_HLEN:
        return Drop.PKT_TOO_SMALL
    if frame[6] & 1 or frame[6:12] == ZERO_MAC:
        return Drop.MAC_INVALID_SOURCE
    if segment.policy.vlan == "drop" and is_tagged(frame):
        return Drop.VLAN_POLICY
    return None


def _refuse_to_decap(segment: Segment, header: VxlanHeader, frame: bytes) -> Drop | None:
    if header.reserved and segment.policy.reserved_bits == "strict":
        return Drop.VXLAN_RESERVED_BITS
    if len(frame) < ETH_HLEN:
        return Drop.PKT_TOO_SMALL
    if segment.policy.vlan == "drop" and is_tagged(frame):
        return Drop.VLAN_POLICY
    if frame[6] & 1 or frame[6:12] == ZERO_MAC:
        return Drop.MAC_INVALID_SOURCE
    if frame[6:12] in segment.own_macs:
        return Drop.LOCAL_MAC
    return None


def _why_no_segment(header: VxlanHeader | None) -> Drop:
    if header is None:
        return Drop.HDR_TRUNC
    return Drop.VXLAN_VNI_NOT_FOUND if header.valid else Drop.VXLAN_INVALID_HDR


def replicate(
    segment: Segment, frame: bytes, inner: Inner, targets: tuple[Remote, ...]
) -> list[Datagram]:
    """Head-end replication: the same payload for each target."""
    payload = segment.header + frame
    tos, ttl = _outer_fields(segment.policy, inner)
    if targets is segment.flood_list:
        segment.tally.local.counts[Count.FLOODED] += 1
    for remote in targets:
        counts = segment.tally.of(remote.address).counts
        counts[Count.ENCAP_PACKETS] += 1
        counts[Count.ENCAP_BYTES] += len(frame)
    return [Datagram(remote, payload, inner.flow, tos, ttl) for remote in targets]


def encap_too_big(
    segment: Segment,
    frame: bytes,
    targets: tuple[Remote, ...],
    limit: int,
    answers: list[Frame],
    now: float,
) -> list[Datagram]:
    """What becomes of a frame that does not fit: fragments, or an answer (vxlan/fit.py)."""
    inner = inspect(frame)
    parts = fit.fragments(segment, frame, inner, limit)
    if not parts:
        answer = fit.refuse(segment, frame, inner, limit, now)
        if answer is not None:
            answers.append(Frame(segment.vni, answer))
    whole = (replicate(segment, part, inspect(part), targets) for part in parts)
    return [datagram for made in whole for datagram in made]


def _outer_fields(policy: Policy, inner: Inner) -> tuple[int, int]:
    """tos and ttl of the outer header: DSCP by policy, ECN always copied (RFC 6040, 4.1)."""
    dscp = inner.tos if policy.tos is None else policy.tos
    return dscp & ~ECN_MASK | inner.tos & ECN_MASK, policy.ttl or inner.ttl or DEFAULT_TTL


def _pass_on_congestion(frame: bytes, outer: int) -> tuple[bytes, Drop | None]:
    """The frame with the outer ECN field folded in, and why that cannot be done."""
    if not outer:
        return frame, None
    inner = inspect(frame)
    if not inner.version:
        return frame, None
    ecn = ECN_DECAP[inner.tos & ECN_MASK][outer]
    if ecn is None:
        return frame, Drop.IP_TUNNEL_ECN
    return (frame if ecn == inner.tos & ECN_MASK else set_ecn(frame, inner, ecn)), None
