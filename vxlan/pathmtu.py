"""The path MTU to one remote, found by probing (RFC 8899, DPLPMTUD).

Theory of operation
===================

The network is not asked what it carries; it is tried.  A probe is a datagram of a
chosen size that the other VTEP acknowledges (vxlan/probe.py).  Sizes here are
those of the whole outer IP packet.

    BASE       nothing is confirmed yet: the link's MTU is believed
    SEARCHING  something is confirmed, and something larger is not
    COMPLETE   the largest size that passes is known; it is confirmed now and then
    ERROR      not even the smallest size passes: the remote is silent

    low   the largest size that was acknowledged; 0 = none
    high  the smallest size that was lost, or one more than the ceiling

    target acknowledged   low = target;  low and high meet: COMPLETE, else ask between
    target lost 3 times   high = target; nothing confirmed: ask the floor
    floor lost 3 times    ERROR, or BASE for good: this peer acknowledges nothing

The MTU follows: whenever it is no longer between low and high, it becomes low.
In COMPLETE the size that is known is asked again every few seconds; when it is
lost, a black hole has opened, and low is 0 again.

The search begins at the top, not at the bottom as the RFC has it: on most paths
the link's MTU is the answer, and one probe confirms it.

A size that was lost while nothing passed at all may have met a peer that was down.
So when a search ends just below such a size, it is asked once more; and a peer that
never acknowledged anything and now speaks is asked anew.

A peer that never acknowledged anything is no pyvxlan.  For it the MTU is that of
the link, and ICMP is heeded, but not below the floor, and for ten minutes only.
While it is not yet known which kind a peer is, its probes are under way and ICMP waits.
A peer that acknowledges is not judged by ICMP, which anyone can forge: a claim
only starts a probe at once and says which size to try next.  Only a claim that
quotes a probe of ours, nonce and all, counts as the loss of that probe.

The floor leaves 1280 bytes inside, which IPv6 demands of every link.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vxlan.mtu import MIN_MTU_IPV6, path_mtu_needed

MAX_PROBES = 3
PROBE_TIMER = 0.24
"""Seconds to wait for an acknowledgement: just less than an engine's tick, so that a size
is given up after three of them.  An acknowledgement that comes later counts all the same."""
CONFIRM_TIMER = 5.0
"""Seconds between two confirmations of a known size: how long a black hole can last."""
RAISE_TIMER = 30.0
"""Seconds after which a size below the ceiling is questioned (RFC 8899: 600)."""
CLAIM_TIMER = 600.0
"""Seconds for which an ICMP claim about a peer that acknowledges nothing is heeded."""


class Phase(StrEnum):
    """The states of RFC 8899, section 5.2."""

    BASE = "base"
    SEARCHING = "searching"
    COMPLETE = "complete"
    ERROR = "error"


class How(StrEnum):
    """How the present MTU was found."""

    LINK = "link"
    PROBE = "probe"
    ECHO = "echo"
    ICMP = "icmp"


@dataclass(slots=True)
class PathMtu:
    """The state of one path.  Sizes are bytes of outer IP packets, times monotonic seconds.

    mtu       what may be sent now
    when      since when
    answers   whether the peer acknowledges probes; None until it is known
    """

    ceiling: int
    family: int
    mtu: int = 0
    how: How = How.LINK
    when: float = 0.0
    phase: Phase = Phase.BASE
    answers: bool | None = None
    _low: int = 0
    _high: int = 0
    _target: int = 0
    _tries: int = 0
    _hint: int = 0
    _doubt: bool = False
    _due: float = 0.0
    _raise_at: float = 0.0

    def __post_init__(self) -> None:
        self.mtu = self.mtu or self.ceiling
        self._low, self._high = 0, self.ceiling + 1
        self._ask(self.ceiling, self._due)

    @property
    def floor(self) -> int:
        """The size below which no ICMP is believed and no probe is sent."""
        return min(self.ceiling, path_mtu_needed(MIN_MTU_IPV6, self.family))

    # -- what is asked of the path -----------------------------------------------------

    def poll(self, now: float) -> int | None:
        """The size of the probe that is to be sent now; None if there is none."""
        if now < self._due:
            return None
        if self.how is How.ICMP and now - self.when >= CLAIM_TIMER:
            self._settle(self.ceiling, How.LINK, now)
        if self._tries >= MAX_PROBES:
            self._lost(now)
            if now < self._due:
                return None
        if self.phase is Phase.COMPLETE and self.mtu < self.ceiling and now >= self._raise_at:
            self._look_up(now)
        self._tries += 1
        self._due = now + PROBE_TIMER
        return self._target

    def _ask(self, size: int, when: float) -> None:
        self._target, self._tries, self._due = size, 0, when

    def _look_up(self, now: float) -> None:
        """Perhaps the path has grown: try the ceiling, then what lies between."""
        self.phase = Phase.SEARCHING
        self._high = self.ceiling + 1
        self._ask(self.ceiling, now)

    # -- what the path says ------------------------------------------------------------

    def acknowledged(self, size: int, now: float, how: How = How.PROBE) -> None:
        """A probe of this size arrived at the other end, one of ours or a person's.

        A path that carries more than the link or the route allows is no use to us.
        """
        self.answers = True
        size = min(size, self.ceiling)
        self._low = max(self._low, size)
        self._high = max(self._high, size + 1)
        if not self._low <= self.mtu < self._high or self.how is not how:
            self._settle(self._low, how, now)
        if size >= self._target:
            self._next(now)

    def quoted(self, size: int, claim: int, now: float) -> None:
        """ICMP quotes a probe of ours of this size, and claims that only `claim` fits."""
        if size == self._target:
            self._hint = claim
            if claim >= max(self._low, self.floor):
                self._high = min(self._high, claim + 1)
            self._tries = MAX_PROBES
            self._due = now

    def claimed(self, claim: int, now: float) -> None:
        """ICMP quotes a datagram of ours, and claims that only `claim` fits."""
        if claim >= self.mtu or claim < self.floor:
            return
        if self.answers is False:
            self._settle(claim, How.ICMP, now)
            self._due = min(self._due, now + CLAIM_TIMER)
        elif self.answers and self.phase is Phase.COMPLETE and self._tries == 0:
            self._hint = claim
            self._ask(self.mtu, now)

    def heard(self, now: float) -> None:
        """The peer speaks: it may acknowledge what it did not before."""
        if self.answers is False:
            self.answers = None
            self._low, self._high = 0, self.ceiling + 1
            self._ask(self.ceiling, now)

    def set_ceiling(self, ceiling: int, now: float) -> None:
        """The link or the route to the remote has another MTU now."""
        if ceiling == self.ceiling:
            return
        self.ceiling = ceiling
        if not self.answers or ceiling < self.mtu:
            self._settle(ceiling, How.LINK, now)
        self._low = 0
        self._look_up(now)

    # -- the search --------------------------------------------------------------------

    def _lost(self, now: float) -> None:
        """The target was lost as often as we try."""
        self._high = min(self._high, self._target)
        if self._target <= self._low:
            self._low = 0
        if self._low:
            self._next(now)
            return
        self._doubt = not self._hint
        if self._target > self.floor:
            self.phase = Phase.SEARCHING if self.answers else Phase.BASE
            self._ask(self.floor, now)
        else:
            self._silent(now)

    def _silent(self, now: float) -> None:
        """Not even the floor passes.  The MTU stays: there is nobody to lose packets to."""
        self.answers = bool(self.answers)
        self.phase = Phase.ERROR if self.answers else Phase.BASE
        self._high = self.ceiling + 1
        self._hint = self.mtu
        wait = CONFIRM_TIMER if self.answers else CLAIM_TIMER
        if self.how is How.ICMP:
            wait = min(wait, self.when + CLAIM_TIMER - now)
        self._ask(self.floor if self.answers else self.ceiling, now + wait)

    def _next(self, now: float) -> None:
        """Something is confirmed: ask between low and high, or be content."""
        hint, self._hint = self._hint, 0
        if self._high - self._low <= 1:
            self._complete_or_doubt(now)
            return
        self.phase = Phase.SEARCHING
        between = self._low < hint < self._high
        self._ask(hint if between else (self._low + self._high) // 2, now)

    def _complete_or_doubt(self, now: float) -> None:
        doubt, self._doubt = self._doubt, False
        if doubt and self._high <= self.ceiling:
            self._ask(self._high, now)
        else:
            self._complete(now)

    def _complete(self, now: float) -> None:
        if self.phase is not Phase.COMPLETE:
            self.phase = Phase.COMPLETE
            self._raise_at = now + RAISE_TIMER
        self._ask(self.mtu, now + CONFIRM_TIMER)

    def _settle(self, mtu: int, how: How, now: float) -> None:
        if mtu != self.mtu or how is not self.how:
            self.mtu, self.how, self.when = mtu, how, now
