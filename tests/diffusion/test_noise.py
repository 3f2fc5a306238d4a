import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.diffusion.noise import SeededNoise, derive_seed, make_seeds
from cascade.errors import ContractError


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=6), st.data())
def test_an_image_gets_the_same_numbers_in_any_batch(seeds, data):
    position = data.draw(st.integers(0, len(seeds) - 1))
    batch, alone = SeededNoise(seeds), SeededNoise([seeds[position]])
    for _ in range(3):
        assert batch.normal(3, 4, 4)[position].equal(alone.normal(3, 4, 4)[0])
        assert batch.uniform(2)[position].equal(alone.uniform(2)[0])


def test_streams_seeds_and_draws_are_uncorrelated():
    draws = [
        noise.normal(4096)[0]
        for noise in (SeededNoise([1], "a"), SeededNoise([1], "b"), SeededNoise([2], "a"))
        for _ in range(2)
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(6)
    assert correlation.abs().max() < 5 / 64  # five standard errors of 4096 samples


def test_the_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = SeededNoise([7]).normal(8)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    assert SeededNoise([7]).normal(8).equal(first)


@pytest.mark.parametrize(
    ("draw", "mean", "std"), [("normal", 0.0, 1.0), ("uniform", 0.5, 12**-0.5)]
)
def test_distributions(draw, mean, std):
    sample = getattr(SeededNoise(range(8)), draw)(4096)
    assert sample.dtype == torch.float32
    assert sample.mean().item() == pytest.approx(mean, abs=5 * std / 8 / 64)
    assert sample.std().item() == pytest.approx(std, rel=0.02)


def test_derived_seeds_depend_on_every_part_and_stay_the_same_forever():
    seeds = {derive_seed(*parts) for parts in [(1, 2), (2, 1), (12,), (1, "2", ""), ("1", "", "2")]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "sample") == 1083446710209409505


def test_seeds_are_whole_numbers_of_any_kind():
    expected = SeededNoise([5]).normal(4)
    for kind in (np.int64, np.uint8, torch.tensor):
        assert SeededNoise([kind(5)]).normal(4).equal(expected)
    for value in (1.5, "5", [5, 6], None):
        with pytest.raises(ContractError, match="a seed must be a whole number"):
            SeededNoise([value])


def test_temperature_scales_normal_noise_and_nothing_else():
    plain, cool = SeededNoise([1, 2]), SeededNoise([1, 2])
    cool.temperature = 0.5
    assert torch.equal(cool.normal(3, 4), 0.5 * plain.normal(3, 4))
    assert torch.equal(cool.uniform(5), plain.uniform(5))


def test_normal_noise_fills_a_canvas_as_it_would_be_drawn():
    first, second = SeededNoise([1, 2]), SeededNoise([1, 2])
    first.temperature = second.temperature = 0.7
    canvas = torch.empty(2, 3, 5)
    first.fill_normal(canvas)
    assert canvas.equal(second.normal(3, 5))


def test_seeds_count_up_from_the_first_or_are_taken_as_they_are():
    assert make_seeds(3, 7, None) == [7, 8, 9]
    assert make_seeds(2, None, [5, 3]) == [5, 3]
    drawn = make_seeds(2, None, None)
    assert drawn[1] == drawn[0] + 1
    assert make_seeds(1, None, None) != drawn[:1]


@pytest.mark.parametrize(
    ("count", "seed", "seeds", "message"),
    [
        (0, 1, None, "num_images must be at least 1, got 0"),
        (2, 1, [1, 2], "give only one of seed, seeds and generator"),
        (2, None, [1], "got 1 seeds for 2 images"),
        (1, 1.5, None, r"a seed must be a whole number of at least 0, got 1\.5"),
        (1, -1, None, "a seed must be at least 0, got -1"),
        (2, None, [3, -1], "a seed must be at least 0, got -1"),
        (1, None, ["7"], "a seed must be a whole number"),
    ],
)
def test_seeds_that_disagree_are_refused(count, seed, seeds, message):
    with pytest.raises(ContractError, match=message):
        make_seeds(count, seed, seeds)
