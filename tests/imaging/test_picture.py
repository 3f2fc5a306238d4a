from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_reading import LINEAR_GREY, LINEAR_RGB, srgb_encoded

from cascade.errors import DataError
from cascade.imaging.orientation import upright
from cascade.imaging.picture import Picture, quantised

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("bits", [8, 16])
def test_pixels_go_to_floats_and_back_unchanged(noise_picture, bits):
    picture = noise_picture(3, alpha=False, bits=bits)
    image = picture.image()
    assert image.dtype == torch.float32
    assert quantised(image, bits).equal(picture.colour)
    ends = torch.tensor([0, 2**bits - 1]).to(picture.colour.dtype).view(1, 1, 2)
    assert Picture(colour=ends, bits=bits).image().flatten().tolist() == [-1, 1]
    assert quantised(torch.tensor([-3.0, 3.0]), bits).equal(ends.flatten())


def test_the_image_has_visible_colours_under_transparency():
    colour = torch.tensor([[[255, 0, 255, 255]]], dtype=torch.uint8)
    alpha = torch.tensor([[[255, 0, 9, 255]]], dtype=torch.uint8)
    picture = Picture(colour=colour, alpha=alpha)
    assert picture.image().tolist() == [[[1, 1, 1, 1]]]
    assert picture.colour.equal(colour)


@pytest.mark.parametrize("orientation", range(9))
def test_pixels_are_turned_as_pillow_turns_them(orientation):
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    pixels = upright(torch.from_numpy(RGB.copy()).permute(2, 0, 1), orientation)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pil_images_come_back_unchanged(mode):
    image = Image.fromarray(RGB).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(RGB[..., 1]))
    picture = Picture.from_pil(image)
    assert (len(picture.colour), picture.alpha is not None) == (len(mode.strip("A")), "A" in mode)
    assert picture.size == (5, 7)
    back = picture.to_pil()
    assert back.mode == mode
    assert np.array_equal(np.asarray(back), np.asarray(image))


def test_16_bits_come_from_and_go_to_pil_as_far_as_it_has_them():
    grey = np.array([[0, 1, 256, 65535]], np.uint16)
    picture = Picture.from_pil(Image.fromarray(grey))
    assert picture.bits == 16
    assert picture.colour.flatten().tolist() == grey.flatten().tolist()
    assert np.array_equal(np.asarray(picture.to_pil()), grey)
    colour = Picture(colour=picture.colour.expand(3, -1, -1), bits=16).to_pil()
    assert np.asarray(colour)[0, :, 0].tolist() == [0, 0, 1, 255]


def test_other_modes_become_grey_or_rgb():
    palette = Image.fromarray(RGB[..., 0]).convert("P")  # its entries are grey
    assert Picture.from_pil(palette).colour.squeeze().numpy().tolist() == RGB[..., 0].tolist()
    palette.putpalette([0, 0, 1] * 256)
    assert len(Picture.from_pil(palette).colour) == 3
    bits = Picture.from_pil(Image.fromarray(RGB[..., 0] > 99))
    assert np.array_equal(bits.colour[0].numpy(), np.where(RGB[..., 0] > 99, 255, 0))
    assert (bits.bits, len(bits.colour)) == (8, 1)
    lab = Image.fromarray(np.full((2, 2, 3), [255, 0, 0], np.uint8), "LAB")  # a and b are signed
    assert Picture.from_pil(lab).colour.flatten().min() >= 254
    with pytest.raises(DataError, match="32 bits"):
        Picture.from_pil(Image.new("F", (2, 2)))


def test_what_belongs_to_a_pil_image_goes_along(camera_exif, srgb_profile):
    image = Image.fromarray(RGB)
    image.info = {"exif": camera_exif.tobytes(), "icc_profile": srgb_profile, "dpi": (300, 150)}
    picture = Picture.from_pil(image)
    assert (picture.profile, picture.dpi, picture.format) == (srgb_profile, (300, 150), "png")
    back = picture.to_pil()
    assert back.info["icc_profile"] == srgb_profile
    assert back.info["dpi"] == (300, 150)
    assert back.getexif()[0x0110] == "Model 5"


def test_new_pixels_keep_the_rest(camera_exif, srgb_profile):
    image = Image.fromarray(RGB)
    image.info = {"exif": camera_exif.tobytes(), "icc_profile": srgb_profile, "dpi": (300, 150)}
    picture = Picture.from_pil(image)
    colour = torch.zeros(3, 20, 28, dtype=torch.uint16)
    larger = picture.with_pixels(colour, colour[:1])
    assert (larger.bits, larger.size, larger.dpi) == (16, (20, 28), (300, 150))
    assert larger.profile == srgb_profile
    inner = larger.to_pil().getexif().get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003]) == (28, 20)
    assert inner[0x9003] == "2020:01:02 03:04:05"
    assert picture.with_pixels(colour[:1], None).profile is None


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_leaves_its_profile_for_the_values_that_it_has_in_srgb(noise_picture, bits):
    picture = noise_picture(1, alpha=True, bits=bits, profile=LINEAR_GREY, dpi=(72, 72))
    plain = picture.in_srgb()
    most = 2**bits - 1
    expected = srgb_encoded(picture.colour.double().numpy() / most) / 255 * most
    assert np.abs(plain.colour.double().numpy() - expected).max() <= 0.5 + most / 255 / 10
    assert plain.colour.dtype == picture.colour.dtype
    assert (plain.profile, plain.dpi) == (None, (72, 72))
    assert plain.alpha is not None
    assert plain.alpha.equal(picture.alpha)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_leave_their_profile_for_their_values_in_srgb(noise_picture, bits):
    picture = noise_picture(3, alpha=True, bits=bits, profile=LINEAR_RGB, dpi=(72, 72))
    plain = picture.in_srgb()
    most = 2**bits - 1
    expected = srgb_encoded(picture.colour.double().numpy() / most) / 255 * most
    assert np.abs(plain.colour.double().numpy() - expected).max() <= 0.5 + most / 255 * 0.6
    assert (plain.profile, plain.dpi, plain.colour.dtype) == (None, (72, 72), picture.colour.dtype)
    assert plain.alpha is not None
    assert plain.alpha.equal(picture.alpha)


def test_srgb_and_damaged_profiles_keep_the_values(noise_picture, srgb_profile):
    for channels, profile in ((3, srgb_profile), (3, LINEAR_RGB[:150]), (1, LINEAR_GREY[:150])):
        picture = noise_picture(channels, alpha=False, bits=8, profile=profile)
        assert picture.in_srgb().colour.equal(picture.colour)
        assert picture.in_srgb().profile is None


def test_pixels_that_are_none_are_refused():
    colour = torch.zeros(3, 4, 5, dtype=torch.uint8)
    for wrong in (
        {"colour": colour[:2]},
        {"colour": colour[..., :0]},
        {"colour": colour.float()},
        {"colour": colour, "bits": 16},
        {"colour": colour, "alpha": colour[:1, :2]},
        {"colour": colour, "alpha": colour[:1].float()},
    ):
        with pytest.raises(DataError, match="a Picture has colours"):
            Picture(**wrong)
