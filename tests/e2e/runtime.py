"""A container runtime that is as small as can be: it calls a CNI plugin as the specification says.

Environment and configuration in, JSON and exit status out; the plugin is a process, in
the namespace of its host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worlds import VNI

from vxlan import api, netdev, netns
from vxlan.lab import Host
from vxlan.lab.namespace import Namespace

PLUGIN = (sys.executable, "-m", "vxlan.plugins.cni")
NETWORK = "net42"
HOST_LOCAL = Path("/usr/lib/cni/host-local")


class Refused(Exception):
    """The plugin answered with an error of CNI."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["msg"])
        self.code: int = answer["code"]
        self.answer = answer

    def __str__(self) -> str:
        return f"{self.answer['msg']}: {self.answer['details']}"


@dataclass
class Runtime:
    """One host's runtime and the network that it was configured with."""

    host: Host
    conf: dict[str, Any]
    path: str = "/usr/lib/cni"
    results: dict[str, Any] = field(default_factory=dict)

    def call(
        self,
        verb: str,
        box: Namespace | None = None,
        conf: Mapping[str, Any] | None = None,
        text: str | None = None,
        **environment: str,
    ) -> Any:
        """One call; what it printed.  Raises Refused."""
        where = {"CNI_CONTAINERID": box.name, "CNI_NETNS": f"/run/netns/{box.name}"} if box else {}
        base = {"CNI_COMMAND": verb, "CNI_IFNAME": "eth0", "CNI_PATH": self.path}
        given = text if text is not None else json.dumps({**self.conf, **(conf or {})})
        done = self.host.call(
            subprocess.run,
            PLUGIN,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **base, **where, **environment},
        )
        assert done.stderr == ""
        answer = json.loads(done.stdout) if done.stdout else None
        if done.returncode:
            assert answer is not None
            raise Refused(answer)
        return answer

    def add(self, box: Namespace, conf: Mapping[str, Any] | None = None, **env: str) -> Any:
        """ADD; the result is what CHECK and DEL of this box get as prevResult."""
        self.results[box.name] = self.call("ADD", box, conf, **env)
        return self.results[box.name]

    def check(self, box: Namespace) -> None:
        assert self.call("CHECK", box, {"prevResult": self.results[box.name]}) is None

    def delete(self, box: Namespace, **env: str) -> None:
        extra = {"prevResult": self.results[box.name]} if box.name in self.results else {}
        assert self.call("DEL", box, extra, **env) is None


class Box(Namespace):
    """An empty container: a namespace that a runtime made."""

    link = "eth0"

    def addresses(self) -> list[str]:
        """What its eth0 has, without link-local ones."""
        found = netdev.addresses("eth0", self.name)
        return [cidr for cidr in found if not cidr.startswith("fe80")]

    def vanish(self) -> None:
        """The container ends, and its namespace with it."""
        netns.delete(self.name)


def ranges(low: str, high: str) -> dict[str, Any]:
    one = {"subnet": "10.42.0.0/16", "rangeStart": low, "rangeEnd": high, "gateway": "10.42.0.1"}
    return {"type": "pyvxlan-cni", "ranges": [[one]], "routes": [{"dst": "0.0.0.0/0"}]}


def conf(node: str, ipam: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "type": "pyvxlan-cni",
        "node": node,
        "vni": VNI,
        "ipam": ranges("10.42.1.1", "10.42.1.9") if ipam is None else ipam,
    } | keys


def attached(runtime: Runtime) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call(runtime.conf["node"], "attached")
    return found
