from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cascade.conditioning.consistency import consistent_bands
from cascade.errors import ContractError
from cascade.resizing import resize


@pytest.fixture
def truth() -> torch.Tensor:
    """Two smooth pictures of 96 x 64 px, well inside the range."""
    noise = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, scale_factor=4, mode="bicubic").tanh() * 0.8


def make_consistent(images: torch.Tensor, *arguments, **options) -> torch.Tensor:
    """All bands put together."""
    bands = list(consistent_bands(images, *arguments, **options))
    assert [rows.start for rows, _ in bands[1:]] == [rows.stop for rows, _ in bands[:-1]]
    assert (bands[0][0].start, bands[-1][0].stop) == (0, images.shape[-2])
    return torch.cat([band for _, band in bands], dim=-2)


def mse(first: torch.Tensor, second: torch.Tensor) -> float:
    """In 8-bit units squared."""
    return float(((first - second) * 127.5).pow(2).mean())


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
@pytest.mark.parametrize("scale", [2, 4])
def test_what_is_wrong_at_low_resolution_is_corrected(truth, kernel, scale):
    size = (96 // scale, 64 // scale)
    low_res = resize(truth, size, kernel)
    detail = 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    wrong = (truth + 0.15 + detail).clamp(-1, 1)  # too bright, and with details of its own
    corrected = make_consistent(wrong, low_res, kernel)
    assert mse(resize(wrong, size, kernel), low_res) > 300
    assert mse(resize(corrected, size, kernel), low_res) < 0.1
    assert abs(float((corrected - truth).mean())) < 2e-3
    kept, drawn = ((image - truth) - (image - truth).mean() for image in (corrected, wrong))
    assert float((kept * drawn).mean() / drawn.pow(2).mean()) > 0.6  # its details are its own


def test_an_image_that_agrees_is_left_alone(truth):
    low_res = resize(truth, (24, 16), "bicubic")
    assert (make_consistent(truth, low_res, "bicubic") - truth).abs().max() < 1e-5


@pytest.mark.parametrize("band_px", [4, 20, 64])
def test_bands_do_not_change_the_result(truth, band_px):
    low_res = resize(truth, (24, 16), "bicubic").flip(0)
    whole = make_consistent(truth, low_res, "bicubic", rounds=2)
    banded = make_consistent(truth, low_res, "bicubic", rounds=2, band_px=band_px)
    torch.testing.assert_close(banded, whole, rtol=0, atol=1e-6)
    assert (whole - truth).abs().max() > 0.1


@pytest.mark.parametrize("band_px", [4, 20, 64])
def test_rows_that_were_yielded_may_be_overwritten(truth, band_px):
    low_res = resize(truth, (24, 16), "bicubic").flip(0)
    whole = make_consistent(truth, low_res, "bicubic", rounds=2)
    for rows, band in consistent_bands(truth, low_res, "bicubic", rounds=2, band_px=band_px):
        truth[..., rows, :] = band
    torch.testing.assert_close(truth, whole, rtol=0, atol=1e-6)


def test_the_range_is_kept(truth):
    low_res = torch.ones(2, 3, 24, 16)
    assert make_consistent(truth, low_res, "bicubic").abs().max() <= 1


def test_sizes_that_do_not_fit_are_refused(truth):
    with pytest.raises(ContractError, match=r"images of \(96, 64\) px are not \(24, 15\) px upsca"):
        make_consistent(truth, truth[..., :24, :15], "bicubic")
