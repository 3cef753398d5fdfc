"""Plots of a run: throughput, latency, packet rate, and what a frame costs in memory.

Each function takes data and returns one finished figure of matplotlib; `ALL` says
which are drawn from what.  One colour belongs to one overlay in every picture, and
bars of noisy rows are hatched, so that nobody quotes them by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vxlan.bench.canvas import FAINT, INK, canvas, colour, list_lines, plain_ticks, spread_labels
from vxlan.bench.memory import Cost
from vxlan.bench.overlays import OVERLAYS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]


class Picture(NamedTuple):
    """One plot: a name for its file, what it shows, and how it is drawn."""

    name: str
    text: str
    draw: Callable[[Result, Sequence[Cost]], Figure | None]


def about(result: Result) -> str:
    """The line under a title: which machine, which cable."""
    machine = result["machine"]
    row = _shown_kind(result)
    cable = "every datagram a real packet" if row["wire"] else "offloads on"
    noisy = [one["verdict"] == "too noisy" for one in result["rows"]]
    warning = " · busy machine: not to be quoted" if 2 * sum(noisy) > len(noisy) else ""
    return (
        f"underlay MTU {row['mtu']}, {cable} · {machine['cores']} cores {machine['cpu']}, "
        f"Linux {machine['kernel'].partition('-')[0]} · {result['date'][:10]}{warning}"
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
    figure, axes = canvas("TCP between two containers", about(result))
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
    noisy = row["verdict"] != "ok"
    axes.barh(
        at,
        row["median"],
        height=0.36,
        color=colour(row["overlay"]),
        alpha=alpha,
        hatch="///" if noisy else None,
        edgecolor="white",
        linewidth=0,
    )
    for width, shade in ((4.5, "white"), (1.8, INK)):  # seen on dark bars, too
        axes.plot(
            [row["low"], row["high"]], [at, at], color=shade, linewidth=width, solid_capstyle="butt"
        )
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
    figure.legend(
        handles=handles,
        frameon=False,
        fontsize=11,
        ncols=len(handles),
        columnspacing=1.2,
        handlelength=1.5,
        loc="upper right",
        labelcolor=INK,
    )


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
    list_lines(axes, ends)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 90, 99], [f"{share} %" for share in (0, 25, 50, 75, 90, 99)])
    plain_ticks(axes, "x", [step * 10**power for power in range(1, 6) for step in (1, 2, 5)])
    axes.set_xlim(min(e[0] for e in ends) / 1.6, max(e[1] for e in ends) * 1.1)
    axes.set_xlabel("microseconds, logarithmic: further left is better", color=FAINT)
    axes.set_ylabel("answered within", color=FAINT)
    return figure


def _curve(axes: Axes, one: Mapping[str, Any]) -> tuple[float, float, str]:
    """Draw one; its median, its 99th percentile, its name."""
    points = sorted((float(q) * 100, value) for q, value in one["quantiles"].items())
    points = [(q, value) for q, value in points if q <= 99.5]
    name = one["overlay"]
    width = 2.8 if name in ("kernel", "fastpath") else 1.8
    axes.plot([v for _, v in points], [q for q, _ in points], color=colour(name), linewidth=width)
    middle, last = (min(points, key=lambda one: abs(one[0] - at))[1] for at in (50, 99))
    return middle, last, name


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
        axes.plot(xs, ys, color=colour(name), linewidth=2.2, marker="o", markersize=5)
        axes.fill_between(xs, low, high, color=colour(name), alpha=0.12, linewidth=0)
        ends.append((float(xs[-1]), ys[-1], name))
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, max(sizes) * 1.22)
    axes.set_xticks(sizes)
    axes.set_xlabel("bytes of UDP payload", color=FAINT)
    axes.set_ylabel("thousand packets/s; the band is the middle half", color=FAINT)
    spread_labels(axes, [(x, y, name, name) for x, y, name in ends])
    return figure


# -- of the in-memory suites --------------------------------------------------------------------


def table_cost(_: Result, costs: Sequence[Cost]) -> Figure | None:
    """What the table alone costs against how many stations it knows."""
    jobs = {
        "fdb_lookup": ("look-up", "-"),
        "fdb_learn_again": ("learn again", "--"),
        "fdb_learn_new": ("learn new", ":"),
    }
    return _by_entries(
        costs,
        jobs,
        "What the forwarding table costs as it grows",
        "16,384 stations all over the table in turn, in memory, minimum of the rounds",
        "nanoseconds for each station",
    )


def frame_cost(_: Result, costs: Sequence[Cost]) -> Figure | None:
    """What a whole frame costs against how many stations are known."""
    jobs = {
        "encap_to_many": ("encap", "-"),
        "decap_from_many": ("decap", "--"),
        "decap_learns_new": ("decap, learns", ":"),
    }
    return _by_entries(
        costs,
        jobs,
        "What a frame costs as the forwarding table grows",
        "64-byte frames to and from stations all over the table, in memory, minimum of the rounds",
        "nanoseconds for each frame",
    )


def _by_entries(
    costs: Sequence[Cost], jobs: Mapping[str, tuple[str, str]], title: str, subtitle: str, unit: str
) -> Figure | None:
    found = [cost for cost in costs if cost.job in jobs and cost.entries]
    if not found:
        return None
    figure, axes = canvas(title, subtitle)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = []
    for by in dict.fromkeys(cost.by for cost in found):
        for job, (word, style) in jobs.items():
            line = sorted((c.entries, c.least) for c in found if (c.by, c.job) == (by, job))
            if line:
                xs, ys = zip(*line, strict=True)
                axes.plot(xs, ys, style, color=colour(by), linewidth=2.2, marker="o", markersize=6)
                ends.append((float(xs[-1]), ys[-1], by, f"{by}: {word}"))
    plain_ticks(axes, "x", sorted({cost.entries for cost in found}))
    plain_ticks(axes, "y", [step * 10**power for power in range(7) for step in (1, 2, 5)])
    values = [cost.least for cost in found]
    axes.set_ylim(min(values) / 2, max(values) * 2)
    axes.set_xlim(0.6, max(cost.entries for cost in found) * 60)
    axes.set_xlabel("entries in the forwarding table", color=FAINT)
    axes.set_ylabel(unit, color=FAINT)
    spread_labels(axes, ends)
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
        axes.barh(at, cost.least, color=colour(cost.by), height=0.6, left=0)
        text = f"{cost.least:,.0f} ns   {1e9 / cost.least:,.0f} frames/s"
        axes.annotate(
            text, (cost.least, at), xytext=(8, 0), textcoords="offset points", va="center"
        )
    axes.set_xscale("log")
    axes.set_xlim(least / 4, max(cost.least for cost in found) * 30)
    plain_ticks(axes, "x", [10**power for power in range(1, 8)])
    axes.set_yticks(range(len(found)), [cost.by for cost in found])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("nanoseconds for each frame, logarithmic", color=FAINT)
    return figure


ALL = (
    Picture("throughput", "TCP throughput with its spread", throughput),
    Picture("latency", "Distribution of round trips", latency),
    Picture("packet-rate", "Packet rate against frame size", packet_rate),
    Picture("table-cost", "Cost of the forwarding table against its size", table_cost),
    Picture("frame-cost", "Cost of a frame against the size of the forwarding table", frame_cost),
    Picture("encap-cost", "Cost of encapsulation, beside scapy and struct", encap_cost),
)
