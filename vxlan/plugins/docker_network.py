"""Docker's network driver: NetworkDriver.* turned into segments and devices.

Theory of operation
===================

    network create   CreateNetwork                        TAP, segment
    run, connect     CreateEndpoint, Join, OperInfo       macvlan, or veth
    stop, disconnect Leave, DeleteEndpoint                none of it
    network rm       DeleteNetwork                        no segment, no TAP

One lock: calls are carried out one after another.  Every call may come twice, because
Docker repeats it when a plugin dies in the midst of it.  What is made is made first and
committed then; where the commit or a step before it fails, it is taken away again.  What is
removed is forgotten first: a node that refuses keeps no network of Docker's alive.

Join answers no gateway, so Docker gives the container a second interface on its gateway
bridge, with the default route and the published ports, as for its own overlays; not for
a network that is internal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from vxlan.netdev import NetdevError
from vxlan.plugins import docker_engine, docker_options
from vxlan.plugins.docker_http import Handler, Refusal
from vxlan.plugins.docker_options import identifier
from vxlan.plugins.docker_state import Endpoint, Network, StateError
from vxlan.plugins.docker_upkeep import Upkeep

Body = dict[str, Any]

log = logging.getLogger(__name__)


class NetworkDriver:
    """The networks of one plugin."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self._store = upkeep.store
        self._devices = upkeep.devices

    def table(self) -> Mapping[str, Handler]:
        """Method -> function, for vxlan/plugins/docker_http.py."""
        calls: dict[str, Handler] = {
            "CreateNetwork": self.create_network,
            "DeleteNetwork": self.delete_network,
            "CreateEndpoint": self.create_endpoint,
            "DeleteEndpoint": self.delete_endpoint,
            "EndpointOperInfo": self.endpoint_info,
            "Join": self.join,
            "Leave": self.leave,
        }
        locked = {f"NetworkDriver.{name}": self._locked(call) for name, call in calls.items()}
        return {
            "NetworkDriver.GetCapabilities": _capabilities,
            "NetworkDriver.DiscoverNew": _nothing,
            "NetworkDriver.DiscoverDelete": _nothing,
            **locked,
        }

    def _locked(self, call: Handler) -> Handler:
        def one_after_another(body: Body) -> Body:
            with self._upkeep.lock, _explained():
                return call(body)

        return one_after_another

    # -- networks ----------------------------------------------------------------------------

    def create_network(self, body: Body) -> Body:
        """A segment of the node and its devices; nothing where either fails."""
        key, wanted = identifier(body, "NetworkID"), docker_options.network(body)
        self._refuse_taken(key, wanted)
        there = self._store.networks.get(key)
        if there is not None:  # asked for again: it may have containers already
            wanted = replace(
                wanted, peers=there.peers, endpoints=there.endpoints, attach=there.attach
            )
        try:
            if there is None:
                attach = self._devices.choose(wanted.vni, wanted.attach)
                wanted = replace(wanted, attach=attach)
            self._store.set_network(key, self._upkeep.built(wanted))
        except (Refusal, NetdevError, StateError):
            if there is None:
                self._upkeep.tear(wanted)
            raise
        pools = ", ".join(wanted.pools)
        log.info("network %s: VNI %d, %s, by %s", key[:12], wanted.vni, pools, wanted.attach)
        return {}

    def _refuse_taken(self, key: str, wanted: Network) -> None:
        for other, network in self._store.networks.items():
            if network.vni != wanted.vni or other == key:
                continue
            if docker_engine.has_network(other) is not False:
                raise Refusal(
                    f"vni {wanted.vni} is taken by the network {other[:12]} "
                    f"({', '.join(network.pools)}): choose another, or `docker network rm` that one"
                )
            log.warning("network %s: Docker knows it no more: removed", other[:12])
            self.delete_network({"NetworkID": other})

    def delete_network(self, body: Body) -> Body:
        """Take it all away; no error if there is nothing."""
        key = identifier(body, "NetworkID")
        if key in self._store.networks:
            self._upkeep.remove(key)
            log.info("network %s: removed", key[:12])
        return {}

    def _network(self, body: Body) -> tuple[str, Network]:
        key = identifier(body, "NetworkID")
        network = self._store.networks.get(key)
        if network is None:
            raise Refusal(
                f"the network {key[:12]} is unknown here: its state was lost; "
                "`docker network rm` it, and create it anew"
            )
        return key, network

    # -- endpoints ---------------------------------------------------------------------------

    def create_endpoint(self, body: Body) -> Body:
        """A place in a network.  Docker hands out addresses: who had this one is gone."""
        key, network = self._network(body)
        new = docker_options.endpoint(body, network.vni)
        endpoint = identifier(body, "EndpointID")
        for other, there in network.endpoints.items():
            if other != endpoint and _same_place(there, new):
                log.warning("endpoint %s: lost, its address has a new owner", other[:12])
                network = self._upkeep.lose(network, other)
        self._store.set_network(key, _with(network, endpoint, new))
        given = (body.get("Interface") or {}).get("MacAddress")
        return {} if given else {"Interface": {"MacAddress": new.mac}}

    def delete_endpoint(self, body: Body) -> Body:
        """No error if there is none: Docker must be able to clean up."""
        key, endpoint = identifier(body, "NetworkID"), identifier(body, "EndpointID")
        network = self._store.networks.get(key)
        if network is not None and endpoint in network.endpoints:
            self._store.set_network(key, self._upkeep.lose(network, endpoint))
        else:
            self._devices.disconnect(endpoint)
        return {}

    def endpoint_info(self, body: Body) -> Body:
        """What Docker keeps with an endpoint."""
        _, network = self._network(body)
        endpoint = self._endpoint(network, body)
        return {"Value": {"vni": str(network.vni), "mac": endpoint.mac}}

    def join(self, body: Body) -> Body:
        """A link for a container, which Docker moves into it."""
        key, network = self._network(body)
        name, endpoint = identifier(body, "EndpointID"), self._endpoint(network, body)
        inner = self._devices.connect(name, network.vni, network.attach, endpoint.mac, network.mtu)
        try:
            joined = replace(endpoint, sandbox=str(body.get("SandboxKey") or "unknown"), seen=False)
            self._store.set_network(key, _with(network, name, joined))
        except StateError:
            self._devices.disconnect(name)
            raise
        self._upkeep.announce(network, endpoint)
        return {"InterfaceName": {"SrcName": inner, "DstPrefix": "eth"}}

    def leave(self, body: Body) -> Body:
        """Take the link away."""
        key, name = identifier(body, "NetworkID"), identifier(body, "EndpointID")
        self._devices.disconnect(name)
        network = self._store.networks.get(key)
        if network is not None and name in network.endpoints:
            self._upkeep.withdraw(network, network.endpoints[name])
            left = replace(network.endpoints[name], sandbox="")
            self._store.set_network(key, _with(network, name, left))
        return {}

    def _endpoint(self, network: Network, body: Body) -> Endpoint:
        name = identifier(body, "EndpointID")
        if name not in network.endpoints:
            raise Refusal(f"the endpoint {name[:12]} is unknown here: start the container again")
        return network.endpoints[name]


def _capabilities(_body: Body) -> Body:
    return {"Scope": "local", "ConnectivityScope": "global"}


def _nothing(_body: Body) -> Body:
    return {}


def _same_place(one: Endpoint, other: Endpoint) -> bool:
    return any(
        mine and mine == theirs
        for mine, theirs in ((one.address, other.address), (one.address6, other.address6))
    )


def _with(network: Network, name: str, endpoint: Endpoint) -> Network:
    return replace(network, endpoints={**network.endpoints, name: endpoint})


@contextmanager
def _explained() -> Iterator[None]:
    """What the host or the disk refuses is told to Docker's user."""
    try:
        yield
    except (NetdevError, StateError) as error:
        raise Refusal(str(error)) from error
