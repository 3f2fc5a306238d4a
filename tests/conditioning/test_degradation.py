import io
import math

import numpy as np
import pytest
import torch
from kornia.filters import gaussian_blur2d
from PIL import Image

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.faults.blurs import gaussian_blur, low_pass
from cascade.conditioning.faults.compression import jpeg
from cascade.errors import ContractError
from cascade.resizing import resize

NEUTRAL = {
    "blur": {"probability": 0.0},
    "resize_probability": 0.0,
    "noise": {"probability": 0.0},
    "compression": {"probability": 0.0},
}


@pytest.fixture(scope="module")
def images():
    """Eight smooth pictures of 64 px with some detail, in [-1, 1]."""
    rough = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fine = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5
    return (0.8 * resize(rough, (64, 64), "bicubic") + 0.3 * fine).clamp(-1, 1)


def degraded(images, seeds=None, **values):
    clean = resize(images, (16, 16), "bicubic")
    seeds = range(len(images)) if seeds is None else seeds
    return Degradation(**values).degrade(images, clean, "bicubic", seeds).images - clean


def high_frequencies(images):
    """Energy of detail: what is left over a blur."""
    return (images - gaussian_blur2d(images, (5, 5), (1.0, 1.0))).square().mean()


def test_the_degradation_of_an_image_depends_on_its_seed_alone(images):
    clean = resize(images, (16, 16), "bicubic")
    chain, seeds = Degradation(probability=0.7), list(range(100, 108))
    together = chain.degrade(images, clean, "bicubic", seeds).images
    for chosen in ([3], [7, 0, 3]):
        mine = [seeds[i] for i in chosen]
        alone = chain.degrade(images[chosen], clean[chosen], "bicubic", mine).images
        assert alone.equal(together[chosen])
    same = images[:1].expand(8, -1, -1, -1)
    others = Degradation().degrade(same, clean[:1].expand(8, -1, -1, -1), "bicubic", seeds).images
    assert min((others[i] - others[j]).abs().max() for i in range(8) for j in range(i)) > 0.02


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_neutral_ranges_give_the_clean_image(images, orders):
    assert degraded(images, orders=orders, **NEUTRAL).abs().max() < 1e-5


def test_an_image_that_is_not_degraded_stays_as_it_is(images):
    low_res = torch.full((8, 3, 16, 16), 0.5)  # such as one that the previous stage generated
    seeds = range(8)
    never = Degradation(probability=0.0).degrade(images, low_res, "bicubic", seeds)
    assert never.images.equal(low_res)
    assert never.defects.tolist() == [[0.0, 100.0]] * 8
    mixed = Degradation(probability=0.5).degrade(images, low_res, "bicubic", seeds).images
    kept = [mixed[i].equal(low_res[i]) for i in range(8)]
    assert 0 < sum(kept) < 8
    assert low_res.eq(0.5).all()


def test_probability_is_that_of_an_image():
    images = torch.zeros(300, 3, 8, 8)
    clean = torch.ones(300, 3, 4, 4)
    chain = Degradation(**{**NEUTRAL, "probability": 0.3, "orders": 1})
    result = chain.degrade(images, clean, "bicubic", range(300)).images
    share = (result != clean).flatten(1).any(1)
    assert share.float().mean().item() == pytest.approx(0.3, abs=0.08)


def test_shape_and_range_hold_for_odd_and_wide_crops():
    images = torch.rand(4, 3, 40, 72, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    result = Degradation().degrade(images, torch.zeros(4, 3, 10, 18), "area", range(4)).images
    assert result.shape == (4, 3, 10, 18)
    assert result.abs().max() <= 1


@pytest.mark.parametrize("brightness", [-0.8, 0.0, 0.8])
def test_noise_has_the_drawn_width_and_depends_on_brightness_in_one_of_three_ways(brightness):
    images = torch.full((40, 3, 128, 128), brightness)
    values = NEUTRAL | {"noise": {"std": (10.0, 10.0)}, "orders": 1}
    clean = images[..., :32, :32]
    added = Degradation(**values).degrade(images, clean, "bicubic", range(40)).images - clean
    stds = {round(each.std().item() * 127.5 * 2) / 2 for each in added}
    white = (brightness + 1) / 2
    kinds = (10, 3 + 7 * math.sqrt(white), 3 + 14 * math.sqrt(white * (1 - white)))
    assert all(min(abs(std - kind) for kind in kinds) < 0.8 for std in stds)
    assert all(any(abs(std - kind) < 0.8 for std in stds) for kind in kinds)
    assert added.mean().abs() * 127.5 < 0.2
    grey = [(each - each[:1]).abs().max() < 1e-5 for each in added]
    assert 0.2 < sum(grey) / 40 < 0.6


@pytest.mark.parametrize(
    "values",
    [
        {"blur": {"sigma": (2.0, 4.0), "sinc": 0.0}},
        {"blur": {"sigma": (4.0, 4.0), "sinc": 0.0, "defocus": 1.0}},
        {"blur": {"sigma": (4.0, 4.0), "sinc": 0.0, "motion": 1.0}},
        {"blur": {"sinc": 1.0}, "orders": 4, "resize_probability": 1.0, "resize": (0.5, 0.5)},
        {"resize_probability": 1.0, "resize": (0.3, 0.5)},
        {"compression": {"quality": (20.0, 40.0)}},
        {"compression": {"quality": (10.0, 20.0), "webp": 1.0}},
    ],
)
def test_blur_downscaling_and_jpeg_remove_detail(images, values):
    clean = resize(images, (16, 16), "bicubic")
    left = Degradation(**NEUTRAL | values).degrade(images, clean, "bicubic", range(8)).images
    assert high_frequencies(left) < 0.9 * high_frequencies(clean)
    kept = torch.corrcoef(torch.stack([left.flatten(), clean.flatten()]))[0, 1]
    assert kept > 0.6  # the picture is still there, and in its place


def test_every_pass_degrades_further(images):
    images = images.repeat(4, 1, 1, 1)
    errors = [degraded(images, orders=orders).square().mean() for orders in (1, 2, 4)]
    assert errors[0] < errors[1] < errors[2]


def test_an_earlier_pass_is_skipped_and_never_the_last_which_makes_the_size():
    images, clean = torch.zeros(16, 3, 64, 64), torch.zeros(16, 3, 16, 16)
    noise = {"probability": 1.0, "std": (20.0, 20.0), "size_px": (0.0, 0.0)}
    chain = Degradation(**NEUTRAL | {"noise": noise}, repeat_probability=0.0)
    degraded = chain.degrade(images, clean, "bicubic", range(16))
    widths = degraded.images.std(dim=(1, 2, 3)) * 127.5
    assert widths.median() > 9, "noise of the large image would be 4 times as weak"


def test_the_quality_told_is_that_of_the_last_file_and_100_only_without_any(images):
    clean = resize(images, (16, 16), "bicubic").repeat(32, 1, 1, 1)
    compression = {"probability": 0.5, "quality": (40.0, 40.0), "webp": 0.0}
    chain = Degradation(**NEUTRAL | {"compression": compression})
    told = chain.degrade(images.repeat(32, 1, 1, 1), clean, "bicubic", range(256)).defects[:, 1]
    shares = [float(each.float().mean()) for each in (told == 40, told == 100, told.isnan())]
    for share, expected in zip(shares, (0.5, 0.25, 0.25), strict=True):
        assert abs(share - expected) < 4 * (expected * (1 - expected) / 256) ** 0.5
    assert sum(shares) == 1


# ---- parts of the chain -------------------------------------------------------------------------


def test_an_isotropic_blur_equals_kornia(images):
    for angle in (0.0, 0.7):
        ours = gaussian_blur(images, (1.5, 1.5), angle)
        theirs = gaussian_blur2d(images, (15, 15), (1.5, 1.5))
        torch.testing.assert_close(
            ours[..., 8:-8, 8:-8], theirs[..., 8:-8, 8:-8], rtol=0, atol=5e-4
        )
    torch.testing.assert_close(gaussian_blur(images, (0.0, 0.0), 0.3), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, math.pi / 2, 0.6])
def test_a_point_becomes_a_gaussian_with_two_axes_at_the_angle(angle):
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = gaussian_blur(point, (3.0, 1.0), angle)[0, 0]
    y, x = torch.meshgrid(torch.arange(-20.0, 21), torch.arange(-20.0, 21), indexing="ij")
    covariance = torch.tensor([[(spread * a * b).sum() for b in (x, y)] for a in (x, y)])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ torch.diag(torch.tensor([9.0, 1.0])) @ turn.T
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.05)
    assert spread.sum() == pytest.approx(1, abs=1e-3)


def test_the_low_pass_keeps_waves_below_its_limit_and_takes_those_above():
    x = torch.arange(64.0).expand(1, 1, 64, 64)
    for frequency, kept in ((1 / 16, True), (3 / 8, False)):
        wave = 0.5 * torch.cos(2 * math.pi * frequency * (x + 0.5))
        inner = low_pass(wave, 0.5)[..., 24:40]
        expected = wave[..., 24:40] if kept else torch.zeros_like(inner)
        assert (inner - expected).abs().mean() < 0.05


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_jpeg_equals_a_saved_and_opened_file(images, quality):
    pixels = ((images[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    assert ((jpeg(images[:1], quality)[0] + 1) * 127.5).round().to(torch.uint8).equal(read)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probability": 1.5}, "degradation.probability must be within 0 and 1"),
        ({"orders": 0}, "degradation.orders must be within 1 and 4"),
        (
            {"blur": {"sigma": (3, 1)}},
            r"blur.sigma must be within 0 and 20, low end first, got \(3, 1\)",
        ),
        ({"resize": (0.0, 1.0)}, "degradation.resize"),
        ({"noise": {"std": (0.0, float("nan"))}}, "degradation.noise.std"),
        ({"compression": {"quality": (0, 50)}}, "compression.quality must be within 1 and 95"),
        ({"printing": {"dust": 2.0}}, "degradation.printing.dust must be within 0 and 1"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Degradation(**values)
