"""The few questions that the plugin has for dockerd itself, at its own API.

Docker may be down, starting, or just now waiting for our answer: whatever goes wrong is
"not known", and nothing is ever changed there.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
from typing import Any

from vxlan.plugins.unix_http import UnixConnection

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

TIMEOUT = 2.0
"""Seconds to wait for an answer."""

MAX_ANSWER = 16 << 20


def socket_path() -> str:
    """Where dockerd listens."""
    given = os.environ.get("DOCKER_HOST", "")
    return given.removeprefix("unix://") if given.startswith("unix://") else "/run/docker.sock"


def has_network(key: str) -> bool | None:
    """Whether dockerd knows a network; None: it cannot be asked."""
    status, _ = _get(f"/networks/{key}")
    return {200: True, 404: False}.get(status)


def subnets() -> set[Subnet] | None:
    """The subnets of all networks that dockerd knows; None: it cannot be asked."""
    status, shown = _get("/networks")
    return subnets_of(shown) if status == 200 else None


def subnets_of(shown: Any) -> set[Subnet] | None:
    """The subnets in the answer to /networks; None: it is none."""
    try:
        found = [one for network in shown for one in network["IPAM"]["Config"] or ()]
        texts = [one["Subnet"] for one in found if one.get("Subnet")]
        return {ipaddress.ip_network(text, strict=False) for text in texts}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def peers_of(key: str) -> set[str] | None:
    """The addresses of the hosts that take part in a swarm's network; None: not known.

    This host is one of them.  They are known once the first container is there.
    """
    _, shown = _get(f"/networks/{key}")
    try:
        return {str(peer["IP"]) for peer in shown["Peers"]} or None
    except (KeyError, TypeError):
        return None


def own_address() -> str | None:
    """The address of this host in its swarm; None: it is in none, or not known."""
    _, shown = _get("/info")
    try:
        return str(shown["Swarm"]["NodeAddr"]) or None
    except (KeyError, TypeError):
        return None


def _get(path: str) -> tuple[int, Any]:
    """Status and object; 0 and None where there is no answer."""
    connection = UnixConnection(socket_path(), TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read(MAX_ANSWER))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
