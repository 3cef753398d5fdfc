"""The pictures and the page of a run, from data made by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxlan.bench import canvas, memory, page, pictures, report
from vxlan.bench.load import Sample
from vxlan.bench.matrix import Key, Results, Settings
from vxlan.bench.world import Kind

pytest.importorskip("matplotlib", reason="the pictures need the extra `bench`")

KIND = Kind(1500, True)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """Two overlays, all tests that a picture shows, and one that cannot run."""
    made = Results(Settings(("kernel", "python"), (), (KIND,)))
    made.reasons[KIND, "tinc"] = "tincd not installed: install <tinc>"
    for overlay, factor in (("kernel", 1.0), ("python", 0.1)):
        for drift in (1.0, 1.1, 0.9):
            rate = factor * drift
            figures = {
                "tcp-1": {"tcp-1": 4 * rate},
                "tcp-4": {"tcp-4": 5 * rate},
                "udp-64": {"udp-64": 1e5 * rate, "udp-64-loss": 1.0},
                "udp-1400": {"udp-1400": 9e4 * rate},
                "rr": {"rr-p50": 50 / rate},
            }
            for test, values in figures.items():
                detail = {"quantiles": quantiles(50 / rate), "histogram": [[62.5, 3]]}
                sample = Sample(values, detail=detail if test == "rr" else {})
                made.take(Key(KIND, overlay, test), sample)
    return report.as_dict(made, "pyvxlan bench <all>")


def quantiles(middle: float) -> dict[str, float]:
    return {str(q / 100): middle * (0.5 + q / 100) for q in range(101)}


def saved(name: str, least: float, **params: Any) -> dict[str, Any]:
    return {"name": name, "params": params, "ns_per_packet": {"min": least, "median": 2 * least}}


SAVED = [
    saved("test_encap[python-1400]", 5000.0, engine_name="python", size=1400),
    saved("test_encap_by_hand[scapy-1400]", 5e5, by="scapy", size=1400),
    *(
        saved(f"test_encap_to_many[{n}]", 5000.0 + n, engine_name="python", entries=n)
        for n in (1, 1000)
    ),
    *(
        saved(f"test_decap_from_many[{n}]", 6000.0, engine_name="python", entries=n)
        for n in (1, 1000)
    ),
    *(
        saved(f"test_decap_learns_new[{n}]", 9000.0, engine_name="python", entries=n)
        for n in (1, 1000)
    ),
    *(
        saved(f"test_{job}[{by}-{n}]", 400.0, table=by, entries=n)
        for job in ("fdb_lookup", "fdb_learn_again", "fdb_learn_new")
        for by in ("python", "fastpath")
        for n in (1, 1000)
    ),
]


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> list[memory.Cost]:
    path = tmp_path_factory.mktemp("saved") / "0001.json"
    path.write_text(json.dumps({"benchmarks": SAVED}))
    return memory.load(path)


def test_a_saved_suite_is_read(costs: list[memory.Cost]) -> None:
    assert costs[0] == memory.Cost("encap", "python", 1400, 0, 5000.0, 10000.0)
    assert costs[1].by == "scapy"
    assert costs[1].job == "encap"
    assert [cost.entries for cost in costs if cost.job == "encap_to_many"] == [1, 1000]


@pytest.mark.parametrize("word", ["by", "engine_name", "table"])
def test_who_did_it_is_found_under_each_name(word: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    path.write_text(json.dumps({"benchmarks": [saved("test_job[x]", 1.0, **{word: "fastpath"})]}))
    assert memory.load(path)[0].by == "fastpath"


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="not saved by `make bench`"):
        memory.load(path)


def test_every_picture_becomes_two_files_and_a_part_of_the_page(
    result: dict[str, Any], costs: list[memory.Cost], tmp_path: Path
) -> None:
    written = page.write(result, costs, tmp_path)
    names = {path.name for path in written}
    assert names == {"report.html"} | {
        f"{one.name}.{kind}" for one in pictures.ALL for kind in ("png", "svg")
    }
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in written if path.suffix == ".png")
    text = written[0].read_text()
    assert text.count("<svg") == len(pictures.ALL)
    assert "http-equiv" not in text
    assert "src=" not in text, "the page opens offline"


def test_what_people_wrote_is_no_markup(result: dict[str, Any], tmp_path: Path) -> None:
    text = page.write(result, [], tmp_path)[0].read_text()
    assert "install &lt;tinc&gt;" in text
    assert "bench &lt;all&gt;" in text


def test_without_data_there_is_no_picture(result: dict[str, Any]) -> None:
    empty = {**result, "rows": [row for row in result["rows"] if row["test"] is None]}
    empty["latency"] = []
    assert [one.draw(empty, []) for one in pictures.ALL] == [None] * len(pictures.ALL)


@given(st.lists(st.floats(0, 1000), max_size=12), st.floats(1, 50))
def test_labels_keep_apart_and_in_order(wanted: list[float], distance: float) -> None:
    placed = canvas.apart(wanted, distance)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    gaps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
    assert all(gap >= distance - 1e-6 for gap in gaps)


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert canvas.apart([30.0, 10.0, 50.0], 20.0) == [30.0, 10.0, 50.0]
    assert canvas.apart([10.0, 12.0], 20.0) == [1.0, 21.0]


def test_labels_of_a_picture_do_not_cover_each_other(
    result: dict[str, Any], costs: list[memory.Cost]
) -> None:
    for draw in (pictures.packet_rate, pictures.table_cost, pictures.frame_cost):
        figure = draw(result, costs)
        assert figure is not None
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        pairs = itertools.combinations(boxes, 2)
        assert not any(one.overlaps(other) for one, other in pairs)


def test_who_has_no_colour_of_its_own_takes_that_of_its_kin() -> None:
    assert canvas.colour("fastpath, in batches") == canvas.COLOURS["fastpath"]
    assert canvas.colour("something new") == canvas.FAINT


def test_bars_are_as_long_as_the_medians(result: dict[str, Any]) -> None:
    figure = pictures.throughput(result, [])
    assert figure is not None
    lengths = sorted(round(bar.get_width(), 3) for bar in figure.axes[0].patches)
    assert lengths == [0.4, 0.5, 4.0, 5.0]
