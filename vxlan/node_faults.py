"""Operations of the control socket that inject faults: `fault.add`, `.list`, `.clear`.

They work where the configuration says `faults = true`, and nowhere else: whoever may
talk to a node in production is not to break its network by a slip of the keyboard.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vxlan import config_fault
from vxlan.api import ApiError
from vxlan.api_server import Operation
from vxlan.arguments import Args, only
from vxlan.config_rules import family_problem
from vxlan.engine import FaultRefused, FaultState
from vxlan.event import Event, EventKind
from vxlan.fault import Fault

if TYPE_CHECKING:
    from vxlan.node import Node

log = logging.getLogger(__name__)


class FaultOperations:
    """The faults of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def table(self) -> Mapping[str, Operation]:
        """Name -> operation, for vxlan/api_server.py."""
        return {"fault.add": self.add, "fault.list": self.list, "fault.clear": self.clear}

    def add(self, args: Args) -> Any:
        """Inject a fault; {"id": its number}."""
        self._refuse_unless_allowed()
        try:
            fault = config_fault.fault(args)
        except ValueError as error:
            raise ApiError(f"fault: {error}", "usage") from None
        self._refuse_strangers(fault)
        if args.get("seed") is None:
            fault = replace(fault, seed=secrets.randbits(32))
        try:
            number = self._node.engine.fault_add(fault, time.monotonic())
        except FaultRefused as error:
            raise ApiError(f"fault: {error}", "conflict") from None
        self._tell(f"{number} begins: {fault.words()}", fault.vni)
        return {"id": number}

    def list(self, args: Args) -> Any:
        """The faults in force."""
        only(args)
        return faults_json(self._node.engine.faults())

    def clear(self, args: Args) -> Any:
        """End one fault, or all of them; {"cleared": how many}."""
        only(args, "id")
        number = args.get("id")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise ApiError(f"id: {number!r} is not the number of a fault", "usage")
        cleared = self._node.engine.fault_clear(number)
        if number is not None and not cleared:
            raise ApiError(f"no fault {number}: `pyvxlan fault list` lists them", "not_found")
        if cleared:
            self._tell("all end" if number is None else f"{number} ends", None)
        return {"cleared": cleared}

    def _refuse_unless_allowed(self) -> None:
        if not self._node.config.vtep.faults:
            text = "faults are not allowed here: set faults = true in [vtep] and start again"
            raise ApiError(text, "conflict")

    def _refuse_strangers(self, fault: Fault) -> None:
        segments = self._node.segments
        if fault.vni is not None and fault.vni not in segments:
            there = ", ".join(map(str, segments)) or "none"
            raise ApiError(f"fault: no segment {fault.vni} here: there are {there}", "not_found")
        for address in filter(None, (fault.remote, fault.source)):
            if problem := family_problem(address, self._node.local):
                raise ApiError(f"fault: {problem}", "usage")

    def _tell(self, words: str, vni: int | None) -> None:
        event = Event(EventKind.FAULT, time.monotonic(), vni, detail=words)
        self._node.chronicle.take(event)


def faults_json(states: list[FaultState]) -> list[dict[str, Any]]:
    """The answer to `fault.list`; `since` is seconds ago."""
    now = time.monotonic()
    return [
        {
            "id": state.number,
            "text": state.fault.words(),
            "fault": config_fault.as_table(state.fault),
            "since": round(now - state.began, 3),
            "seen": state.seen,
            "hits": state.hits,
        }
        for state in states
    ]
