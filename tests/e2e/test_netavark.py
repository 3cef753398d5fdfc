"""`pyvxlan-netavark`: each subcommand as netavark's plugin-API.md describes it, by a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from runtime import Box, Runtime, attached
from worlds import VNI

from vxlan import __version__, api, netdev
from vxlan.lab import Host, ping

pytestmark = pytest.mark.namespaces


class Failed(Exception):
    """What the plugin said, as podman shows it."""


def plugin(host: Host, *words: str, said: object = None, warned: str = "") -> Any:
    """One call; its answer.  `warned` is all that it may say besides."""
    done = host.call(
        subprocess.run,
        [sys.executable, "-m", "vxlan.plugins.netavark", *words],
        input=json.dumps(said),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert warned in done.stderr
    assert bool(done.stderr) == bool(warned), done.stderr
    answer = json.loads(done.stdout) if done.stdout else None
    if done.returncode:
        raise Failed(answer["error"])
    return answer


def network(runtime: Runtime, **keys: Any) -> dict[str, Any]:
    """What `podman network create -o vni=42 -o node=... --subnet --ip-range` hands over."""
    lease = {"start_ip": "10.42.5.1", "end_ip": "10.42.5.9"}
    return {
        "name": "net42",
        "id": "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
        "driver": "pyvxlan-netavark",
        "network_interface": "",
        "subnets": [{"subnet": "10.42.0.0/16", "lease_range": lease, "gateway": None}],
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,
        "ipam_options": {"driver": "host-local"},
        "options": {"vni": str(VNI), "node": runtime.conf["node"]},
        "network_dns_servers": None,
    } | keys


def start(runtime: Runtime, box: Box, made: dict[str, Any], **wish: Any) -> dict[str, Any]:
    return {
        "container_id": box.name,
        "container_name": "web",
        "port_mappings": [],
        "network": made,
        "network_options": {
            "aliases": ["752947ff91f9"],
            "interface_name": "eth0",
            "static_ips": None,
            "static_mac": None,
        }
        | wish,
    }


def where(box: Box) -> str:
    return f"/run/netns/{box.name}"


def test_info(here: Runtime) -> None:
    assert plugin(here.host, "info") == {"version": __version__, "api_version": "1.0.0"}


def test_create_hands_back_what_it_was_given(here: Runtime) -> None:
    given = network(here)
    given["subnets"][0]["gateway"] = "10.42.0.1"
    assert plugin(here.host, "create", said=given) == given


def test_create_says_that_there_is_no_gateway_where_none_is_named(here: Runtime) -> None:
    given = network(here)
    told = given["options"] | {"no_default_route": "true"}
    assert plugin(here.host, "create", said=given) == given | {"options": told}


def test_create_warns_of_addresses_that_every_host_would_give_out(here: Runtime) -> None:
    given = network(here, subnets=[{"subnet": "10.42.0.0/16", "gateway": "10.42.0.1"}])
    assert plugin(here.host, "create", said=given, warned="--ip-range") == given


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        (("create",), {"options": {}}, "option vni is missing"),
        (("create",), {"options": {"vni": "x"}}, "no number"),
        (("create",), {"options": {"vni": "42", "vlan": "1"}}, "no such option: vlan"),
        (("create",), {"options": 3}, "not understood"),
        (("create",), {"subnets": []}, "no subnet"),
        (("fly",), {}, "usage"),
    ],
)
def test_what_is_wrong_is_said(
    here: Runtime, words: tuple[str, ...], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(Failed, match=said):
        plugin(here.host, *words, said=network(here, **change))


def test_from_setup_to_teardown(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    call = start(here, one, network(here))
    status = plugin(here.host, "setup", where(one), said=call)
    link = netdev.link("eth0", one.name)
    assert status == {
        "dns_search_domains": [],
        "dns_server_ips": [],
        "interfaces": {
            "eth0": {"mac_address": link.mac.hex(":"), "subnets": [{"ipnet": "10.42.5.1/16"}]}
        },
    }
    assert one.addresses() == ["10.42.5.1/16"]
    assert attached(here)[0]["names"] == ["web", "752947ff91f9"]
    assert plugin(here.host, "teardown", where(one), said=call) is None
    assert plugin(here.host, "teardown", where(one), said=call) is None
    assert attached(here) == []
    assert not netdev.exists("eth0", one.name)


def test_teardown_asks_every_node_where_none_is_named(
    here: Runtime, box: Callable[[], Box]
) -> None:
    one = box()
    made = network(here)
    plugin(here.host, "setup", where(one), said=start(here, one, made))
    del made["options"]["node"]
    for _ in range(2):
        assert plugin(here.host, "teardown", where(one), said=start(here, one, made)) is None
        assert attached(here) == []
    assert not netdev.exists("eth0", one.name)


def test_address_mac_mtu_and_gateway_by_wish(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    made = network(here)
    made["options"]["mtu"] = "1400"
    made["subnets"] = [
        {"subnet": "10.42.0.0/16", "gateway": "10.42.0.1"},
        {"subnet": "2001:db8:42::/64"},
    ]
    call = start(here, one, made, static_ips=["10.42.7.8"], static_mac="02:00:00:00:07:08")
    status = plugin(here.host, "setup", where(one), said=call)
    assert status["interfaces"]["eth0"]["mac_address"] == "02:00:00:00:07:08"
    first, second = status["interfaces"]["eth0"]["subnets"]
    assert first == {"ipnet": "10.42.7.8/16", "gateway": "10.42.0.1"}
    assert one.addresses() == ["10.42.7.8/16", second["ipnet"]]
    assert netdev.link("eth0", one.name).mtu == 1400
    assert netdev.route_to("198.51.100.1", one.name).gateway == "10.42.0.1"


@pytest.mark.parametrize("keys", [{"internal": True}, {"no_default_route": "true"}])
def test_a_network_without_a_way_out(
    here: Runtime, box: Callable[[], Box], keys: dict[str, Any]
) -> None:
    one = box()
    subnets = [{"subnet": "10.42.0.0/16", "gateway": "10.42.0.1"}]
    made = network(here, internal="internal" in keys, subnets=subnets)
    made["options"] |= {key: value for key, value in keys.items() if key != "internal"}
    status = plugin(here.host, "setup", where(one), said=start(here, one, made))
    assert "gateway" not in status["interfaces"]["eth0"]["subnets"][0]
    with pytest.raises(netdev.NetdevError):
        netdev.route_to("198.51.100.1", one.name)


def test_of_two_routes_the_lower_metric_counts(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    routes = [
        {"destination": "198.51.100.0/24", "gateway": f"10.42.0.{metric}", "metric": metric}
        for metric in (9, 7, 8)
    ]
    call = start(here, one, network(here, routes=routes))
    plugin(here.host, "setup", where(one), said=call)
    assert netdev.route_to("198.51.100.1", one.name).gateway == "10.42.0.7"


def test_published_ports_are_not_passed_over_in_silence(
    here: Runtime, box: Callable[[], Box]
) -> None:
    one = box()
    call = start(here, one, network(here))
    call["port_mappings"] = [{"container_port": 80, "host_port": 8080, "protocol": "tcp"}]
    plugin(here.host, "setup", where(one), said=call, warned="net42 publishes no ports")


def test_it_meets_containers_of_cni(
    runtimes: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    here, there = runtimes
    one, two = box(), box()
    plugin(here.host, "setup", where(one), said=start(here, one, network(here)))
    there.add(two)
    assert ping(one, two.addresses()[0].partition("/")[0]).received == 1  # type: ignore[arg-type]


def test_a_failure_leaves_nothing(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    call = start(here, one, network(here))
    with pytest.raises(Failed, match="No such file"):
        plugin(here.host, "setup", "/run/netns/none", said=call)
    assert attached(here) == []
    made = network(here)
    made["options"] = {"vni": "99", "node": here.conf["node"]}
    with pytest.raises(Failed, match="no segment 99"):
        plugin(here.host, "setup", where(one), said=start(here, one, made))
    assert attached(here) == []


def test_remotes_bring_a_segment_along(here: Runtime, box: Callable[[], Box]) -> None:
    one, node = box(), here.conf["node"]
    made = network(here)
    made["options"] = {"vni": "78", "node": node, "remotes": "192.0.2.2,192.0.2.9"}
    call = start(here, one, made)
    plugin(here.host, "setup", where(one), said=call)
    remotes = [each["address"] for each in api.call(node, "remote.show", vni=78)]
    assert remotes == ["192.0.2.2", "192.0.2.9"]
    plugin(here.host, "teardown", where(one), said=call)
    assert [each["vni"] for each in api.call(node, "show")["segments"]] == [VNI]
