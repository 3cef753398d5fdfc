"""What the answers of a node leave out: the TAP of each VNI, and the port they share."""

from __future__ import annotations

from typing import Any

from vxlan.cli import session


class Devices:
    """Writes remotes and segments in the words of bridge(8)."""

    def __init__(self, node: str) -> None:
        shown = session.call(node, "show")
        self._taps = {segment["vni"]: segment["tap"] for segment in shown["segments"]}
        self._port = shown["vtep"]["dstport"]

    def tap(self, vni: int) -> str:
        """The segment's TAP; "?" if the segment came or went since."""
        return str(self._taps.get(vni, "?"))

    def dst(self, remote: dict[str, Any]) -> str:
        """`IP`, with ` port P` where that is not the usual one."""
        port = "" if remote["port"] == self._port else f" port {remote['port']}"
        return f"{remote['address']}{port}"

    def dsts(self, remotes: list[dict[str, Any]], between: str = ", ") -> str:
        """Several of them."""
        return between.join(self.dst(remote) for remote in remotes)
