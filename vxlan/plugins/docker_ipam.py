"""Docker's address management: IpamDriver.*, such that no two hosts hand out one address.

Theory of operation
===================

Docker's own IPAM knows one host.  This one hands out a part of each subnet, which is
this host's alone:

    --ip-range 10.42.1.0/24         said for each network, or
    --ipam-opt share=2/4            the second of four equal parts, or
    pyvxlan docker serve --share 2/4    said once for the host

With none of these an address could be handed out twice: that is refused.  `share=1/1`
says that this host has all of it.

    subnet   10.42.0.0/16
             |gateway 10.42.0.1: on every host the same, and nobody's
             |-- share 1/4 --|-- share 2/4 --|-- share 3/4 --|-- share 4/4 --|

Addresses go round: one that was given back is handed out again as late as possible, since
neighbours remember it.  An address that is asked for (`--ip`) may lie anywhere in the
subnet, and is whoever's who asks.

Docker takes its steps one by one, and may be killed between any two.  A pool comes before its
network and an address before its endpoint, so for a minute (FRESH) what was asked for is
taken to be on its way.  Later, and when the plugin or a dockerd begins, an address that no
endpoint has is free again, and a pool that Docker does not know keeps nobody from its subnet.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from vxlan.plugins import docker_engine
from vxlan.plugins.docker_addresses import (
    Share,
    Subnet,
    first_of,
    next_free,
    parse_share,
    subnet_of,
)
from vxlan.plugins.docker_http import Handler, Refusal
from vxlan.plugins.docker_state import Network, Pool, StateError, Store

Body = dict[str, Any]

MAX_USED = 65536
"""Addresses of one pool that can be in use on one host."""

FRESH = 60.0
"""Seconds in which Docker makes a network of a pool, and an endpoint of an address."""

log = logging.getLogger(__name__)


class IpamDriver:
    """The pools of one plugin."""

    def __init__(self, store: Store, lock: threading.RLock, share: Share | None = None) -> None:
        self._store = store
        self._lock = lock
        self._share = share
        self._asked_at: dict[str, float] = {}
        self._given_at: dict[str, dict[str, float]] = {}

    def table(self) -> Mapping[str, Handler]:
        """Method -> function, for vxlan/plugins/docker_http.py."""
        calls: dict[str, Handler] = {
            "GetCapabilities": _capabilities,
            "GetDefaultAddressSpaces": _spaces,
            "RequestPool": self.request_pool,
            "ReleasePool": self.release_pool,
            "RequestAddress": self.request_address,
            "ReleaseAddress": self.release_address,
        }
        return {f"IpamDriver.{name}": self._locked(call) for name, call in calls.items()}

    def _locked(self, call: Handler) -> Handler:
        def one_after_another(body: Body) -> Body:
            try:
                with self._lock:
                    return call(body)
            except StateError as error:
                raise Refusal(str(error)) from error

        return one_after_another

    # -- pools -------------------------------------------------------------------------------

    def request_pool(self, body: Body) -> Body:
        """A subnet and this host's part of it."""
        subnet = subnet_of(body.get("Pool"), bool(body.get("V6")))
        options = body.get("Options") or {}
        first, last = self._part(subnet, str(body.get("SubPool") or ""), options)
        pool = Pool(str(subnet), str(first), str(last))
        key = f"{body.get('AddressSpace') or _LOCAL}/{subnet}"
        self._refuse_overlap(key, pool)
        self._store.set_pool(key, pool)
        self._asked_at[key] = time.monotonic()
        return {"PoolID": key, "Pool": str(subnet), "Data": {}}

    def _part(self, subnet: Subnet, within: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
        if within:
            part = subnet_of(within, subnet.version == 6)
            if part[0] not in subnet or part[-1] not in subnet:
                raise Refusal(f"--ip-range {part} is outside of --subnet {subnet}")
            return part[0], part[-1]
        share = self._chosen_share(options)
        size = subnet.num_addresses // share[1]
        if size < 1:
            raise Refusal(
                f"{subnet} cannot be divided into {share[1]} parts: give a larger --subnet"
            )
        return subnet[(share[0] - 1) * size], subnet[share[0] * size - 1]

    def _chosen_share(self, options: Mapping[str, Any]) -> Share:
        if "share" in options:
            try:
                return parse_share(str(options["share"]))
            except ValueError as error:
                raise Refusal(f"--ipam-opt share: {error}") from None
        if self._share is None:
            raise Refusal(
                "two hosts would hand out the same addresses: give each its part, by --ip-range, "
                "--ipam-opt share=2/4 or `pyvxlan docker serve --share 2/4` (1/1: all of it is "
                "this host's)"
            )
        return self._share

    def _refuse_overlap(self, key: str, wanted: Pool) -> None:
        subnet = ipaddress.ip_network(wanted.subnet)
        for other, pool in list(self._store.pools.items()):
            there = ipaddress.ip_network(pool.subnet)
            # Docker heard no answer and asks again
            retried = other == key and not pool.used and key not in self._asked_at
            if there.version != subnet.version or not there.overlaps(subnet) or retried:
                continue
            if not self._left(other, there):
                raise Refusal(
                    f"--subnet {subnet} overlaps {there} of another network: choose another, "
                    "or `docker network rm` that one"
                )
            log.warning("%s: Docker knows it no more: given back", there)
            self._forget_pool(other)

    def _left(self, key: str, subnet: Subnet) -> bool:
        """Whether Docker died or went on without us before it gave a pool back."""
        networks = self._store.networks.values()
        if _fresh(self._asked_at.get(key)) or _held(_of(networks, str(subnet))):
            return False
        known = docker_engine.subnets()
        return known is not None and subnet not in known

    def release_pool(self, body: Body) -> Body:
        """No error if there is none."""
        self._forget_pool(str(body.get("PoolID")))
        return {}

    def _forget_pool(self, key: str) -> None:
        self._store.set_pool(key, None)
        self._asked_at.pop(key, None)
        self._given_at.pop(key, None)

    # -- addresses ---------------------------------------------------------------------------

    def request_address(self, body: Body) -> Body:
        """The one that is asked for, or the next that is free."""
        key = str(body.get("PoolID"))
        pool = self._store.pools.get(key)
        if pool is None:
            raise Refusal(
                f"the pool {key} is unknown here: its state was lost; "
                "`docker network rm` the network, and create it anew"
            )
        subnet, asked = ipaddress.ip_network(pool.subnet), str(body.get("Address") or "")
        if len(pool.used) >= MAX_USED:
            raise Refusal(f"{MAX_USED} addresses of {subnet} are in use: remove containers")
        gateway = (body.get("Options") or {}).get("RequestAddressType") == _GATEWAY
        if asked or gateway:
            address = self._asked(key, pool, asked or str(first_of(subnet)))
            kind = "gateway" if gateway else "static" if self._ours(pool) else "reserved"
            changed = replace(pool, used={**pool.used, address: kind})
        else:
            address = next_free(pool, subnet, self._held(pool))
            changed = replace(pool, used={**pool.used, address: "dynamic"}, latest=address)
        self._store.set_pool(key, changed)
        self._given_at.setdefault(key, {})[address] = time.monotonic()
        return {"Address": f"{address}/{subnet.prefixlen}", "Data": {}}

    def _asked(self, key: str, pool: Pool, text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise Refusal(f"{text!r} is no address") from None
        if address not in ipaddress.ip_network(pool.subnet):
            raise Refusal(f"{address} is outside of {pool.subnet}")
        text = str(address)
        if text in self._held(pool) or (text in pool.used and not self._lost(key, pool, text)):
            raise Refusal(f"{address} is in use on this host: choose another")
        return text

    def _ours(self, pool: Pool) -> bool:
        """Whether a network of this plugin has it: else nobody here knows its endpoints."""
        return bool(_of(self._store.networks.values(), pool.subnet))

    def _held(self, pool: Pool) -> set[str]:
        """What endpoints have, whoever gave it to them."""
        return _held(_of(self._store.networks.values(), pool.subnet))

    def _lost(self, key: str, pool: Pool, address: str) -> bool:
        """Whether nobody has it: Docker heard no answer, or died before it gave it back."""
        if pool.used[address] in ("gateway", "reserved"):
            return False
        if _fresh(self._given_at.get(key, {}).get(address)):
            return False
        return self._ours(pool) and address not in self._held(pool)

    def release_address(self, body: Body) -> Body:
        """No error if it is free."""
        key, address = str(body.get("PoolID")), str(body.get("Address") or "").partition("/")[0]
        pool = self._store.pools.get(key)
        if pool is not None and address in pool.used:
            used = {other: kind for other, kind in pool.used.items() if other != address}
            self._store.set_pool(key, replace(pool, used=used))
        self._given_at.get(key, {}).pop(address, None)
        return {}

    # -- what was lost -----------------------------------------------------------------------

    def begin(self) -> None:
        """The plugin or a dockerd starts: nothing that was asked for before is on its way."""
        with self._lock:
            self._asked_at.clear()
            self._given_at.clear()
            self._collect()

    def _collect(self) -> None:
        """Take back the dynamic addresses that no endpoint has."""
        for key, pool in list(self._store.pools.items()):
            lost = {
                one
                for one, kind in pool.used.items()
                if kind == "dynamic" and self._lost(key, pool, one)
            }
            if lost:
                log.warning("%s: %d lost addresses taken back", pool.subnet, len(lost))
                used = {one: kind for one, kind in pool.used.items() if one not in lost}
                self._store.set_pool(key, replace(pool, used=used))


_LOCAL = "pyvxlan-local"
_GATEWAY = "com.docker.network.gateway"


def _capabilities(_body: Body) -> Body:
    return {"RequiresMACAddress": False, "RequiresRequestReplay": False}


def _spaces(_body: Body) -> Body:
    return {
        "LocalDefaultAddressSpace": _LOCAL,
        "GlobalDefaultAddressSpace": "pyvxlan-global",
    }


def _fresh(when: float | None) -> bool:
    return when is not None and time.monotonic() - when < FRESH


def _of(networks: Iterable[Network], subnet: str) -> list[Network]:
    return [network for network in networks if subnet in network.pools]


def _held(networks: list[Network]) -> set[str]:
    endpoints = [endpoint for network in networks for endpoint in network.endpoints.values()]
    both = [one for endpoint in endpoints for one in (endpoint.address, endpoint.address6)]
    return {one.partition("/")[0] for one in both}
