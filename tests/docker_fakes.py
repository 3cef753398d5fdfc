"""A Docker engine and a host that the plugin's tests make up; the HTTP is real.

`Engine` says what dockerd says, in the order in which it says it.  `FakeDevices` and
`FakeLink` remember what should be there, and fail where a test wants it.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vxlan.netdev import NetdevError
from vxlan.plugins.docker import Plugin, Settings
from vxlan.plugins.docker_http import PluginServer, Refusal
from vxlan.plugins.docker_state import Network


class FakeDevices:
    """What devices there are: of networks, and of containers by their endpoint."""

    def __init__(self) -> None:
        self.networks: set[int] = set()
        self.plugged: dict[int, str] = {}
        self.links: dict[str, tuple[int, str, str, int]] = {}
        self.failures: list[str] = []
        self.lost = False

    def prepare(self) -> bool:
        anew, self.lost = self.lost, False
        return anew

    def choose(self, vni: int, wanted: str) -> str:
        self._may_fail("choose")
        return wanted or "macvlan"

    def build(self, vni: int, way: str) -> bool:
        self._may_fail("build")
        anew = vni not in self.networks
        self.networks.add(vni)
        return anew

    def plug(self, vni: int, way: str) -> None:
        self._may_fail("plug")
        self.plugged[vni] = way

    def remove(self, vni: int) -> None:
        self.networks.discard(vni)
        self.plugged.pop(vni, None)

    def connect(self, endpoint: str, vni: int, way: str, mac: str, mtu: int) -> str:
        self._may_fail("connect")
        assert vni in self.networks
        self.links[endpoint] = (vni, way, mac, mtu)
        return f"c{endpoint[:12]}"

    def disconnect(self, endpoint: str) -> None:
        self.links.pop(endpoint, None)

    def sweep(self, vnis: Iterable[int], endpoints: Iterable[str]) -> list[str]:
        strange = self.networks - set(vnis)
        self.networks -= strange
        lost = set(self.links) - set(endpoints)
        for endpoint in lost:
            del self.links[endpoint]
        return [*map(str, strange), *lost]

    def _may_fail(self, step: str) -> None:
        if step in self.failures:
            self.failures.remove(step)
            raise NetdevError(f"{step}: it is in use")


class FakeLink:
    """A node that serves whatever it is asked for, unless `refusal` says why not."""

    name = "docker"

    def __init__(self) -> None:
        self.segments: dict[int, Network] = {}
        self.remotes: dict[int, set[str]] = {}
        self.stations: dict[str, tuple[int | str, ...]] = {}
        self.refusal = ""
        self.keeps = False

    def add(self, network: Network) -> dict[str, Any]:
        if self.refusal:
            raise Refusal(self.refusal)
        self.segments[network.vni] = network
        mtu = network.segment.get("mtu", 1450)
        return {"vni": network.vni, "tap": f"vxlan{network.vni}", "mtu": mtu}

    def delete(self, vni: int) -> None:
        if self.keeps:
            raise Refusal(f"segment {vni} is busy")
        self.segments.pop(vni, None)

    def set_remotes(self, vni: int, wanted: set[str]) -> tuple[str, ...]:
        if self.refusal:
            raise Refusal(self.refusal)
        self.remotes[vni] = wanted - {"192.0.2.1"}
        return tuple(sorted(self.remotes[vni]))

    def add_station(self, vni: int, mac: str, addresses: list[str]) -> None:
        if self.refusal:
            raise Refusal(self.refusal)
        self.stations[mac] = (vni, *addresses)

    def del_station(self, vni: int, mac: str) -> None:
        self.stations.pop(mac, None)

    def owned(self) -> list[int]:
        return list(self.segments)


class Host:
    """What outlives a plugin: its state folder, the devices, the node, the sandboxes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandboxes = folder / "netns"
        self.sandboxes.mkdir(exist_ok=True)
        self.devices = FakeDevices()
        self.link = FakeLink()

    def plugin(self, **settings: Any) -> Plugin:
        """A plugin that starts on this host, with its state read and restored."""
        made = Plugin(Settings(state=self.folder / "state", sockets=self.folder, **settings))
        made.devices = self.devices  # type: ignore[assignment]
        made.node = self.link  # type: ignore[assignment]
        made.upkeep.devices = self.devices  # type: ignore[assignment]
        made.upkeep.node = self.link  # type: ignore[assignment]
        made.driver._devices = self.devices  # type: ignore[assignment]
        made.store.open()
        return made

    def sandbox(self) -> Path:
        """A file that is a namespace, as Docker has one of each container."""
        made = self.sandboxes / secrets.token_hex(6)
        made.symlink_to("/proc/self/ns/net")
        return made

    def lose_sandboxes(self) -> None:
        """What a dockerd that starts does with the containers of one that was killed."""
        for sandbox in self.sandboxes.iterdir():
            sandbox.unlink()
            sandbox.touch()


class Engine:
    """A dockerd without containers, and the plugin that it talks to."""

    def __init__(self, host: Host, **settings: Any) -> None:
        self.host = host
        self.plugin = host.plugin(**settings)
        self.server: PluginServer = self.plugin._listen()
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End the plugin; what it keeps is on disk."""
        self.server.shutdown()
        self._thread.join()
        self.server.close()
        self.plugin.store.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the protocol ------------------------------------------------------------------------

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        """Status and answer of one request."""
        connection = http.client.HTTPConnection("docker", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(10)
        connection.sock.connect(str(self.server.path))
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def call(self, method: str, **body: Any) -> Any:
        """The answer to one call that is expected to be granted."""
        status, answer = self.post(f"/{method}", json.dumps(body).encode())
        assert (status, answer.get("Err")) == (200, None), answer
        return answer

    def refusal(self, method: str, **body: Any) -> str:
        """Why a call was refused."""
        status, answer = self.post(f"/{method}", json.dumps(body).encode())
        assert status == 200
        assert answer["Err"] == answer["Error"]
        assert "\n" not in answer["Err"]
        return str(answer["Err"])

    # -- what a user does --------------------------------------------------------------------

    def create(self, pool: str = "10.42.0.0/16", **options: str) -> str:
        """`docker network create`; the network."""
        network = secrets.token_hex(32)
        self.call("NetworkDriver.CreateNetwork", **creation(network, pool, **options))
        return network

    def run(self, network: str, address: str = "10.42.0.2/16", mac: str = "") -> str:
        """`docker run` as far as a network sees it; the endpoint."""
        endpoint = secrets.token_hex(32)
        both = {"NetworkID": network, "EndpointID": endpoint}
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac}
        self.call("NetworkDriver.CreateEndpoint", **both, Interface=interface, Options={})
        sandbox = str(self.host.sandbox())
        self.call("NetworkDriver.Join", **both, SandboxKey=sandbox, Options={})
        for _ in range(2):
            self.call("NetworkDriver.EndpointOperInfo", **both)
        return endpoint

    def stop(self, network: str, endpoint: str) -> None:
        """`docker stop`."""
        for method in ("Leave", "DeleteEndpoint"):
            self.call(f"NetworkDriver.{method}", NetworkID=network, EndpointID=endpoint)


def creation(network: str, pool: str = "10.42.0.0/16", **options: str) -> dict[str, Any]:
    """The body of CreateNetwork."""
    generic = {"vni": "42", "remotes": "192.0.2.2,192.0.2.3", **options}
    return {
        "NetworkID": network,
        "Options": {
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": {key: value for key, value in generic.items() if value},
        },
        "IPv4Data": [{"AddressSpace": "LocalDefault", "Gateway": "10.42.0.1/16", "Pool": pool}],
        "IPv6Data": [],
    }
