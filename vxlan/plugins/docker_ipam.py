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
"""

from __future__ import annotations

import ipaddress
import logging
import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from vxlan.plugins.docker_http import Handler, Refusal
from vxlan.plugins.docker_state import Pool, StateError, Store

Body = dict[str, Any]
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Share = tuple[int, int]

MAX_USED = 65536
"""Addresses of one pool that can be in use on one host."""

log = logging.getLogger(__name__)


def parse_share(text: str) -> Share:
    """ "2/4" -> (2, 4).  ValueError with the remedy."""
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    share = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= share[0] <= share[1]:
        raise ValueError(f"{text!r} is no share: write 2/4 for the second of four parts")
    return share


class IpamDriver:
    """The pools of one plugin."""

    def __init__(self, store: Store, lock: threading.RLock, share: Share | None = None) -> None:
        self._store = store
        self._lock = lock
        self._share = share

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
        subnet = _subnet(body.get("Pool"), bool(body.get("V6")))
        options = body.get("Options") or {}
        first, last = self._part(subnet, str(body.get("SubPool") or ""), options)
        pool = Pool(str(subnet), str(first), str(last))
        key = f"{body.get('AddressSpace') or _LOCAL}/{subnet}"
        self._refuse_overlap(key, pool)
        self._store.set_pool(key, pool)
        return {"PoolID": key, "Pool": str(subnet), "Data": {}}

    def _part(self, subnet: Subnet, within: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
        if within:
            part = _subnet(within, subnet.version == 6)
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
        for other, pool in self._store.pools.items():
            there = ipaddress.ip_network(pool.subnet)
            retried = other == key and not pool.used  # Docker heard no answer and asks again
            if there.version == subnet.version and there.overlaps(subnet) and not retried:
                raise Refusal(
                    f"--subnet {subnet} overlaps {there} of another network: choose another, "
                    "or `docker network rm` that one"
                )

    def release_pool(self, body: Body) -> Body:
        """No error if there is none."""
        self._store.set_pool(str(body.get("PoolID")), None)
        return {}

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
            address = self._asked(pool, subnet, asked or str(_first(subnet)))
            used = {**pool.used, address: "gateway" if gateway else "static"}
            self._store.set_pool(key, replace(pool, used=used))
        else:
            address = _next(pool, subnet, self._held(pool))
            used = {**pool.used, address: "dynamic"}
            self._store.set_pool(key, replace(pool, used=used, latest=address))
        return {"Address": f"{address}/{subnet.prefixlen}", "Data": {}}

    def _asked(self, pool: Pool, subnet: Subnet, text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise Refusal(f"{text!r} is no address") from None
        if address not in subnet:
            raise Refusal(f"{address} is outside of {subnet}")
        text = str(address)
        if text in self._held(pool) or (text in pool.used and not self._lost(pool, text)):
            raise Refusal(f"{address} is in use on this host: choose another")
        return text

    def _held(self, pool: Pool) -> set[str]:
        """What endpoints have, whoever gave it to them."""
        return _held([one for one in self._store.networks.values() if pool.subnet in one.pools])

    def _lost(self, pool: Pool, address: str) -> bool:
        """Whether nobody has it: Docker heard no answer, or died before it gave it back."""
        if pool.used[address] == "gateway":
            return False
        ours = any(pool.subnet in network.pools for network in self._store.networks.values())
        return ours and address not in self._held(pool)

    def release_address(self, body: Body) -> Body:
        """No error if it is free."""
        key, address = str(body.get("PoolID")), str(body.get("Address") or "").partition("/")[0]
        pool = self._store.pools.get(key)
        if pool is not None and address in pool.used:
            used = {other: kind for other, kind in pool.used.items() if other != address}
            self._store.set_pool(key, replace(pool, used=used))
        return {}

    def collect(self) -> None:
        """Take back the dynamic addresses that no endpoint has; for a start, when none is made."""
        with self._lock:
            for key, pool in list(self._store.pools.items()):
                lost = {
                    one
                    for one, kind in pool.used.items()
                    if kind == "dynamic" and self._lost(pool, one)
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


def _subnet(value: object, six: bool) -> Subnet:
    if not value:
        raise Refusal(
            "no subnet: all hosts of a network need the same one, give "
            + ("--subnet 2001:db8:42::/64" if six else "--subnet 10.42.0.0/16")
        )
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError as error:
        raise Refusal(f"{value!r} is no subnet: {error}") from None


def _first(subnet: Subnet) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that stands for a gateway, the same on every host."""
    return subnet[1] if subnet.num_addresses > 2 else subnet[0]


def _next(pool: Pool, subnet: Subnet, held: Collection[str] = ()) -> str:
    """The first free address after the latest, round the part."""
    kind = type(subnet[0])
    first, last = int(ipaddress.ip_address(pool.first)), int(ipaddress.ip_address(pool.last))
    unfit = _unfit(subnet)
    size = last - first + 1
    begin = int(ipaddress.ip_address(pool.latest)) + 1 - first if pool.latest else 0
    for step in range(min(size, len(pool.used) + len(held) + len(unfit) + 1)):
        number = first + (begin + step) % size
        address = str(kind(number))
        if number not in unfit and address not in pool.used and address not in held:
            return address
    raise Refusal(
        f"no address is free: this host has {pool.first} to {pool.last} of {subnet}; "
        "give it a larger part, or remove containers"
    )


def _unfit(subnet: Subnet) -> set[int]:
    """The subnet's own address, and what is broadcast or anycast there."""
    if subnet.num_addresses <= 2:
        return set()
    ends = {int(subnet[0]), int(_first(subnet))}
    return ends | {int(subnet[-1])} if subnet.version == 4 else ends


def _held(networks: list[Any]) -> set[str]:
    endpoints = [endpoint for network in networks for endpoint in network.endpoints.values()]
    both = [one for endpoint in endpoints for one in (endpoint.address, endpoint.address6)]
    return {one.partition("/")[0] for one in both}
