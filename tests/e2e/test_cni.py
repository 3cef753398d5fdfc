"""CNI: the plugin as a process, a real node, containers as namespaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtime import HOST_LOCAL, NETWORK, Box, Refused, Runtime, attached, ranges

from vxlan import netdev
from vxlan.lab import ping

pytestmark = pytest.mark.namespaces
# -- VERSION and what is wrong before anything happens ---------------------------------------


def test_version_lists_what_is_spoken(here: Runtime) -> None:
    answer = here.call("VERSION", text='{"cniVersion": "1.0.0"}')
    assert answer == {"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}


@pytest.mark.parametrize(
    ("verb", "environment", "code", "word"),
    [
        ("", {}, 4, "CNI_COMMAND"),
        ("JUMP", {}, 4, "CNI_COMMAND"),
        ("ADD", {"CNI_CONTAINERID": "c", "CNI_NETNS": ""}, 4, "CNI_NETNS"),
        ("ADD", {"CNI_CONTAINERID": "../c", "CNI_NETNS": "/x"}, 4, "CNI_CONTAINERID"),
        ("ADD", {"CNI_CONTAINERID": "c", "CNI_NETNS": "/x", "CNI_IFNAME": "a/b"}, 4, "CNI_IFNAME"),
        ("ADD", {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none"}, 3, "namespace"),
    ],
)
def test_a_call_that_is_wrong_is_refused_with_its_code(
    here: Runtime, verb: str, environment: dict[str, str], code: int, word: str
) -> None:
    with pytest.raises(Refused, match=word) as refused:
        here.call(verb, **environment)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 6),
        ("[]", 6),
        ('{"cniVersion": "0.2.0", "name": "n"}', 1),
        ('{"cniVersion": "2.0.0", "name": "n"}', 1),
        ('{"cniVersion": "1.0.0", "name": "-"}', 7),
        ('{"cniVersion": "1.0.0", "name": "n", "ipam": []}', 7),
        ('{"cniVersion": "1.0.0", "name": "n", "ipam": {"type": "../x"}, "vni": 42}', 7),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_its_code(
    here: Runtime, box: Callable[[], Box], text: str, code: int
) -> None:
    if '"ipam": []' in text:
        text = text.replace("[]", "[1]")
    with pytest.raises(Refused) as refused:
        here.call("ADD", box(), text=text)
    assert refused.value.code == code
    assert refused.value.answer["cniVersion"] in ("1.0.0", "1.1.0")


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ({"vni": 43}, 7, "no segment 43"),
        ({"vni": None}, 7, "vni is missing"),
        ({"mtu": 1500}, 101, "at most|ask for less"),
        ({"mac": "01:00:5e:00:00:01"}, 7, "group"),
        ({"node": "nobody"}, 11, "no node named nobody"),
        ({"ipam": {"type": "pyvxlan-cni"}}, 7, "subnet"),
        ({"ipam": {"type": "nowhere"}}, 7, "no ipam plugin nowhere"),
        ({"ipam": {"type": "pyvxlan-cni", "subnet": "10.42.0.1/16"}}, 7, "no subnet"),
        (
            {"ipam": {"subnet": "10.42.0.0/16", "routes": [{"dst": "x"}]}},
            7,
            "no IP address",
        ),
        (
            {
                "ipam": {
                    "subnet": "10.42.0.0/16",
                    "routes": [{"dst": "10.9.0.0/16", "gw": "192.0.2.9"}],
                }
            },
            100,
            "unreachable",
        ),
    ],
)
def test_what_cannot_be_had_leaves_nothing_behind(
    here: Runtime, box: Callable[[], Box], keys: dict[str, Any], code: int, said: str
) -> None:
    one = box()
    before = {link.name for link in netdev.links(here.host.name)}
    with pytest.raises(Refused, match=said) as refused:
        here.add(one, keys)
    assert refused.value.code == code
    assert refused.value.answer["msg"]
    assert attached(here) == []
    assert {link.name for link in netdev.links(here.host.name)} == before
    assert [link.name for link in netdev.links(one.name)] == ["lo"]


# -- ADD, CHECK, DEL ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_a_container_from_beginning_to_end(
    here: Runtime, box: Callable[[], Box], version: str
) -> None:
    one = box()
    result = here.add(one, {"cniVersion": version})
    assert result["cniVersion"] == version
    port, inside = result["interfaces"]
    assert inside["name"] == "eth0"
    assert inside["sandbox"] == f"/run/netns/{one.name}"
    link = netdev.link("eth0", one.name)
    assert (link.mac.hex(":"), link.mtu, link.up) == (inside["mac"], 1450, True)
    assert inside.get("mtu") == (1450 if version == "1.1.0" else None)
    assert port["mac"] == netdev.link(port["name"], here.host.name).mac.hex(":")
    (ip,) = result["ips"]
    assert one.addresses() == [ip["address"]]
    assert (ip["gateway"], ip["interface"]) == ("10.42.0.1", 1)
    assert ip.get("version") == ("4" if version == "0.4.0" else None)
    assert result["routes"] == [{"dst": "0.0.0.0/0"}]
    here.check(one)
    here.delete(one)
    assert attached(here) == []
    assert not netdev.exists(port["name"], here.host.name)
    assert not netdev.exists("eth0", one.name)


def test_containers_of_two_hosts_reach_each_other(
    runtimes: tuple[Runtime, Runtime], box: Callable[[], Box]
) -> None:
    one, two = box(), box()
    for runtime, at in zip(runtimes, (one, two), strict=True):
        runtime.add(at)
    assert ping(one, two.addresses()[0].partition("/")[0]).received == 1  # type: ignore[arg-type]


def test_delete_is_idempotent_and_needs_no_namespace(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    here.add(one)
    one.vanish()
    here.delete(one, CNI_NETNS="")
    here.delete(one, CNI_NETNS="")
    assert attached(here) == []


def test_a_second_add_is_refused_and_the_first_stays(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    here.add(one)
    with pytest.raises(Refused, match="attached to net42 already") as refused:
        here.call("ADD", one)
    assert refused.value.code == 101
    here.check(one)


def test_two_networks_in_one_container(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    here.add(one)
    other = {"name": "other", "ipam": {"subnet": "10.43.0.0/24"}}
    here.call("ADD", one, other, CNI_IFNAME="eth1")
    assert netdev.link("eth1", one.name).up
    here.delete(one)
    assert [each["network"] for each in attached(here)] == ["other"]


def test_an_interface_that_is_there_is_not_touched(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    netdev.create_veth("eth0", "x", one.name)
    with pytest.raises(Refused, match="has an interface eth0 already"):
        here.add(one)
    assert netdev.exists("eth0", one.name)
    assert attached(here) == []


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (lambda box: netdev.set_up("eth0", False, box.name), "it is down"),
        (lambda box: netdev.del_address("eth0", box.addresses()[0], box.name), "no address"),
        (lambda box: netdev.del_route("default", via="10.42.0.1", netns=box.name), "no route"),
        (lambda box: netdev.set_mac("eth0", b"\x02\0\0\0\0\1", box.name), "its MAC is"),
        (lambda box: netdev.rename("eth0", "eth9", box.name), "No such device"),
    ],
    ids=["down", "address", "route", "mac", "renamed"],
)
def test_check_finds_what_is_broken(
    here: Runtime, box: Callable[[], Box], breakage: Callable[[Box], None], said: str
) -> None:
    one = box()
    here.add(one)
    if "rename" in said or "device" in said:
        netdev.set_up("eth0", False, one.name)
    breakage(one)
    with pytest.raises(Refused, match=said):
        here.check(one)


def test_check_knows_who_is_attached(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    here.add(one)
    result = here.results[one.name]
    here.delete(one)
    with pytest.raises(Refused, match="is not attached") as refused:
        here.call("CHECK", one, {"prevResult": result})
    assert refused.value.code == 3
    with pytest.raises(Refused, match="prevResult"):
        here.call("CHECK", one)


# -- what a user asks for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "environment"),
    [
        ({"runtimeConfig": {"ips": ["10.42.7.7"], "mac": "02:00:00:00:07:07"}}, {}),
        ({"args": {"cni": {"ips": ["10.42.7.7/16"], "mac": "02:00:00:00:07:07"}}}, {}),
        ({}, {"CNI_ARGS": "IgnoreUnknown=1;IP=10.42.7.7;MAC=02:00:00:00:07:07"}),
    ],
    ids=["runtimeConfig", "args.cni", "CNI_ARGS"],
)
def test_address_mac_and_mtu_by_wish(
    here: Runtime, box: Callable[[], Box], keys: dict[str, Any], environment: dict[str, str]
) -> None:
    one = box()
    result = here.add(one, {"mtu": 1400, **keys}, **environment)
    assert result["ips"][0]["address"] == "10.42.7.7/16"
    link = netdev.link("eth0", one.name)
    assert (link.mac.hex(":"), link.mtu) == ("02:00:00:00:07:07", 1400)
    assert one.addresses() == ["10.42.7.7/16"]
    with pytest.raises(Refused, match="choose another"):
        here.call("ADD", box(), {"mtu": 1400, **keys}, **environment)


def test_ipv6_beside_ipv4_and_routes(here: Runtime, box: Callable[[], Box]) -> None:
    ipam = ranges("10.42.1.1", "10.42.1.9")
    ipam["ranges"].append([{"subnet": "2001:db8:42::/64", "gateway": "2001:db8:42::1"}])
    ipam["routes"] = [{"dst": "::/0"}, {"dst": "10.99.0.0/16", "gw": "10.42.0.9", "mtu": 1300}]
    one = box()
    result = here.add(one, {"ipam": ipam, "cniVersion": "0.4.0"})
    assert [ip["version"] for ip in result["ips"]] == ["4", "6"]
    assert one.addresses() == [ip["address"] for ip in result["ips"]]
    route = netdev.route_to("2001:db8:99::1", one.name)
    assert route.gateway == "2001:db8:42::1"
    assert netdev.route_to("10.99.0.1", one.name).gateway == "10.42.0.9"
    here.check(one)


def test_of_two_routes_the_one_of_the_lower_priority_counts(
    here: Runtime, box: Callable[[], Box]
) -> None:
    ipam = ranges("10.42.1.1", "10.42.1.9")
    ipam["routes"] = [
        {"dst": "10.99.0.0/16", "gw": f"10.42.0.{number}", "priority": number}
        for number in (9, 7, 8)
    ]
    one = box()
    here.add(one, {"ipam": ipam, "cniVersion": "1.1.0"})
    assert netdev.route_to("10.99.0.1", one.name).gateway == "10.42.0.7"
    here.check(one)


def test_names_are_kept(here: Runtime, box: Callable[[], Box]) -> None:
    one = box()
    here.add(
        one,
        {"runtimeConfig": {"aliases": {NETWORK: ["web"]}}},
        CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=p1",
    )
    assert attached(here)[0]["names"] == ["p1", "web"]


def test_what_a_plugin_before_us_did_stays_in_the_result(
    here: Runtime, box: Callable[[], Box]
) -> None:
    before = {"interfaces": [{"name": "dummy0"}], "ips": [], "dns": {"nameservers": ["10.42.0.1"]}}
    result = here.add(box(), {"prevResult": before})
    assert [one["name"] for one in result["interfaces"]][::2] == ["dummy0", "eth0"]
    assert result["ips"][0]["interface"] == 2
    assert result["dns"] == {"nameservers": ["10.42.0.1"]}


def test_an_address_rests_before_it_is_given_again_and_a_full_range_says_so(
    here: Runtime, box: Callable[[], Box]
) -> None:
    narrow = {"ipam": {"subnet": "10.44.0.0/29"}}  # six stations
    first = box()
    given = [here.add(first, narrow)["ips"][0]["address"]]
    here.delete(first)
    given += [here.add(box(), narrow)["ips"][0]["address"] for _ in range(6)]
    assert len(set(given)) == 6
    assert given[0] == given[-1]
    with pytest.raises(Refused, match="no address is free in 10.44.0.1-10.44.0.6"):
        here.add(box(), narrow)


# -- delegation ----------------------------------------------------------------------------------


@pytest.mark.skipif(not HOST_LOCAL.exists(), reason="needs host-local: containernetworking-plugins")
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_addresses_from_host_local(
    here: Runtime, box: Callable[[], Box], tmp_path: Path, version: str
) -> None:
    ipam = {
        "type": "host-local",
        "dataDir": str(tmp_path),
        "ranges": [[{"subnet": "10.45.0.0/24"}], [{"subnet": "2001:db8:45::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    one = box()
    keys = {"ipam": ipam, "cniVersion": version}
    result = here.add(one, keys)
    assert [ip["address"] for ip in result["ips"]] == ["10.45.0.2/24", "2001:db8:45::2/64"]
    assert one.addresses() == ["10.45.0.2/24", "2001:db8:45::2/64"]
    assert netdev.route_to("192.0.2.77", one.name).gateway == "10.45.0.1"
    here.call("CHECK", one, {**keys, "prevResult": result})
    here.call("DEL", one, keys)
    here.call("DEL", one, keys)
    assert list((tmp_path / NETWORK).glob("10.45*")) == []


@pytest.mark.skipif(not HOST_LOCAL.exists(), reason="needs host-local: containernetworking-plugins")
def test_a_delegate_gets_back_what_was_not_used(
    here: Runtime, box: Callable[[], Box], tmp_path: Path
) -> None:
    ipam = {"type": "host-local", "dataDir": str(tmp_path), "subnet": "10.45.0.0/24"}
    with pytest.raises(Refused, match="no segment 99"):
        here.add(box(), {"ipam": ipam, "vni": 99})
    assert list((tmp_path / NETWORK).glob("10.45*")) == []


# -- STATUS and GC ------------------------------------------------------------------------------


def test_status_says_whether_add_could_succeed(here: Runtime) -> None:
    assert here.call("STATUS", conf={"cniVersion": "1.1.0"}) is None
    for keys in ({"node": "nobody"}, {"vni": 43}):
        with pytest.raises(Refused) as refused:
            here.call("STATUS", conf={"cniVersion": "1.1.0", **keys})
        assert refused.value.code == 50


def test_gc_takes_back_what_no_runtime_knows(here: Runtime, box: Callable[[], Box]) -> None:
    kept, lost = box(), box()
    for one in (kept, lost):
        here.add(one)
    other = box()
    here.call("ADD", other, {"name": "other"})
    valid = [{"containerID": kept.name, "ifname": "eth0"}]
    keys = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    assert here.call("GC", conf=keys) is None
    assert {one["container"] for one in attached(here)} == {kept.name, other.name}
    assert not netdev.exists("eth0", lost.name)
    with pytest.raises(Refused, match="valid-attachments"):
        here.call("GC", conf={"cniVersion": "1.1.0"})
    assert len(attached(here)) == 2


def test_netns_paths_are_taken_as_they_are(here: Runtime, box: Callable[[], Box]) -> None:
    """A runtime may name the namespace by a process, as containerd does."""
    one = box()
    holder = one.popen(["sleep", "60"])
    try:
        here.call("ADD", one, CNI_NETNS=f"/proc/{holder.pid}/ns/net")
        assert one.addresses() == [attached(here)[0]["addresses"][0]]
    finally:
        holder.kill()
        holder.wait()
