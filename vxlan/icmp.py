"""ICMP messages as whole IP packets (RFC 792, RFC 4443): what this host says for itself."""

from __future__ import annotations

from vxlan.wire import IPPROTO_ICMP, IPPROTO_ICMPV6, IPV4_HLEN, checksum

ICMP_HLEN = 8
TTL = 64


def icmpv4(source: bytes, target: bytes, message: bytes, *, tos: int = 0, field: int = 0) -> bytes:
    """An IPv4 packet with a message whose checksum, bytes 2 and 3, is made here.

    Addresses have 4 bytes; `field` is that of flags and fragment offset.
    """
    total = (IPV4_HLEN + len(message)).to_bytes(2, "big")
    start = bytes((0x45, tos)) + total + b"\0\0" + field.to_bytes(2, "big")
    start += bytes((TTL, IPPROTO_ICMP))
    check = checksum(start + b"\0\0" + source + target).to_bytes(2, "big")
    return start + check + source + target + _summed(message)


def icmpv6(source: bytes, target: bytes, message: bytes, *, hops: int = TTL) -> bytes:
    """An IPv6 packet with a message whose checksum, bytes 2 and 3, is made here.

    Addresses have 16 bytes; the checksum covers them too (RFC 4443, section 2.3).
    """
    pseudo = source + target + len(message).to_bytes(4, "big") + bytes((0, 0, 0, IPPROTO_ICMPV6))
    start = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes((IPPROTO_ICMPV6, hops))
    return start + source + target + _summed(message, pseudo)


def _summed(message: bytes, pseudo: bytes = b"") -> bytes:
    return message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
