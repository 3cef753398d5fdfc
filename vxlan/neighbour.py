"""Who has this address: questions of ARP and neighbour discovery, answered on the spot.

Theory of operation
===================

A station that wants another's MAC asks everybody, and in an overlay everybody is far
away: each question is a datagram for every remote.  Where the other VTEP has announced
its stations (vxlan/announce.py), the answer is known here, and the question goes no further:

    ARP request, broadcast (RFC 826)                 -> ARP reply
    neighbour solicitation, multicast (RFC 4861)     -> neighbour advertisement

The answer comes from the MAC of the station itself, as if it had been near.  Left to
travel as ever are questions

    - whose answer is not known here,
    - to one station: the asker knows the MAC and wants to hear whether it is still there,
    - that ask whether an address is in use (RFC 5227, RFC 4862), or tell that it is: no
      table may answer these,
    - in a frame with a VLAN tag: an address means something in one VLAN only.
"""

from __future__ import annotations

from typing import NamedTuple

from vxlan.icmp import icmpv6
from vxlan.wire import BROADCAST, ETH_HLEN, ETH_P_ARP, ETH_P_IPV6, IPPROTO_ICMPV6, IPV6_HLEN

ARP_HLEN = 28
_ASKS = b"\x08\x06\0\1\x08\0\6\4\0\1"
_ANSWERS = b"\0\1\x08\0\6\4\0\2"
_SOLICIT, _ADVERTISE = 135, 136
_SOLICITED, _OVERRIDE = 0x40, 0x20
_TARGET_MAC = b"\2\1"
_HOPS = 255
_ICMP = ETH_HLEN + IPV6_HLEN
_TARGET = _ICMP + 8


class Question(NamedTuple):
    """Who has `target`?  Asked by `address` (both 4 or both 16 bytes) at `mac`."""

    target: bytes
    address: bytes
    mac: bytes


def question_in(frame: bytes) -> Question | None:
    """What a frame asks of everybody; None where it asks nothing that a table may answer."""
    asked = _arp(frame) if frame[12:14] == b"\x08\x06" else _solicitation(frame)
    if asked is None or not any(asked.address) or asked.address == asked.target:
        return None
    return asked


def _arp(frame: bytes) -> Question | None:
    if len(frame) < ETH_HLEN + ARP_HLEN or frame[0:6] != BROADCAST or frame[12:22] != _ASKS:
        return None
    if frame[22:28] != frame[6:12]:
        return None
    return Question(frame[38:42], frame[28:32], frame[6:12])


def _solicitation(frame: bytes) -> Question | None:
    if len(frame) < _TARGET + 16 or frame[0:2] != b"\x33\x33" or frame[12:14] != b"\x86\xdd":
        return None
    is_one = frame[14] >> 4 == 6 and frame[20] == IPPROTO_ICMPV6 and frame[21] == _HOPS
    if not is_one or frame[_ICMP : _ICMP + 2] != bytes((_SOLICIT, 0)):
        return None
    return Question(frame[_TARGET : _TARGET + 16], frame[22:38], frame[6:12])


def answer_to(asked: Question, mac: bytes) -> bytes:
    """The frame in which the station `mac` would say that it has the address."""
    if len(asked.target) == 4:
        body = _ANSWERS + mac + asked.target + asked.mac + asked.address
        return asked.mac + mac + ETH_P_ARP.to_bytes(2, "big") + body
    message = (
        bytes((_ADVERTISE, 0, 0, 0, _SOLICITED | _OVERRIDE, 0, 0, 0))
        + asked.target
        + _TARGET_MAC
        + mac
    )
    packet = icmpv6(asked.target, asked.address, message, hops=_HOPS)
    return asked.mac + mac + ETH_P_IPV6.to_bytes(2, "big") + packet
