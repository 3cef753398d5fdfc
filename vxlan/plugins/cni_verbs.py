"""The verbs of CNI that need a node: ADD, DEL, CHECK, STATUS, GC.  See vxlan/plugins/cni.py."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from vxlan import api
from vxlan.netplain import PlainError
from vxlan.plugins import cni_ipam, cni_result
from vxlan.plugins.cni_words import (
    CONFIGURATION,
    CONFLICT,
    FAILED,
    INPUT_OUTPUT,
    LATER,
    NOT_READY,
    UNKNOWN_CONTAINER,
    Call,
    CniError,
    asked,
    names_of,
)
from vxlan.plugins.join import KEY, attach, detach, find_attached, look, node_for

_CODES = {
    "usage": CONFIGURATION,
    "not_found": CONFIGURATION,
    "conflict": CONFLICT,
    "not_running": LATER,
}


def serve(call: Call, conf: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a call, or None.  Raises CniError."""
    verbs = {"ADD": _add, "DEL": _del, "CHECK": _check, "STATUS": _status, "GC": _gc}
    with _explained():
        if call.verb in ("ADD", "CHECK"):
            cni_result.check_previous(conf)
        return verbs[call.verb](call, conf)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what our own functions raise into errors of CNI."""
    try:
        yield
    except api.ApiError as error:
        raise CniError.of(_CODES.get(error.code, FAILED), str(error)) from None
    except PermissionError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CniError(
            INPUT_OUTPUT, f"{where}{error.strerror}", "run the runtime as root"
        ) from None
    except OSError as error:
        raise CniError(INPUT_OUTPUT, str(error)) from None
    except PlainError as error:
        raise CniError(FAILED, str(error)) from None
    except ValueError as error:
        raise CniError.of(CONFIGURATION, str(error)) from None


# -- ADD -------------------------------------------------------------------------------------


def _add(call: Call, conf: dict[str, Any]) -> dict[str, Any]:
    if not os.path.exists(call.netns):
        cause = f"there is no network namespace {call.netns}"
        raise CniError(UNKNOWN_CONTAINER, cause, "the container ended: start it again")
    delegate = cni_ipam.delegate_of(conf)
    told = cni_ipam.run("ADD", delegate, conf, call) if delegate else {}
    try:
        return _join(call, conf, told if delegate else None)
    except BaseException:
        if delegate:
            with suppress(CniError):
                cni_ipam.run("DEL", delegate, conf, call)
        raise


def _join(call: Call, conf: dict[str, Any], told: dict[str, Any] | None) -> dict[str, Any]:
    """`told`: what the delegate said; None: the node has the addresses."""
    routes = cni_result.routes(conf, told)

    def gateways(attached: dict[str, Any]) -> list[str | None]:
        return list(attached["gateways"]) if told is None else cni_result.gateways(told)

    attached, mac = attach(
        node_for(conf.get("node")),
        _request(call, conf, told),
        lambda attached: cni_result.ways(routes, gateways(attached)),
    )
    ips = list(zip(attached["addresses"], gateways(attached), strict=True))
    return cni_result.result(call, conf, attached, mac, ips, routes, told)


def _request(call: Call, conf: dict[str, Any], told: dict[str, Any] | None) -> dict[str, Any]:
    ipam = conf.get("ipam") or {}
    own = told is None
    return {
        **_key(call, conf),
        "vni": conf.get("vni"),
        "netns": call.netns,
        "names": names_of(conf, call),
        "mac": asked(conf, call, "mac") or conf.get("mac"),
        "mtu": conf.get("mtu"),
        "ips": asked(conf, call, "ips")
        if told is None
        else [ip["address"] for ip in cni_result.ips(told)],
        "ranges": cni_result.ranges(conf, ipam) if own else None,
        "segment": conf.get("segment"),
    }


# -- DEL, GC ---------------------------------------------------------------------------------


def _del(call: Call, conf: dict[str, Any]) -> None:
    delegate = cni_ipam.delegate_of(conf)
    detach(conf.get("node"), _key(call, conf))
    if delegate:
        cni_ipam.run("DEL", delegate, conf, call)


def _gc(call: Call, conf: dict[str, Any]) -> None:
    valid = conf.get("cni.dev/valid-attachments")
    if not isinstance(valid, list) or not all(isinstance(one, dict) for one in valid):
        cause = "cni.dev/valid-attachments is missing"
        raise CniError(CONFIGURATION, cause, "the runtime has to list what is in use")
    known = {(one.get("containerID"), one.get("ifname")) for one in valid}
    for node, one in find_attached(conf.get("node"), {"network": conf["name"]}):
        if (one["container"], one["ifname"]) not in known:
            detach(node, {name: one[name] for name in KEY})
    delegate = cni_ipam.delegate_of(conf)
    if delegate:
        cni_ipam.run("GC", delegate, conf, call)


# -- CHECK, STATUS ------------------------------------------------------------------------------


def _check(call: Call, conf: dict[str, Any]) -> None:
    before = conf.get("prevResult")
    if not before:
        raise CniError(CONFIGURATION, "prevResult is missing", "CHECK needs the result of ADD")
    found = [one for _, one in find_attached(conf.get("node"), _key(call, conf))]
    if not found:
        raise CniError(UNKNOWN_CONTAINER, f"container {call.container} is not attached", _AGAIN)
    if not found[0]["plugged"]:
        cause = f"{found[0]['device']} is not in the bridge of segment {found[0]['vni']}"
        raise CniError(FAILED, cause, _AGAIN)
    _check_inside(call, found[0], before)
    delegate = cni_ipam.delegate_of(conf)
    if delegate:
        cni_ipam.run("CHECK", delegate, conf, call)


_AGAIN = "start the container again"


def _check_inside(call: Call, one: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    link, addresses, ways = look(call.netns, call.ifname)
    interfaces = before.get("interfaces") or []
    ours = [
        at
        for at, each in enumerate(interfaces)
        if each.get("sandbox") and each.get("name") == call.ifname
    ]
    wanted = {ip["address"] for ip in before.get("ips") or [] if ip.get("interface") in ours}
    faults = [f"it has no address {cidr}" for cidr in sorted(wanted - set(addresses))]
    if not link.up:
        faults.append("it is down")
    if link.mac != one["mac"]:
        faults.append(f"its MAC is {link.mac} and not {one['mac']}")
    there = {way.dst for way in ways}
    told = {route.get("dst") for route in before.get("routes") or []}
    faults += [f"there is no route to {dst}" for dst in sorted(filter(None, told - there))]
    if faults:
        raise CniError(FAILED, f"{call.ifname} in {call.netns}: {', '.join(faults)}", _AGAIN)


def _status(call: Call, conf: dict[str, Any]) -> None:
    try:
        shown = api.call(node_for(conf.get("node")), "show")
    except (api.ApiError, OSError) as error:
        raise CniError.of(NOT_READY, str(error)) from None
    vni = conf.get("vni")
    segment = next((one for one in shown["segments"] if one["vni"] == vni), None)
    if segment is None and conf.get("segment"):
        return  # it comes with the first container
    if segment is None or segment["bridge"] is None:
        cause = f"node {shown['name']} has no segment {vni} with a bridge"
        raise CniError(NOT_READY, cause, "add it to the configuration")
    delegate = cni_ipam.delegate_of(conf)
    if delegate:
        cni_ipam.run("STATUS", delegate, conf, call)


# -- what they share ----------------------------------------------------------------------------


def _key(call: Call, conf: Mapping[str, Any]) -> dict[str, Any]:
    return {"network": conf["name"], "container": call.container, "ifname": call.ifname}
