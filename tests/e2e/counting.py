"""Reading counters of a node, and waiting for them to arrive at a value."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vxlan.lab import Node, wait_until

NODE_WIDE = None
"""Stands for the counters of datagrams that reached no segment."""


def drops(node: Node, vni: int | None, remote: str | None = None) -> Counter[str]:
    """Discards of a segment (or node-wide), of one remote if it is named."""
    if vni is NODE_WIDE:
        return Counter(node.show()["vtep"]["counters"]["drops"])
    return Counter(_part(node.segment(vni), remote)["drops"])


def count(node: Node, vni: int, name: str, remote: str | None = None) -> int:
    """One counter of a segment, of one remote if it is named."""
    return int(_part(node.segment(vni), remote)[name])


def _part(segment: dict[str, Any], remote: str | None) -> dict[str, Any]:
    if remote is None:
        counters: dict[str, Any] = segment["counters"]
        return counters
    found = [one["counters"] for one in segment["remotes"] if one["address"] == remote]
    return found[0] if found else {"drops": {}}


class DropsOf:
    """What a node discarded since this was made."""

    def __init__(self, node: Node, vni: int | None, remote: str | None = None) -> None:
        self._where = (node, vni, remote)
        self._before = drops(*self._where)

    def now(self) -> dict[str, int]:
        """Reasons and numbers, without those that did not change."""
        return dict(drops(*self._where) - self._before)

    def be_only(self, reason: str, at_least: int, timeout: float = 5.0) -> None:
        """Wait for discards of one reason; there may be more of them, but no others."""
        wait_until(lambda: self.now().get(reason, 0) >= at_least, timeout, f"drops {reason}")
        assert self.now().keys() == {reason}

    def become(self, expected: dict[str, int], timeout: float = 5.0) -> None:
        """Wait for exactly these discards; says what there is instead."""
        seen: dict[str, int] = {}

        def reached() -> bool:
            nonlocal seen
            seen = self.now()
            return all(seen.get(reason, 0) >= number for reason, number in expected.items())

        try:
            wait_until(reached, timeout, f"drops {expected}")
        except Exception as error:
            raise AssertionError(f"{error}; there are {seen}") from error
        assert seen == expected
