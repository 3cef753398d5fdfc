"""The devices of Docker's networks: what is kept, and what may be gone already."""

from __future__ import annotations

import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from vxlan import netdev, netns
from vxlan.netdev import NetdevError
from vxlan.plugins.docker_devices import Devices

pytestmark = pytest.mark.namespaces


@pytest.fixture
def devices() -> Iterator[Devices]:
    made = Devices(f"dock-{secrets.token_hex(4)}")
    made.prepare()
    yield made
    with suppress(NetdevError):
        netns.delete(made.netns)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened: EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_out_of_descriptors_deletes_no_bridge(devices: Devices) -> None:
    devices.build(42)
    with no_descriptors(), pytest.raises(NetdevError, match="Too many open files"):
        devices.prepare()
    devices.prepare()
    assert netdev.exists("br42", devices.netns)


def test_a_namespace_of_which_only_the_name_is_left_is_made_anew(devices: Devices) -> None:
    netns.delete(devices.netns)
    Path(netns.RUN_DIR, devices.netns).touch()
    devices.prepare()
    devices.build(42)


def test_what_is_gone_already_is_removed(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    devices.remove(42)
    devices.disconnect("e" * 64)
    devices.build(42)
    monkeypatch.setattr(netdev, "exists", lambda *_: True)  # and a moment later it is gone
    devices.remove(42)
    devices.remove(42)


def test_what_cannot_be_removed_is_told(devices: Devices) -> None:
    netns.delete(devices.netns)
    with pytest.raises(NetdevError, match="there is none of that name"):
        devices.remove(42)
