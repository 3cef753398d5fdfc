"""An underlay with faults in it: the interface of the port it wraps.

Theory of operation
===================

    engine <---> FaultInjector <---> Underlay        while there are faults
    engine <-----------------------> Underlay        otherwise: nothing is in between

What becomes of a datagram is decided in vxlan/faults.py; here it is sent, received or
kept from either.  What was held back comes out of `release`, which the engine calls
when `Faults` said so.

A datagram with a forged outer source leaves by a socket that is bound to an address
that is not ours (IP_TRANSPARENT, which takes CAP_NET_ADMIN).  How far it comes is up to
the underlay: a switch carries it, a router with a reverse path filter does not
(RFC 2827).  Such a socket receives nothing.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Sequence
from socket import socket
from typing import Protocol

from vxlan.drop import Drop
from vxlan.engine import Datagram, FaultRefused
from vxlan.faults import Claim, Faults, Parcel
from vxlan.mtu import family_of
from vxlan.patherror import PathError
from vxlan.udpsock import SocketOptions, open_sender
from vxlan.underlay_errno import reason_of

MAX_FORGERS = 32
"""Sockets with a source that is not ours."""

_TRIES = 64
"""How many reads in a row may come to nothing; what then waits is read the next time round."""

Refused = list[tuple[Datagram, Drop]]


class UnderlayPort(Protocol):
    """What an engine needs of an underlay while packets move."""

    def send_all(self, datagrams: Sequence[Datagram]) -> Refused:
        """Hand datagrams to the kernel, in order; those it refused, and why."""

    def receive(self, sock: socket) -> list[Datagram]:
        """Datagrams from one of the receivers; an empty list when none waits."""

    def errors(self) -> list[PathError]:
        """What the path to remotes reported since the last call."""

    def take_rcvbuf_drops(self) -> int:
        """Datagrams the kernel discarded since the last call."""


class FaultInjector:
    """A port that behaves as `faults` say.  `close` closes what it opened, not the port.

    passed  what was given to the kernel the last time, as it was then
    """

    def __init__(self, port: UnderlayPort, faults: Faults) -> None:
        self.port = port
        self._faults = faults
        self.passed: list[Datagram] = []
        self._forgers: dict[str, socket] = {}

    # -- the interface of the port -------------------------------------------------------

    def send_all(self, datagrams: Sequence[Datagram]) -> Refused:
        return self._send(self._faults.pass_on("encap", datagrams, time.monotonic()))

    def receive(self, sock: socket) -> list[Datagram]:
        """What is lost or late makes room for the next, but not for ever."""
        for _ in range(_TRIES):
            arrived = self.port.receive(sock)
            if not arrived:
                break
            parcels = self._faults.pass_on("decap", arrived, time.monotonic())
            if parcels:
                return [parcel.datagram for parcel in parcels]
        return []

    def errors(self) -> list[PathError]:
        claims, self._faults.claims = self._faults.claims, []
        found = [*self.port.errors(), *map(_as_from_a_router, claims)]
        return [
            error
            for error in found
            if error.origin == "local" or not self._faults.filters(error.address)
        ]

    def take_rcvbuf_drops(self) -> int:
        return self.port.take_rcvbuf_drops()

    # -- what the port has not -------------------------------------------------------------

    def release(self, now: float) -> tuple[list[Datagram], Refused]:
        """Send what has been held back long enough; what arrives only now, and what was refused."""
        out, arrived = self._faults.due(now)
        return [parcel.datagram for parcel in arrived], self._send(out)

    def open_forger(self, source: str) -> None:
        """Be ready to send as `source`.  Raises FaultRefused where this host cannot."""
        if source in self._forgers:
            return
        if len(self._forgers) >= MAX_FORGERS:
            raise FaultRefused(f"{MAX_FORGERS} sources are forged already: clear some")
        try:
            self._forgers[source] = open_sender(source, 0, SocketOptions(transparent=True))
        except OSError as error:
            raise FaultRefused(_no_forger(source, error)) from None

    def close(self) -> None:
        """Close the sockets of forged sources.  May be called again."""
        while self._forgers:
            self._forgers.popitem()[1].close()

    # -- sending ---------------------------------------------------------------------------

    def _send(self, parcels: Iterable[Parcel]) -> Refused:
        parcels = list(parcels)
        self.passed = [parcel.datagram for parcel in parcels]
        refused: Refused = []
        straight: list[Datagram] = []
        for parcel in parcels:
            if parcel.source:
                why = self._forge(parcel)
                refused += [(parcel.datagram, why)] if why is not None else []
            else:
                straight.append(parcel.datagram)
        return refused + self.port.send_all(straight)

    def _forge(self, parcel: Parcel) -> Drop | None:
        remote = parcel.datagram.remote
        sock = self._forgers.get(parcel.source)
        if sock is None or family_of(parcel.source) != family_of(remote.address):
            return Drop.UNDERLAY_UNREACHABLE
        try:
            sock.sendto(parcel.datagram.payload, remote)
        except OSError as error:
            return reason_of(error)
        return None


def _no_forger(source: str, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES, errno.EADDRNOTAVAIL):
        return f"source {source} cannot be forged from here: it takes CAP_NET_ADMIN"
    return f"source {source} cannot be forged from here: {error.strerror or error}"


def _as_from_a_router(claim: Claim) -> PathError:
    """What the error queue would have: RFC 1191, or RFC 4443, section 3.2."""
    six = family_of(claim.remote.address) == 6
    return PathError(
        address=claim.remote.address,
        port=claim.remote.port,
        errno=errno.EMSGSIZE,
        mtu=claim.mtu,
        origin="icmp6" if six else "icmp",
        type=2 if six else 3,
        code=0 if six else 4,
        payload=claim.payload,
        detail=f"an injected fault says: packet too big, it takes {claim.mtu} bytes",
    )
