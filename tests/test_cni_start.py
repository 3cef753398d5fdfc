"""`pyvxlan-cni` is run twice for each container: what it imports is what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
CODE = """
import sys
from vxlan.plugins import {name}
print(*sys.modules)
"""


@pytest.mark.parametrize("name", ["cni_verbs", "netavark"])
def test_only_the_standard_library_is_imported(name: str) -> None:
    """Neither what is slow nor what belongs to the node."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(name=name)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    thirds = {"click", "rich", "pyroute2", "uvloop", "pytun", "scapy"}
    slow = {"asyncio", "logging", "subprocess", "dataclasses", "inspect"}
    assert loaded & (thirds | slow) == set()
    ours = {one for one in loaded if one.startswith("vxlan.") and "plugins" not in one}
    assert ours == {"vxlan.api", "vxlan.netplain"}


def test_version_loads_next_to_nothing() -> None:
    """Runtimes ask for it before each ADD."""
    code = CODE.format(name="cni")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PATH + code], capture_output=True, text=True
    )
    ours = {one for one in done.stdout.split() if one.startswith("vxlan.")}
    assert ours == {"vxlan.plugins", "vxlan.plugins.cni", "vxlan.plugins.cni_words"}
    assert "pathlib" not in done.stdout.split()


def test_version_needs_no_node_and_no_root() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vxlan.plugins.cni"],
        env={"CNI_COMMAND": "VERSION"},
        input="{}",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["supportedVersions"] == ["0.4.0", "1.0.0", "1.1.0"]


def refused(verb: str, said: bytes) -> dict[str, Any]:
    """What the plugin says of a call that fails before any node is asked."""
    environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0"}
    done = subprocess.run(
        [sys.executable, "-m", "vxlan.plugins.cni"],
        env={**environment, "CNI_NETNS": "/run/netns/none", "PYTHONIOENCODING": "utf-8:strict"},
        input=said,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("said", [b"{\xff}", b"\xff\xfe{", b"[" * 200_000])
def test_what_cannot_be_read_is_an_error_of_cni(said: bytes) -> None:
    assert refused("ADD", said)["code"] == 6


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize(
    "before",
    [
        {"interfaces": 3},
        {"interfaces": {"name": "eth0"}},
        {"interfaces": ["eth0"]},
        {"ips": [{"address": 3}]},
        {"ips": "x"},
        {"routes": [None]},
    ],
    ids=str,
)
def test_a_previous_result_that_is_none_is_an_error_of_cni(verb: str, before: object) -> None:
    conf = {"cniVersion": "1.0.0", "name": "n", "vni": 42, "prevResult": before}
    answer = refused(verb, json.dumps(conf).encode())
    assert (answer["code"], "prevResult" in answer["msg"]) == (7, True)
