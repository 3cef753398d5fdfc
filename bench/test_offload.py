"""Segmentation and coalescing: what a TAP hands over in one piece, and is handed in one.

Per packet is per segment.  The Python engine asks the kernel for no segmentation
offload, so it never cuts; it does merge.  The rows of the fastpath are its workers'
functions with a Python object made of each result.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from implementations import SIZES
from segments import MERGES, SPLITS, count_of, segments, super_frame

Measure = Callable[..., None]

sizes = pytest.mark.parametrize("size", SIZES)


@sizes
@pytest.mark.parametrize("by", SPLITS)
def test_segmentation(per_packet: Measure, by: str, size: int) -> None:
    header, frame = super_frame(size)
    made = [one[8:] for one in SPLITS[by](header, frame, size)]
    assert [len(one) for one in made] == [size] * count_of(size)
    assert by == "struct" or made == segments(size), "checksums, too"
    per_packet(count_of(size), SPLITS[by], header, frame, size)


@sizes
@pytest.mark.parametrize("by", MERGES)
def test_coalescing(per_packet: Measure, by: str, size: int) -> None:
    frames = segments(size)
    assert len(MERGES[by](frames, size - 14)) == 1
    per_packet(count_of(size), MERGES[by], frames, size - 14)


@sizes
@pytest.mark.parametrize("by", [by for by in MERGES if by in ("python", "fastpath")])
def test_coalescing_nothing(per_packet: Measure, by: str, size: int) -> None:
    """Segments that do not continue each other: what the attempt costs."""
    frames = segments(size, step=2)
    assert len(MERGES[by](frames, size - 14)) == len(frames)
    per_packet(len(frames), MERGES[by], frames, size - 14)
