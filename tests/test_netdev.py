from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.hosts import DEV, STATION, Host, lone_host, two_hosts
from vxlan import netdev, netns, netwatch
from vxlan.ifname import check_ifname
from vxlan.netdev import NetdevError
from vxlan.netwatch import AddressChange, Change, LinkChange, Overrun, RouteChange, Watch

FLOOD = bytes(6)


@pytest.fixture
def host() -> Iterator[str]:
    with lone_host() as name:
        yield name


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as both:
        yield both


# -- names ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "vxlan42", "br-0.1_x", "fifteen-letters"])
def test_a_good_name_is_returned(name: str) -> None:
    assert check_ifname(name) == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        (".", "reserved"),
        ("..", "reserved"),
        ("a/b", "'/'"),
        ("a:1", "':'"),
        ("a b", "' '"),
        ("tap%d", "'%'"),
        ("a\n", "ASCII"),
        ("\u00e4", "ASCII"),
        ("sixteen-letters-", "16 characters"),
    ],
)
def test_a_bad_name_is_refused_with_the_rule(name: str, rule: str) -> None:
    with pytest.raises(ValueError, match="interface name") as caught:
        check_ifname(name)
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


# -- links ------------------------------------------------------------------------------


@pytest.mark.namespaces
def test_a_veth_joins_two_namespaces(hosts: tuple[Host, Host]) -> None:
    one, two = (netdev.link(DEV, host.name) for host in hosts)
    assert (one.kind, one.mtu, one.up, one.running, one.master) == ("veth", 1500, True, True, None)
    assert (one.peer, two.peer) == (two.index, one.index)
    assert one.mac != two.mac
    assert len(one.mac) == 6


@pytest.mark.namespaces
def test_a_veth_within_one_namespace(host: str) -> None:
    netdev.create_veth("v0", "v1", host, mtu=1600)
    assert [link.name for link in netdev.links(host)] == ["lo", "v1", "v0"]
    assert netdev.link("v1", host).mtu == 1600


@pytest.mark.namespaces
def test_a_link_is_changed_and_deleted(host: str) -> None:
    netdev.create_veth("v0", "v1", host)
    netdev.set_mtu("v0", 1450, host)
    netdev.set_mac("v0", STATION, host)
    netdev.set_up("v0", netns=host)
    link = netdev.link("v0", host)
    assert (link.mtu, link.mac, link.up, link.running) == (1450, STATION, True, False)
    netdev.set_up("v0", False, host)
    netdev.rename("v0", "v2", host)
    assert not netdev.link("v2", host).up
    netdev.delete("v2", host)
    assert not netdev.exists("v1", host), "a veth goes with its peer"


@pytest.mark.namespaces
def test_a_bridge_gains_and_loses_a_port(host: str) -> None:
    netdev.create_bridge("br0", host)
    netdev.create_veth("v0", "v1", host)
    netdev.set_master("v0", "br0", host)
    assert netdev.link("v0", host).master == netdev.link("br0", host).index
    assert netdev.link("br0", host).kind == "bridge"
    netdev.set_master("v0", None, host)
    assert netdev.link("v0", host).master is None


@pytest.mark.namespaces
def test_a_link_moves(host: str) -> None:
    netdev.create_veth("v0", "v1", host)
    with lone_host() as other:
        netdev.move("v0", other, host)
        assert not netdev.exists("v0", host)
        assert netdev.exists("v0", other)
        with pytest.raises(NetdevError, match="move to"):
            netdev.move("lo", host, other)


@pytest.mark.namespaces
def test_traffic_is_counted(hosts: tuple[Host, Host]) -> None:
    before = netdev.link(DEV, hosts[1].name).stats
    with hosts[0].udp(hosts[0].v4) as sock:
        sock.sendto(bytes(100), (hosts[1].v4, 9))
    after = netdev.link(DEV, hosts[1].name).stats
    assert after.rx_packets > before.rx_packets
    assert after.rx_bytes >= before.rx_bytes + 142


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        (lambda host: netdev.link("nope", host), errno.ENODEV, "link nope: there is no such"),
        (lambda host: netdev.delete("nope", host), errno.ENODEV, "there is no such interface"),
        (lambda host: netdev.create_bridge("lo", host), errno.EEXIST, "it exists already"),
        (lambda host: netdev.set_mtu("lo", -1, host), errno.EINVAL, "set mtu -1"),
        (lambda host: netdev.set_master("lo", "nope", host), errno.ENODEV, "no such interface"),
        (lambda host: netdev.move("lo", "no-such-ns", host), errno.ENOENT, "netns no-such-ns"),
        (lambda _: netdev.link("lo", "no-such-ns"), errno.ENOENT, "ip netns add no-such-ns"),
        (lambda _: netns.create("a/b"), errno.EINVAL, "is no name"),
        (lambda _: netns.delete("no-such-ns"), errno.ENOENT, "netns no-such-ns"),
    ],
)
def test_a_refusal_is_one_line_with_the_errno(
    host: str, call: Callable[[str], object], code: int, said: str
) -> None:
    with pytest.raises(NetdevError) as caught:
        call(host)
    assert caught.value.errno == code
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.namespaces
def test_the_kernels_own_words_are_passed_on(host: str) -> None:
    netdev.create_veth("v0", "v1", host)
    with pytest.raises(NetdevError, match="mtu less than device minimum"):
        netdev.set_mtu("v0", 10, host)


# -- addresses, routes, neighbours, forwarding entries -------------------------------------


@pytest.mark.namespaces
def test_addresses_are_added_listed_and_deleted(hosts: tuple[Host, Host]) -> None:
    name = hosts[0].name
    netdev.add_address(DEV, "10.42.0.1/24", name)
    listed = netdev.addresses(DEV, name)
    assert listed[:3] == ["192.0.2.1/24", "10.42.0.1/24", "2001:db8::1/64"]
    netdev.del_address(DEV, "10.42.0.1/24", name)
    assert "10.42.0.1/24" not in netdev.addresses(DEV, name)
    with pytest.raises(NetdevError, match="exists"):
        netdev.add_address(DEV, "192.0.2.1/24", name)


@pytest.mark.namespaces
def test_the_way_to_a_remote(hosts: tuple[Host, Host]) -> None:
    name, index = hosts[0].name, netdev.link(DEV, hosts[0].name).index
    on_link = netdev.route_to("192.0.2.2", name)
    assert on_link == netdev.Route(DEV, index, "192.0.2.1", None, None, False)
    assert netdev.route_to("2001:db8::2", name).source == "2001:db8::1"
    assert netdev.route_to("192.0.2.1", name).local
    with pytest.raises(NetdevError) as caught:
        netdev.route_to("203.0.113.1", name)
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("prefix", "gateway", "inside"),
    [
        ("198.51.100.0/24", "192.0.2.2", "198.51.100.7"),
        ("default", "192.0.2.2", "203.0.113.1"),
        ("2001:db8:1::/48", "2001:db8::2", "2001:db8:1::7"),
        ("default", "2001:db8::2", "2001:db8:9::1"),
    ],
)
def test_a_route_with_an_mtu(
    hosts: tuple[Host, Host], prefix: str, gateway: str, inside: str
) -> None:
    netdev.add_route(prefix, via=gateway, mtu=1400, netns=hosts[0].name)
    route = netdev.route_to(inside, hosts[0].name)
    assert (route.gateway, route.mtu) == (gateway, 1400)
    netdev.del_route(prefix, via=gateway, netns=hosts[0].name)
    with pytest.raises(NetdevError):
        netdev.route_to(inside, hosts[0].name)


@pytest.mark.namespaces
@pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8::77"])
def test_a_neighbour_is_written_over(hosts: tuple[Host, Host], address: str) -> None:
    for mac in (bytes.fromhex("020000000077"), STATION):
        netdev.add_neighbour(DEV, address, mac, hosts[0].name)
    assert netdev.Neighbour(address, STATION) in netdev.neighbours(DEV, hosts[0].name)


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("local", "first", "second"),
    [("192.0.2.1", "192.0.2.2", "192.0.2.3"), ("2001:db8::1", "2001:db8::2", "2001:db8::3")],
)
def test_the_flood_list_of_a_kernel_vxlan_device(
    hosts: tuple[Host, Host], local: str, first: str, second: str
) -> None:
    name = hosts[0].name
    netdev.create_vxlan("vx", 42, local=local, remote=first, dev=DEV, netns=name, ttl=9, learning=0)
    netdev.fdb_append("vx", FLOOD, second, name)
    entries = netdev.fdb("vx", name)
    assert [(entry.mac, entry.dst) for entry in entries] == [(FLOOD, first), (FLOOD, second)]
    netdev.fdb_del("vx", FLOOD, first, name)
    assert [entry.dst for entry in netdev.fdb("vx", name)] == [second]
    with pytest.raises(NetdevError, match="no such entry"):
        netdev.fdb_del("vx", FLOOD, first, name)
    assert netdev.link("vx", name).kind == "vxlan"


@pytest.mark.namespaces
def test_a_veth_is_made_like_a_wire(hosts: tuple[Host, Host]) -> None:
    name = hosts[0].name
    assert netdev.offloads(DEV, name)["tx-tcp-segmentation"]
    netdev.set_wire_like(DEV, name)
    active = netdev.offloads(DEV, name)
    assert not any(active[word] for word in ("tx-tcp-segmentation", "tx-udp-segmentation"))
    assert not active["tx-checksum-ip-generic"]
    netdev.set_offloads(DEV, {"tx-checksum-ip-generic": True}, name)
    assert netdev.offloads(DEV, name)["tx-checksum-ip-generic"]


@pytest.mark.namespaces
@pytest.mark.parametrize("word", ["nonsense", "rx-lro"])
def test_an_offload_that_cannot_be_is_told(host: str, word: str) -> None:
    netdev.create_veth("v0", "v1", host)
    with pytest.raises(NetdevError, match=word):
        netdev.set_offloads("v0", {word: True}, host)


@pytest.mark.namespaces
def test_a_link_that_is_not_there_has_no_offloads(host: str) -> None:
    with pytest.raises(NetdevError, match="link nope"):
        netdev.offloads("nope", host)


# -- namespaces and threads -----------------------------------------------------------------


def network() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


@pytest.mark.namespaces
def test_inside_comes_back_also_after_an_error(host: str) -> None:
    home = network()

    def fail_inside() -> None:
        with netns.inside(host):
            assert network() != home
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert network() == home
    with netns.inside(None):
        assert network() == home


@pytest.mark.namespaces
def test_inside_moves_only_its_thread(host: str) -> None:
    seen: list[int] = []
    other = threading.Event()
    thread = threading.Thread(target=lambda: (other.wait(5), seen.append(network())))
    thread.start()
    with netns.inside(host):
        other.set()
        thread.join()
        assert seen != [network()]


@pytest.mark.namespaces
def test_a_name_is_used_once(host: str) -> None:
    assert host in netns.names()
    assert netns.exists(host)
    with pytest.raises(NetdevError, match="exists already"):
        netns.create(host)


@pytest.mark.namespaces
def test_a_session_leaves_nothing_open(host: str) -> None:
    netdev.links(host)
    before = len(list(Path("/proc/self/fd").iterdir()))
    netdev.links(host)
    netdev.offloads("lo", host)
    with pytest.raises(NetdevError):
        netdev.link("nope", host)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine to its end on either event loop."""
    return uvloop.run if request.param == "uvloop" else asyncio.run


Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.namespaces
def test_in_a_running_loop_only_a_thread_may_ask(host: str, run: Run) -> None:
    async def ask() -> list[str]:
        with pytest.raises(NetdevError, match=r"asyncio\.to_thread"):
            netdev.links(host)
        return [link.name for link in await asyncio.to_thread(netdev.links, host)]

    assert run(ask()) == ["lo"]


# -- changes ----------------------------------------------------------------------------------


async def until(watch: Watch, wanted: Callable[[Change], bool]) -> Change:
    """The first change of that kind, within two seconds."""

    async def look() -> Change:
        async for change in watch:
            if wanted(change):
                return change
        raise AssertionError("the watch ended")

    return await asyncio.wait_for(look(), 2)


@pytest.mark.namespaces
def test_changes_arrive_as_they_happen(host: str, run: Run) -> None:
    async def follow() -> None:
        async with Watch(host) as watch:
            await asyncio.to_thread(netdev.create_veth, "v0", "v1", host)
            made = await until(watch, lambda one: isinstance(one, LinkChange) and one.name == "v0")
            assert isinstance(made, LinkChange)
            for name in ("v0", "v1"):
                await asyncio.to_thread(netdev.set_up, name, netns=host)
            await asyncio.to_thread(netdev.set_mtu, "v0", 1400, host)
            await until(watch, lambda one: isinstance(one, LinkChange) and one.mtu == 1400)
            await asyncio.to_thread(netdev.add_address, "v0", "192.0.2.1/24", host)
            await until(watch, lambda one: one == AddressChange(made.index, "192.0.2.1/24", False))
            await asyncio.to_thread(
                netdev.add_route, "198.51.100.0/24", via="192.0.2.2", mtu=1300, netns=host
            )
            await until(watch, lambda one: one == RouteChange("198.51.100.0/24", made.index, False))
            await asyncio.to_thread(netdev.delete, "v0", host)
            gone = await until(watch, lambda one: isinstance(one, LinkChange) and one.deleted)
            assert isinstance(gone, LinkChange)

    run(follow())


@pytest.mark.namespaces
def test_leaving_a_bridge_is_no_deletion(host: str, run: Run) -> None:
    """The kernel announces it with RTM_DELLINK too, in the bridge's own family."""

    async def follow() -> list[LinkChange]:
        netdev_calls = [
            (netdev.create_bridge, "br0", host),
            (netdev.create_veth, "v0", "v1", host),
            (netdev.set_master, "v0", "br0", host),
            (netdev.set_master, "v0", None, host),
            (netdev.rename, "v1", "end", host),
        ]
        async with Watch(host) as watch:
            for call, *arguments in netdev_calls:
                await asyncio.to_thread(call, *arguments)
            seen: list[LinkChange] = []
            async for change in watch:
                if isinstance(change, LinkChange):
                    seen.append(change)
                    if change.name == "end":
                        return seen
        return seen

    seen = run(asyncio.wait_for(follow(), 5))
    masters = [change.master for change in seen if change.name == "v0"]
    assert not any(change.deleted for change in seen)
    assert masters[0] is None
    assert any(masters)
    assert masters[-1] is None


@pytest.mark.namespaces
def test_a_slow_reader_is_told_that_it_lost_changes(
    host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow() -> list[Change]:
        async with Watch(host) as watch:
            watch._socket.setsockopt(1, 8, 2048)  # SO_RCVBUF
            for _ in range(8):
                await asyncio.to_thread(netdev.create_bridge, "br0", host)
                await asyncio.to_thread(netdev.delete, "br0", host)
            await until(watch, lambda one: one == Overrun())
            while watch._receive():
                pass
            watch._ready.clear()
            await asyncio.to_thread(netdev.create_bridge, "after", host)
            change = await until(watch, lambda one: isinstance(one, LinkChange))
            return [change]

    (change,) = run(follow())
    assert change.name == "after"


@pytest.mark.namespaces
def test_a_message_not_understood_does_not_end_the_watch(
    host: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confused(_: object) -> Change:
        raise KeyError("event")

    async def follow() -> Change:
        async with Watch(host) as watch:
            with monkeypatch.context() as patch:
                patch.setattr(netwatch, "_change_of", confused)
                await asyncio.to_thread(netdev.create_bridge, "br0", host)
                await until(watch, lambda one: one == Overrun())
            await asyncio.to_thread(netdev.delete, "br0", host)
            return await until(watch, lambda one: isinstance(one, LinkChange) and one.deleted)

    assert run(follow()).name == "br0"


@pytest.mark.namespaces
def test_close_ends_the_iteration(host: str, run: Run) -> None:
    async def follow() -> list[Change]:
        watch = Watch(host)
        reader = asyncio.create_task(collect(watch))
        await asyncio.sleep(0.05)
        watch.close()
        watch.close()
        return await asyncio.wait_for(reader, 2)

    async def collect(changes: AsyncIterator[Change]) -> list[Change]:
        return [change async for change in changes]

    assert run(follow()) == []


@pytest.mark.namespaces
def test_a_cancelled_reader_may_read_on(host: str, run: Run) -> None:
    async def follow() -> Change:
        async with Watch(host) as watch:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(watch), 0.05)
            await asyncio.to_thread(netdev.create_bridge, "br0", host)
            return await until(watch, lambda one: isinstance(one, LinkChange))

    assert run(follow()).name == "br0"


def test_a_watch_of_no_namespace_is_refused() -> None:
    with pytest.raises(NetdevError, match="no-such-ns"):
        Watch("no-such-ns")


# -- the folder of names ----------------------------------------------------------------

ALONE = 'mount -t tmpfs tmpfs /run && umask 077 && exec "$@"'
MAKE = """
import os
from vxlan import netns
netns.create("one")
print(oct(os.stat("/run/netns").st_mode & 0o777), netns.names())
"""


@pytest.mark.namespaces
def test_the_folder_of_names_is_open_whatever_the_umask() -> None:
    command = ["unshare", "--mount", "sh", "-c", ALONE, "sh", sys.executable, "-c", MAKE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("0o755 ['one']\n", "")
