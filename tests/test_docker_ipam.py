"""Docker's IPAM driver: which address is handed out, and that no other host has it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.docker_fakes import Engine, Host
from vxlan.plugins import docker_engine, docker_ipam
from vxlan.plugins.docker_addresses import next_free, parse_share
from vxlan.plugins.docker_http import Refusal
from vxlan.plugins.docker_ipam import IpamDriver
from vxlan.plugins.docker_state import Pool

GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


@pytest.fixture(autouse=True)
def no_dockerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's is asked."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Engine]:
    with Engine(Host(tmp_path), share=(2, 4)) as engine:
        yield engine


def request_pool(docker: Engine, pool: str = "10.42.0.0/16", **more: Any) -> str:
    asked = {"AddressSpace": "pyvxlan-local", "Pool": pool, "SubPool": "", "V6": ":" in pool}
    answer = docker.call("IpamDriver.RequestPool", **{**asked, **more})
    assert answer["Pool"] == pool
    return str(answer["PoolID"])


def address(docker: Engine, pool: str, wanted: str = "", options: Any = None) -> str:
    body = {"PoolID": pool, "Address": wanted, "Options": options}
    return str(docker.call("IpamDriver.RequestAddress", **body)["Address"])


def test_what_docker_asks_first(docker: Engine) -> None:
    assert docker.call("IpamDriver.GetCapabilities")["RequiresMACAddress"] is False
    spaces = docker.call("IpamDriver.GetDefaultAddressSpaces")
    assert spaces["LocalDefaultAddressSpace"] != spaces["GlobalDefaultAddressSpace"]


def test_addresses_come_from_this_host_s_part_and_go_round(docker: Engine) -> None:
    pool = request_pool(docker)
    assert address(docker, pool, options=GATEWAY) == "10.42.0.1/16"
    assert [address(docker, pool) for _ in range(2)] == ["10.42.64.0/16", "10.42.64.1/16"]
    docker.call("IpamDriver.ReleaseAddress", PoolID=pool, Address="10.42.64.0")
    assert address(docker, pool) == "10.42.64.2/16"
    assert address(docker, pool, "10.42.200.7") == "10.42.200.7/16"


def test_ip_range_and_option_overrule_the_host_s_share(docker: Engine) -> None:
    pool = request_pool(docker, SubPool="10.42.9.0/30")
    assert [address(docker, pool) for _ in range(4)] == [f"10.42.9.{n}/16" for n in range(4)]
    assert "this host has 10.42.9.0 to 10.42.9.3" in docker.refusal(
        "IpamDriver.RequestAddress", PoolID=pool, Address=""
    )
    other = request_pool(docker, "10.43.0.0/16", Options={"share": "1/2"})
    assert address(docker, other) == "10.43.0.2/16"


def test_ipv6(docker: Engine) -> None:
    pool = request_pool(docker, "2001:db8:42::/64")
    assert address(docker, pool, options=GATEWAY) == "2001:db8:42::1/64"
    assert address(docker, pool) == "2001:db8:42:0:4000::/64"


def test_without_a_part_nothing_is_handed_out(tmp_path: Path) -> None:
    with Engine(Host(tmp_path)) as docker:
        refused = docker.refusal("IpamDriver.RequestPool", Pool="10.42.0.0/16")
        assert "two hosts would hand out the same addresses: give each its part" in refused


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"Pool": ""}, "no subnet: all hosts of a network need the same one"),
        ({"Pool": "10.42"}, "'10.42' is no subnet"),
        ({"Pool": "10.44.0.0/16", "SubPool": "10.45.0.0/24"}, "is outside of --subnet"),
        ({"Pool": "10.44.0.0/16", "SubPool": "2001:db8::/64"}, "is outside of --subnet"),
        ({"Pool": "10.44.0.0/16", "Options": {"share": "5/4"}}, "'5/4' is no share: write 2/4"),
        ({"Pool": "10.44.0.0/31"}, "cannot be divided into 4 parts"),
        ({"Pool": "10.42.7.0/24"}, "overlaps 10.42.0.0/16 of another network"),
        ({"Pool": "10.0.0.0/8"}, "overlaps 10.42.0.0/16 of another network"),
    ],
)
def test_pools_that_cannot_be(docker: Engine, asked: dict[str, Any], words: str) -> None:
    address(docker, request_pool(docker))
    assert words in docker.refusal("IpamDriver.RequestPool", AddressSpace="pyvxlan-local", **asked)


def test_addresses_that_cannot_be(docker: Engine) -> None:
    pool = request_pool(docker)
    address(docker, pool, "10.42.0.9")
    for wanted, words in (
        ("10.43.0.1", "10.43.0.1 is outside of 10.42.0.0/16"),
        ("2001:db8::1", "is outside of"),
        ("ten", "'ten' is no address"),
        ("10.42.0.9", "10.42.0.9 is in use on this host: choose another"),
    ):
        assert words in docker.refusal("IpamDriver.RequestAddress", PoolID=pool, Address=wanted)
    refused = docker.refusal("IpamDriver.RequestAddress", PoolID="none", Address="")
    assert "its state was lost; `docker network rm` the network" in refused


def test_a_pool_whose_answer_was_lost_can_be_asked_for_again(tmp_path: Path) -> None:
    """Docker repeats a call when the plugin died before it answered."""
    host = Host(tmp_path)
    with Engine(host, share=(1, 1)) as docker:
        pool = request_pool(docker)
    with Engine(host, share=(1, 1)) as docker:
        assert request_pool(docker) == pool
        docker.call("IpamDriver.ReleasePool", PoolID=pool)
        docker.call("IpamDriver.ReleasePool", PoolID="none")
        request_pool(docker)


def test_the_second_of_two_networks_that_want_one_subnet_is_refused(docker: Engine) -> None:
    """Each was begun before the other had an address."""
    pool = request_pool(docker)
    assert "overlaps" in docker.refusal("IpamDriver.RequestPool", Pool="10.42.0.0/16")
    assert address(docker, pool, options=GATEWAY) == "10.42.0.1/16"


def test_a_pool_that_docker_lost_keeps_nobody_from_its_subnet(
    docker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dockerd was killed after it had the gateway, and before it stored the network."""
    lost, known = request_pool(docker), request_pool(docker, "10.43.0.0/16")
    for pool in (lost, known):
        address(docker, pool, options=GATEWAY)
    there = docker_engine.subnets_of([{"IPAM": {"Config": [{"Subnet": "10.43.0.0/16"}]}}])
    for answer, fresh, words in (
        (there, 60.0, "overlaps"),  # it may be on its way
        (None, 0.0, "overlaps"),  # Docker cannot be asked
    ):
        monkeypatch.setattr(docker_engine, "subnets", lambda answer=answer: answer)
        monkeypatch.setattr(docker_ipam, "FRESH", fresh)
        assert words in docker.refusal("IpamDriver.RequestPool", Pool="10.42.7.0/24")
    monkeypatch.setattr(docker_engine, "subnets", lambda: there)
    assert "overlaps" in docker.refusal("IpamDriver.RequestPool", Pool="10.43.7.0/24")
    request_pool(docker, "10.42.7.0/24")
    assert set(docker.plugin.store.pools) == {known, "pyvxlan-local/10.42.7.0/24"}


def test_a_dockerd_that_begins_has_nothing_on_its_way(
    docker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    address(docker, request_pool(docker), options=GATEWAY)
    monkeypatch.setattr(docker_engine, "subnets", set)
    assert "overlaps" in docker.refusal("IpamDriver.RequestPool", Pool="10.42.0.0/16")
    docker.call("Plugin.Activate")
    request_pool(docker)


def test_a_pool_whose_network_has_containers_is_kept_whatever_docker_says(
    docker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = request_pool(docker)
    docker.run(docker.create(), address(docker, pool))
    monkeypatch.setattr(docker_engine, "subnets", set)
    monkeypatch.setattr(docker_ipam, "FRESH", 0.0)
    assert "overlaps" in docker.refusal("IpamDriver.RequestPool", Pool="10.42.0.0/16")


def test_addresses_outlive_the_plugin_and_lost_ones_come_back(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with Engine(host, share=(1, 1)) as docker:
        pool = request_pool(docker)
        address(docker, pool, options=GATEWAY)
        network = docker.create()
        held = address(docker, pool)
        docker.run(network, held)
        address(docker, pool)  # and dockerd was killed before it made the endpoint
    with Engine(host, share=(1, 1)) as docker:
        used = docker.plugin.store.pools[pool].used
        assert used == {"10.42.0.1": "gateway", held.partition("/")[0]: "dynamic"}
        assert address(docker, pool, "10.42.0.3") == "10.42.0.3/16"
    with Engine(host, share=(1, 1)) as docker:
        assert address(docker, pool, "10.42.0.3") == "10.42.0.3/16"  # nobody had it
        docker.run(network, "10.42.0.3/16")
        assert "in use" in docker.refusal(
            "IpamDriver.RequestAddress", PoolID=pool, Address="10.42.0.3"
        )


def test_of_two_containers_that_want_one_address_the_second_is_refused(
    docker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has its address and no endpoint yet."""
    pool = request_pool(docker)
    docker.create()
    asked = {"PoolID": pool, "Address": "10.42.0.9"}
    docker.call("IpamDriver.RequestAddress", **asked)
    assert "in use on this host" in docker.refusal("IpamDriver.RequestAddress", **asked)
    docker.call("IpamDriver.ReleaseAddress", **asked)
    docker.call("IpamDriver.RequestAddress", **asked)
    monkeypatch.setattr(docker_ipam, "FRESH", 0.0)  # Docker was killed a minute ago
    docker.call("IpamDriver.RequestAddress", **asked)


def test_what_a_network_reserves_is_never_handed_out(tmp_path: Path) -> None:
    """--aux-address: Docker asks for it before it makes the network."""
    host = Host(tmp_path)
    with Engine(host, share=(1, 1)) as docker:
        pool = request_pool(docker)
        address(docker, pool, "10.42.0.9")
        docker.create()
    with Engine(host, share=(1, 1)) as docker:
        docker.call("Plugin.Activate")
        asked = {"PoolID": pool, "Address": "10.42.0.9"}
        assert "in use on this host" in docker.refusal("IpamDriver.RequestAddress", **asked)


def test_an_address_that_an_endpoint_has_is_handed_out_to_nobody_else(tmp_path: Path) -> None:
    """The plugin was killed after it gave the address, and before the endpoint was made."""
    host = Host(tmp_path)
    with Engine(host, share=(1, 1)) as docker:
        pool = request_pool(docker, "10.42.0.0/29")
        network = docker.create("10.42.0.0/29")
        given = address(docker, pool)
    with Engine(host, share=(1, 1)) as docker:
        assert docker.plugin.store.pools[pool].used == {}
        docker.run(network, given)
        others = {address(docker, pool) for _ in range(4)}
        assert given not in others
        assert len(others) == 4
        assert "no address is free" in docker.refusal(
            "IpamDriver.RequestAddress", PoolID=pool, Address=""
        )
        assert "in use" in docker.refusal(
            "IpamDriver.RequestAddress", PoolID=pool, Address=given.partition("/")[0]
        )


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/2"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no share: write 2/4"):
        parse_share(text)


@settings(deadline=None)
@given(st.integers(16, 30), st.integers(1, 9))
def test_the_parts_of_all_hosts_are_apart_and_within(prefix: int, count: int) -> None:
    subnet = ipaddress.ip_network(f"10.42.0.0/{prefix}")
    if subnet.num_addresses < count:
        return
    ends = []
    for number in range(1, count + 1):
        driver = IpamDriver(None, None, (number, count))  # type: ignore[arg-type]
        first, last = driver._part(subnet, "", {})
        assert first in subnet
        assert last in subnet
        ends += [int(first), int(last)]
    assert ends == sorted(ends)
    assert len(set(ends[1:-1:2])) == len(ends[1:-1:2])
    assert all(after > before for before, after in zip(ends[1::2], ends[2::2], strict=False))


@settings(deadline=None)
@given(st.integers(26, 31), st.data())
def test_every_address_is_handed_out_once_before_there_is_none(prefix: int, data: Any) -> None:
    subnet = ipaddress.ip_network(f"10.42.0.0/{prefix}")
    latest = str(data.draw(st.sampled_from(list(subnet))))
    pool = Pool(str(subnet), str(subnet[0]), str(subnet[-1]), {}, latest)
    seen: dict[str, str] = {}
    while True:
        try:
            one = next_free(Pool(pool.subnet, pool.first, pool.last, seen, latest), subnet)
        except Refusal:
            break
        assert one not in seen
        seen, latest = {**seen, one: "dynamic"}, one
    unfit = 3 if prefix < 31 else 0
    assert len(seen) == subnet.num_addresses - unfit
