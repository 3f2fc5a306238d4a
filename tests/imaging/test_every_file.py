"""Every kind of PNG, JPEG, WebP, GIF, BMP, AVIF, HEIC and JPEG XL is read right by both doors.

TIFF has a file of its own, `test_every_tiff.py`.
"""

from __future__ import annotations

import ast
import io
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cascade.errors import DataError
from cascade.extras import install_command
from cascade.imaging import opening
from cascade.imaging.metadata import Metadata
from cascade.imaging.opening import IMAGE_SUFFIXES, format_of
from cascade.imaging.orientation import upright
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import count_pages, decode_picture, file_facts, read_picture
from cascade.imaging.picture_writing import lost_metadata, write_picture
from cascade.imaging.reading import decode_image, read_image

HEIGHT, WIDTH = 9, 13
FLAT = np.zeros((32, 48, 3), np.uint8)  # a colour in each quarter, which no codec can mix up
FLAT[:16, :24], FLAT[:16, 24:], FLAT[16:, :24] = [250, 20, 20], [20, 240, 30], [30, 20, 240]
INNER = [5, -6]  # rows and columns far from the borders between colours


def encoded(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    elif kind == "JXL":
        import pillow_jxl  # noqa: F401
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def check(data: bytes, colour: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    """Compare a file, read for restoring and for training, with (H, W, C) and (H, W)."""
    picture = decode_picture(data, "a")
    read = picture.colour.permute(1, 2, 0).numpy()
    assert (read.dtype, read.shape) == (colour.dtype, colour.shape)
    assert np.array_equal(read, colour)
    assert (picture.alpha is None) == (alpha is None)
    top = np.iinfo(colour.dtype).max
    expected = colour / top
    if alpha is not None:
        assert np.array_equal(picture.alpha[0].numpy(), alpha)
        expected = expected * (alpha[..., None] / top) + 1 - alpha[..., None] / top
    training = (decode_image(data, "a").permute(1, 2, 0).numpy() + 1) / 2
    assert training.shape == (*colour.shape[:2], 3)
    assert np.abs(training - expected).max() <= 0.02 / top + 1e-6
    return picture


# ---- PNG: every colour type and number of bits ---------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def png(samples: np.ndarray, colour_type: int, bits: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of (H, W, S) whole numbers below 2^bits, with extra chunks."""
    height, width, _ = samples.shape
    digits = samples.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1) & 1
    rows = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">LLBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def numbers(bits: int, channels: int) -> np.ndarray:
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    values[0, :2] = [[0], [2**bits - 1]]
    return values


def spread(values: np.ndarray, bits: int) -> np.ndarray:
    top = 65535 if bits == 16 else 255
    return (values * (top // (2**bits - 1))).astype(np.uint16 if bits == 16 else np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_of_every_depth_is_read_with_its_transparent_value(bits):
    samples = numbers(bits, 1)
    grey = spread(samples, bits)
    check(png(samples, 0, bits), grey)
    for value in (0, 2**bits // 2, 2**bits - 1):
        data = png(samples, 0, bits, (b"tRNS", struct.pack(">H", value)))
        alpha = np.where(samples[..., 0] == value, 0, np.iinfo(grey.dtype).max)
        check(data, grey, alpha.astype(grey.dtype))
    facts = file_facts(png(samples, 0, bits), "a")
    assert (facts.format, facts.kind, facts.bits, facts.channels) == ("PNG", "grey", bits, 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_png_of_every_depth_is_read_with_its_transparency(bits):
    rgb, top = numbers(bits, 3), 2**bits - 1
    colour = spread(rgb, bits)
    check(png(rgb, 2, bits), colour)
    data = png(rgb, 2, bits, (b"tRNS", struct.pack(">3H", *rgb[2, 3])))
    alpha = np.where((rgb == rgb[2, 3]).all(-1), 0, top).astype(colour.dtype)
    check(data, colour, alpha)
    for channels, colour_type in ((2, 4), (4, 6)):
        samples = numbers(bits, channels)
        values = spread(samples, bits)
        check(png(samples, colour_type, bits), values[..., :-1], values[..., -1])
        assert file_facts(png(samples, colour_type, bits), "a").channels == channels


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_of_every_depth_is_read_with_its_transparency(bits):
    samples, count = numbers(bits, 1), 2**bits
    palette = np.random.default_rng(0).integers(0, 256, (count, 3), np.uint8)
    entries = (b"PLTE", palette.tobytes())
    indices = samples[..., 0]
    check(png(samples, 3, bits, entries), palette[indices])
    opacity = np.full(count, 255, np.uint8)
    opacity[:2] = [0, 77]
    for given in (opacity[:1], opacity[:2]):
        full = np.full(count, 255, np.uint8)
        full[: len(given)] = given
        data = png(samples, 3, bits, entries, (b"tRNS", given.tobytes()))
        check(data, palette[indices], full[indices])
    grey = np.repeat(palette[:, :1], 3, axis=1)
    check(png(samples, 3, bits, (b"PLTE", grey.tobytes())), palette[indices, :1])
    facts = file_facts(png(samples, 3, bits, entries), "a")
    assert (facts.kind, facts.bits, facts.channels) == ("palette", bits, 1)


# ---- CMYK in JPEG --------------------------------------------------------------------------------


def test_cmyk_jpeg_is_inverted_once_also_as_ycck():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0], ink[..., 3] = 255, 51  # cyan with a fifth of black
    data = encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100, subsampling=0)
    marker = data.index(b"Adobe") + 11
    assert data[marker] in (0, 2)
    for door in (
        decode_picture(data, "a").colour.float(),
        (decode_image(data, "a") + 1) * 127.5,
    ):
        cyan = torch.tensor([0.0, 204, 204])[:, None, None]
        assert (door - cyan).abs().max() <= 4
    facts = file_facts(data, "a")
    assert (facts.format, facts.kind, facts.bits, facts.channels) == ("JPEG", "CMYK", 8, 4)


def test_unusual_jpeg_is_read_or_refused_with_its_kind():
    grey = numbers(8, 1)[..., 0].astype(np.uint8)
    check(imagecodecs.ljpeg_encode(grey), grey[..., None])
    deep = grey.astype(np.uint16) * 16
    for data, kind in (
        (imagecodecs.ljpeg_encode(deep), "JPEG of 16 bits"),
        (imagecodecs.jpeg8_encode(deep, bitspersample=12), "JPEG of 12 bits"),
        (imagecodecs.jpegls_encode(grey), "JPEG-LS"),
    ):
        for door in (decode_picture, decode_image, file_facts):
            with pytest.raises(DataError, match=rf"^a: not a readable image \({kind}\); save it"):
                door(data, "a")


def test_a_fourth_byte_of_bmp_that_is_zero_everywhere_is_no_transparency():
    samples = numbers(8, 4).astype(np.uint8)
    samples[..., 3] = 0
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "BMP")
    data = bytearray(file.getvalue())
    masks = struct.pack("<4L", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    data[10:18] = struct.pack("<LL", 14 + 56, 56)
    data[30:34] = struct.pack("<L", 3)
    check(bytes(data[:54]) + masks + bytes(data[54:]), samples[..., :3])
    data[54 + 3] = 1  # one byte of the last row: the picture is transparent
    read = decode_picture(bytes(data[:54]) + masks + bytes(data[54:]), "a")
    assert read.alpha is not None


# ---- orientation in every container --------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "HEIF", "JXL"])
def test_orientation_is_applied_once_in_every_container(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind != "PNG" else {}
    data = encoded(FLAT, kind, exif=exif.tobytes(), **options)
    assert format_of(data, "a") == kind
    expected = upright(torch.from_numpy(FLAT).permute(2, 0, 1), orientation).float()
    for image in (decode_picture(data, "a").colour.float(), (decode_image(data, "a") + 1) * 127.5):
        assert image.shape == expected.shape
        assert (image - expected)[:, INNER][..., INNER].abs().max() <= 25


@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_png_is_turned_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    samples = numbers(16, 3)
    data = png(samples, 2, 16, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    values = torch.from_numpy(samples.astype(np.uint16)).permute(2, 0, 1)
    check(data, upright(values, orientation).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("keyword", ["exif", "APP1"])
def test_an_orientation_in_an_old_kind_of_text_in_png_is_applied(keyword, bits):
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().hex()
    text = f"Raw profile type {keyword}\0\n{keyword}\n{len(block) // 2:8}\n{block}\n".encode()
    samples = numbers(bits, 3).astype(np.uint8 if bits == 8 else np.uint16)
    data = png(samples, 2, bits, (b"tEXt", text))
    check(data, upright(torch.from_numpy(samples).permute(2, 0, 1), 6).permute(1, 2, 0).numpy())


def test_avif_states_its_orientation_itself_so_that_of_xmp_does_not_count():
    xmp = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    data = encoded(FLAT, "AVIF", xmp=xmp.encode())
    assert decode_picture(data, "a").size == FLAT.shape[:2]


def test_an_orientation_that_the_jpeg_xl_decoder_applied_is_not_applied_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encoded(FLAT, "JPEG", exif=exif.tobytes(), subsampling=0))
    expected = decode_picture((tmp_path / "a.jpg").read_bytes(), "a").colour.float()
    with Image.open(tmp_path / "a.jpg") as image:
        restorable = encoded(image, "JXL", lossless_jpeg=True)
    boxes, at = [], 0
    while at < len(restorable):
        (length,) = struct.unpack_from(">L", restorable, at)
        boxes.append(restorable[at : at + (length or len(restorable) - at)])
        at += len(boxes[-1])
    block = bytes(4) + exif.tobytes().removeprefix(b"Exif\0\0")
    kept = [box for box in boxes if box[4:8] not in (b"jbrd", b"brob")]  # no JPEG to restore
    kept.insert(2, struct.pack(">L4s", 8 + len(block), b"Exif") + block)
    for data in (restorable, b"".join(kept)):
        read = decode_picture(data, "a").colour.float()
        assert read.shape == expected.shape
        assert (read - expected)[:, INNER][..., INNER].abs().max() <= 25


# ---- AVIF, HEIC, JPEG XL, suffixes ---------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JXL"])
def test_new_formats_are_read_with_transparency(kind, mode):
    image = Image.fromarray(FLAT)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.where(FLAT[..., 0] > 100, 255, 0).astype(np.uint8)))
    data = encoded(image, kind, quality=95)
    picture = decode_picture(data, "a")
    assert (picture.format, picture.bits) == ("png", 8)
    read = picture.colour.permute(1, 2, 0).numpy().astype(int)
    assert np.abs(read[5, 5] - FLAT[5, 5]).max() <= 25
    assert (picture.alpha is not None) == (mode == "RGBA")
    facts = file_facts(data, "a")
    assert (facts.format, facts.kind, facts.channels, facts.pages) == (kind, "RGB", len(mode), 1)


@pytest.mark.parametrize(("kind", "bits"), [("AVIF", 10), ("AVIF", 12), ("HEIF", 10), ("JXL", 16)])
def test_bits_that_are_not_read_are_reported(kind, bits):
    deep = FLAT.astype(np.uint16) * 257
    if kind == "AVIF":
        data = imagecodecs.avif_encode(deep >> 16 - bits, bitspersample=bits)
    elif kind == "JXL":
        data = imagecodecs.jpegxl_encode(deep, lossless=True)
    else:
        file = io.BytesIO()
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_bytes("RGB;16", (48, 32), deep.tobytes()).save(file)
        data = file.getvalue()
    facts = file_facts(data, "a")
    assert (facts.format, facts.kind, facts.bits) == (kind, "RGB", bits)
    assert [loss.what for loss in decode_picture(data, "a").metadata.losses] == [
        "more than 8 bits per channel"
    ]
    shallow = encoded(FLAT, kind)
    assert file_facts(shallow, "a").bits == 8
    assert decode_picture(shallow, "a").metadata.losses == ()


def test_jpeg_xl_of_grey_keeps_16_bits():
    samples = numbers(16, 1).astype(np.uint16)
    data = imagecodecs.jpegxl_encode(samples[..., 0], lossless=True)
    facts = file_facts(data, "a")
    assert (facts.kind, facts.bits, facts.channels) == ("grey", 16, 1)
    assert np.array_equal(decode_picture(data, "a").colour[0].numpy(), samples[..., 0])


def test_every_suffix_is_listed_and_the_content_counts(tmp_path):
    for suffix in (
        "jfif",
        "jpe",
        "jif",
        "jpg",
        "jpeg",
        "dib",
        "bmp",
        "apng",
        "avif",
        "heic",
        "heif",
    ):
        assert f".{suffix}" in IMAGE_SUFFIXES
    assert {".hif", ".jxl", ".tif", ".tiff", ".gif", ".webp", ".png"} <= IMAGE_SUFFIXES
    for suffix in IMAGE_SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encoded(FLAT, "JPEG"))
        assert read_picture(path).size == (32, 48)
        assert read_image(path).shape == (3, 32, 48)


@pytest.mark.parametrize(
    ("kind", "module", "message"),
    [
        (
            "HEIF",
            "pillow_heif",
            "a.x: HEIC needs the package pillow-heif, which is not installed: "
            + install_command("heif"),
        ),
        (
            "JXL",
            "pillow_jxl",
            "a.x: JPEG XL needs the package pillow-jxl-plugin, which is not installed: "
            + install_command("jxl"),
        ),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    kind, module, message, monkeypatch
):
    data = encoded(FLAT, kind)
    monkeypatch.setitem(sys.modules, module, None)
    for door in (decode_picture, decode_image, file_facts):
        with pytest.raises(DataError) as error:
            door(data, "a.x")
        assert str(error.value) == message


def test_optional_and_slow_packages_are_imported_only_when_their_files_arrive():
    for path in Path(opening.__file__).parent.glob("*.py"):
        at_import = [
            name.name if isinstance(node, ast.Import) else node.module
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in node.names
        ]
        packages = {str(name).partition(".")[0] for name in at_import}
        assert not packages & {"pillow_heif", "pillow_jxl", "tifffile", "imagecodecs", "pyvips"}


# ---- pages and frames ----------------------------------------------------------------------------


def moving_square(count: int = 4, mode: str = "RGB") -> list[Image.Image]:
    frames = []
    for index in range(count):
        frame = Image.new(mode, (24, 16), (200, 30, 30) if mode == "RGB" else (200, 30, 30, 255))
        box = (index * 5, 4, index * 5 + 4, 9)
        ImageDraw.Draw(frame).rectangle(box, fill=(20, 220, 40, 0)[: len(mode)])
        frames.append(frame)
    return frames


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_frames_are_what_a_viewer_shows(kind, mode):
    frames = moving_square(mode=mode)
    options = {"lossless": True} if kind == "WEBP" else {}
    if mode == "RGBA":
        options["disposal"] = {"GIF": 2, "PNG": 1}.get(kind)  # clear the square before the next
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert count_pages(data, "a") == 4
    for page, frame in enumerate(frames):
        picture = decode_picture(data, "a", page=page)
        expected = np.asarray(frame.convert("RGBA"))
        read = np.asarray(picture.to_pil().convert("RGBA"))
        assert np.array_equal(read[..., 3], expected[..., 3])
        is_visible = expected[..., 3] > 0
        assert np.abs(read[is_visible].astype(int) - expected[is_visible]).max() <= 1
    for page in (4, -1):
        with pytest.raises(DataError, match=f"a: has 4 pages; there is no page {page + 1}"):
            decode_picture(data, "a", page=page)
    with pytest.raises(DataError, match="has 1 pages; there is no page 2"):
        decode_picture(encoded(frames[0], kind), "a", page=1)


def test_the_still_picture_of_an_animated_png_is_no_frame():
    frames = moving_square(3)
    still = Image.new("RGB", (24, 16), (1, 2, 3))
    data = encoded(still, "PNG", save_all=True, append_images=frames, default_image=True)
    assert count_pages(data, "a") == 3
    for page, frame in enumerate(frames):
        read = decode_picture(data, "a", page=page).to_pil()
        assert np.array_equal(np.asarray(read), np.asarray(frame))


@pytest.mark.parametrize("name", ["GCamera:MotionPhoto", "GCamera:MicroVideo"])
def test_the_video_of_a_phone_is_reported_as_lost(name):
    uri = "http://ns.google.com/photos/1.0/camera/"
    for value, losses in (("1", ["video"]), ("0", [])):
        xmp = f'<rdf:Description xmlns:GCamera="{uri}" {name}="{value}"/>'.encode()
        picture = decode_picture(encoded(FLAT, "JPEG", xmp=xmp) + b"ftypmp42", "a")
        assert [loss.what for loss in picture.metadata.losses] == losses


def test_several_jpegs_in_one_file_are_one_picture():
    data = encoded(FLAT, "MPO", save_all=True, append_images=[Image.fromarray(FLAT[::-1])])
    assert count_pages(data, "a") == 1
    assert file_facts(data, "a").format == "JPEG"
    picture = decode_picture(data, "a")
    assert picture.format == "jpeg"
    assert [loss.what for loss in picture.metadata.losses] == ["further images of a file"]


# ---- colours of AVIF and HEIC --------------------------------------------------------------------


def with_nclx(kind: str, primaries: int, transfer: int, **options) -> bytes:
    """A file that states its colour space by the numbers of ITU-T H.273."""
    data = bytearray(encoded(FLAT, kind, **options))
    at = data.index(b"nclx") + 4
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize("numbers", [(9, 16), (12, 13), (9, 18)])  # BT.2020 PQ, P3, BT.2020 HLG
def test_colours_stated_by_numbers_stay_with_png_and_are_reported_elsewhere(
    kind, numbers, tmp_path
):
    picture = decode_picture(with_nclx(kind, *numbers), "a")
    write_picture(picture, tmp_path / "a.png")
    chunk = (b"cICP", bytes([*numbers, 0, 1]))
    assert read_picture(tmp_path / "a.png").metadata.colour_chunks == (chunk,)
    assert lost_metadata(picture, tmp_path / "a.png") == ()
    (loss,) = lost_metadata(picture, tmp_path / "a.jpg")
    assert loss.is_colour
    assert "cICP" in loss.what


def test_colours_of_srgb_or_of_a_profile_need_no_numbers(srgb_profile):
    for kind in ("AVIF", "HEIF"):
        for numbers in ((1, 13), (2, 2), (1, 2), (1, 1)):
            assert decode_picture(with_nclx(kind, *numbers), "a").metadata == Metadata()
    picture = decode_picture(with_nclx("AVIF", 9, 16, icc_profile=srgb_profile), "a")
    assert picture.metadata.colour_chunks == ()
    assert picture.profile is not None


# ---- truncated JPEG ------------------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_or_kept_as_far_as_it_goes(progressive, tmp_path):
    texture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(texture).resize((128, 96))
    data = encoded(image, "JPEG", quality=92, progressive=progressive)
    whole = decode_picture(data, "a").colour.float()
    assert not decode_picture(data, "a", truncated="keep").is_truncated
    for part in (0.4, 0.7, 0.98):
        cut = data[: int(part * len(data))]
        for door in (decode_picture, decode_image):
            with pytest.raises(DataError, match=r"a: not a readable image \(its end is missing"):
                door(cut, "a")
        picture = decode_picture(cut, "a", truncated="keep")
        assert picture.is_truncated
        assert picture.size == (96, 128)
        rows = 96 if progressive else {0.4: 14, 0.7: 46, 0.98: 78}[part]
        distance = (picture.colour.float() - whole)[:, :rows].abs().mean()
        assert distance <= (25 if progressive else 0)  # all grey would be 50
        (tmp_path / "a.jpg").write_bytes(cut)
        training = read_image(tmp_path / "a.jpg", truncated="keep")
        assert torch.allclose(training, picture.image(), atol=1e-6)
    assert decode_picture(data[:-2], "a", truncated="keep").colour.float().equal(whole)
    start = data.index(b"\xff\xda")  # of the first scan
    for end in range(start + 20, len(data), 97):  # in scans, tables and headers
        assert decode_picture(data[:end], "a", truncated="keep").size == (96, 128)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JXL"])
def test_other_truncated_files_are_refused_in_one_line(kind):
    data = encoded(np.tile(FLAT, (4, 4, 1)), kind)
    for part in (0.1, 0.5, 0.9):
        for door in (decode_picture, decode_image):
            with pytest.raises(DataError, match=r"^a: not a readable image \(.+\)\.$") as error:
                door(data[: int(part * len(data))], "a", truncated="keep")
            assert "\n" not in str(error.value)


def test_a_gif_that_ends_between_its_frames_is_refused():
    frames = moving_square()
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    for end in range(20, len(data)):
        for door in (count_pages, decode_picture):
            with pytest.raises(DataError, match=r"^a: not a readable image \(.+\)\.$"):
                door(data[:end], "a")
    for behind in (b"\0", b";", b"\x2c" * 40):
        assert count_pages(data + behind, "a") == 4


def test_a_jpeg_without_a_picture_is_refused_also_when_truncated_files_are_kept():
    data = encoded(FLAT, "JPEG")
    for end in (3, 20, data.index(b"\xff\xc0") + 4):
        with pytest.raises(DataError, match=r"a: not a readable image"):
            decode_picture(data[:end], "a", truncated="keep")


# ---- damaged and hostile files -------------------------------------------------------------------


def test_files_of_other_formats_and_empty_files_are_named():
    for data, cause in (
        (b"", "the file is empty"),
        (b"P5 2 1 255\n\0\0", "none of PNG, JPEG, WebP"),
        (b"P6 2 1 65535\n" + bytes(12), "none of PNG, JPEG, WebP"),
        (encoded(FLAT, "EPS"), "none of PNG, JPEG, WebP"),
        (b"\0\0\0\x18ftypisom" + bytes(12), "none of PNG, JPEG, WebP"),
        (b"\x89PNG\r\n\x1a\n", "its header is damaged"),
    ):
        for door in (decode_picture, decode_image, file_facts):
            with pytest.raises(DataError) as error:
                door(data, "a")
            assert str(error.value).startswith(f"a: not a readable image ({cause}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "AVIF", "HEIF", "JXL"])
def test_sizes_are_checked_before_decoding(kind, monkeypatch):
    data = encoded(FLAT, kind)
    monkeypatch.setattr(opening, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(DataError, match="a: 48x32 px is more than the 1535 pixels allowed"):
        decode_picture(data, "a")
    monkeypatch.setattr(opening, "MAX_PIXELS", 32 * 48)
    assert decode_picture(data, "a").size == (32, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "AVIF", "HEIF", "JXL"])
def test_a_single_pixel_is_a_picture(kind):
    options = {} if kind in ("GIF", "BMP", "PNG") else {"quality": 95}
    data = encoded(np.full((1, 1, 3), 255, np.uint8), kind, **options)
    assert decode_picture(data, "a").size == (1, 1)
    assert decode_image(data, "a").min() >= 0.97


def test_a_jpeg_xl_that_lies_about_nothing_but_is_huge_is_not_decoded(monkeypatch):
    data = bytearray(encoded(FLAT, "JXL"))
    assert data[:2] == b"\xff\x0a"
    # not a multiple of 8; height of 30 bits, all ones; ratio 1:1
    data[2:8] = (0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33).to_bytes(6, "little")
    with pytest.raises(DataError, match="a: 1073741824x1073741824 px is more than"):
        decode_picture(bytes(data), "a")
