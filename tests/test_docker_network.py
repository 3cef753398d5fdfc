"""Docker's network driver: what each call makes, keeps and leaves, whatever happens between."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docker_fakes import Engine, Host, creation
from vxlan.plugins import docker_engine
from vxlan.plugins.docker import Plugin, PluginError, Settings
from vxlan.plugins.docker_state import Endpoint, Network, StateError, Store

MAC = "02:42:0a:2a:00:02"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(docker_engine, "has_network", lambda key: None)
    return Host(tmp_path)


def test_a_network_and_a_container_come_and_go(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create(mtu="1400", ageing="60", accept="any")
        assert dict(host.link.segments[42].segment) == {
            "remotes": ["192.0.2.2", "192.0.2.3"], "mtu": 1400, "ageing": 60, "accept": "any",
            "announce": True,
        }  # fmt: skip
        assert host.devices.plugged == {42: "macvlan"}
        endpoint = docker.run(network)
        assert host.devices.links == {endpoint: (42, "macvlan", MAC, 1400)}
        docker.stop(network, endpoint)
        assert host.devices.links == {}
        docker.call("NetworkDriver.DeleteNetwork", NetworkID=network)
        assert (host.devices.networks, host.link.segments) == (set(), {})
        assert docker.plugin.store.networks == {}


def test_docker_is_told_the_mac_only_if_it_has_none(host: Host) -> None:
    with Engine(host) as docker:
        both = {"NetworkID": docker.create(), "EndpointID": secrets.token_hex(32)}
        interface = {"Address": "10.42.7.9/16", "MacAddress": ""}
        made = docker.call("NetworkDriver.CreateEndpoint", **both, Interface=interface)
        assert made == {"Interface": {"MacAddress": "02:42:0a:2a:07:09"}}
        given = {**interface, "MacAddress": "02:00:00:00:00:AA"}
        assert docker.call("NetworkDriver.CreateEndpoint", **both, Interface=given) == {}
        joined = docker.call("NetworkDriver.Join", **both, SandboxKey="/run/docker/netns/1")
        source = f"c{both['EndpointID'][:12]}"
        assert joined == {"InterfaceName": {"SrcName": source, "DstPrefix": "eth"}}


def test_an_endpoint_of_ipv6_alone_has_a_mac_that_is_the_same_each_time(host: Host) -> None:
    with Engine(host) as docker:
        both = {"NetworkID": docker.create(), "EndpointID": secrets.token_hex(32)}
        interface = {"Address": "", "AddressIPv6": "2001:db8:42::7/64", "MacAddress": ""}
        macs = {
            docker.call("NetworkDriver.CreateEndpoint", **both, Interface=interface)["Interface"][
                "MacAddress"
            ]
            for _ in range(2)
        }
        (mac,) = macs
        assert mac.startswith("02:")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vni": ""}, "vni: it is missing: give the VXLAN Network Identifier"),
        ({"vni": "many"}, "vni: 'many' is no number"),
        ({"vni": "99999999999999"}, "vni: 99999999999999 is out of range: give one from 0 to"),
        ({"vni": "-1"}, "vni: -1 is out of range: give one from 0 to 16777215"),
        ({"vnii": "3"}, "-o vnii: no such option: did you mean vni?"),
        ({"colour": "red"}, "-o colour: no such option: known are vni, remotes, mtu"),
    ],
)
def test_options_that_are_wrong_are_named(host: Host, options: dict[str, str], words: str) -> None:
    with Engine(host) as docker:
        body = creation(secrets.token_hex(32), **options)
        assert words in docker.refusal("NetworkDriver.CreateNetwork", **body)
        assert (host.devices.networks, host.link.segments) == (set(), {})


@pytest.mark.parametrize("key", ["", "short", "../../../etc/passwd", "a" * 200, None, 7])
def test_an_identifier_that_is_none_reaches_no_device(host: Host, key: Any) -> None:
    with Engine(host) as docker:
        body = {**creation("x"), "NetworkID": key}
        assert "is no identifier" in docker.refusal("NetworkDriver.CreateNetwork", **body)


def test_docker_s_own_options_are_no_error(host: Host) -> None:
    with Engine(host) as docker:
        options = {"com.docker.network.driver.mtu": "1300", "com.docker.network.windowsshim.x": "y"}
        docker.create(**options)
        assert host.link.segments[42].segment["mtu"] == 1300


def test_a_vni_is_one_network_s(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(host) as docker:
        first = docker.create()
        body = creation(secrets.token_hex(32), "10.43.0.0/16")
        assert docker.refusal("NetworkDriver.CreateNetwork", **body).startswith(
            f"vni 42 is taken by the network {first[:12]} (10.42.0.0/16): choose another"
        )
        monkeypatch.setattr(docker_engine, "has_network", lambda key: key != first)
        docker.call("NetworkDriver.CreateNetwork", **body)
        assert list(docker.plugin.store.networks) == [body["NetworkID"]]


@pytest.mark.parametrize("step", ["build", "plug", "node", "disk"])
def test_a_network_that_cannot_be_made_leaves_nothing(host: Host, step: str) -> None:
    with Engine(host) as docker:
        body = creation(secrets.token_hex(32))
        store = docker.plugin.store
        if step == "node":
            host.link.refusal = "mtu 1500 does not fit: take 1450"
        elif step == "disk":
            store.path = host.folder / "pyvxlan.sock" / "state.json"
        else:
            host.devices.failures.append(step)
        docker.refusal("NetworkDriver.CreateNetwork", **body)
        assert (host.devices.networks, host.link.segments, store.networks) == (set(), {}, {})
        host.link.refusal, store.path = "", host.folder / "state" / "pyvxlan.json"
        docker.call("NetworkDriver.CreateNetwork", **body)


def test_a_join_that_fails_can_be_tried_again(host: Host) -> None:
    with Engine(host) as docker:
        both = {"NetworkID": docker.create(), "EndpointID": secrets.token_hex(32)}
        docker.call("NetworkDriver.CreateEndpoint", **both, Interface={"Address": "10.42.0.2/16"})
        host.devices.failures.append("connect")
        assert docker.refusal("NetworkDriver.Join", **both) == "connect: it is in use"
        assert host.devices.links == {}
        docker.call("NetworkDriver.Join", **both)


def test_every_call_may_come_twice(host: Host) -> None:
    """As Docker does when a plugin died before it answered."""
    with Engine(host) as docker:
        network, endpoint = secrets.token_hex(32), secrets.token_hex(32)
        both = {"NetworkID": network, "EndpointID": endpoint}
        for method, body in (
            ("CreateNetwork", creation(network)),
            ("CreateEndpoint", {**both, "Interface": {"Address": "10.42.0.2/16"}}),
            ("Join", {**both, "SandboxKey": "/run/docker/netns/1"}),
            ("Leave", both),
            ("DeleteEndpoint", both),
            ("DeleteNetwork", {"NetworkID": network}),
        ):
            first = docker.call(f"NetworkDriver.{method}", **body)
            assert docker.call(f"NetworkDriver.{method}", **body) == first


@pytest.mark.parametrize("method", ["CreateEndpoint", "Join", "EndpointOperInfo"])
def test_what_is_unknown_says_how_to_go_on(host: Host, method: str) -> None:
    with Engine(host) as docker:
        both = {"NetworkID": "a" * 64, "EndpointID": "b" * 64}
        refused = docker.refusal(f"NetworkDriver.{method}", **both)
        assert "its state was lost; `docker network rm` it" in refused


def test_a_node_that_refuses_keeps_no_network(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        host.link.keeps = True
        docker.call("NetworkDriver.DeleteNetwork", NetworkID=network)
        assert (host.devices.networks, docker.plugin.store.networks) == (set(), {})
        host.link.keeps = False
        docker.plugin.upkeep.restore()
        assert host.link.segments == {}


def test_a_network_that_is_asked_for_again_keeps_its_containers(host: Host) -> None:
    with Engine(host) as docker:
        body = creation(secrets.token_hex(32))
        docker.call("NetworkDriver.CreateNetwork", **body)
        endpoint = docker.run(body["NetworkID"])
        kept = docker.plugin.store.networks
        for refusal in ("no node named docker runs", ""):
            host.link.refusal = refusal
            if refusal:
                assert refusal in docker.refusal("NetworkDriver.CreateNetwork", **body)
            else:
                docker.call("NetworkDriver.CreateNetwork", **body)
            assert (host.devices.networks, set(host.link.segments)) == ({42}, {42})
            assert (set(host.devices.links), docker.plugin.store.networks) == ({endpoint}, kept)


def test_how_containers_are_joined_is_chosen_once(host: Host) -> None:
    with Engine(host) as docker:
        body = creation(secrets.token_hex(32), attach="bridge")
        docker.call("NetworkDriver.CreateNetwork", **body)
        assert docker.plugin.store.networks[body["NetworkID"]].attach == "bridge"
        docker.call("NetworkDriver.CreateNetwork", **creation(body["NetworkID"]))
        assert docker.plugin.store.networks[body["NetworkID"]].attach == "bridge"
        endpoint = docker.run(body["NetworkID"])
        assert host.devices.links == {endpoint: (42, "bridge", MAC, 1450)}
        assert "attach" not in host.link.segments[42].segment


def test_a_container_that_starts_has_no_sandbox_yet_and_is_kept(host: Host) -> None:
    with Engine(host) as docker:
        network, endpoint = docker.create(), secrets.token_hex(32)
        both = {"NetworkID": network, "EndpointID": endpoint}
        docker.call("NetworkDriver.CreateEndpoint", **both, Interface={"Address": "10.42.0.2/16"})
        sandbox = host.sandbox()
        mounted = sandbox.rename(sandbox.with_suffix(".later"))
        docker.call("NetworkDriver.Join", **both, SandboxKey=str(sandbox))
        docker.call("Plugin.Activate")
        assert set(docker.plugin.store.networks[network].endpoints) == {endpoint}
        mounted.rename(sandbox)
        docker.plugin.upkeep.collect()
        host.lose_sandboxes()
        docker.plugin.upkeep.collect()
        assert docker.plugin.store.networks[network].endpoints == {}


# -- state ----------------------------------------------------------------------------------


def test_networks_and_endpoints_outlive_the_plugin(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        endpoint = docker.run(network)
        docker.plugin.upkeep.collect()
        kept = docker.plugin.store.networks
    with Engine(host) as docker:
        assert docker.plugin.store.networks == kept
        assert host.devices.links == {endpoint: (42, "macvlan", MAC, 1450)}
        docker.stop(network, endpoint)


def test_after_a_reboot_all_is_made_anew_and_dead_endpoints_are_forgotten(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        docker.run(network)
    host = Host(host.folder)
    with Engine(host) as docker:
        assert (host.devices.networks, list(host.link.segments)) == ({42}, [42])
        assert docker.plugin.store.networks[network].endpoints == {}


def test_what_nobody_committed_is_removed_at_the_start(host: Host) -> None:
    host.devices.networks.add(7)
    host.link.segments[7] = Network(7, {})
    host.devices.links["f" * 64] = (7, "macvlan", MAC, 1450)
    with Engine(host):
        assert (host.devices.networks, host.link.segments, host.devices.links) == (set(), {}, {})


def test_without_a_node_the_containers_of_a_host_still_have_each_other(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
    host = Host(host.folder)
    host.link.refusal = "no node named docker runs"
    with Engine(host) as docker:
        docker.run(network)
        host.link.refusal = ""
        docker.plugin.upkeep.restore()  # what is done when the node comes back
        assert host.devices.plugged == {42: "macvlan"}


def test_a_tap_that_was_made_anew_is_plugged_in_again(host: Host) -> None:
    with Engine(host) as docker:
        docker.create()
        host.devices.plugged.clear()
        for event in ({"event": "learned", "vni": 42}, {"event": "tap_back", "vni": 7}):
            docker.plugin.upkeep.happened(event)
            assert host.devices.plugged == {}
        docker.plugin.upkeep.happened({"event": "tap_back", "vni": 42})
        assert host.devices.plugged == {42: "macvlan"}


def test_a_namespace_that_was_removed_is_left_by_the_node_too(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        docker.run(network)
        host.devices.lost = True
        host.devices.networks.clear()
        deleted = []
        delete = host.link.delete
        host.link.delete = lambda vni: (deleted.append(vni), delete(vni))[1]  # type: ignore[method-assign]
        docker.plugin.upkeep.restore()
        assert deleted == [42]
        assert (host.devices.networks, set(host.link.segments)) == ({42}, {42})
        assert docker.plugin.store.networks[network].endpoints == {}


def test_who_gets_an_address_takes_it_from_a_lost_endpoint(host: Host) -> None:
    """A dockerd that was killed tells nothing of the endpoints that it lost."""
    with Engine(host) as docker:
        network = docker.create()
        docker.run(network)
        other = docker.run(network, "10.42.0.3/16")
        new = docker.run(network)
        assert set(docker.plugin.store.networks[network].endpoints) == {other, new}
        assert set(host.devices.links) == {other, new}


def test_a_dockerd_that_starts_has_lost_endpoints_collected(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        docker.run(network)
        docker.plugin.upkeep.collect()
        host.lose_sandboxes()
        answer = docker.call("Plugin.Activate")
        assert answer == {"Implements": ["NetworkDriver", "IpamDriver"]}
        assert docker.plugin.store.networks[network].endpoints == {}


def test_an_endpoint_that_was_never_joined_ends_with_its_dockerd(host: Host) -> None:
    with Engine(host, share=(1, 1)) as docker:
        pool = docker.call("IpamDriver.RequestPool", Pool="10.42.0.0/16")["PoolID"]
        network = docker.create()
        running = docker.run(network)
        given = docker.call("IpamDriver.RequestAddress", PoolID=pool, Address="10.42.0.9")
        both = {"NetworkID": network, "EndpointID": secrets.token_hex(32)}
        interface = {"Address": given["Address"], "MacAddress": ""}
        docker.call("NetworkDriver.CreateEndpoint", **both, Interface=interface)
        docker.plugin.upkeep.collect()  # its container may be starting
        assert len(docker.plugin.store.networks[network].endpoints) == 2
        docker.call("Plugin.Activate")
        assert set(docker.plugin.store.networks[network].endpoints) == {running}
        docker.call("IpamDriver.RequestAddress", PoolID=pool, Address="10.42.0.9")


@pytest.mark.parametrize("known", [True, None, False])
def test_a_network_that_docker_lost_goes_when_the_plugin_starts(
    host: Host, monkeypatch: pytest.MonkeyPatch, known: bool | None
) -> None:
    """`docker network rm` while there was no plugin."""
    with Engine(host) as docker:
        lost, used = docker.create(), docker.create("10.43.0.0/16", vni="43")
        docker.run(used, "10.43.0.2/16")
    monkeypatch.setattr(docker_engine, "has_network", lambda key: known)
    with Engine(host) as docker:
        left = {used} if known is False else {lost, used}
        assert set(docker.plugin.store.networks) == left
        assert host.devices.networks == ({43} if known is False else {42, 43})


def test_a_second_plugin_of_a_name_is_refused_whatever_its_state(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        second = Plugin(Settings(state=host.folder / "other", sockets=host.folder))
        with pytest.raises(PluginError, match=rf"pyvxlan runs \(pid {os.getpid()}\): end it, or"):
            second.run()
        docker.call("NetworkDriver.DeleteNetwork", NetworkID=network)


def test_the_other_hosts_are_told_of_containers_while_they_are_there(host: Host) -> None:
    with Engine(host) as docker:
        network = docker.create()
        endpoint = docker.run(network)
        told = {"02:42:0a:2a:00:02": (42, "10.42.0.2")}
        assert host.link.stations == told
        host.link.stations.clear()
        docker.plugin.upkeep.restore()  # the node came back
        assert host.link.stations == told
        docker.stop(network, endpoint)
        assert host.link.stations == {}
        lost = docker.run(network)
        docker.plugin.upkeep.collect()
        host.lose_sandboxes()
        docker.plugin.upkeep.collect()
        assert (lost, host.link.stations) == (lost, {})
        host.link.refusal = "no node named docker runs"
        docker.run(network)


def test_nobody_is_told_where_that_is_not_wanted(host: Host) -> None:
    with Engine(host) as docker:
        docker.run(docker.create(announce="false"))
        assert host.link.stations == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 9}', '{"version": 1, "networks": {"a": {"vni": 1}}}']
)
def test_a_state_that_cannot_be_understood_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pyvxlan.json"
    path.write_text(content)
    store = Store(tmp_path, "pyvxlan")
    with pytest.raises(StateError, match="put it aside to start without it|mend or remove it"):
        store.open()
    assert path.read_text() == content


def test_a_network_of_a_state_before_there_was_a_choice_has_a_bridge(tmp_path: Path) -> None:
    store = Store(tmp_path, "pyvxlan")
    store.set_network("n", Network(42, {}, attach="macvlan"))
    state = json.loads(store.path.read_text())
    del state["networks"]["n"]["attach"]
    store.path.write_text(json.dumps(state))
    store.read()
    assert store.networks["n"].attach == "bridge"


def test_a_second_plugin_is_kept_away(tmp_path: Path) -> None:
    first, second = Store(tmp_path, "pyvxlan"), Store(tmp_path, "pyvxlan")
    first.open()
    with pytest.raises(StateError, match="another plugin of this name runs"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_plugin_that_is_killed_while_it_writes_leaves_a_whole_state(tmp_path: Path) -> None:
    """Killed at random moments of endless changes: the file is always one of them."""
    program = (
        "import sys; from pathlib import Path; from vxlan.plugins.docker_state import *\n"
        "store = Store(Path(sys.argv[1]), 'x'); store.open(); print('ready', flush=True)\n"
        "for number in range(10**9):\n"
        "    one = Endpoint('02:00:00:00:00:01', '10.42.0.2/16')\n"
        "    ends = {f'{number:064}{i}': one for i in range(50)}\n"
        "    store.set_network('n', Network(42, {}, endpoints=ends))\n"
    )
    for attempt in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        while not (tmp_path / "x.json").exists():
            assert child.poll() is None
        os.sched_yield()
        [store_changes(tmp_path / "x.json") for _ in range(3 * attempt)]
        child.kill()
        child.wait()
        child.stdout.close()
        store = Store(tmp_path, "x")
        store.open()
        assert len(store.networks["n"].endpoints) == 50
        assert len({name[:64] for name in store.networks["n"].endpoints}) == 1
        store.close()


def store_changes(path: Path) -> None:
    """Wait until the file is another one."""
    before = path.stat().st_ino
    while path.stat().st_ino == before:
        pass


def test_the_state_is_for_its_owner_alone_and_reads_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "docker", "pyvxlan")
    store.open()
    one = Network(42, {"remotes": ["192.0.2.2"]}, ("10.42.0.0/16",), endpoints={"e": Endpoint("m")})
    store.set_network("n", one)
    store.close()
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(store.path.read_text())["version"] == 1
    again = Store(tmp_path / "docker", "pyvxlan")
    again.read()
    assert again.networks == {"n": one}
