"""The compiled half of the dataplane, as far as Python sees it.

The functions have the names, the arguments and the results of those in
vxlan/wire.py and call the very inline functions that a worker calls, so a test of
one is a test of the other.  Nothing here imports vxlan: whether the numbers that
both sides hold agree is a test, too.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_FromStringAndSize
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

cimport atomic
cimport csum
cimport datapath
cimport fdb
cimport learn
cimport lifecycle
cimport mtu
cimport sight as sight_c
cimport tables
cimport wire
from linux cimport *
from sum cimport fold16, sum_bytes, sum_choose, sum_short

csum.crc32_init()
SUM = sum_choose().decode()

NUMBERS = {
    "DSTPORT": wire.DSTPORT,
    "ETH_HLEN": wire.ETH_HLEN,
    "VLAN_HLEN": wire.VLAN_HLEN,
    "IPV4_HLEN": wire.IPV4_HLEN,
    "IPV6_HLEN": wire.IPV6_HLEN,
    "UDP_HLEN": wire.UDP_HLEN,
    "VXLAN_HLEN": wire.VXLAN_HLEN,
    "I_FLAG": wire.I_FLAG,
    "MAX_VNI": wire.MAX_VNI,
    "ETH_P_IP": wire.ETH_P_IP,
    "ETH_P_ARP": wire.ETH_P_ARP,
    "ETH_P_IPV6": wire.ETH_P_IPV6,
    "ETH_P_8021Q": wire.ETH_P_8021Q,
    "ETH_P_8021AD": wire.ETH_P_8021AD,
    "MAX_TAGS": wire.MAX_TAGS,
    "IPPROTO_ICMP": wire.IPPROTO_ICMP,
    "IPPROTO_TCP": wire.IPPROTO_TCP,
    "IPPROTO_UDP": wire.IPPROTO_UDP,
    "IPPROTO_ICMPV6": wire.IPPROTO_ICMPV6,
}


cdef inline const uint8_t *start_of(bytes data) noexcept:
    return <const uint8_t *>PyBytes_AS_STRING(data)


def vxlan_header(vni: int) -> bytes:
    """The header of every datagram of this VNI.  Raises ValueError if it is none."""
    if not 0 <= vni <= wire.MAX_VNI:
        raise ValueError(f"{vni} is not a VNI: it must be 0 to {wire.MAX_VNI}")
    cdef uint8_t header[wire.VXLAN_HLEN]
    wire.vxlan_store(header, vni)
    return PyBytes_FromStringAndSize(<char *>header, wire.VXLAN_HLEN)


def parse_vxlan(bytes payload not None) -> tuple[int, int, int] | None:
    """Flags, VNI and reserved bits of a UDP payload; None where it is too short."""
    if PyBytes_GET_SIZE(payload) < wire.VXLAN_HLEN:
        return None
    cdef wire.VxlanHeader header = wire.vxlan_load(start_of(payload))
    return header.flags, header.vni, header.reserved


def ones_sum(bytes data not None) -> int:
    """The ones-complement sum of the 16-bit words (RFC 1071), 0 to 0xfffe."""
    return csum.ones_sum(start_of(data), PyBytes_GET_SIZE(data))


def checksum(bytes data not None, uint32_t start=0) -> int:
    """The Internet checksum of `data`, with `start` added to the sum."""
    return csum.checksum(start_of(data), PyBytes_GET_SIZE(data), start)


def checksum_update(uint16_t check, uint16_t old, uint16_t new) -> int:
    """The checksum after a 16-bit word changed from `old` to `new` (RFC 1624, eqn. 3)."""
    return csum.checksum_update(check, old, new)


def inspect(bytes frame not None) -> tuple[int, int, int, int, int]:
    """l3, version, tos, ttl, flow of an inner frame.  Raises ValueError under 14 bytes."""
    if PyBytes_GET_SIZE(frame) < wire.ETH_HLEN:
        raise ValueError(f"{len(frame)} bytes are no Ethernet frame: it has at least 14")
    cdef wire.Inner inner
    wire.inspect(start_of(frame), PyBytes_GET_SIZE(frame), &inner)
    return inner.l3, inner.version, inner.tos, inner.ttl, inner.flow


def may_ask(bytes frame not None) -> bool:
    """Whether a worker leaves a frame to Python, which may know the neighbour it asks for."""
    return PyBytes_GET_SIZE(frame) >= wire.ETH_HLEN and datapath.may_ask(
        start_of(frame), PyBytes_GET_SIZE(frame)
    )


def flow_hash(bytes frame not None) -> int:
    """The 32-bit hash of a frame's flow.  Raises ValueError under 14 bytes."""
    if PyBytes_GET_SIZE(frame) < wire.ETH_HLEN:
        raise ValueError(f"{len(frame)} bytes are no Ethernet frame: it has at least 14")
    cdef wire.Inner inner
    wire.inspect(start_of(frame), PyBytes_GET_SIZE(frame), &inner)
    return inner.flow


def source_port(uint32_t flow, uint16_t low, uint16_t high) -> int:
    """The outer UDP source port in [low, high] for a flow (RFC 7348, section 5)."""
    return wire.source_port(flow, low, high)


include "clamp.pxi"
include "core.pxi"
include "core_sight.pxi"
include "fdb_batch.pxi"
include "offload.pxi"
include "worker_common.pxi"
include "worker_trains.pxi"
include "worker_encap.pxi"
include "worker_decap.pxi"
include "worker_sight.pxi"
include "worker_loop.pxi"
include "workers.pxi"
include "generator.pxi"
include "generator_streams.pxi"
include "generator_trips.pxi"
