"""The links of attached containers on the host's side.  Everything here blocks.

Raises NetdevError; call it where no event loop runs (asyncio.to_thread).
"""

from __future__ import annotations

from contextlib import suppress

from vxlan import netdev
from vxlan.attached import Attached, Key
from vxlan.attachment import PORT_MTU
from vxlan.netdev import NetdevError
from vxlan.wire import mac_bytes


def plug(one: Attached, bridge: str) -> None:
    """Make the pair of links and plug it in.  Leaves nothing if it fails."""
    port, inner = one.key.port, one.key.inner
    if netdev.exists(port):  # of a call that died
        netdev.delete(port)
    netdev.create_veth(port, inner, mtu=one.mtu)
    try:
        netdev.set_mac(inner, mac_bytes(one.mac))
        netdev.set_mtu(port, PORT_MTU)
        netdev.set_master(port, bridge)
        netdev.set_up(port)
    except BaseException:
        with suppress(NetdevError):
            netdev.delete(port)
        raise


def remove(key: Key) -> None:
    """The link may go by itself meanwhile, with its container."""
    with suppress(NetdevError):
        netdev.delete(key.port)


def ports() -> dict[str, str | None]:
    """The names of all links, and their bridges."""
    links = netdev.links()
    names = {link.index: link.name for link in links}
    return {link.name: names.get(link.master) if link.master else None for link in links}
