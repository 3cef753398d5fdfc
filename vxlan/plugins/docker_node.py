"""The node that carries Docker's networks, seen from the plugin: by its control socket alone.

A node keeps nothing of what was added by command.  So `follow` waits for it to come back
after it has ended or was killed, and then lets everything be asked for again; the
containers keep their devices meanwhile, and their connections.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from vxlan import api, config, doctor
from vxlan.api import ApiError, NotRunning
from vxlan.finding import Level
from vxlan.plugins.docker_http import Refusal
from vxlan.plugins.docker_state import Network

DEFAULT = "docker"
"""The node that is meant where none is named and not exactly one runs."""

TIMEOUT = 30.0
"""Seconds to wait for an answer; Docker waits longer."""

PAUSE = 0.3
"""Seconds between two looks for a node that does not run."""

log = logging.getLogger(__name__)


class Conflict(Refusal):
    """What is asked for contradicts what is served already."""


class NodeLink:
    """One node, by name or the only one that runs; its segments of this `owner`.

    tap_from  the socket at which it is handed the TAPs of these segments
    """

    def __init__(self, name: str | None, owner: str, tap_from: str) -> None:
        self._name = name
        self.owner = owner
        self._tap_from = tap_from

    @property
    def name(self) -> str:
        """The node's name; found out once, when it first runs."""
        if self._name is None:
            running = api.running()
            if len(running) != 1:
                return DEFAULT
            self._name = running[0]
        return self._name

    def add(self, network: Network) -> dict[str, Any]:
        """Have a network's segment served; SEGMENT of the protocol.  Raises Refusal.

        What is served for us and differs was asked for by an earlier version: it is replaced.
        """
        keys = {**network.segment, "owner": self.owner, "tap_from": self._tap_from}
        try:
            answer = self._ask("segment.add", vni=network.vni, **keys)
        except Conflict:
            if network.vni not in self.owned():
                raise
            self.delete(network.vni)
            answer = self._ask("segment.add", vni=network.vni, **keys)
        segment: dict[str, Any] = answer["segment"]
        return segment

    def delete(self, vni: int) -> None:
        """Have it served no more; no error if there is no such segment, or no node.

        Raises Refusal where the node cannot do it.
        """
        try:
            api.call(self.name, "segment.del", timeout=TIMEOUT, vni=vni, owner=self.owner)
        except NotRunning:
            return
        except ApiError as error:
            if error.code != "not_found":
                raise Refusal(str(error)) from error
        except OSError as error:
            raise Refusal(self._silent(error)) from error

    def set_remotes(self, vni: int, wanted: set[str]) -> tuple[str, ...]:
        """Make these the remotes of a segment, without this host itself; the others.

        Raises Refusal.
        """
        local = self._ask("show")["vtep"]["local"]
        there = {remote["address"] for remote in self._ask("remote.show", vni=vni)}
        others = wanted.difference(local)
        for address in sorted(others - there):
            self._ask("remote.add", vni=vni, dst=address)
        for address in sorted(there - others):
            self._ask("remote.del", vni=vni, dst=address)
        return tuple(sorted(others))

    def add_station(self, vni: int, mac: str, addresses: list[str]) -> None:
        """Have a station announced.  Raises Refusal."""
        self._ask("station.add", vni=vni, mac=mac, address=addresses)

    def del_station(self, vni: int, mac: str) -> None:
        """Have it announced no more.  Raises Refusal."""
        self._ask("station.del", vni=vni, mac=mac)

    def owned(self) -> list[int]:
        """The VNIs that are served for us.  Raises Refusal."""
        segments = self._ask("show")["segments"]
        return [segment["vni"] for segment in segments if segment["owner"] == self.owner]

    def _ask(self, op: str, **args: Any) -> Any:
        try:
            return api.call(self.name, op, timeout=TIMEOUT, **args)
        except NotRunning:
            raise Refusal(why_not(self.name)) from None
        except ApiError as error:
            kind = Conflict if error.code == "conflict" else Refusal
            raise kind(str(error)) from error
        except OSError as error:
            raise Refusal(self._silent(error)) from error

    def _silent(self, error: OSError) -> str:
        return f"node {self.name} does not answer ({error}): look at its log"

    def follow(
        self,
        came: Callable[[], None],
        happened: Callable[[dict[str, Any]], None],
        went: Callable[[], None],
        ended: threading.Event,
    ) -> None:
        """Call `came` when the node is there anew, `happened` for each event, `went` without it.

        Blocks until `ended` is set and something happens: for a thread that is a daemon.
        """
        said = False
        while not ended.is_set():
            try:
                for event in api.stream(self.name, "monitor", opened=came):
                    said = False
                    happened(event)
            except (ApiError, OSError, ValueError) as error:
                if not said:
                    log.warning("%s: waiting for it", error)
                said = True
            went()
            ended.wait(PAUSE)


def why_not(name: str) -> str:
    """Why a node does not run, as far as this host can tell; with the remedy."""
    text = f"no node named {name} runs"
    try:
        wanted = config.load(config.find(name))
    except config.ConfigError as error:
        return f"{text}: {error}"
    for finding in doctor.preflight(wanted):
        if finding.level is Level.FAIL:
            return f"{text}: {finding.line}"
    return f"{text}: `systemctl start pyvxlan@{name}`, or `pyvxlan up {name}`"
