import math

import pytest
import torch

from cascade.conditioning.faults.grain import Grain, correlated
from cascade.diffusion.noise import SeededNoise


@pytest.mark.parametrize("size_px", [0.7, 1.0, 3.0])
def test_correlated_noise_keeps_its_width_and_resembles_its_neighbours(size_px):
    white = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    grains = correlated(white, size_px)
    assert grains.std() == pytest.approx(1, abs=0.08)
    near = (grains[..., 1:] * grains[..., :-1]).mean()
    assert near == pytest.approx(math.exp(-1 / (4 * size_px**2)), abs=0.1)


def drawn(probability: float, seed: int):
    image, noise = torch.zeros(1, 3, 8, 8), SeededNoise([seed], "a")
    grain = Grain(probability=probability, std=(8.0, 8.0), size_px=(0.5, 2.0))
    uniform = iter(noise.uniform(10)[0].tolist())
    added = grain.draw(image, noise, uniform)
    return added, len(list(uniform))


def test_all_images_take_as_many_draws_from_the_pass():
    assert {drawn(probability, seed)[1] for probability in (0.0, 1.0) for seed in range(8)} == {3}
    assert drawn(0.0, 1)[0] is None


def test_colour_noise_has_a_part_that_channels_share():
    fields = [drawn(1.0, seed)[0] for seed in range(40)]
    colour = [each[0] for each in fields if each.shape[1] == 3]
    assert 15 < len(colour) < 33
    shares = [torch.corrcoef(each.flatten(1))[0, 1].item() for each in colour]
    assert max(shares) > 0.8
    assert min(shares) < 0.4
