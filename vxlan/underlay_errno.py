"""What the errno of a failed send means: one `Drop` for each."""

from __future__ import annotations

import errno

from vxlan.drop import Drop

_UNREACHABLE = (
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.ENODEV,
    errno.ECONNREFUSED,
    errno.EADDRNOTAVAIL,
    errno.EPROTO,
    errno.ENOPROTOOPT,
)

_DROP_OF = {
    errno.EAGAIN: Drop.UNDERLAY_BUSY,
    errno.ENOBUFS: Drop.UNDERLAY_BUSY,
    errno.ENOMEM: Drop.UNDERLAY_BUSY,
    errno.EMSGSIZE: Drop.PKT_TOO_BIG,
    **dict.fromkeys(_UNREACHABLE, Drop.UNDERLAY_UNREACHABLE),
}
"""Everything else is UNDERLAY_REFUSED: EPERM, EACCES, EINVAL, ..."""

LEFT_BY_ICMP = frozenset((*_UNREACHABLE, errno.EMSGSIZE, errno.EACCES, errno.EOPNOTSUPP))
"""What an ICMP error can turn into (net/ipv4/icmp.c icmp_err_convert, net/ipv6/icmp.c)."""


def reason_of(error: OSError) -> Drop:
    """Why a datagram was not sent."""
    return _DROP_OF.get(error.errno or 0, Drop.UNDERLAY_REFUSED)
