import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.diffusion.noise import SeededNoise, derive_seed
from cascade.errors import ContractError


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=6), st.data())
def test_an_image_gets_the_same_numbers_in_any_batch(seeds, data):  # trap 30
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
    wanted = SeededNoise([5]).normal(4)
    for kind in (np.int64, np.uint8, torch.tensor):
        assert SeededNoise([kind(5)]).normal(4).equal(wanted)
    for wrong in (1.5, "5", [5, 6], None):
        with pytest.raises(ContractError, match="a seed is a whole number"):
            SeededNoise([wrong])


def test_temperature_scales_normal_noise_and_nothing_else():
    plain, cool = SeededNoise([1, 2]), SeededNoise([1, 2])
    cool.temperature = 0.5
    assert torch.equal(cool.normal(3, 4), 0.5 * plain.normal(3, 4))
    assert torch.equal(cool.uniform(5), plain.uniform(5))
