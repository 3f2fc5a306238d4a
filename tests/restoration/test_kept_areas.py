from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from cascade.imaging.picture import Picture, quantised
from cascade.pipeline import CascadePipeline
from cascade.resizing import resize, upscaled_rows
from cascade.restoration import kept_areas
from cascade.restoration.kept_areas import KeptAreas, is_grey

MODELS = ("photo-x4", "photo-x4-restore", "emoji-1024")


@cache
def pipeline(name: str) -> CascadePipeline:
    return CascadePipeline.from_pretrained(name)


def texture(height: int = 32, width: int = 40) -> np.ndarray:
    """(H, W) uint8: grey texture of several scales, from 40 to 215."""
    draw = np.random.default_rng(3)
    total = np.zeros((height, width))
    for side in (2, 4, 8):
        coarse = draw.random((height // side, width // side)).astype(np.float32)
        total += np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        )
    return (40 + 175 * (total - total.min()) / np.ptp(total)).round().astype(np.uint8)


def grey_as_rgb() -> Image.Image:
    return Image.fromarray(np.stack([texture()] * 3, axis=-1))


def stamped_scan() -> Image.Image:
    """Grey texture with a red stamp in the right half."""
    image = grey_as_rgb()
    ImageDraw.Draw(image).rectangle((26, 12, 33, 19), fill=(200, 30, 40))
    return image


def page() -> Image.Image:
    """White with black text, a black and a blue area."""
    image = Image.new("RGB", (48, 40), "white")
    draw = ImageDraw.Draw(image)
    draw.text((2, 1), "Page", fill="black")
    draw.rectangle((28, 16, 47, 39), fill="black")
    draw.rectangle((3, 20, 20, 36), fill=(30, 90, 200))
    return image


def saved(image: Image.Image, file_format: str, **options) -> Image.Image:
    """The image after lossy compression."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        return opened.convert("RGB")


def tensor_of(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def spread(image: Image.Image) -> np.ndarray:
    """Difference between the channels at each pixel, in levels."""
    return np.ptp(np.asarray(image).astype(int), axis=-1)


def away_from(mask: np.ndarray, distance_px: int, scale: int = 4) -> np.ndarray:
    """The pixels of the result whose input is at least so far from every pixel of the mask."""
    near = F.max_pool2d(
        torch.from_numpy(mask).float()[None, None], 2 * distance_px - 1, 1, distance_px - 1
    )
    return ~np.kron(near[0, 0].numpy() > 0, np.ones((scale, scale), dtype=bool))


# ---- which pictures are grey --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {"quality": q, "subsampling": s}) for q in (30, 75, 100) for s in (0, 2)]
    + [("WEBP", {"quality": q}) for q in (30, 75, 100)],
)
def test_compressed_grey_is_grey(file_format, options):
    compressed = saved(saved(grey_as_rgb(), file_format, **options), file_format, **options)
    assert spread(compressed).max() <= 1
    assert is_grey(tensor_of(compressed))


@pytest.mark.parametrize("sepia", [(1.04, 1, 0.96), (1.02, 1, 0.98)])
def test_a_faint_sepia_is_in_colour_and_keeps_its_tint(sepia):
    tinted = Image.fromarray((texture()[..., None] * sepia).round().clip(0, 255).astype(np.uint8))
    assert not is_grey(tensor_of(tinted))
    result = pipeline("photo-x4").upscale(tinted, steps=2)
    means = [np.asarray(each).mean((0, 1)) for each in (tinted, result)]
    assert np.abs(means[0] - means[1]).max() < 0.5


@pytest.mark.parametrize("tint", [(2, 0, 0), (0, 0, 2), (2, 1, 0)])
def test_a_uniform_tint_is_a_colour_and_stays_as_faint(tint):
    tinted = Image.fromarray(texture()[..., None] + np.array(tint, dtype=np.uint8))
    assert not is_grey(tensor_of(tinted))
    result = np.asarray(pipeline("photo-x4-restore").upscale(tinted, steps=2)).astype(int)
    apart = result - result[..., 1:2] - (np.array(tint) - tint[1])
    assert np.abs(apart).max() <= 1


def test_a_single_coloured_pixel_makes_a_picture_colour():
    image = tensor_of(grey_as_rgb())
    image[0, 0, 20, 20] += 0.1
    assert not is_grey(image)


# ---- grey stays grey ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_grey_stored_as_rgb_is_restored_as_grey(model):
    result, from_grey = (
        pipeline(model).upscale(image, 4, steps=2, precision="fp32")
        for image in (grey_as_rgb(), grey_as_rgb().convert("L"))
    )
    assert (result.mode, from_grey.mode) == ("RGB", "L")
    assert spread(result).max() == 0
    assert np.array_equal(np.asarray(result)[..., 0], np.asarray(from_grey))


@pytest.mark.parametrize("scale", [1.5, 3, 16])
def test_grey_stays_grey_at_any_scale(scale):
    image = grey_as_rgb().crop((0, 0, 12, 12))
    result = pipeline("photo-x4-restore").upscale(image, scale, steps=1)
    assert spread(result).max() == 0


def test_grey_of_16_bits_with_transparency_stays_grey_and_so_does_a_tensor():
    levels = torch.from_numpy(texture().astype(np.uint16) * 257)
    alpha = torch.full((1, *levels.shape), 65535, dtype=torch.uint16)
    picture = Picture(colour=levels.expand(3, -1, -1).clone(), alpha=alpha, bits=16)
    result = pipeline("photo-x4-restore").upscale(picture, steps=2)
    assert result.colour.shape[0] == 3
    assert all(torch.equal(channel, result.colour[0]) for channel in result.colour)
    tensor = pipeline("photo-x4-restore").upscale(picture.image(), steps=2)
    assert torch.equal(quantised(tensor, 16), result.colour)


# ---- a stamp on a scan --------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_beside_a_stamp_nothing_is_tinted(model, kind):
    scan = stamped_scan()
    if kind == "jpeg":
        scan = saved(scan, "JPEG", quality=85)
    result = pipeline(model).upscale(scan, 4, steps=2)
    neutral = away_from(spread(scan) > 3, 5)
    assert 0.2 < neutral.mean() < 0.9
    added = spread(result)[neutral]
    assert added.max() <= (0 if kind == "png" else 3)
    red = result.getpixel((118, 62))
    assert red[0] > red[1] + 100


def test_a_model_draws_no_halo_of_another_colour_around_a_stamp():
    scan = stamped_scan()
    result = pipeline("photo-x4-restore").upscale(scan, steps=4, consistent=False)
    result = np.asarray(result).astype(int)
    outside = away_from(spread(scan) > 0, 1)
    assert (result[..., 1] - result[..., 0])[outside].max() <= 4  # cyan, the opposite of red


@pytest.mark.parametrize("image", [stamped_scan(), grey_as_rgb()], ids=["stamp", "grey"])
def test_results_of_neutral_pictures_are_consistent(image):
    source = tensor_of(image)[0]
    result = pipeline("photo-x4").upscale(source, steps=2)
    error = (resize(result[None], (32, 40), "bicubic")[0] - source).abs().amax(0) * 127.5
    away = torch.from_numpy(away_from(spread(image) > 3, 3, scale=1))  # its edge is too hard
    assert error[away].max() <= 1


# ---- flat areas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_flat_areas_keep_their_value(model):
    source = np.asarray(page())
    varies = np.zeros(source.shape[:2], dtype=bool)
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        varies |= (source != np.roll(source, shift, axis)).any(-1)
    varies[[0, -1]] = varies[:, [0, -1]] = False  # np.roll wraps around
    flat = away_from(varies, 4)
    result = np.asarray(pipeline(model).upscale(page(), 4, steps=2))
    same = np.kron(source, np.ones((4, 4, 1), dtype=np.uint8))
    assert flat.mean() > 0.2
    assert len(np.unique(same[flat], axis=0)) == 3
    assert np.array_equal(result[flat], same[flat])


@pytest.mark.parametrize("value", [(255, 255, 255), (0, 0, 0), (13, 140, 77)])
@pytest.mark.parametrize("scale", [1.5, 4, 16])
def test_a_flat_picture_stays_flat(value, scale):
    result = pipeline("photo-x4-restore").upscale(Image.new("RGB", (12, 9), value), scale, steps=1)
    assert result.getcolors() == [(result.width * result.height, value)]


def test_noise_is_never_taken_for_flat():
    noise = torch.randint(0, 2, (1, 1, 24, 24), generator=torch.Generator().manual_seed(0))
    image = 1 - noise * (2 / 255)  # 254 and 255
    result = torch.rand(1, 1, 96, 96) * 2 - 1
    restored = result.clone()
    KeptAreas(image, has_colours=False).restore(restored)
    assert torch.equal(restored, result)


def test_flat_areas_join_the_rest_without_a_step():
    """A network that is wrong by a constant fades to the flat value over some pixels."""
    image = torch.full((1, 1, 32, 32), 0.5)
    image[..., :8] = torch.rand(1, 1, 32, 8, generator=torch.Generator().manual_seed(0))
    result = torch.zeros(1, 1, 128, 128)
    KeptAreas(image, has_colours=False).restore(result)
    row = result[0, 0, 64]
    assert torch.equal(row[:32], torch.zeros(32))
    assert torch.equal(row[48:], torch.full((80,), 0.5))
    assert row.diff().abs().max() < 0.5 / 6
    assert (row.diff() >= 0).all()


def test_a_result_with_edges_of_flat_areas_is_consistent():
    large = Image.new("RGB", (480, 400), (200, 200, 200))
    draw = ImageDraw.Draw(large)
    draw.rectangle((63, 64, 225, 305), fill=(40, 90, 160))
    draw.ellipse((300, 100, 405, 320), fill=(60, 60, 60))
    source = tensor_of(large.resize((48, 40), Image.Resampling.BICUBIC))[0]
    result = pipeline("photo-x4").upscale(source, steps=2)
    error = (resize(result[None], (40, 48), "bicubic")[0] - source).abs() * 127.5
    assert error.max() <= 1


def test_bands_and_tiles_do_not_change_areas(monkeypatch):
    image = tensor_of(stamped_scan())[0]
    image[:, :, :14] = 1.0
    whole = pipeline("photo-x4").upscale(image, steps=1, precision="fp32")
    monkeypatch.setattr(kept_areas, "BAND_PX", 20)
    banded = pipeline("photo-x4").upscale(image, steps=1, precision="fp32")
    torch.testing.assert_close(banded, whole, rtol=0, atol=1e-5)
    tiled = pipeline("photo-x4").upscale(image, steps=1, tile_px=64)
    assert torch.equal(tiled[:, :, :40], torch.ones(3, 128, 40))


# ---- colouring ----------------------------------------------------------------------------------


def test_colouring_keeps_white_and_black_and_takes_grey_stored_as_rgb():
    levels = texture(48, 48)
    levels[:12], levels[-12:] = 255, 0
    grey = Image.fromarray(levels)
    coloured, from_rgb = (
        np.asarray(pipeline("photo-colour").colourise(image, steps=2, precision="fp32"))
        for image in (grey, grey.convert("RGB"))
    )
    assert np.array_equal(coloured, from_rgb)
    assert (coloured[:12] == 255).all()
    assert (coloured[-12:] == 0).all()
    assert np.ptp(coloured[12:-12].astype(int), axis=-1).max() > 5


# ---- upscaling some rows ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 36), (15, 14), (31, 50)])
def test_upscaled_rows_are_those_of_bilinear_interpolation(size):
    image = torch.rand(1, 2, 10, 9, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    rows = slice(7, 11)
    torch.testing.assert_close(upscaled_rows(image, size, rows), expected[..., rows, :])
    part = upscaled_rows(image[..., 1:9, :], size, rows, first_row=1, height_px=10)
    torch.testing.assert_close(part, expected[..., rows, :])
