"""What should be there of Docker's networks, and what is: made, restored, cleared up.

Theory of operation
===================

What is committed is what should be there, and `restore` makes it so: when the plugin
starts, when the node comes back, when a TAP was made anew.  It also removes what nobody
committed.  Docker may tell us nothing of endpoints that were lost with a dockerd that was
killed, but their namespaces are gone with their containers: `collect` forgets those.

Containers are stations of their segment.  Where the network announces (`-o announce=false`
says that it does not), the other hosts are told of each, so that nothing is flooded to find
it.  That is a help and no more: where it fails, data teaches the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from vxlan.netdev import NetdevError
from vxlan.plugins import docker_engine, docker_sandbox
from vxlan.plugins.docker_devices import Devices
from vxlan.plugins.docker_http import Refusal
from vxlan.plugins.docker_node import NodeLink
from vxlan.plugins.docker_state import Endpoint, Network, StateError, Store

log = logging.getLogger(__name__)


class Upkeep:
    """The networks of one plugin.  Whoever changes something holds `lock`."""

    def __init__(self, store: Store, devices: Devices, node: NodeLink) -> None:
        self.store = store
        self.devices = devices
        self.node = node
        self.lock = threading.RLock()

    # -- one network -------------------------------------------------------------------------

    def built(self, network: Network) -> Network:
        """A network with all its devices; without a node, its containers have each other.

        Raises Refusal and NetdevError.
        """
        self.devices.build(network.vni, network.attach)
        return self._served(network)

    def _served(self, network: Network) -> Network:
        segment = self.node.add(network)
        self.devices.plug(network.vni, network.attach)
        if network.peers:
            self.node.set_remotes(network.vni, set(network.peers))
        for endpoint in network.endpoints.values():
            if endpoint.sandbox:
                self.announce(network, endpoint)
        return replace(network, mtu=segment["mtu"])

    def _without_links(self, network: Network) -> Network:
        """What the containers were joined to was gone, and every link with it."""
        for name in [name for name, one in network.endpoints.items() if one.sandbox]:
            log.warning("endpoint %s: lost with the device below it, forgotten", name[:12])
            network = self.lose(network, name)
        return network

    def tear(self, network: Network) -> None:
        """Take away whatever there is of it."""
        for undo in (self.node.delete, self.devices.remove):
            with suppress(Refusal, NetdevError):
                undo(network.vni)

    def remove(self, key: str) -> None:
        """Forget a network and take it away.  Raises StateError, and nothing changed.

        What cannot be taken away now is nobody's, and is swept up later.
        """
        network = self.store.networks[key]
        self.store.set_network(key, None)
        with _logged(f"network {key[:12]}"):
            for endpoint in network.endpoints:
                self.devices.disconnect(endpoint)
        for undo in (self.node.delete, self.devices.remove):
            with _logged(f"network {key[:12]}"):
                undo(network.vni)

    def lose(self, network: Network, name: str) -> Network:
        """A network without an endpoint that nobody has any more."""
        self.devices.disconnect(name)
        if network.endpoints[name].sandbox:  # else it was withdrawn when the container left
            self.withdraw(network, network.endpoints[name])
        rest = {other: one for other, one in network.endpoints.items() if other != name}
        return replace(network, endpoints=rest)

    def announce(self, network: Network, endpoint: Endpoint) -> None:
        """Have the other hosts told of a container."""
        if network.segment.get("announce"):
            both = [one.partition("/")[0] for one in (endpoint.address, endpoint.address6) if one]
            with _noted(f"station {endpoint.mac}"):
                self.node.add_station(network.vni, endpoint.mac, both)

    def withdraw(self, network: Network, endpoint: Endpoint) -> None:
        """Have them told that it is gone."""
        if network.segment.get("announce"):
            with _noted(f"station {endpoint.mac}"):
                self.node.del_station(network.vni, endpoint.mac)

    # -- all of them -------------------------------------------------------------------------

    def prepare(self) -> None:
        """See that there is a namespace.  Raises NetdevError.

        One whose name was removed lives on while the node has descriptors of TAPs in it.
        """
        if self.devices.prepare():
            with suppress(Refusal):
                for vni in self.node.owned():
                    self.node.delete(vni)

    def restore(self) -> None:
        """Make what is committed and missing, and remove what nobody committed."""
        with self.lock:
            with _logged("the namespace"):
                self.prepare()
            for key, network in list(self.store.networks.items()):
                with _logged(f"network {key[:12]}"):
                    self._restore_network(key, network)
            with _logged("clearing up"):
                self._sweep()

    def _restore_network(self, key: str, network: Network) -> None:
        if self.devices.build(network.vni, network.attach) and network.endpoints:
            network = self._without_links(network)
            self.store.set_network(key, network)
        served = self._served(network)
        if served != network:
            self.store.set_network(key, served)

    def _sweep(self) -> None:
        networks = self.store.networks.values()
        vnis = {network.vni for network in networks}
        for name in self.devices.sweep(vnis, (one for net in networks for one in net.endpoints)):
            log.warning("%s: nobody's, removed", name)
        for vni in self.node.owned():
            if vni not in vnis:
                log.warning("segment %d: nobody's, removed", vni)
                self.node.delete(vni)

    def collect(self, *, unjoined: bool = False) -> None:
        """Forget the endpoints whose namespaces are gone with their containers.

        `unjoined`: those that never got one as well; for when no container can be starting.
        """
        with self.lock, _logged("looking for lost endpoints"):
            for key, network in list(self.store.networks.items()):
                looked_at = self._looked_at(network, unjoined)
                if looked_at != network:
                    self.store.set_network(key, looked_at)

    def _looked_at(self, network: Network, unjoined: bool) -> Network:
        for name, endpoint in network.endpoints.items():
            there = docker_sandbox.is_there(endpoint.sandbox) if endpoint.sandbox else None
            if (there is False and endpoint.seen) or (unjoined and not endpoint.sandbox):
                log.warning("endpoint %s: lost with its container, forgotten", name[:12])
                network = self.lose(network, name)
            elif there and not endpoint.seen:
                seen = replace(endpoint, seen=True)
                network = replace(network, endpoints={**network.endpoints, name: seen})
        return network

    def drop_unknown(self) -> None:
        """Remove the networks that Docker lost, or removed while the plugin was down.

        Not one with an endpoint, whatever Docker says: somebody may use it.
        """
        with self.lock, _logged("looking for lost networks"):
            for key, network in list(self.store.networks.items()):
                known = True if network.endpoints else docker_engine.has_network(key)
                if known is None:
                    return  # Docker cannot be asked
                if not known:
                    log.warning("network %s: Docker knows it no more: removed", key[:12])
                    self.remove(key)

    # -- what happens ------------------------------------------------------------------------

    def happened(self, event: Mapping[str, Any]) -> None:
        """An event of the node: a TAP that was made anew is built upon, an MTU is taken over."""
        if event.get("event") not in ("tap_back", "mtu_changed"):
            return
        with self.lock:
            for key, network in list(self.store.networks.items()):
                if network.vni == event.get("vni"):
                    with _logged(f"network {key[:12]}"):
                        self._restore_network(key, network)

    def set_peers(self, key: str, peers: set[str]) -> None:
        """The hosts that take part in a swarm's network have changed, or may have."""
        with self.lock, _logged(f"network {key[:12]}"):
            network = self.store.networks.get(key)
            if network is None:
                return
            others = self.node.set_remotes(network.vni, peers)
            if others != network.peers:
                log.info("network %s: its hosts are %s", key[:12], ", ".join(others) or "we alone")
                self.store.set_network(key, replace(network, peers=others))


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """One network's trouble is not the others'."""
    try:
        yield
    except (Refusal, NetdevError, StateError) as error:
        log.error("%s: %s", what, error)


@contextmanager
def _noted(what: str) -> Iterator[None]:
    """No container fails because nobody was told of it."""
    try:
        yield
    except Refusal as error:
        log.info("%s is not announced: %s", what, error)
