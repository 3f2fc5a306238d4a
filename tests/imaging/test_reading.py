from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from cascade.errors import DataError
from cascade.imaging import reading
from cascade.imaging.reading import decode_image, read_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    """(H, W, 3) in [0, 255], not rounded."""
    image = decode_image(data, "a.png")
    assert image.dtype == torch.float32
    assert -1 <= image.min() <= image.max() <= 1
    return ((image + 1) * 127.5).permute(1, 2, 0).numpy()


def is_close(got: np.ndarray, wanted, *, within: float = 1e-4) -> bool:
    return bool(np.abs(got - np.asarray(wanted, np.float64)).max() <= within)


def test_rgb_is_read_exactly_and_black_and_white_are_the_ends():
    assert is_close(pixels(encoded(Image.fromarray(RGB))), RGB)
    ends = Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    assert decode_image(encoded(ends), "a")[:, 0].tolist() == [[-1.0, 1.0]] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation, kind):
    upright = Image.fromarray(RGB)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that the camera made
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert is_close(pixels(encoded(stored, kind, exif=exif)), RGB)


def test_transparent_pictures_are_laid_on_white():
    alpha = np.array([0, 51, 255], np.uint8)
    colour = np.array([200, 100, 0], np.uint8)
    rgba = np.concatenate([np.tile(colour, (1, 3, 1)), alpha.reshape(1, 3, 1)], axis=2)
    wanted = [255 + (colour - 255.0) * a / 255 for a in alpha]
    got = pixels(encoded(Image.fromarray(rgba)))
    assert is_close(got[0], wanted, within=1)
    assert is_close(got[0, [0, 2]], [wanted[0], wanted[2]])


def test_grey_with_transparency_is_laid_on_white():
    grey = Image.fromarray(np.array([[[40, 0], [40, 255]]], np.uint8))
    assert grey.mode == "LA"
    assert is_close(pixels(encoded(grey))[0], [[255] * 3, [40] * 3])


def palette() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_give_their_colours_and_a_transparent_entry_is_white(kind):
    assert is_close(pixels(encoded(palette(), kind))[0], [[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    transparent = encoded(palette(), kind, transparency=1)
    assert is_close(pixels(transparent)[0], [[255, 0, 0], [255] * 3, [0, 0, 255]])


def test_rgb_with_a_transparent_colour_is_laid_on_white():
    data = encoded(Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[0, 0]))
    wanted = RGB.copy()
    wanted[0, 0] = 255
    assert is_close(pixels(data), wanted)


def test_grey_and_one_bit_pictures_have_three_equal_channels():
    grey = RGB[..., 0]
    assert is_close(pixels(encoded(Image.fromarray(grey))), grey[..., None].repeat(3, axis=2))
    bits = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    wanted = np.where(grey[..., None] > 127, 255, 0).repeat(3, axis=2)
    assert is_close(pixels(encoded(bits)), wanted)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range_and_its_small_steps(kind):
    grey = np.array([[0, 1, 255, 256, 32768, 65534, 65535]], np.uint16)
    got = pixels(encoded(Image.fromarray(grey), kind))
    assert is_close(got, (grey / 257)[..., None].repeat(3, axis=2))
    assert len(np.unique(got)) == 7


def test_cmyk_becomes_rgb():
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 255]]], np.uint8)
    data = encoded(Image.frombytes("CMYK", (4, 1), cmyk.tobytes()), "TIFF")
    assert is_close(pixels(data)[0], [[255] * 3, [0, 255, 255], [255, 0, 255], [0] * 3])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_files_are_refused_in_one_line_or_read_but_never_crash(kind):
    data = encoded(Image.fromarray(RGB.repeat(4, 0).repeat(4, 1)), kind)
    dice = random.Random(0)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(dice.choice([1, 4, 16])):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        message = ""
        try:
            image = decode_image(bytes(broken[: dice.randrange(1, len(broken) + 1)]), "x.img")
        except DataError as error:
            message = str(error)
        assert message.startswith("x.img: ") if message else torch.isfinite(image).all()
        assert "\n" not in message


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        decode_image(data, "bomb.png")
    monkeypatch.setattr(reading, "MAX_PIXELS", 34)
    small = encoded(Image.fromarray(RGB))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"a\.png: 7x5 px is more than the 34 pixels allowed"):
        decode_image(small, "a.png")


def test_formats_that_run_programs_are_not_read():
    data = encoded(Image.fromarray(RGB), "EPS")
    with pytest.raises(DataError, match=r"a\.png: not a readable image \(cannot identify"):
        decode_image(data, "a.png")


def test_the_largest_allowed_picture_is_read(monkeypatch):
    monkeypatch.setattr(reading, "MAX_PIXELS", 35)
    assert is_close(pixels(encoded(Image.fromarray(RGB))), RGB)


def test_a_file_is_read_by_its_content_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(RGB)))  # a PNG
    assert read_image(tmp_path / "a.jpg").shape == (3, 5, 7)
    for path in (tmp_path / "b.png", tmp_path):
        with pytest.raises(DataError, match="cannot be read") as error:
            read_image(path)
        assert str(path) in str(error.value)
