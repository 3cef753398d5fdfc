"""Overlays by other programs, each set up as its manual suggests for this purpose.

Ciphers are off where there are any: what is compared is carrying frames.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from vxlan import netdev
from vxlan.bench.world import READY_TIMEOUT, UNDERLAY, Site, environment
from vxlan.lab import Host, wait_until
from vxlan.lab.topology import LINK

UDP_TAP_OVERHEAD = 20 + 8 + 14
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def socat(site: Site) -> None:
    """One frame, one datagram, nothing else."""
    site.containers(UDP_TAP_OVERHEAD)
    for host, peer in site.sides():
        site.spawn(
            host,
            *("socat", "-b", "65536"),
            "TUN,tun-type=tap,tun-name=tap0,iff-no-pi,iff-up",
            f"UDP4-DATAGRAM:{peer.address}:4790,bind={host.address}:4790",
        )
        site.attach(host, "tap0")


def openvpn(site: Site) -> None:
    """A point-to-point tunnel of Ethernet frames, in clear text."""
    site.containers(UDP_TAP_OVERHEAD + 8)
    for host, peer in site.sides():
        site.spawn(
            host,
            *("openvpn", "--dev", "tap0", "--dev-type", "tap", "--proto", "udp"),
            *("--local", host.address, "--remote", peer.address, "--port", "1194"),
            *("--cipher", "none", "--auth", "none", "--mssfix", "0", "--disable-dco"),
            *("--tun-mtu", str(site.kind.mtu - UDP_TAP_OVERHEAD - 8), "--txqueuelen", "1000"),
            *("--verb", "1"),
        )
    for host in site.hosts:
        site.attach(host, "tap0")


def vde(site: Site) -> None:
    """VXLAN by multicast: vdeplug knows no list of remotes."""
    site.containers(50)
    for host in site.hosts:
        netdev.add_route("239.0.0.0/8", dev=LINK, netns=host.name)
        site.spawn(host, "vde_plug", "tap://tap0", f"vxlan://239.0.0.1/v4/vni=42/if={LINK}")
        site.attach(host, "tap0")


# -- tinc ---------------------------------------------------------------------------------

TINC_CONF = """\
Name = {name}
Mode = switch
Interface = tap0
DeviceType = tap
BindToAddress = {address}
ConnectTo = {peer}
Cipher = none
Digest = none
Compression = 0
PriorityInheritance = no
"""
TINC_HOST = "Address = {address}\nCipher = none\nDigest = none\nMACLength = 0\nPMTU = {pmtu}\n"


def tinc(site: Site) -> None:
    """A mesh that learns MAC addresses as a switch."""
    site.containers(UDP_TAP_OVERHEAD + 30)
    folders = {host.address: _tinc_folder(site, host, peer) for host, peer in site.sides()}
    for host, peer in site.sides():
        public = folders[peer.address] / "hosts" / _tinc_name(peer)
        (folders[host.address] / "hosts" / public.name).write_text(public.read_text())
    for host in site.hosts:
        folder = folders[host.address]
        site.spawn(
            host,
            *("tincd", "--no-detach", f"--config={folder}", f"--pidfile={folder}/pid"),
        )
    for host in site.hosts:
        site.attach(host, "tap0")


def _tinc_name(host: Host) -> str:
    return host.short.replace("-", "_")


def _tinc_folder(site: Site, host: Host, peer: Host) -> Path:
    folder = site.folder(host)
    (folder / "hosts").mkdir()
    name = _tinc_name(host)
    conf = TINC_CONF.format(name=name, address=host.address, peer=_tinc_name(peer))
    (folder / "tinc.conf").write_text(conf)
    pmtu = site.kind.mtu - 28
    (folder / "hosts" / name).write_text(TINC_HOST.format(address=host.address, pmtu=pmtu))
    subprocess.run(
        ["tincd", f"--config={folder}", "--generate-keys=2048"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return folder


# -- Open vSwitch ---------------------------------------------------------------------------


def openvswitch(site: Site) -> None:
    """Two bridges on each host: one holds the cable and its address, one the container.

    The datapath runs in ovs-vswitchd ("netdev").  It takes packets as they are, so the
    containers must finish their checksums and segments themselves.
    """
    site.containers(50)
    for station in site.stations:
        netdev.set_wire_like(LINK, netns=station.name)
    for (host, peer), cidr, number in zip(site.sides(), UNDERLAY, "12", strict=True):
        _start_ovs(site, host)
        port = f"{site.tag}{number}"
        netdev.set_master(port, None, netns=host.name)
        netdev.del_address(LINK, cidr, netns=host.name)
        _add_bridge(site, host, "phy", LINK)
        netdev.add_address("phy", cidr, netns=host.name)
        netdev.set_up("phy", netns=host.name)
        _add_bridge(site, host, "int", port)
        options = ("type=vxlan", f"options:remote_ip={peer.address}", "options:key=42")
        _vsctl(site, host, "add-port", "int", "vx0", "--", "set", "interface", "vx0", *options)


def _add_bridge(site: Site, host: Host, bridge: str, port: str) -> None:
    userspace = ("--", "set", "bridge", bridge, "datapath_type=netdev")
    _vsctl(site, host, "add-br", bridge, *userspace, "--", "add-port", bridge, port)


def _start_ovs(site: Site, host: Host) -> None:
    folder = site.folder(host)
    database, socket = folder / "conf.db", folder / "db.sock"
    env = environment({"OVS_RUNDIR": str(folder), "OVS_LOGDIR": str(folder)})
    subprocess.run(
        ["ovsdb-tool", "create", str(database), SCHEMA], capture_output=True, check=True, timeout=20
    )
    site.spawn(host, "ovsdb-server", str(database), f"--remote=punix:{socket}", env=env)
    wait_until(socket.exists, READY_TIMEOUT, "ovsdb-server")
    _vsctl(site, host, "--no-wait", "init")
    site.spawn(host, "ovs-vswitchd", f"unix:{socket}", env=env)


def _vsctl(site: Site, host: Host, *command: str) -> None:
    host.run(["ovs-vsctl", f"--db=unix:{site.folder(host)}/db.sock", "--timeout=15", *command])
