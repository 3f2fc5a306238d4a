import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import ContractError
from cascade.sampling.thresholding import Thresholding, apply_threshold


@pytest.fixture
def images():
    """Four images, the first well within [-1, 1], the others further and further out of it."""
    scale = torch.tensor([0.1, 1.0, 3.0, 10.0]).view(4, 1, 1, 1)
    return scale * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_none_changes_nothing_and_static_clips(images):
    assert apply_threshold(images, "none").equal(images)
    assert apply_threshold(images, "static").equal(images.clip(-1, 1))


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_divides_each_image_by_its_own_percentile(images, percentile):
    out = apply_threshold(images, "dynamic", percentile=percentile)
    for image, thresholded in zip(images, out, strict=True):
        scale = torch.quantile(image.abs().flatten(), percentile).clamp(min=1)
        torch.testing.assert_close(thresholded, image.clip(-scale, scale) / scale)


def test_dynamic_leaves_an_image_in_range_alone(images):
    assert apply_threshold(images, "dynamic", percentile=0.9)[0].equal(images[0])


def test_dynamic_equals_diffusers_without_its_default_ceiling(images):
    theirs = DDIMScheduler(thresholding=True, sample_max_value=100.0)
    expected = theirs._threshold_sample(images)
    torch.testing.assert_close(apply_threshold(images, "dynamic", percentile=0.995), expected)


@pytest.mark.parametrize("cap", [1.5, 4.0])
def test_a_cap_equals_the_ceiling_of_diffusers(images, cap):
    theirs = DDIMScheduler(thresholding=True, sample_max_value=cap)
    thresholding = Thresholding("dynamic", 0.995, cap)
    expected = theirs._threshold_sample(images)
    torch.testing.assert_close(thresholding.apply(images), expected)
    assert not torch.allclose(Thresholding("dynamic", 0.995).apply(images), expected)


def test_dynamic_takes_bfloat16_and_finds_the_percentile_in_float32(images):
    low = images.bfloat16()
    out = apply_threshold(low, "dynamic", percentile=0.9)
    assert out.dtype == torch.bfloat16
    expected = apply_threshold(low.float(), "dynamic", percentile=0.9)
    torch.testing.assert_close(out.float(), expected, rtol=0.01, atol=0)


@given(st.floats(0.01, 50), st.floats(0.05, 1), st.integers(0, 99))
def test_result_is_in_range_and_keeps_the_order_of_pixels(scale, percentile, seed):
    image = scale * torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    out = apply_threshold(image, "dynamic", percentile=percentile)
    assert out.abs().max() <= 1
    assert (out.flatten()[image.flatten().argsort()].diff() >= 0).all()


@pytest.mark.parametrize("kind", ["none", "static", "dynamic"])
def test_a_thresholding_applies_its_kind_and_percentile(images, kind):
    expected = apply_threshold(images, kind, percentile=0.7)
    assert Thresholding(kind, 0.7).apply(images).equal(expected)


@pytest.mark.parametrize("kind", ["none", "static"])
def test_all_but_the_dynamic_threshold_may_be_applied_to_parts_of_an_image(images, kind):
    threshold = Thresholding(kind)
    assert threshold.by_pixel
    assert threshold.apply(images[..., 2:5, :]).equal(threshold.apply(images)[..., 2:5, :])
    assert not Thresholding("dynamic").by_pixel


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "clip"}, r"threshold must be one of .* got 'clip'"),
        ({"percentile": 0.0}, r"percentile must be in \(0, 1\], got 0.0"),
        ({"percentile": 1.1}, r"percentile must be in \(0, 1\], got 1.1"),
        ({"percentile": "high"}, "got 'high'"),
    ],
)
def test_impossible_thresholds_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Thresholding(**values)
