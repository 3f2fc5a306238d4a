import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.conditioning.noised_image import augment, check_range, draw_level, pad_to
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError


@given(st.floats(0, 1))
def test_augmentation_mixes_image_and_noise_with_constant_variance(level):
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    image = augment(one, torch.tensor([level]), zero).item()
    noise = augment(zero, torch.tensor([level]), one).item()
    assert image == pytest.approx(math.cos(level * math.pi / 2), abs=1e-6)
    assert image**2 + noise**2 == pytest.approx(1, abs=1e-6)


def test_each_image_is_augmented_at_its_own_level():
    images, noise = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0.0, 0.25, 0.6, 1.0])
    augmented = augment(images, level, noise)
    assert augmented[0].equal(images[0])
    torch.testing.assert_close(augmented[3], noise[3], rtol=0, atol=1e-6)
    torch.testing.assert_close(augmented[1:2], augment(images[1:2], level[1:2], noise[1:2]))


def test_levels_are_uniform_in_their_range():
    levels = draw_level((0.2, 0.6), SeededNoise(range(2000)))
    assert levels.shape == (2000,)
    ordered = levels.sort().values
    torch.testing.assert_close(ordered, torch.linspace(0.2, 0.6, 2000), rtol=0, atol=0.02)


@pytest.mark.parametrize("scale", [1, 4])
def test_padding_repeats_the_last_row_and_column_up_to_the_canvas(scale):
    image = torch.arange(12.0).view(1, 1, 3, 4)
    padded = pad_to(image, (5 * scale, 6 * scale), scale)[0, 0]
    assert padded[:3, :4].equal(image[0, 0])
    assert padded[3:, :4].equal(image[0, 0, -1:].expand(2, 4))
    assert padded[:, 4:].equal(padded[:, 3:4].expand(5, 2))
    assert pad_to(image, (3 * scale, 4 * scale), scale) is image


@pytest.mark.parametrize("levels", [(0.5, 0.1), (0.0, 1.1), (-0.1, 0.1), (0.0, math.nan)])
def test_ranges_of_levels_outside_0_to_1_are_refused(levels):
    with pytest.raises(ContractError, match=r"0 <= low <= high <= 1, got \("):
        check_range(levels)
