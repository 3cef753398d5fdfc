"""The TAP of a segment whose device is somebody else's, who plugs it in and keeps it.

Theory of operation
===================

    owner (a container engine's plugin)            node

    TAP vxlan42, in a namespace of the owner's     asks at the owner's socket
    containers on it                         <──   gets descriptors, reads and writes

The device outlives the node: without a reader it stands still, and so does whatever is
built on it.  So here nothing is ever made, changed or taken away; what vxlan/attachment.py
does with netlink is the owner's.  A node that comes back asks again, and so does one whose
device was deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from vxlan import tap_handing
from vxlan.config import SegmentConfig
from vxlan.netdev import Link
from vxlan.tap import Tap
from vxlan.tap_handing import Wish


class HandedAttachment:
    """In the place of vxlan.attachment.Attachment; `path` is the owner's socket.

    `open` raises TapError, and blocks as long as the owner takes; the rest does nothing.
    """

    def __init__(self, config: SegmentConfig, path: str, *, offload: bool, queues: int) -> None:
        self.config = config
        self.tap: Tap | None = None
        self._path = path
        self._wish = Wish(config.vni, queues, offload)

    @property
    def identity(self) -> str:
        """Whose TAP it is."""
        return f"{self.config.tap} from {self._path}"

    def adopt(self, fds: Sequence[int], mtu: int) -> Tap:
        """Go on with queues that were handed over before.  Raises TapError as Tap.adopt does."""
        many = max(1, min(len(fds), self._wish.queues))
        offload = self._wish.offload
        self.tap = Tap.adopt(self.config.tap, fds, offload=offload, queues=many, persist=True)
        return self.tap

    def open(self, mtu: int) -> Tap:
        """Have it handed over.  The owner sees to the MTU: it is told by the answer and events."""
        self.tap = tap_handing.fetch(self._path, self.config.tap, self._wish)
        return self.tap

    def close_tap(self) -> None:
        """Let go of the descriptors; the device stays."""
        if self.tap is not None:
            self.tap.close()
            self.tap = None

    close = close_tap

    def change(self, config: SegmentConfig) -> None:
        """There is neither a bridge nor an address of ours."""
        self.config = config

    def set_mtu(self, mtu: int) -> None:
        """Where packets are made is the owner's."""

    def own_mac(self) -> bytes | None:
        """This host is no station here."""
        return None

    def follow(self, link: Link | None = None) -> set[bytes]:
        """The device is not for us to look at."""
        return set()
