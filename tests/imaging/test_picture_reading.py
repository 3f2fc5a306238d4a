from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_reading import (
    GREY_OF_GAMMA_1_8,
    LINEAR_RGB,
    encoded,
    png_chunks,
    png_of,
    print_profile,
    rgb_tiff_of,
)

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.metadata import Loss
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import decode_picture, read_picture
from cascade.imaging.reading import decode_image
from cascade.imaging.vips import libvips

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7, 4), dtype=np.uint16)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def hwc(picture: Picture) -> np.ndarray:
    parts = [picture.colour] if picture.alpha is None else [picture.colour, picture.alpha]
    return torch.cat(parts).permute(1, 2, 0).numpy()


def deep_file(kind: str, channels: int, **options) -> bytes:
    """A 16-bit file of libvips, of the first channels of DEEP."""
    pixels = np.ascontiguousarray(DEEP[..., :channels])
    space = "grey16" if channels < 3 else "rgb16"
    image = libvips().Image.new_from_array(pixels).copy(interpretation=space)
    return getattr(image, f"{kind}save_buffer")(**options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP", "WEBP"])
def test_eight_bits_are_what_pillow_reads(kind, mode):
    image = Image.fromarray(RGB).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(RGB[..., 1] | 1))
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind == "BMP" and mode == "LA":
        pytest.skip("no such BMP")
    data = encoded(image, kind, **options)
    picture = decode_picture(data, "a")
    with Image.open(io.BytesIO(data)) as stored:
        expected = stored.convert("RGBA")
    grey = mode in ("1", "L", "LA")
    assert (picture.bits, len(picture.colour)) == (8, 1 if grey else 3)
    assert picture.format == (kind.lower() if kind in ("PNG", "TIFF", "WEBP") else "png")
    assert np.array_equal(np.asarray(picture.to_pil().convert("RGBA")), np.asarray(expected))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_keep_every_step(kind, channels):
    picture = decode_picture(deep_file(kind, channels), "a")
    assert (picture.bits, picture.format) == (16, kind)
    assert len(picture.colour) == (1 if channels < 3 else 3)
    assert np.array_equal(hwc(picture), DEEP[..., :channels])


def test_16_bits_of_other_writers_are_read():
    rgb = DEEP[..., :3]
    for data in (png_of(rgb), png_of(DEEP), rgb_tiff_of(rgb)):
        pixels = hwc(decode_picture(data, "a"))
        assert np.array_equal(pixels, DEEP[..., : pixels.shape[2]])
    for kind in ("PNG", "TIFF"):
        grey = decode_picture(encoded(Image.fromarray(rgb[..., 0]), kind), "a")
        assert np.array_equal(hwc(grey)[..., 0], rgb[..., 0])


def test_a_colour_that_is_transparent_becomes_alpha():
    key = tuple(int(value) for value in RGB[0, 0])
    picture = decode_picture(encoded(Image.fromarray(RGB), transparency=key), "a")
    assert np.array_equal(hwc(picture)[..., :3], RGB)
    assert picture.alpha is not None
    assert (picture.alpha == 0).sum() == 1
    chunk = (b"tRNS", DEEP[0, 0, :3].astype(">u2").tobytes())
    deep = decode_picture(png_of(DEEP[..., :3], chunk), "a")
    assert np.array_equal(hwc(deep)[..., :3], DEEP[..., :3])
    assert deep.alpha is not None
    assert (deep.alpha == 0).sum() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation_is_applied_once(camera_exif, kind, orientation):
    image = Image.fromarray(RGB)
    camera_exif[0x0112] = orientation
    options = {"dpi": (300, 150)} if kind != "WEBP" else {"lossless": True}
    data = encoded(image, kind, exif=camera_exif, **options)
    picture = decode_picture(data, "a")
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(hwc(picture), expected)
    exif = picture.to_pil().getexif()
    inner = exif.get_ifd(0x8769)
    assert exif[0x0112] == 1
    assert (inner[0xA003], inner[0xA002]) == expected.shape[:2]
    if kind != "WEBP":
        assert picture.dpi == ((150, 300) if orientation > 4 else (300, 150))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_orientation_of_16_bits_is_applied(kind):
    image = libvips().Image.new_from_array(np.ascontiguousarray(DEEP[..., :3]))
    image = image.copy(interpretation="rgb16")
    image.set_type(libvips().GValue.gint_type, "orientation", 6)
    picture = decode_picture(getattr(image, f"{kind}save_buffer")(), "a")
    assert np.array_equal(hwc(picture), np.rot90(DEEP[..., :3], -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_is_kept_without_what_is_private_or_stale(camera_exif, kind):
    options = {"dpi": (72, 72)} if kind != "WEBP" else {}
    data = encoded(Image.fromarray(RGB), kind, exif=camera_exif, **options)
    picture = decode_picture(data, "a")
    exif = picture.to_pil().getexif()
    assert set(exif) == {0x010F, 0x0110, 0x8298, 0x0112, 0x8769, 0x8825}
    assert exif[0x8298].encode("latin-1") == b"\xc2\xa9 Zo\xc3\xab"  # UTF-8, byte for byte
    inner, expected = exif.get_ifd(0x8769), camera_exif.get_ifd(0x8769)
    assert set(inner) == set(expected) - {0x927C}
    assert all(inner[tag] == expected[tag] for tag in (0x9003, 0x9286, 0x9010))
    assert exif.get_ifd(0x8825) == camera_exif.get_ifd(0x8825)


def test_a_thumbnail_is_dropped(camera_exif):
    block = bytearray(camera_exif.tobytes()[6:])
    order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
    (at,) = struct.unpack_from(order + "L", block, 4)
    (count,) = struct.unpack_from(order + "H", block, at)
    struct.pack_into(order + "L", block, at + 2 + 12 * count, len(block))  # the next directory
    entries = (513, 4, 1, len(block) + 30, 514, 4, 1, 9)
    block += struct.pack(order + "H2HLL2HLLL", 2, *entries, 0) + b"thumbnail"
    data = encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + bytes(block))
    assert b"thumbnail" in data
    exif = decode_picture(data, "a").metadata.exif
    assert exif is not None
    assert b"thumbnail" not in exif


@pytest.mark.parametrize("block", [b"II*\0\x99\0\0\0", b"garbage", b"II*\0\x08\0\0\0\xff\xff", b""])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_is_left_out(kind, block):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(RGB), kind, exif=b"Exif\0\0" + block, **options)
    picture = decode_picture(data, "a")
    assert picture.metadata.exif is None
    assert kind == "JPEG" or np.array_equal(hwc(picture), RGB)


def test_a_phone_s_several_jpegs_in_one_are_the_first_and_stay_jpeg():
    image, file = Image.fromarray(RGB), io.BytesIO()
    image.save(file, "MPO", save_all=True, append_images=[image.rotate(180)])
    picture = decode_picture(file.getvalue(), "a")
    assert picture.format == "jpeg"
    assert picture.colour.equal(decode_picture(encoded(image, "JPEG"), "a").colour)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_is_read_whose_exif_directory_is_damaged(camera_exif, bits):
    value = (np.uint8(7) if bits == 8 else np.uint16(700)) * np.ones((4, 6), f"uint{bits}")
    file = io.BytesIO()
    Image.fromarray(value).save(file, "TIFF", exif=camera_exif)
    data = bytearray(file.getvalue())
    entry = data.index(struct.pack("<HHL", 0x8769, 4, 1))
    data[entry + 8 : entry + 12] = struct.pack("<L", len(data) - 7)
    picture = decode_picture(bytes(data), "a")
    assert picture.colour.equal(torch.from_numpy(value)[None])
    exif = picture.to_pil().getexif()
    assert exif[0x0110] == "Model 5"
    assert not exif.get_ifd(0x8769)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_resolution_is_kept_and_none_is_invented(kind):
    image = Image.fromarray(RGB)
    assert decode_picture(encoded(image, kind, dpi=(300, 300)), "a").dpi == (300, 300)
    if kind != "BMP":  # Pillow writes 96 there
        assert decode_picture(encoded(image, kind), "a").dpi is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profiles_are_kept_and_pixels_left_in_their_space(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = decode_picture(encoded(Image.fromarray(RGB), kind, **options), "a")
    data = encoded(Image.fromarray(RGB), kind, icc_profile=LINEAR_RGB, **options)
    picture = decode_picture(data, "a")
    assert picture.profile == LINEAR_RGB
    assert picture.colour.equal(plain.colour)
    if kind != "WEBP":
        grey = encoded(Image.fromarray(RGB[..., 0]), kind, icc_profile=GREY_OF_GAMMA_1_8)
        assert decode_picture(grey, "a").profile == GREY_OF_GAMMA_1_8


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_profiles_of_16_bits_are_kept(kind):
    image = libvips().Image.new_from_array(np.ascontiguousarray(DEEP[..., :3]))
    image = image.copy(interpretation="rgb16")
    image.set_type(libvips().GValue.blob_type, "icc-profile-data", LINEAR_RGB)
    picture = decode_picture(getattr(image, f"{kind}save_buffer")(), "a")
    assert picture.profile == LINEAR_RGB
    assert np.array_equal(hwc(picture), DEEP[..., :3])


@pytest.mark.parametrize(
    "profile", [b"no profile", LINEAR_RGB[:200], b"\0" * 500, print_profile(), GREY_OF_GAMMA_1_8]
)
def test_a_profile_that_is_broken_or_of_another_kind_is_dropped(profile):
    picture = decode_picture(encoded(Image.fromarray(RGB), icc_profile=profile), "a")
    assert picture.profile is None
    assert np.array_equal(hwc(picture), RGB)


@pytest.mark.parametrize("profile", [None, print_profile()])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb_as_for_training(kind, profile):
    cmyk = Image.fromarray(np.concatenate([RGB, RGB[..., :1]], axis=2), "CMYK")
    data = encoded(cmyk, kind, icc_profile=profile)
    picture = decode_picture(data, "a")
    assert (picture.profile, len(picture.colour), picture.bits) == (None, 3, 8)
    rule = "their profile" if profile else "a plain formula, without a profile of theirs"
    lost = Loss("CMYK inks", f"they became sRGB by {rule}", is_colour=True)
    assert picture.metadata.losses == (lost,)
    assert torch.allclose(picture.image(), decode_image(data, "a"), atol=1e-6)


def test_cmyk_and_lab_of_16_bits_become_srgb():
    white = np.zeros((2, 3, 4), np.uint16)
    cmyk = libvips().Image.new_from_array(white).copy(interpretation="cmyk")
    for data in (cmyk.tiffsave_buffer(), lab_file(100, 0, 0)):
        picture = decode_picture(data, "a")
        assert (picture.bits, picture.profile) == (16, None)
        assert hwc(picture).min() >= 65_500
    red = hwc(decode_picture(lab_file(54.29, 80.80, 69.89), "a"))[0, 0]  # sRGB red under D50
    assert np.abs(red.astype(int) - [65_535, 0, 0]).max() <= 3 * 257


def lab_file(*lab: float) -> bytes:
    image = libvips().Image.black(3, 2, bands=3) + list(lab)
    return image.copy(interpretation="lab").colourspace("labs").tiffsave_buffer()


def test_premultiplied_transparency_is_undone():
    image = (
        libvips()
        .Image.new_from_array(np.array([[[10_000, 5_000, 0, 32_768]]], np.uint16))
        .copy(interpretation="rgb16")
    )
    data = bytearray(image.tiffsave_buffer())
    at = data.index(struct.pack("<HHLH", 338, 3, 1, 2))
    data[at + 8] = 1  # associated alpha
    colour = hwc(decode_picture(bytes(data), "a"))[0, 0]
    assert np.abs(colour.astype(int) - [20_000, 10_000, 0, 32_768]).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_picture_of_many_is_read(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(hwc(decode_picture(data, "a"))[0, 0, :3], [255, 0, 0])


# ---- damaged and hostile files ------------------------------------------------------------------

FILES = {
    kind: encoded(Image.fromarray(RGB.repeat(12, 0).repeat(9, 1)), kind)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
}
FILES |= {"head-first TIFF": rgb_tiff_of(DEEP[..., :3])}
FILES |= {"deep PNG": png_of(DEEP), "deep TIFF": deep_file("tiff", 3), "grey": deep_file("tiff", 2)}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_in_its_pixels_is_refused(kind):
    data = FILES[kind]
    for part in (0.0, 0.02, 0.3, 0.6, 0.9):
        with pytest.raises(DataError, match=r"x\.img: not a readable image") as error:
            decode_picture(data[: int(part * len(data))], "x.img")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_are_refused_in_one_line_or_read_but_never_crash(kind):
    dice = random.Random(0)
    for _ in range(40):
        broken = bytearray(FILES[kind])
        for _ in range(dice.choice([1, 4, 16])):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        message = "x.img: "
        try:
            decode_picture(bytes(broken), "x.img")
        except DataError as error:
            message = str(error)
        assert message.startswith("x.img: ")
        assert "\n" not in message


@pytest.mark.parametrize("mode", [np.float32, np.int32])
def test_32_bits_and_floats_have_no_range_and_are_refused(mode):
    for data in (
        encoded(Image.fromarray(np.ones((2, 2), mode)), "TIFF"),
        rgb_tiff_of(np.ones((2, 2, 3), np.float32)),
    ):
        with pytest.raises(DataError, match=r"a\.tif: has floats, .*; save it with 8 or 16 bits"):
            decode_picture(data, "a.tif")


def test_bombs_are_refused_before_they_are_decoded(monkeypatch):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 16, 2, 0, 0, 0)
    bomb = png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        decode_picture(bomb, "bomb.png")
    monkeypatch.setattr(opening, "MAX_PIXELS", 34)
    for data in (deep_file("tiff", 3), deep_file("png", 3), encoded(Image.fromarray(RGB))):
        with pytest.raises(DataError, match=r"a: 7x5 px is more than the 34 pixels allowed"):
            decode_picture(data, "a")
    monkeypatch.setattr(opening, "MAX_PIXELS", 35)
    assert decode_picture(deep_file("tiff", 3), "a").size == (5, 7)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(RGB)))  # a PNG
    assert read_picture(tmp_path / "a.jpg").format == "png"
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "drawing.png").write_bytes(encoded(Image.fromarray(RGB), "EPS"))
    for name, message in (
        ("empty.png", "not a readable image"),
        ("text.png", "not a readable image"),
        ("drawing.png", "not a readable image"),
        ("missing.png", "cannot be read"),
        (".", "cannot be read"),
    ):
        with pytest.raises(DataError, match=message) as error:
            read_picture(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
