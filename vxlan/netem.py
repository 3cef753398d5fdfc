"""Delay and loss on a link, by the kernel's netem where it has one."""

from __future__ import annotations

import errno

from vxlan.netns import NetdevError, index_of, netlink


def disturb(name: str, delay: float, loss: float, netns: str | None = None) -> None:
    """Delay what leaves by a link by `delay` ms and lose `loss` percent of it.

    Raises NetdevError, with errno ENOENT or EOPNOTSUPP where the kernel has no netem.
    """
    with netlink(netns, f"link {name}: netem") as session:
        index = index_of(session, name)
        session.tc("replace", "netem", index, delay=round(delay * 1000), loss=loss)


def is_missing(error: NetdevError) -> bool:
    """Whether `disturb` failed because the kernel has no netem."""
    return error.errno in (errno.ENOENT, errno.EOPNOTSUPP)
