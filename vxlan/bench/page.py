"""A run as one page that opens offline, and its pictures as files."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vxlan.bench import report
from vxlan.bench.canvas import DPI
from vxlan.bench.memory import Cost
from vxlan.bench.pictures import ALL, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 70rem;
       margin: 2rem auto; padding: 0 1.5rem; }
h1 { margin-bottom: 0; } .about { color: #68717d; }
figure { margin: 2rem 0; } svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 14px; margin-bottom: 2rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #dfe3e8;
         vertical-align: top; }
td.right { text-align: right; font-variant-numeric: tabular-nums; }
.noisy { color: #a06a00; } .bad { color: #b3261e; }
"""


def write(result: Mapping[str, Any], costs: Sequence[Cost], folder: Path) -> list[Path]:
    """Write report.html and a PNG and an SVG of each picture; the files.

    Raises OSError, ModuleNotFoundError without matplotlib, and ValueError without rows.
    """
    if not result["rows"]:
        raise ValueError("it has no rows: was it interrupted before the first one?")
    folder.mkdir(parents=True, exist_ok=True)
    written, parts = [], []
    for picture in ALL:
        figure = picture.draw(result, costs)
        if figure is None:
            continue
        svg = _as_svg(figure)
        parts.append((picture, svg))
        written += [folder / f"{picture.name}.png", folder / f"{picture.name}.svg"]
        figure.savefig(written[-2], dpi=DPI)
        written[-1].write_text(svg)
    page = folder / "report.html"
    page.write_text("\n".join(_page(result, parts)))
    return [page, *written]


def _as_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def _page(result: Mapping[str, Any], parts: Sequence[tuple[Picture, str]]) -> Iterator[str]:
    machine = result["machine"]
    yield '<!doctype html><html lang="en"><meta charset="utf-8">'
    yield f"<title>pyvxlan bench, {html.escape(result['date'][:10])}</title>"
    yield f"<style>{STYLE}</style><h1>Overlays on this machine</h1>"
    about = (
        f"{result['date']} · {machine['cores']} cores {machine['cpu']} · "
        f"Linux {machine['kernel']} · Python {machine['python']} · "
        f"pyvxlan {result['pyvxlan']} · {result['rounds_finished']} rounds"
    )
    yield f'<p class="about">{html.escape(about)}<br>'
    yield f"<code>{html.escape(result['command'])}</code></p>"
    for picture, svg in parts:
        yield f"<figure>{svg[svg.index('<svg') :]}"
        yield f"<figcaption>{html.escape(picture.text)}</figcaption></figure>"
    for kind, rows in report.groups(result["rows"]):
        yield f"<h2>{html.escape(str(kind))}</h2><table><tr>"
        yield "".join(f"<th>{html.escape(title)}</th>" for title in report.TITLES) + "</tr>"
        yield from map(_row, rows)
        yield "</table>"
    yield "</html>"


def _row(row: Mapping[str, Any]) -> str:
    mark = {"ok": "", "too noisy": "noisy"}.get(row["verdict"], "bad")
    cells = []
    for title, text in zip(report.TITLES, report.cells(row), strict=True):
        name = "right" if title in report.RIGHT else mark if title == "verdict" else ""
        cells.append(f'<td class="{name}">{html.escape(text)}</td>')
    return f"<tr>{''.join(cells)}</tr>"
