"""Real container engines call the plugin: podman with the CNI backend, and containerd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import IMAGE, Containerd, Podman, why_not
from runtime import Runtime, attached

from vxlan import netdev
from vxlan.lab import wait_until

NO_PODMAN = why_not("podman", "runc", "busybox")
NO_CONTAINERD = NO_PODMAN or why_not("containerd", "ctr")

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(bool(NO_PODMAN), reason=NO_PODMAN),
]


def wishing(runtime: Runtime) -> dict[str, Any]:
    return runtime.conf | {"capabilities": {"ips": True, "mac": True, "aliases": True}}


@pytest.fixture(scope="module")
def podmen(
    runtimes: tuple[Runtime, Runtime], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Podman, Podman]]:
    folder = tmp_path_factory.mktemp("podman")
    both = [
        Podman(runtime.host, folder / runtime.host.short, wishing(runtime) | {"ipam": lan(runtime)})
        for runtime in runtimes
    ]
    yield both[0], both[1]
    for one in both:
        one.close()


def lan(runtime: Runtime) -> dict[str, Any]:
    """Addresses without a way out."""
    return {**runtime.conf["ipam"], "routes": []}


def address(podman: Podman, name: str) -> str:
    (found,) = json.loads(podman("inspect", name))
    return str(found["NetworkSettings"]["Networks"]["net42"]["IPAddress"])


@pytest.fixture(autouse=True)
def nothing_is_left(runtimes: tuple[Runtime, Runtime]) -> Iterator[None]:
    yield
    for runtime in runtimes:
        assert attached(runtime) == []
        ports = [one.name for one in netdev.links(runtime.host.name) if one.name.startswith("pv")]
        assert ports == []


def test_podman_on_two_hosts(
    podmen: tuple[Podman, Podman], runtimes: tuple[Runtime, Runtime]
) -> None:
    here, there = podmen
    here.box("p1", "--network", "net42", "--network-alias", "web")
    there.box("p2", "--network", "net42", "--ip", "10.42.7.9", "--mac-address", "02:00:00:00:07:09")
    try:
        assert address(there, "p2") == "10.42.7.9"
        here("exec", "p1", "/bin/ping", "-c1", "-W2", "10.42.7.9")
        there("exec", "p2", "/bin/ping", "-c1", "-W2", address(here, "p1"))
        (one,) = attached(runtimes[0])
        assert one["names"][0] == "p1"
        assert "web" in one["names"]
        (other,) = attached(runtimes[1])
        assert other["mac"] == "02:00:00:00:07:09"
    finally:
        here("rm", "-f", "-t0", "p1")
        there("rm", "-f", "-t0", "p2")


def test_podman_stop_start_and_restart(
    podmen: tuple[Podman, Podman], runtimes: tuple[Runtime, Runtime]
) -> None:
    here, _ = podmen
    here.box("p1", "--network", "net42")
    try:
        here("stop", "-t0", "p1")
        assert attached(runtimes[0]) == []
        here("start", "p1")
        here("restart", "-t0", "p1")
        assert attached(runtimes[0])[0]["addresses"][0].startswith(address(here, "p1"))
    finally:
        here("rm", "-f", "-t0", "p1")


def test_podman_shows_the_cause_and_the_remedy(podmen: tuple[Podman, Podman]) -> None:
    here, _ = podmen
    here.box("p1", "--network", "net42", "--ip", "10.42.7.9")
    try:
        with pytest.raises(AssertionError, match=r"10\.42\.7\.9 is container p1.*choose another"):
            here.box("p2", "--network", "net42", "--ip", "10.42.7.9")
    finally:
        here("rm", "-f", "-t0", "--all")


@pytest.mark.skipif(bool(NO_CONTAINERD), reason=NO_CONTAINERD)
def test_containerd(
    podmen: tuple[Podman, Podman], runtimes: tuple[Runtime, Runtime], tmp_path: Path
) -> None:
    podmen[0]("save", "-o", str(tmp_path / "oci.tar"), IMAGE)
    here = runtimes[0]
    conf = wishing(here) | {"ipam": lan(here)}
    ctr = Containerd(here.host, tmp_path / "containerd", conf, tmp_path / "oci.tar")
    podmen[1].box("p2", "--network", "net42", "--ip", "10.42.7.9")
    try:
        how = ("run", "--cni", "--snapshotter", "native")
        ctr(*how, "-d", IMAGE, "c1", "/bin/sleep", "600")
        assert attached(here)[0]["netns"].startswith("/proc/")
        ctr("task", "exec", "--exec-id", "x", "c1", "/bin/ping", "-c1", "-W2", "10.42.7.9")
        ctr(*how, "--rm", IMAGE, "c2", "/bin/ping", "-c1", "-W2", "10.42.7.9")
        ctr("task", "kill", "-s", "9", "c1")
        wait_until(lambda: not attached(here), 10, "the killed container to be struck out")
        ctr("task", "rm", "--force", "c1")
        ctr("container", "rm", "c1")
    finally:
        podmen[1]("rm", "-f", "-t0", "p2")
        ctr.close()
