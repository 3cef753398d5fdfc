"""A node without packets: the real control socket, answers that a test chose.

The command line sees the protocol only, so this is enough to test all that it makes of
an answer, a refusal, a stream and a node that dies.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vxlan.api import ApiError, socket_path
from vxlan.api_server import Server
from vxlan.drop import Count

MAC = "02:42:0a:2a:00:02"
FLOOD = "00:00:00:00:00:00"


def counters(drops: dict[str, int] | None = None, **counts: int) -> dict[str, Any]:
    """COUNTERS of the protocol; what is not named is 0."""
    return {**{which.name.lower(): 0 for which in Count}, **counts, "drops": drops or {}}


def remote(address: str, port: int = 4789, state: str = "up", **counts: int) -> dict[str, Any]:
    """REMOTE of the protocol."""
    return {
        "vni": 42,
        "address": address,
        "port": port,
        "state": state,
        "path": {
            "mtu": 1500,
            "ceiling": 1500,
            "how": "probe",
            "phase": "complete",
            "answers": True,
            "since": 60.0,
        },
        "counters": counters(**counts),
    }


def entry(mac: str, *addresses: str, **changes: Any) -> dict[str, Any]:
    """An entry of `fdb.show`, learned 60 seconds ago."""
    return {
        "vni": 42,
        "mac": mac,
        "dst": [{"address": address, "port": 4789} for address in addresses],
        "state": "dynamic",
        "source": "data",
        "age": 12.3,
        "used": 2.0,
        "since": 60.5,
        "shadowed": None,
        **changes,
    }


def segment(vni: int = 42, **changes: Any) -> dict[str, Any]:
    """One segment of `show`."""
    return {
        "vni": vni,
        "tap": f"vxlan{vni}",
        "bridge": "br42",
        "address": ["10.42.0.1/24"],
        "mtu": 1450,
        "mtu_auto": True,
        "mtu_limit": "path to 192.0.2.2 by eth0: 1500 less 50",
        "policy": {"mtu": 1450, "learning": True, "ageing": 300.0, "accept": "known", "tos": None},
        "fdb_entries": 2,
        "remotes": [remote("192.0.2.2", encap_packets=1234, encap_bytes=1 << 20)],
        "counters": counters(learned=3),
        **changes,
    }


def shown(name: str = "lab", *segments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The answer to `show`."""
    return {
        "version": 1,
        "name": name,
        "pid": 2**22 + 1,  # larger than any: nobody has it
        "uptime": 4000.0,
        "engine": {
            "name": "python",
            "why": "asked for",
            "granted": {"vnet_hdr": True, "uso": False, "queues": 1},
            "fallbacks": ["no USO: UDP is segmented by the host"],
        },
        "vtep": {
            "local": ["192.0.2.1"],
            "dstport": 4789,
            "srcport": [49152, 65535],
            "counters": counters(),
        },
        "segments": list(segments) or [segment()],
        **changes,
    }


class FakeNode:
    """Answers by `answers[op]`: a value, an exception to refuse with, or a function."""

    def __init__(self, name: str, answers: dict[str, Any]) -> None:
        self.name = name
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers = {"show": shown(name), **answers}
        self._loop = asyncio.new_event_loop()
        self._server = Server(socket_path(name), {op: self._on(op) for op in self.answers})
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def _on(self, op: str) -> Callable[[dict[str, Any]], Any]:
        def answer(args: dict[str, Any]) -> Any:
            self.asked.append((op, args))
            value = self.answers[op]
            if isinstance(value, Exception):
                raise value
            return value(args) if callable(value) else value

        return answer

    def start(self) -> None:
        """Listen; returns when a client can connect."""
        self._server.bind()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.serve(), self._loop).result(5)

    def publish(self, *events: dict[str, Any]) -> None:
        """Send events to whoever monitors, once somebody does."""
        deadline = time.monotonic() + 10
        while not self._server._subscribers and time.monotonic() < deadline:
            time.sleep(0.01)
        for event in events:
            self._loop.call_soon_threadsafe(self._server.publish, event)

    def stop(self) -> None:
        """End as a node does; may be called again."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            self._loop.close()


@contextmanager
def fake_node(name: str = "lab", **answers: Any) -> Iterator[FakeNode]:
    """A fake node that listens; `fdb_show=[...]` answers the operation fdb.show."""
    node = FakeNode(name, {op.replace("_", ".", 1): value for op, value in answers.items()})
    node.start()
    try:
        yield node
    finally:
        node.stop()


def refusal(text: str, code: Any = "failed") -> ApiError:
    """What a node refuses with."""
    return ApiError(text, code)
