"""Follow the events of a node while a test goes on."""

from __future__ import annotations

import threading
from typing import Any

from vxlan import api
from vxlan.lab import Node, wait_until

_MARK = "02:00:00:00:fe:ed"


class Watcher(threading.Thread):
    """Collects the events of one node; ready when the constructor returns.

    The stream says nothing until something happens, so a static entry is written
    and deleted until its event arrives: from then on nothing is missed.
    """

    def __init__(self, node: Node, vni: int) -> None:
        super().__init__(daemon=True, name=f"watch-{node.name}")
        self._node = node
        self._events: list[dict[str, Any]] = []
        self.start()
        wait_until(lambda: self._provoke(vni), 5.0, f"the event stream of {node.name}")

    def run(self) -> None:
        try:
            for event in api.stream(self._node.name, "monitor"):
                self._events.append(event)
        except (api.ApiError, OSError):
            return  # the node ended

    def _provoke(self, vni: int) -> bool:
        self._node.call("fdb.add", vni=vni, mac=_MARK, dst="192.0.2.99")
        self._node.call("fdb.del", vni=vni, mac=_MARK)
        return bool(self._events)

    def seen(self, kind: str, **fields: object) -> list[dict[str, Any]]:
        """Events of a kind so far whose fields are these."""
        return [
            event
            for event in list(self._events)
            if event["event"] == kind and all(event[name] == fields[name] for name in fields)
        ]

    def wait(self, kind: str, timeout: float = 10.0, **fields: object) -> dict[str, Any]:
        """The first event of a kind with these fields."""
        what = f"event {kind} of {self._node.name}"
        return wait_until(lambda: self.seen(kind, **fields), timeout, what)[0]
