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


def list_lines(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """A legend in the order of the curves, fastest first."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[name], linewidth=3, label=f"{name}  {value:,.0f} us")
        for value, _, name in sorted(ends)
    ]
    axes.legend(
        handles=handles,
        title="median",
        frameon=False,
        fontsize=11,
        loc="lower right",
        labelcolor=INK,
        alignment="left",
    )


def spread_labels(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names at the ends of lines, moved apart where they would cover each other."""
    axes.autoscale_view()
    figure = axes.get_figure()
    assert figure is not None
    pixels = [axes.transData.transform((x, y))[1] for x, y, _, _ in ends]
    apart = 17.0 * DPI / 100
    last = float("-inf")
    for index in sorted(range(len(ends)), key=pixels.__getitem__):
        x, y, colour, text = ends[index]
        wanted = max(pixels[index], last + apart)
        last = wanted
        axes.annotate(
            text,
            (x, y),
            xytext=(10, (wanted - pixels[index]) * 72 / DPI),
            textcoords="offset points",
            va="center",
            fontsize=11,
            color=COLOURS[colour],
            fontweight="bold",
        )
