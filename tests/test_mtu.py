"""The arithmetic of an overlay inside an underlay."""

from __future__ import annotations

import pytest

from vxlan import mtu


@pytest.mark.parametrize(
    ("path", "family", "overlay"),
    [(1500, 4, 1450), (1500, 6, 1430), (9000, 4, 8950), (9000, 6, 8930), (1400, 4, 1350)],
)
def test_overlay_mtu(path: int, family: int, overlay: int) -> None:
    assert mtu.overlay_mtu(path, family) == overlay
    assert mtu.path_mtu_needed(overlay, family) == path
    assert mtu.max_frame(path, family) == overlay + 14


def test_family_of() -> None:
    assert mtu.family_of("192.0.2.1") == 4
    assert mtu.family_of("2001:db8::1") == 6


def test_the_longest_overlay_packet_fills_one_ip_packet() -> None:
    assert mtu.path_mtu_needed(mtu.MAX_MTU, 4) == 65535
