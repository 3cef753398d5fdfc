"""Super-frames and the frames they are made of, for tests of the compiled engine."""

from __future__ import annotations

import struct
from typing import Any

from tests.frames import ether, ip_checksum, ipv4, ipv6, tagged
from tests.test_merge import ACK, SIZE, segment
from vxlan.offload import NEEDS_CSUM, VNET_HDR

TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
TCP, UDP = 6, 17
KINDS = ["tcp4", "tcp6", "udp4", "udp6"]
Frames = list[bytes]


def offsets(frame: bytes) -> tuple[int, int, int, bool]:
    """l3, l4, protocol of a well-formed frame of TCP or UDP, and whether it is IPv6."""
    l3 = 14
    while frame[l3 - 2 : l3] in (b"\x81\x00", b"\x88\xa8"):
        l3 += 4
    if frame[l3] >> 4 == 4:
        return l3, l3 + (frame[l3] & 15) * 4, frame[l3 + 9], False
    protocol, l4 = frame[l3 + 6], l3 + 40
    while protocol not in (TCP, UDP):
        protocol, l4 = frame[l4], l4 + (frame[l4 + 1] + 1) * 8
    return l3, l4, protocol, True


def pseudo_of(frame: bytes) -> int:
    """The sum of the pseudo-header, as a sender with offload leaves it in the field."""
    l3, l4, protocol, six = offsets(frame)
    addresses = frame[l3 + 8 : l3 + 40] if six else frame[l3 + 12 : l3 + 20]
    return ~ip_checksum(addresses + struct.pack("!IHH", len(frame) - l4, 0, protocol)) & 0xFFFF


def with_check(frame: bytes, check: int) -> bytes:
    _, l4, protocol, _ = offsets(frame)
    at = l4 + (16 if protocol == TCP else 6)
    return frame[:at] + check.to_bytes(2, "big") + frame[at + 2 :]


def completed(frame: bytes) -> bytes:
    """The frame with its transport checksum right."""
    l4 = offsets(frame)[1]
    opened = with_check(frame, pseudo_of(frame))
    return with_check(frame, ip_checksum(opened[l4:] + bytes((len(frame) - l4) % 2)) or 0xFFFF)


def numbered(frame: bytes, ident: int) -> bytes:
    """The frame with another IPv4 identification, where it has one."""
    l3, l4, _, six = offsets(frame)
    if six:
        return frame
    head = frame[l3 : l3 + 4] + struct.pack("!H", ident & 0xFFFF) + frame[l3 + 6 : l3 + 10]
    head += b"\0\0" + frame[l3 + 12 : l4]
    check = ip_checksum(head).to_bytes(2, "big")
    return frame[:l3] + head[:10] + check + head[12:] + frame[l4:]


def opened(frame: bytes, size: int, extra: int = 0) -> tuple[bytes, bytes]:
    """A super-frame as the kernel hands it over: virtio_net_hdr, and an open checksum."""
    _, l4, protocol, six = offsets(frame)
    hlen = (frame[l4 + 12] >> 4) * 4 if protocol == TCP else 8
    kind = UDP_L4 if protocol == UDP else TCPV6 if six else TCPV4
    check_at = 16 if protocol == TCP else 6
    header = VNET_HDR.pack(NEEDS_CSUM, kind | extra, l4 + hlen, size, l4, check_at)
    return header, with_check(frame, pseudo_of(frame))


def by_scapy(
    kind: str, tags: int, extra: bool, number: int, sequence: int, flags: str, payload: bytes
) -> bytes:
    """One whole packet.  extra: with IPv4 options or IPv6 extension headers."""
    from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN
    from scapy.layers.l2 import Dot1Q, Ether

    packet: Any = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    for tag in range(tags):
        packet /= Dot1Q(vlan=7 + tag)
    if kind.endswith("4"):
        options = [IPOption_Router_Alert(), IPOption_NOP()] if extra else []
        packet /= IP(
            src="10.42.0.1", dst="10.42.0.2", id=(0xFFFE + number) & 0xFFFF, flags="DF", tos=0x2E,
            options=options,
        )  # fmt: skip
    else:
        packet /= IPv6(src="2001:db8::1", dst="2001:db8::2", tc=0x2E, fl=0x12345)
        if extra:
            packet /= IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(10))]) / IPv6ExtHdrDestOpt()
    if kind.startswith("tcp"):
        stamps = [("NOP", None), ("NOP", None), ("Timestamp", (11, 22))]
        packet /= TCP(
            sport=4000, dport=80, seq=sequence & 0xFFFFFFFF, ack=9, flags=flags, options=stamps
        )
    else:
        packet /= UDP(sport=4000, dport=53)
    return bytes(packet / payload)


def datagram(payload: bytes, six: bool = False, sport: int = 1000, tos: int = 0) -> bytes:
    l4 = struct.pack("!HHHH", sport, 2000, 8 + len(payload), 0) + payload
    packet = ipv6(l4, tos=tos) if six else ipv4(l4, tos=tos)
    return completed(ether(ethertype=0x86DD if six else 0x0800, payload=packet))


def frames_of(kind: str, payloads: Frames, first: int = 0xFFFE, last: int = ACK) -> Frames:
    """A flow: sequence numbers and identifications follow; `last` are the last one's flags."""
    six, made, at = kind.endswith("6"), [], -SIZE
    for number, payload in enumerate(payloads):
        if kind.startswith("udp"):
            one = datagram(payload, six)
        else:
            flags = last if number == len(payloads) - 1 else ACK
            one = segment(at, payload, six=six, flags=flags)
            at += len(payload)
        made.append(numbered(one, first + number))
    return made


NEARLY = [opened(frames_of(kind, [bytes(90)])[0], 10)[1] for kind in KINDS]
NEARLY += [tagged(one) for one in NEARLY]
RIGHT = [one for kind in KINDS for one in frames_of(kind, [bytes(9)] * 2)]
