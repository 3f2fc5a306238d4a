from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import decode_picture, file_facts
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


def is_close(values: np.ndarray, expected, *, within: float = 1e-4) -> bool:
    return bool(np.abs(values - np.asarray(expected, np.float64)).max() <= within)


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


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize(
    "block", [b"garbage", b"II\x1f\0\x08\0\0\0", b"MM\0*", b"II*\0\x08\0\0\0\xff\xff", b""]
)
def test_with_damaged_exif_a_picture_is_read_as_without(kind, block):
    image, options = Image.fromarray(RGB), {"lossless": True} if kind == "WEBP" else {}
    assert is_close(pixels(encoded(image, kind, exif=b"Exif\0\0" + block, **options)), RGB)


def test_orientation_is_applied_also_where_another_field_has_a_wrong_type():
    fields = struct.pack(">HHHI4sHHIHH", 2, 0x0111, 2, 4, b"abc\0", 0x0112, 3, 1, 6, 0)
    block = b"Exif\0\0MM\0*\0\0\0\x08" + fields + bytes(4)
    stored = Image.fromarray(RGB).transpose(Image.Transpose.ROTATE_90)
    assert is_close(pixels(encoded(stored, exif=block)), RGB)


def test_transparent_pictures_are_laid_on_white():
    alpha = np.array([0, 51, 255], np.uint8)
    colour = np.array([200, 100, 0], np.uint8)
    rgba = np.concatenate([np.tile(colour, (1, 3, 1)), alpha.reshape(1, 3, 1)], axis=2)
    expected = [255 + (colour - 255.0) * a / 255 for a in alpha]
    values = pixels(encoded(Image.fromarray(rgba)))
    assert is_close(values[0], expected, within=1)
    assert is_close(values[0, [0, 2]], [expected[0], expected[2]])


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
    expected = RGB.copy()
    expected[0, 0] = 255
    assert is_close(pixels(data), expected)


def test_grey_and_one_bit_pictures_have_three_equal_channels():
    grey = RGB[..., 0]
    assert is_close(pixels(encoded(Image.fromarray(grey))), grey[..., None].repeat(3, axis=2))
    bits = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    expected = np.where(grey[..., None] > 127, 255, 0).repeat(3, axis=2)
    assert is_close(pixels(encoded(bits)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_range_and_its_small_steps(kind):
    grey = np.array([[0, 1, 255, 256, 32768, 65534, 65535]], np.uint16)
    values = pixels(encoded(Image.fromarray(grey), kind))
    assert is_close(values, (grey / 257)[..., None].repeat(3, axis=2))
    assert len(np.unique(values)) == 7


def test_cmyk_becomes_rgb():
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 255]]], np.uint8)
    data = encoded(Image.frombytes("CMYK", (4, 1), cmyk.tobytes()), "TIFF")
    assert is_close(pixels(data)[0], [[255] * 3, [0, 255, 255], [255, 0, 255], [0] * 3])


def png_of(pixels: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of any bit depth, which Pillow cannot write; (H, W, 3 or 4), extra chunks."""
    height, width, channels = pixels.shape
    big_endian = pixels.astype(pixels.dtype.newbyteorder(">"))
    colour = {3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    return png_chunks((b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def rgb_tiff_of(pixels: np.ndarray) -> bytes:
    """An uncompressed RGB TIFF of 16 or 32 bits per channel, which Pillow cannot write."""
    height, width, channels = pixels.shape
    kind = 3 if pixels.dtype.kind == "f" else 1
    lists = struct.pack("<6H", *[8 * pixels.itemsize] * 3, *[kind] * 3)
    start = 8 + 2 + 9 * 12 + 4
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, start), (259, 4, 1, 1)]
    tags += [(262, 4, 1, 2), (273, 4, 1, start + 12), (277, 4, 1, channels), (278, 4, 1, height)]
    tags += [(339, 3, 3, start + 6)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + lists + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


DEEP = np.array([[[0, 255, 256], [65535, 65280, 32767]]], np.uint16)


@pytest.mark.parametrize("encode", [png_of, rgb_tiff_of])
def test_16_bit_colour_keeps_its_small_steps(encode):
    assert is_close(pixels(encode(DEEP)), DEEP / 257)


def test_16_bit_colour_with_transparency_is_laid_on_white():
    alpha = np.array([[[65535], [0]]], np.uint16)
    values = pixels(png_of(np.concatenate([DEEP, alpha], axis=2)))
    assert is_close(values[0], [DEEP[0, 0] / 257, [255] * 3])


@pytest.mark.parametrize("mode", [np.float32, np.int32])
def test_32_bits_have_no_range_and_are_refused(mode):
    data = encoded(Image.fromarray(np.ones((2, 2), mode)), "TIFF")
    with pytest.raises(DataError, match=r"a\.tif: has floats, .* whose range is unknown"):
        decode_image(data, "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: "):
        decode_image(rgb_tiff_of(np.ones((2, 2, 3), np.float32)), "a.tif")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_picture_of_an_animation_is_read(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert is_close(pixels(data), [255, 0, 0])


# ---- colour profiles ----------------------------------------------------------------------------


def s15(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of version 2 with the tags that Little CMS needs."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1, 0.8249)} | tags
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"lcms", 0x02100000, kind, space, connection
    )
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return head + s15(0.9642, 1, 0.8249) + bytes(48) + table + body


LINEAR = b"curv" + bytes(8)  # no entry: out = in
SRGB_PRIMARIES = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}


def rgb_profile(curve: bytes, name: str = "") -> bytes:
    """A profile with the primaries of sRGB."""
    text = struct.pack(">I", len(name) + 1) + name.encode() + bytes(1 + 4 + 4 + 2 + 1 + 67)
    return icc(
        b"RGB ",
        b"XYZ ",
        {name: b"XYZ \0\0\0\0" + s15(*value) for name, value in SRGB_PRIMARIES.items()}
        | {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
        | ({b"desc": b"desc\0\0\0\0" + text} if name else {}),
    )


LINEAR_RGB = rgb_profile(LINEAR)
GREY_OF_GAMMA_1_8 = icc(
    b"GRAY", b"XYZ ", {b"kTRC": b"curv" + struct.pack(">IIH", 0, 1, round(1.8 * 256))}
)
LINEAR_GREY = icc(b"GRAY", b"XYZ ", {b"kTRC": LINEAR})


def print_profile() -> bytes:
    """CMYK in which black alone makes lightness: L* = 100 (1 - K), whatever C, M and Y."""
    lightness = [0 if ink & 1 else 255 for ink in range(16)]  # K is the fastest axis
    grid = b"".join(bytes([value, 128, 128]) for value in lightness)
    ramp = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return icc(b"CMYK", b"Lab ", {b"A2B0": head + ramp * 4 + grid + ramp * 3})


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, from [0, 1] to [0, 255]."""
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curve


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_colours_of_a_profile_become_srgb(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(RGB), kind, icc_profile=LINEAR_RGB, **options)
    assert is_close(pixels(data), srgb_encoded(RGB / 255), within=1.5)
    assert not is_close(pixels(data), RGB, within=20)


@pytest.mark.parametrize(("profile", "gamma"), [(GREY_OF_GAMMA_1_8, 1.8), (LINEAR_GREY, 1.0)])
def test_grey_of_a_profile_becomes_srgb(profile, gamma):
    grey = np.arange(256, dtype=np.uint8)[None]
    data = encoded(Image.fromarray(grey), icc_profile=profile)
    expected = srgb_encoded((grey / 255) ** gamma)[..., None].repeat(3, axis=2)
    assert is_close(pixels(data), expected, within=2)
    assert is_close(pixels(data)[:, 20:], expected[:, 20:], within=1)


def test_transparency_is_laid_on_white_after_the_conversion():
    rgba = np.array([[[100, 100, 100, 128], [100, 100, 100, 0]]], np.uint8)
    data = encoded(Image.fromarray(rgba), icc_profile=LINEAR_RGB)
    colour = srgb_encoded(np.array(100 / 255))
    expected = [[255 + (colour - 255) * 128 / 255] * 3, [255] * 3]
    assert is_close(pixels(data)[0], expected, within=2)


def test_cmyk_is_converted_by_its_profile():
    black = np.array([0, 64, 128, 255], np.uint8)
    cmyk = np.zeros((1, 4, 4), np.uint8)
    cmyk[0, :, 3] = black
    image = Image.frombytes("CMYK", (4, 1), cmyk.tobytes())
    star = 100 * (1 - black / 255.0)
    luminance = np.where(star > 8, ((star + 16) / 116) ** 3, star / 903.3)  # CIE 1976
    expected = srgb_encoded(luminance)[:, None].repeat(3, axis=1)
    values = pixels(encoded(image, "TIFF", icc_profile=print_profile()))
    assert is_close(values[0], expected, within=2.5)
    plain = pixels(encoded(image, "TIFF"))
    assert is_close(plain[0, :, 0], 255 - black)
    assert not is_close(values, plain, within=5)


@pytest.mark.parametrize(
    "profile", [b"no profile", LINEAR_RGB[:200], b"\0" * 500, print_profile(), GREY_OF_GAMMA_1_8]
)
def test_a_profile_that_is_broken_or_of_another_kind_is_ignored(profile):
    assert is_close(pixels(encoded(Image.fromarray(RGB), icc_profile=profile)), RGB)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_profile_is_known_by_what_it_does_not_by_its_name(bits):
    linear = rgb_profile(LINEAR, "built-in Linear sRGB")
    named = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(linear)))
    assert "sRGB" in named
    data = encoded(Image.fromarray(RGB), icc_profile=linear)
    assert is_close(pixels(data), srgb_encoded(RGB / 255), within=1.5)
    colour = torch.full((3, 2, 2), 55 * (2**bits - 1) / 255)
    colour = colour.to(torch.uint8 if bits == 8 else torch.uint16)
    read = Picture(colour=colour, bits=bits, profile=linear).in_srgb().colour
    levels = read.numpy() * (255 / (2**bits - 1))
    assert is_close(levels, srgb_encoded(np.full((3, 2, 2), 55 / 255)), within=1)
    table = np.linspace(0, 1, 1024)
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + struct.pack(">II", 0, 1024) + np.rint(table * 65535).astype(">u2").tobytes()
    same = Picture(colour=colour, bits=bits, profile=rgb_profile(curve)).in_srgb()
    assert torch.equal(same.colour.int(), colour.int())
    grey = Image.fromarray(np.full((2, 2), 55, np.uint8))
    for profile, lost in ((linear, ["colour profile"]), (rgb_profile(curve), [])):
        picture = decode_picture(encoded(grey, icc_profile=profile), "a")
        assert picture.profile is None
        assert [loss.what for loss in picture.metadata.losses] == lost


def test_an_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_close(pixels(encoded(Image.fromarray(RGB), icc_profile=profile)), RGB)


# ---- damaged and hostile files ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_in_its_pixels_is_refused(kind):
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(DataError, match=r"x\.img: not a readable image"):
            decode_image(data[: int(part * len(data))], "x.img")


@pytest.mark.parametrize(
    ("name", "head"), [(b"zTXt", b"note\0\0"), (b"iTXt", b"note\0\1\0\0\0"), (b"iCCP", b"p\0\0")]
)
def test_a_packed_text_or_profile_that_grows_too_large_is_left_out(name, head):
    bomb = zlib.compress(bytes(32 * 2**20))
    assert len(bomb) < 40_000
    data = png_of(RGB, (name, head + bomb))
    picture = decode_picture(data, "bomb.png")
    assert np.array_equal(picture.colour.permute(1, 2, 0).numpy(), RGB)
    metadata = picture.metadata
    assert [loss.why[-8:] for loss in metadata.losses] == ["too long"]
    assert metadata.texts == ()


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_a_damaged_text_or_profile_is_read_without_it(bits):
    pixels = RGB if bits == 8 else RGB.astype(np.uint16) * 257
    faults = [(b"tEXt", b"\0no keyword"), (b"gAMA", b"short"), (b"iCCP", b"p\0\0no zlib")]
    data = bytearray(png_of(pixels, *faults, (b"tEXt", b"Title\0kept"), (b"iTXt", b"a\0\0\0\0\0b")))
    at = data.index(b"iTXta") + 10  # its checksum
    data[at] ^= 1
    picture = decode_picture(bytes(data), "a.png")
    assert np.array_equal(picture.colour.permute(1, 2, 0).numpy(), pixels)
    assert [text.keyword for text in picture.metadata.texts] == ["Title"]
    lost = {loss.what for loss in picture.metadata.losses}
    assert lost == {"PNG texts", "PNG colour chunk gAMA", "colour profile"}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_the_limit_of_pixels_is_not_that_of_pillow(kind):
    data = encoded(Image.new("1", (15_000, 13_000)), kind)
    facts = file_facts(data, "a")
    assert (facts.format, facts.bits) == (kind, 1)
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


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
    data = png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        decode_image(data, "bomb.png")
    monkeypatch.setattr(opening, "MAX_PIXELS", 34)
    small = encoded(Image.fromarray(RGB))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"a\.png: 7x5 px is more than the 34 pixels allowed"):
        decode_image(small, "a.png")


def test_formats_that_run_programs_are_not_read():
    data = encoded(Image.fromarray(RGB), "EPS")
    with pytest.raises(DataError, match=r"a\.png: not a readable image \(none of PNG"):
        decode_image(data, "a.png")


def test_the_largest_allowed_picture_is_read(monkeypatch):
    monkeypatch.setattr(opening, "MAX_PIXELS", 35)
    assert is_close(pixels(encoded(Image.fromarray(RGB))), RGB)


def test_a_file_is_read_by_its_content_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(RGB)))  # a PNG
    assert read_image(tmp_path / "a.jpg").shape == (3, 5, 7)
    for path in (tmp_path / "b.png", tmp_path):
        with pytest.raises(DataError, match="cannot be read") as error:
            read_image(path)
        assert str(path) in str(error.value)
