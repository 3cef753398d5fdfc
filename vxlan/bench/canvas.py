"""The look of all pictures: size, colours, titles, ticks, and labels that keep apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (11, 6.2)
DPI = 150
INK, FAINT, GRID = "#1b1f24", "#68717d", "#dfe3e8"

COLOURS = {
    "none": "#9aa4b1",
    "kernel": "#2f3b4c",
    "fastpath": "#0b7a75",
    "python": "#e0a100",
    "ovs": "#7a5195",
    "vde": "#a05d2c",
    "socat": "#5b8e3e",
    "openvpn": "#ef7b45",
    "tinc": "#b5485d",
    "docker-bridge": "#2f7ed8",
    "macvlan": "#6cb4e4",
    "ipvlan-l3": "#a9d3f0",
    "struct": "#9aa4b1",
    "scapy": "#b5485d",
}


def canvas(title: str, subtitle: str) -> tuple[Figure, Axes]:
    """An empty figure in the style of all of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    heading = f"{title}\n"  # the empty line keeps room for what stands below
    figure.suptitle(heading, x=0.012, ha="left", fontsize=18, fontweight="bold", color=INK)
    figure.text(0.012, 0.928, subtitle, va="top", fontsize=11, color=FAINT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=11, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def plain_ticks(axes: Axes, which: str, values: Sequence[int]) -> None:
    """Numbers as people write them, on an axis that would write powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())


def colour(name: str) -> str:
    """Of an overlay, or of who did a job in memory: "fastpath, batch" is one of the fastpath."""
    return COLOURS.get(name) or COLOURS.get(name.partition(",")[0].partition(" ")[0], FAINT)


def list_lines(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """A legend beside the curves in their order, fastest first."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour(name), linewidth=3, label=f"{name}  {value:,.0f} us")
        for value, _, name in sorted(ends)
    ]
    _figure_of(axes).legend(
        handles=handles,
        title="median",
        frameon=False,
        fontsize=11,
        loc="outside right center",
        labelcolor=INK,
        alignment="left",
    )


def spread_labels(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names at the ends of lines, moved apart where they would cover each other.

    To be called last: the limits of the axes decide what lies how far from what.
    """
    _figure_of(axes).draw_without_rendering()
    pixels = [axes.transData.transform((x, y))[1] for x, y, _, _ in ends]
    places = apart(pixels, 17.0 * DPI / 100)
    for (x, y, name, text), here, wanted in zip(ends, pixels, places, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(10, (wanted - here) * 72 / DPI),
            textcoords="offset points",
            va="center",
            fontsize=11,
            color=colour(name),
            fontweight="bold",
        )


def apart(wanted: Sequence[float], distance: float) -> list[float]:
    """Places as near to the wanted ones as they can be with `distance` between neighbours."""
    groups: list[list[int]] = []
    order = sorted(range(len(wanted)), key=wanted.__getitem__)

    def middle(group: Sequence[int]) -> float:
        return sum(wanted[index] for index in group) / len(group)

    def half(group: Sequence[int]) -> float:
        return (len(group) - 1) * distance / 2

    for index in order:
        groups.append([index])
        while len(groups) > 1 and middle(groups[-1]) - half(groups[-1]) < (
            middle(groups[-2]) + half(groups[-2]) + distance
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(wanted)
    for group in groups:
        for step, index in enumerate(group):
            placed[index] = middle(group) - half(group) + step * distance
    return placed


def _figure_of(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure
