"""Plots of a run: throughput, latency, packet rate, and what a frame costs in memory.

Each function takes data and returns one finished figure of matplotlib; `ALL` says
which are drawn from what.  One colour belongs to one overlay in every picture, and
bars of noisy rows are hatched, so that nobody quotes them by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vxlan.bench.memory import Cost
from vxlan.bench.overlays import OVERLAYS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

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


class Picture(NamedTuple):
    """One plot: a name for its file, what it shows, and how it is drawn."""

    name: str
    text: str
    draw: Callable[[Result, Sequence[Cost]], Figure | None]


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


def about(result: Result) -> str:
    """The line under a title: which machine, which cable."""
    machine = result["machine"]
    row = _shown_kind(result)
    cable = "every datagram a real packet" if row["wire"] else "offloads on"
    return (
        f"underlay MTU {row['mtu']}, {cable} · {machine['cores']} cores {machine['cpu']}, "
        f"Linux {machine['kernel'].partition('-')[0]} · {result['date'][:10]}"
    )


def _shown_kind(result: Result) -> Mapping[str, Any]:
    """Pictures are of one kind of cable: the first that was measured."""
    first: Mapping[str, Any] = result["rows"][0]
    return first


def chosen(result: Result, test: str) -> list[Mapping[str, Any]]:
    """The rows of one figure that have a value, in the order of the overlays."""
    kind = _shown_kind(result)
    same = ("mtu", "wire")
    order = list(OVERLAYS)
    rows = [
        row
        for row in result["rows"]
        if row["test"] == test and row["median"] and all(row[key] == kind[key] for key in same)
    ]
    return sorted(rows, key=lambda row: order.index(row["overlay"]))


# -- of a run --------------------------------------------------------------------------------


def throughput(result: Result, _: Sequence[Cost]) -> Figure | None:
    """Horizontal bars with the middle half of the rounds, one and four streams."""
    groups = [("tcp-1", "one stream", 1.0), ("tcp-4", "four streams", 0.45)]
    data = [(chosen(result, test), label, alpha) for test, label, alpha in groups]
    names = list(dict.fromkeys(row["overlay"] for rows, _, _ in data for row in rows))
    if not names:
        return None
    figure, axes = canvas("TCP throughput between two containers", about(result))
    places = {name: index for index, name in enumerate(reversed(names))}
    for offset, (rows, _label, alpha) in zip((0.2, -0.2), data, strict=True):
        for row in rows:
            _bar(axes, row, places[row["overlay"]] + offset, alpha)
    axes.set_yticks(list(places.values()), list(places))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("Gbit/s, median; the line spans the middle half of the rounds", color=FAINT)
    axes.margins(x=0.1, y=0.02)
    _legend_of_shades(axes, [(label, alpha) for _, label, alpha in data], result)
    return figure


def _bar(axes: Axes, row: Mapping[str, Any], at: float, alpha: float) -> None:
    colour = COLOURS[row["overlay"]]
    noisy = row["verdict"] != "ok"
    axes.barh(
        at,
        row["median"],
        height=0.36,
        color=colour,
        alpha=alpha,
        hatch="///" if noisy else None,
        edgecolor="white",
        linewidth=0,
    )
    axes.plot([row["low"], row["high"]], [at, at], color=INK, linewidth=1.6, solid_capstyle="butt")
    text = f"{row['median']:.2f}" if row["median"] < 10 else f"{row['median']:.1f}"
    axes.annotate(
        text,
        (max(row["high"], row["median"]), at),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color=INK,
    )


def _legend_of_shades(axes: Axes, shades: Sequence[tuple[str, float]], result: Result) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=INK, alpha=alpha, label=label) for label, alpha in shades]
    if any(row["verdict"] == "too noisy" for row in result["rows"]):
        handles.append(
            Patch(facecolor=FAINT, hatch="///", edgecolor="white", label="too noisy to quote")
        )
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles=handles, frameon=False, fontsize=11, loc="upper right", labelcolor=INK)


def latency(result: Result, _: Sequence[Cost]) -> Figure | None:
    """How many of the round trips took less than this."""
    kind = _shown_kind(result)
    found = [
        one
        for one in result.get("latency", ())
        if (one["mtu"], one["wire"]) == (kind["mtu"], kind["wire"])
    ]
    if not found:
        return None
    figure, axes = canvas("Round trip of a 64-byte request", about(result))
    axes.set_xscale("log")
    ends = [_curve(axes, one) for one in found]
    _name_lines(axes, ends)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 90, 99], [f"{share} %" for share in (0, 25, 50, 75, 90, 99)])
    _plain_ticks(axes, "x", [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000])
    axes.set_xlim(min(e[0] for e in ends) / 1.6, max(e[0] for e in ends) * 3)
    axes.set_xlabel("microseconds, logarithmic: further left is better", color=FAINT)
    axes.set_ylabel("answered within", color=FAINT)
    return figure


def _curve(axes: Axes, one: Mapping[str, Any]) -> tuple[float, float, str]:
    points = sorted((float(q) * 100, value) for q, value in one["quantiles"].items())
    points = [(q, value) for q, value in points if q <= 99.5]
    name = one["overlay"]
    width = 2.8 if name in ("kernel", "fastpath") else 1.8
    axes.plot([v for _, v in points], [q for q, _ in points], color=COLOURS[name], linewidth=width)
    middle = min(points, key=lambda point: abs(point[0] - 50))
    return middle[1], 50.0, name


def packet_rate(result: Result, _: Sequence[Cost]) -> Figure | None:
    """Received packets a second against the size of the datagrams."""
    sizes = [size for size in (64, 256, 512, 1024, 1400) if chosen(result, f"udp-{size}")]
    if len(sizes) < 2:
        return None
    figure, axes = canvas("Packets received each second, by size", about(result))
    lines: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for size in sizes:
        for row in chosen(result, f"udp-{size}"):
            lines.setdefault(row["overlay"], []).append((size, row))
    ends = []
    for name, points in lines.items():
        xs = [size for size, _ in points]
        ys = [row["median"] / 1000 for _, row in points]
        low, high = ([row[word] / 1000 for _, row in points] for word in ("low", "high"))
        axes.plot(xs, ys, color=COLOURS[name], linewidth=2.2, marker="o", markersize=5)
        axes.fill_between(xs, low, high, color=COLOURS[name], alpha=0.12, linewidth=0)
        ends.append((float(xs[-1]), ys[-1], name))
    _name_lines_right(axes, ends)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, max(sizes) * 1.22)
    axes.set_xticks(sizes)
    axes.set_xlabel("bytes of UDP payload", color=FAINT)
    axes.set_ylabel("thousand packets/s; the band is the middle half", color=FAINT)
    return figure


# -- of the in-memory suites --------------------------------------------------------------------


def table_cost(_: Result, costs: Sequence[Cost]) -> Figure | None:
    """What a frame costs against how many stations are known."""
    jobs = {"encap_to_many": "-", "decap_from_many": "--", "decap_learns_new": ":"}
    words = {"encap_to_many": "encap", "decap_from_many": "decap", "decap_learns_new": "learn"}
    found = [cost for cost in costs if cost.job in jobs and cost.entries]
    if not found:
        return None
    figure, axes = canvas(
        "What a frame costs as the forwarding table grows",
        "64-byte frames to and from stations all over the table, in memory, minimum of the rounds",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = []
    for by in dict.fromkeys(cost.by for cost in found):
        for job, style in jobs.items():
            line = sorted((c.entries, c.least) for c in found if (c.by, c.job) == (by, job))
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, style, color=COLOURS[by], linewidth=2.2, marker="o", markersize=6)
            ends.append((float(xs[-1]), ys[-1], by, f"{by}: {words[job]}"))
    _spread_labels(axes, ends)
    _plain_ticks(axes, "x", sorted({cost.entries for cost in found}))
    _plain_ticks(axes, "y", [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000])
    values = [cost.least for cost in found]
    axes.set_ylim(min(values) / 2, max(values) * 2)
    axes.set_xlim(0.6, max(cost.entries for cost in found) * 14)
    axes.set_xlabel("entries in the forwarding table", color=FAINT)
    axes.set_ylabel("nanoseconds for each frame", color=FAINT)
    return figure


def encap_cost(_: Result, costs: Sequence[Cost]) -> Figure | None:
    """Encapsulation against scapy: bars on a logarithmic axis."""
    found = [cost for cost in costs if cost.job == "encap" and cost.size == 1400]
    if not found:
        return None
    figure, axes = canvas(
        "Encapsulating one 1400-byte frame",
        "in memory, minimum of the rounds; the engines look up, hash and count, "
        "struct only puts eight bytes in front",
    )
    found.sort(key=lambda cost: -cost.least)
    least = min(cost.least for cost in found)
    for at, cost in enumerate(found):
        axes.barh(at, cost.least, color=COLOURS[cost.by], height=0.6, left=0)
        text = f"{cost.least:,.0f} ns   {1e9 / cost.least:,.0f} frames/s"
        axes.annotate(
            text, (cost.least, at), xytext=(8, 0), textcoords="offset points", va="center"
        )
    axes.set_xscale("log")
    axes.set_xlim(least / 4, max(cost.least for cost in found) * 30)
    _plain_ticks(axes, "x", [10**power for power in range(1, 8)])
    axes.set_yticks(range(len(found)), [cost.by for cost in found])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("nanoseconds for each frame, logarithmic", color=FAINT)
    return figure


# -- axes and labels -----------------------------------------------------------------------------


def _plain_ticks(axes: Axes, which: str, values: Sequence[int]) -> None:
    """Numbers as people write them, on an axis that would write powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_locator(NullLocator())


def _name_lines(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
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


def _name_lines_right(axes: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    _spread_labels(axes, [(x, y, name, name) for x, y, name in ends])


def _spread_labels(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
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


ALL = (
    Picture("throughput", "TCP throughput with its spread", throughput),
    Picture("latency", "Distribution of round trips", latency),
    Picture("packet-rate", "Packet rate against frame size", packet_rate),
    Picture("table-cost", "Cost against the size of the forwarding table", table_cost),
    Picture("encap-cost", "Cost of encapsulation, beside scapy and struct", encap_cost),
)
