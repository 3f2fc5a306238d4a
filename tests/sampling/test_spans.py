from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.sampling.spans import spans


@given(
    length=st.integers(1, 400), tile=st.integers(2, 60), overlap=st.integers(0, 59), grid=st.just(4)
)
def test_tiles_cover_everything_with_weights_that_sum_to_one(length, tile, overlap, grid):
    length, tile = grid * length, grid * tile
    overlap = min(overlap * grid, tile - grid)
    total, extents = torch.zeros(length), []
    for span in spans(length, tile, overlap, grid):
        assert 0 <= span.start < span.stop <= length
        assert span.start % grid == 0
        assert (span.weight > 0).all()
        total[span.pixels] += span.weight
        extents.append((span.start, span.stop))
    torch.testing.assert_close(total, torch.ones(length))
    assert {stop - start for start, stop in extents} == {min(length, tile)}
    for (_, stop), (start, _) in itertools.pairwise(extents):
        assert stop - start >= overlap - grid


def test_weights_rise_and_fall_smoothly_where_tiles_overlap_and_nowhere_else():
    first, second = spans(96, 64, 32, 4)
    assert first.weight[:32].tolist() == [1.0] * 32
    assert second.weight[32:].tolist() == [1.0] * 32
    fall = first.weight[32:]
    assert (fall.diff() < 0).all()
    assert fall.diff().abs().max() < 2 / 32
