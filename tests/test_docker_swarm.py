"""What a swarm asks of the plugin, what the plugin asks of dockerd, and the plugin's folder."""

from __future__ import annotations

import json
import os
import secrets
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.docker_fakes import Engine, Host, creation
from vxlan import config
from vxlan.lab.wait import wait_until
from vxlan.plugins import docker_engine, docker_swarm
from vxlan.plugins.docker_managed import Carrier
from vxlan.wire import MAX_VNI

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def dockerd(folder: Path, answers: dict[str, Any]) -> Iterator[None]:
    """A dockerd that answers GET; what is no object is sent as it is."""

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *args: Any) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(folder / "d.sock"), Request) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
    return tmp_path


def test_what_dockerd_knows(here: Path) -> None:
    peers = {"Peers": [{"Name": "a", "IP": "192.0.2.1"}, {"Name": "b", "IP": "192.0.2.2"}]}
    subnets = [{"Subnet": "10.42.7.1/16"}, {"Subnet": "2001:db8:42::/64"}]
    networks = [{"IPAM": {"Config": subnets}}, {"IPAM": {"Config": None}}]
    answers = {
        "/networks": networks,
        "/networks/n": peers,
        "/info": {"Swarm": {"NodeAddr": "192.0.2.1"}},
    }
    with dockerd(here, answers):
        assert docker_engine.peers_of("n") == {"192.0.2.1", "192.0.2.2"}
        assert docker_engine.own_address() == "192.0.2.1"
        assert docker_engine.has_network("n") is True
        assert docker_engine.has_network("other") is False
        assert {str(one) for one in docker_engine.subnets() or ()} == {
            "10.42.0.0/16",
            "2001:db8:42::/64",
        }


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"Peers": None}, {"Peers": []}, {"Peers": [7]}, b"nonsense", b"", b"[" * 9999],
)
def test_whatever_dockerd_says_it_is_known_or_not(here: Path, answer: Any) -> None:
    with dockerd(here, {"/networks": [answer], "/networks/n": answer, "/info": answer}):
        assert docker_engine.subnets() is None
        assert docker_engine.peers_of("n") is None
        assert docker_engine.own_address() is None


def test_a_dockerd_that_is_not_there_is_no_trouble(here: Path) -> None:
    assert docker_engine.has_network("n") is None
    assert docker_engine.subnets() is None
    assert docker_engine.peers_of("n") is None


# -- the driver ---------------------------------------------------------------------------------


def test_every_manager_gives_a_network_the_same_vni(tmp_path: Path) -> None:
    network = secrets.token_hex(13)
    with Engine(Host(tmp_path), swarm=True) as docker:
        assert docker.call("NetworkDriver.GetCapabilities")["Scope"] == "global"
        asked = {"NetworkID": network, "Options": {"mtu": "1400"}}
        options = docker.call("NetworkDriver.AllocateNetwork", **asked)["Options"]
        assert options["mtu"] == "1400"
        assert docker_swarm.FIRST_VNI <= int(options["vni"]) <= MAX_VNI
        again = docker.call("NetworkDriver.AllocateNetwork", NetworkID=network, Options=options)
        assert again["Options"] == options
        chosen = {"NetworkID": network, "Options": {"vni": "77"}}
        assert docker.call("NetworkDriver.AllocateNetwork", **chosen)["Options"] == {"vni": "77"}
        wrong = {"NetworkID": network, "Options": {"vnii": "77"}}
        assert "did you mean vni?" in docker.refusal("NetworkDriver.AllocateNetwork", **wrong)
        assert docker.call("NetworkDriver.FreeNetwork", NetworkID=network) == {}


def test_without_swarm_there_is_nothing_to_allocate(tmp_path: Path) -> None:
    with Engine(Host(tmp_path)) as docker:
        assert docker.call("NetworkDriver.GetCapabilities")["Scope"] == "local"
        assert docker.post("/NetworkDriver.AllocateNetwork", b"{}")[0] == 404


def test_remotes_follow_those_who_take_part_and_are_kept(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_swarm, "PAUSE", 0.01)
    host, network = Host(here), secrets.token_hex(32)
    peers = {"Peers": [{"IP": "192.0.2.1"}]}
    with dockerd(here, {f"/networks/{network}": peers}), Engine(host, swarm=True) as docker:
        body = creation(network, remotes="")
        docker.call("NetworkDriver.CreateNetwork", **body)
        following = threading.Thread(target=docker.plugin._follow_peers)
        following.start()
        for number in (2, 3):
            peers["Peers"].append({"IP": f"192.0.2.{number}"})
            wait_until(
                lambda number=number: f"192.0.2.{number}" in told(host), 10, "a peer to come"
            )
        del peers["Peers"][1]
        wait_until(lambda: told(host) == {"192.0.2.3"}, 10, "a peer to go")
        peers["Peers"].clear()  # not known for a moment: nothing is changed
        docker.plugin.ended.set()
        following.join()
        assert docker.plugin.store.networks[network].peers == ("192.0.2.3",)
    host.link.remotes.clear()
    with Engine(host, swarm=True):
        assert told(host) == {"192.0.2.3"}


def told(host: Host) -> set[str]:
    return host.link.remotes.get(42, set())


# -- with a node of its own ---------------------------------------------------------------------


def test_the_node_is_started_with_the_host_s_address_and_started_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "DIRECTORY", here / "etc")
    monkeypatch.setattr("vxlan.plugins.docker_managed.PAUSE", 0.01)
    started = here / "started"
    node = here / "python"
    node.write_text(f'#!/bin/sh\necho "$*" >> {started}\n')
    node.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(node))
    carrier = Carrier({"DSTPORT": "4790"})
    carrier.start()
    with dockerd(here, {"/info": {"Swarm": {"NodeAddr": "192.0.2.1"}}}):
        wait_until(lambda: started.exists() and len(started.read_text().split("\n")) > 2, 10, "it")
    carrier.stop()
    assert started.read_text().split("\n")[0] == f"-m vxlan up --restart {here}/etc/docker.toml"
    made = config.load(here / "etc" / "docker.toml")
    assert (made.vtep.local, made.vtep.dstport, made.segments) == (("192.0.2.1",), 4790, ())


def test_a_node_that_cannot_be_started_is_tried_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config, "DIRECTORY", here / "etc" / "pyvxlan")
    monkeypatch.setattr("vxlan.plugins.docker_managed.PAUSE", 0.01)
    started, node = here / "started", here / "python"
    node.write_text(f'#!/bin/sh\necho "$*" >> {started}\n')
    node.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(node))
    (here / "etc").write_text("no folder")
    carrier = Carrier({"LOCAL": "192.0.2.1"})
    carrier.start()
    wait_until(lambda: "the node cannot be started: " in caplog.text, 10, "it to fail")
    (here / "etc").unlink()
    wait_until(started.exists, 10, "the node to be started")
    carrier.stop()


@pytest.mark.skipif(not (ROOT / "packaging").exists(), reason="no source tree here")
@pytest.mark.namespaces
def test_the_plugin_s_folder_holds_all_that_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    subprocess.run([sys.executable, ROOT / "packaging" / "docker_plugin.py", folder], check=True)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["interface"]["socket"] == "pyvxlan.sock"
    entry, *rest = settings["entrypoint"]
    command = ["chroot", folder / "rootfs", entry, *rest, "--help"]
    said = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False
    )
    assert said.returncode == 0, said.stderr
    imports = "import vxlan.plugins.docker, vxlan.node, vxlan.tap, uvloop, json; print('all')"
    command = ["chroot", folder / "rootfs", entry, "-c", imports]
    said = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False
    )
    assert (said.stdout, said.stderr) == ("all\n", "")
