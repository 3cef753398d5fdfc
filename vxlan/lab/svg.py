"""A lab as a picture: SVG with nothing outside of it.

Layout
======

      +--------------- host ---------------+        hosts stand side by side, those of
      |  (container)  (container)          |        the near network first
      |       |            |               |
      |  [   VNI 42   ]  [   VNI 43   ]    |
      |            eth0 192.0.2.1          |
      +-----------------|------------------+
    =================== network ==========(router)====== network ====
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from vxlan.lab.graph import link_text, networks, router_text, vtep_text
from vxlan.lab.plan import FAR, NEAR, Container, Host, Plan

_COLOURS = ("#1b6ca8", "#b3541e", "#3d7a37", "#7a3b8f", "#8a6d00", "#a0274a")
_CELL, _GAP, _PAD = 150, 12, 14
_TOP, _CONTAINER, _VNI, _HOST, _BAR = 64, 44, 28, 214, 300
_ROUTER = 170


class _Box(NamedTuple):
    """Where a host stands."""

    host: Host
    left: int
    width: int

    @property
    def middle(self) -> int:
        return self.left + self.width // 2


def svg(plan: Plan) -> str:
    """The picture as a text."""
    boxes, spans, width = _layout(plan)
    colours = {vni: _COLOURS[index % len(_COLOURS)] for index, vni in enumerate(plan.vnis)}
    parts = [*_bars(plan, spans)]
    for box in boxes:
        parts += _host(box, colours)
    height = _BAR + 60
    size = f'width="{width}" height="{height}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} '
        f'font-family="sans-serif" role="img" aria-label="{escape(plan.title)}">'
    )
    title = _text(_PAD, 30, plan.title, "start", size=18, weight="bold")
    return "\n".join([head, f'<rect {size} fill="#ffffff"/>', title, *parts, "</svg>\n"])


def _layout(plan: Plan) -> tuple[list[_Box], dict[str, tuple[int, int]], int]:
    """The hosts' places, the ends of each network's bar, and the width of it all."""
    boxes: list[_Box] = []
    spans: dict[str, tuple[int, int]] = {}
    left = _PAD
    for network in networks(plan):
        start = left
        for host in (one for one in plan.hosts if one.network == network):
            cells = max(1, len(host.containers), len(host.segments))
            box = _Box(host, left, cells * (_CELL + _GAP) + _GAP)
            boxes.append(box)
            left += box.width + 2 * _GAP
        left = max(left, start + _CELL)
        spans[network] = start, left - 2 * _GAP
        left += _ROUTER if plan.router and network == NEAR else 0
    return boxes, spans, max(left - _GAP, 420)


def _bars(plan: Plan, spans: dict[str, tuple[int, int]]) -> Iterator[str]:
    for network, (start, end) in spans.items():
        yield _line(start, _BAR, end, _BAR, "#444444", 5)
        yield _text(start, _BAR + 22, f"network {network}", "start", colour="#444444")
    if router := plan.router:
        left, right = spans[NEAR][1], spans[FAR][0]
        middle = (left + right) // 2
        yield _line(left, _BAR, right, _BAR, "#444444", 2)
        yield f'<circle cx="{middle}" cy="{_BAR}" r="24" fill="#fff3d6" stroke="#444444"/>'
        yield _text(middle, _BAR + 5, router.name, weight="bold")
        yield _text(middle, _BAR - 32, ", ".join((*router.near, *router.far)), size=11)
        yield _text(middle, _BAR + 42, router_text(router), colour="#a0274a", size=11)


def _host(box: _Box, colours: dict[int, str]) -> Iterator[str]:
    host = box.host
    yield _rect(box.left, _TOP - 20, box.width, _HOST, "#f6f7f9", "#888888")
    yield _text(box.left + _GAP, _TOP, host.name, "start", weight="bold")
    yield _text(box.left + box.width - _GAP, _TOP, vtep_text(host), "end", size=11)
    ports = _segments(box, colours)
    yield from (part for _, drawn in ports.values() for part in drawn)
    bottom = _TOP - 20 + _HOST
    for index, one in enumerate(host.containers):
        yield from _container(box, index, one, ports, colours)
    yield _text(box.middle, bottom - 12, f"eth0  {', '.join(host.address)}", size=12)
    yield _line(box.middle, bottom, box.middle, _BAR, "#444444", 2)
    yield _text(box.middle + 8, bottom + 26, link_text(host), "start", colour="#a0274a", size=11)


def _segments(box: _Box, colours: dict[int, str]) -> dict[int, tuple[int, list[str]]]:
    """VNI -> the middle of its box, and what draws it."""
    top = _TOP + 24 + _CONTAINER + 28
    segments = box.host.segments
    width = (box.width - _GAP) // max(1, len(segments)) - _GAP
    found = {}
    for index, segment in enumerate(segments):
        left = box.left + _GAP + index * (width + _GAP)
        middle = left + width // 2
        found[segment.vni] = (
            middle,
            [
                _rect(left, top, width, _VNI, colours[segment.vni], "none"),
                _text(middle, top + 19, f"VNI {segment.vni}", colour="#ffffff", weight="bold"),
                _line(middle, top + _VNI, box.middle, top + _VNI + 18, "#888888", 1),
            ],
        )
    return found


def _container(
    box: _Box,
    index: int,
    one: Container,
    ports: dict[int, tuple[int, list[str]]],
    colours: dict[int, str],
) -> Iterator[str]:
    left, top = box.left + _GAP + index * (_CELL + _GAP), _TOP + 20
    colour = colours[one.vni] if one.vni is not None else "#888888"
    to, below = (ports[one.vni][0], 32) if one.vni is not None else (box.middle, 78)
    middle = left + _CELL // 2
    yield _line(middle, top + _CONTAINER, to, top + _CONTAINER + below, colour, 2)
    yield _rect(left, top, _CELL, _CONTAINER, "#ffffff", colour)
    yield _text(middle, top + 18, one.name, weight="bold")
    yield _text(middle, top + 35, ", ".join(one.address), size=11)


# -- elements ------------------------------------------------------------------------------


def _rect(left: int, top: int, width: int, height: int, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def _line(left: int, top: int, right: int, bottom: int, colour: str, width: int) -> str:
    return (
        f'<line x1="{left}" y1="{top}" x2="{right}" y2="{bottom}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(
    left: int,
    top: int,
    content: str,
    anchor: str = "middle",
    *,
    colour: str = "#111111",
    size: int = 13,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{left}" y="{top}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}" font-weight="{weight}">{escape(content)}</text>'
    )
