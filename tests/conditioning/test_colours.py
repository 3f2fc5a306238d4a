from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cascade.conditioning import colours
from cascade.conditioning.colours import with_colours_of
from cascade.errors import ContractError


@pytest.fixture
def truth() -> torch.Tensor:
    """Two smooth pictures of 96 x 64 px, well inside the range."""
    noise = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, scale_factor=4, mode="bicubic").tanh() * 0.8


def mse(first: torch.Tensor, second: torch.Tensor) -> float:
    """In 8-bit units squared."""
    return float(((first - second) * 127.5).pow(2).mean())


def blocks(images: torch.Tensor, side_px: int) -> torch.Tensor:
    return F.avg_pool2d(images, side_px)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_colours_are_those_of_the_low_resolution_image_and_detail_stays(truth, scale):
    low_res, side = blocks(truth, scale), colours.BLOCK_PX * scale
    detail = 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    detail -= F.interpolate(blocks(detail, side), scale_factor=side)
    cast = torch.tensor([0.1, 0.0, -0.15])[:, None, None]
    changed = with_colours_of(low_res, (truth + detail + cast).clamp(-1, 1))
    assert mse(blocks(changed, side), blocks(truth, side)) < 0.2
    kept = changed - truth
    assert float((kept * detail).mean() / detail.pow(2).mean()) > 0.9


def test_noise_of_the_low_resolution_image_does_not_come_back(truth):
    low_res = blocks(truth, 4)
    noise = 0.2 * torch.randn(low_res.shape, generator=torch.Generator().manual_seed(2))
    noise -= F.interpolate(blocks(noise, colours.BLOCK_PX), scale_factor=colours.BLOCK_PX)
    changed = with_colours_of((low_res + noise).clamp(-1, 1), truth.clone())
    assert mse(changed, truth) < 0.02 * mse(low_res + noise, low_res)


def test_images_with_the_right_colours_are_left_alone(truth):
    changed = with_colours_of(blocks(truth, 2), truth.clone())
    torch.testing.assert_close(changed, truth, rtol=0, atol=1e-5)


def test_colours_of_images_that_are_not_whole_blocks(truth):
    low_res = blocks(truth, 4)[..., :21, :15]
    images = (truth[..., :84, :60] + 0.1).clamp(-1, 1)
    changed = with_colours_of(low_res, images.clone())
    assert changed.shape == images.shape
    assert abs(float((changed - truth[..., :84, :60]).mean())) < 0.01


def test_pixels_that_must_not_change_keep_their_colours(truth):
    images = (truth + 0.1).clamp(-1, 1)
    mask = torch.zeros(96, 64, dtype=torch.bool)
    mask[10:50, 5:31] = True
    for unchanged in (mask, torch.stack([mask, ~mask])):
        changed = with_colours_of(blocks(truth, 4), images.clone(), unchanged=unchanged)
        kept = unchanged.expand(2, 96, 64)[:, None].expand_as(images)
        assert changed[kept].equal(images[kept])
        assert (changed - images)[~kept].abs().mean() > 0.05


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (33, 9)])
def test_an_even_cast_is_removed_exactly_at_any_size(size):
    low_res = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) - 0.5
    images = F.interpolate(low_res, scale_factor=2)
    changed = with_colours_of(low_res, images + torch.tensor([0.2, 0.0, -0.2])[:, None, None])
    torch.testing.assert_close(changed, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (12, 12), (9, 21), (1, 30)])
def test_interpolated_values_have_the_means_that_were_computed(size):
    blocks_of = [-(-side // colours.BLOCK_PX) for side in size]
    values = torch.randn(1, 2, *blocks_of, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(values, scale_factor=16, mode="bilinear", align_corners=False)
    smooth = smooth[..., : 2 * size[0], : 2 * size[1]]
    expected = F.avg_pool2d(smooth, 16, ceil_mode=True, count_include_pad=False)
    rows, columns = (colours._interpolated_means(side) for side in size)
    torch.testing.assert_close(rows @ values @ columns.T, expected)


@pytest.mark.parametrize("size", [(16, 16), (12, 12), (9, 20)])
def test_the_means_of_smaller_blocks_at_the_ends_are_right_too(size):
    low_res = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) - 0.5
    images = F.interpolate(low_res, scale_factor=4)
    images = images + F.interpolate(torch.randn(1, 3, 2, 2) * 0.1, images.shape[-2:])
    changed = with_colours_of(low_res, images)
    error = colours._means(changed, 32) - colours._means(low_res, 8)
    assert error.abs().max() < 0.03


def test_bands_do_not_change_the_result(truth, monkeypatch):
    low_res = blocks(truth, 2).flip(0)
    whole = with_colours_of(low_res, truth.clone())
    monkeypatch.setattr(colours, "NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(with_colours_of(low_res, truth.clone()), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (200, 30), (20, 300)])
def test_a_mask_may_be_smaller_or_larger_than_the_images(truth, size, monkeypatch):
    images = (truth + 0.1).clamp(-1, 1)
    mask = torch.ones(size, dtype=torch.bool)
    changed = with_colours_of(blocks(truth, 4), images.clone(), unchanged=mask)
    rows, columns = min(size[0], 96), min(size[1], 64)
    assert changed[..., :rows, :columns].equal(images[..., :rows, :columns])
    monkeypatch.setattr(colours, "NUMBERS_AT_ONCE", 1)  # so that bands lie below the mask
    again = with_colours_of(blocks(truth, 4), images.clone(), unchanged=mask)
    torch.testing.assert_close(again, changed, rtol=0, atol=1e-6)
    if columns < 64:
        assert (changed - images)[..., columns:].abs().mean() > 0.05


def test_images_of_another_size_are_refused(truth):
    with pytest.raises(ContractError, match="upscaled by a whole number"):
        with_colours_of(truth[..., :63, :], truth)
