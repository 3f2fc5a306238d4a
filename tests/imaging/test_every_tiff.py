"""Every kind of TIFF that people have is read with the right pixels, by both doors."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from test_reading import print_profile
from tiff_files import COMPRESSIONS, file_of, page_of, tiff_of

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.exif_blocks import MAIN, read_directories
from cascade.imaging.orientation import upright
from cascade.imaging.picture_reading import count_pages, decode_picture, file_facts
from cascade.imaging.rasters.reading import decode_raster
from cascade.imaging.reading import decode_image
from cascade.imaging.vips import libvips

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB, ICCLAB = *range(7), 8, 9
EXTRA_SAMPLES, COLOUR_MAP, ORIENTATION = 338, 320, 274
HEIGHT, WIDTH = 21, 19


def numbers(bits: int, channels: int, seed: int = 0) -> np.ndarray:
    """(H, W, C) numbers that use the whole range of some bits."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    values[0, :2] = [[0], [2**bits - 1]]
    return values


def spread(values: np.ndarray, bits: int) -> np.ndarray:
    """What is expected of numbers of some bits: white is white, in 8 or 16 bits."""
    top = 255 if bits <= 8 else 65535
    return np.floor(values * (top / (2**bits - 1)) + 0.5).astype(np.uint8 if bits <= 8 else "u2")


def check(data: bytes, colour: np.ndarray, alpha: np.ndarray | None = None, within: int = 0):
    """Compare a file, read for restoring and for training, with (H, W, C) and (H, W)."""
    picture = decode_picture(data, "a.tif")
    assert picture.format == "tiff"
    read = picture.colour.permute(1, 2, 0).numpy()
    assert read.dtype == colour.dtype
    assert read.shape == colour.shape
    assert np.abs(read.astype(int) - colour).max() <= within
    assert (picture.alpha is None) == (alpha is None)
    top = np.iinfo(colour.dtype).max
    expected = colour / top
    if alpha is not None:
        assert np.array_equal(picture.alpha[0].numpy(), alpha)
        opacity = alpha[..., None] / top
        expected = expected * opacity + 1 - opacity
    training = (decode_image(data, "a.tif").permute(1, 2, 0).numpy() + 1) / 2
    assert training.shape == (*colour.shape[:2], 3)
    assert np.abs(training - expected).max() <= (within + 0.02) / top + 1e-6


@pytest.mark.parametrize("bits", range(1, 17))
def test_every_number_of_bits_keeps_black_and_white(bits):
    grey, colour = numbers(bits, 1), numbers(bits, 3)
    for order in "<>":
        check(tiff_of(grey, MIN_IS_BLACK, bits=bits, order=order), spread(grey, bits))
        inverted = 2**bits - 1 - grey
        check(tiff_of(inverted, MIN_IS_WHITE, bits=bits, order=order), spread(grey, bits))
        for planar in (False, True):
            data = tiff_of(colour, RGB, bits=bits, planar=planar, order=order)
            check(data, spread(colour, bits))
    facts = file_facts(tiff_of(colour, RGB, bits=bits), "a")
    assert (facts.format, facts.kind, facts.bits, facts.channels, facts.pages) == (
        ("TIFF", "RGB", bits, 3, 1)
    )


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_layout_of_every_lossless_compression_is_read(compression):
    for bits, predictor in (
        (1, False),
        (8, False),
        (8, True),
        (12, False),
        (16, False),
        (16, True),
    ):
        for channels, order in ((1, "<"), (3, "<"), (3, ">"), (4, ">")):
            samples = numbers(bits, channels)
            fields = {EXTRA_SAMPLES: ("short", [2])} if channels == 4 else {}
            for planar in (False, True):
                for tile_px, rows in ((None, 1000), (None, 8), (16, 0)):
                    data = tiff_of(
                        samples,
                        RGB if channels > 1 else MIN_IS_BLACK,
                        bits=bits,
                        order=order,
                        planar=planar,
                        tile_px=tile_px,
                        rows_per_strip=rows,
                        compression=compression,
                        predictor=bool(predictor),
                        fields=fields,
                    )
                    expected = np.moveaxis(spread(samples, bits), -1, 0)
                    picture = decode_picture(data, "a.tif")
                    parts = [picture.colour, *([] if picture.alpha is None else [picture.alpha])]
                    assert np.array_equal(torch.cat(parts).numpy(), expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_big_tiff_and_the_other_order_of_bits_are_read(bits, order):
    samples = numbers(bits, 3)
    check(tiff_of(samples, RGB, bits=bits, order=order, big=True), spread(samples, bits))
    if bits in (1, 12):  # bytes of other numbers are whole, and writers leave them alone
        data = tiff_of(samples, RGB, bits=bits, order=order, lowest_bit_first=True)
        check(data, spread(samples, bits))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize(("photometric", "channels"), [(MIN_IS_BLACK, 1), (RGB, 3)])
def test_extra_samples_are_what_the_file_calls_them(photometric, channels, bits, planar):
    samples = numbers(bits, channels + 2)
    values = spread(samples, bits)
    colour, first, second = values[..., :channels], values[..., channels], values[..., channels + 1]

    def file(count: int, *kinds: int) -> bytes:
        fields = {EXTRA_SAMPLES: ("short", kinds)} if kinds else {}
        options = {"bits": bits, "planar": planar, "fields": fields}
        return tiff_of(samples[..., : channels + count], photometric, **options)

    check(file(1, 0), colour)  # unspecified: infrared and the like
    check(file(2, 0, 0), colour)
    check(file(1, 2), colour, first)
    check(file(2, 0, 2), colour, second)
    check(file(2, 2, 0), colour, first)
    check(file(1), colour, first)  # nothing said: alpha, as libtiff takes it
    check(file(2), colour)
    for data, losses in (
        (file(1, 0), ["extra channels"]),
        (file(2, 0, 2), ["extra channels"]),
        (file(1, 2), []),
    ):
        picture = decode_picture(data, "a")
        assert [loss.what for loss in picture.metadata.losses] == losses


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_multiplied_by_their_alpha_are_divided_again(bits):
    top = 2**bits - 1
    alpha = np.random.default_rng(1).integers(top // 2, top + 1, (HEIGHT, WIDTH, 1))
    colour = numbers(bits, 3)
    multiplied = np.round(colour * (alpha / top)).astype(int)
    multiplied[0, 0], alpha[0, 0] = 0, 0
    data = tiff_of(
        np.dstack([multiplied, alpha]), RGB, bits=bits, fields={EXTRA_SAMPLES: ("short", [1])}
    )
    picture = decode_picture(data, "a.tif")
    read = picture.colour.permute(1, 2, 0).numpy().astype(int)
    assert read[0, 0].tolist() == [0, 0, 0]
    assert np.abs(read - colour)[alpha[..., 0] > 0].max() <= 1
    assert np.array_equal(picture.alpha[0].numpy(), alpha[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes_give_their_colours_in_the_bits_that_these_need(bits):
    indices = numbers(bits, 1) if bits < 16 else numbers(4, 1)
    small = np.random.default_rng(2).integers(1, 256, (2**bits, 3))
    small[:2] = [[0, 0, 0], [255, 255, 255]]
    deep = small * 256 + small[:, ::-1]
    for palette, expected in (
        (small * 257, small.astype(np.uint8)),
        (small * 256, small.astype(np.uint8)),
        (small, small.astype(np.uint8)),
        (deep, deep.astype(np.uint16)),
    ):
        if (expected[:, 1:] != expected[:, :1]).any():
            fields = {COLOUR_MAP: ("short", palette.T.ravel().tolist())}
            data = tiff_of(indices, PALETTE, bits=bits, fields=fields)
            check(data, expected[indices[..., 0]])
            assert file_facts(data, "a").kind == "palette"
    grey = np.repeat(small[:, :1] * 257, 3, axis=1)
    fields = {COLOUR_MAP: ("short", grey.T.ravel().tolist()), EXTRA_SAMPLES: ("short", [2])}
    both = np.concatenate([indices, numbers(bits, 1, seed=3)], axis=2)
    alpha = spread(both[..., 1], bits) if bits <= 8 else (both[..., 1] * 255 + 32767) // 65535
    check(
        tiff_of(both, PALETTE, bits=bits, fields=fields),
        small[indices[..., 0], :1].astype(np.uint8),
        alpha.astype(np.uint8),
    )


@pytest.mark.parametrize("options", [{}, {"planar": True}, {"tile_px": 16, "planar": True}])
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_cmyk_becomes_rgb_of_its_depth(bits, options):
    samples = numbers(bits, 4)
    ink = spread(samples, bits).astype(float) / (255 if bits <= 8 else 65535)
    top = 255 if bits <= 8 else 65535
    rgb = np.round((1 - ink[..., :3]) * (1 - ink[..., 3:]) * top)
    expected = rgb.astype(np.uint8 if bits <= 8 else np.uint16)
    check(tiff_of(samples, CMYK, bits=bits, **options), expected, within=1)
    infrared = np.concatenate([samples, numbers(bits, 1)], axis=2)
    data = tiff_of(infrared, CMYK, bits=bits, fields={EXTRA_SAMPLES: ("short", [0])}, **options)
    check(data, expected, within=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_is_converted_by_its_profile(bits):
    ink = np.zeros((1, 4, 4), int)
    ink[0, :, 3] = [0, 64, 128, 255]
    options = {"bits": bits, "fields": {34675: ("bytes", print_profile())}}
    picture = decode_picture(tiff_of(ink * (2**bits // 255), CMYK, **options), "a")
    grey = [255, 184.5, 118.5, 0]  # the profile's lightness is 100 (1 - K)
    assert picture.bits == bits
    assert (picture.colour[:, 0] / ((2**bits - 1) / 255) - torch.tensor(grey)).abs().max() <= 2.5


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [CIELAB, ICCLAB])
def test_lab_becomes_srgb_of_its_depth(photometric, bits):
    lab = np.array([[[100, 0, 0], [0, 0, 0], [54.29, 80.80, 69.89], [53.585, 0, 0]]])
    expected = np.array([[[255] * 3, [0] * 3, [255, 0, 0], [128] * 3]])  # white, black, red, grey
    scale = 2 ** (bits - 8)
    lightness = 2**bits - 1 if photometric == CIELAB else 255 * scale
    a_b = lab[..., 1:] * scale + (0 if photometric == CIELAB else 128 * scale)
    samples = np.concatenate([lab[..., :1] / 100 * lightness, a_b], axis=2).round().astype(int)
    data = tiff_of(samples % 2**bits, photometric, bits=bits)
    picture = decode_picture(data, "a.tif")
    assert picture.bits == bits
    read = picture.colour.permute(1, 2, 0).numpy() / ((2**bits - 1) / 255)
    assert np.abs(read - expected).max() <= (2.5 if bits == 8 else 0.5)
    assert torch.allclose(picture.image(), decode_image(data, "a"), atol=1e-6)


@pytest.mark.parametrize("compression", [None, "jpeg"])
def test_lab_of_other_writers_is_converted_also_in_jpeg(compression):
    to_lab = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(SMOOTH), ImageCms.buildTransform(*to_lab))
    file = io.BytesIO()
    lab.save(file, "TIFF", compression=compression, quality=98)
    check(file.getvalue(), SMOOTH, within=8)


# ---- JPEG, YCbCr, fax, WebP, JPEG 2000 ----------------------------------------------------------

SMOOTH = np.stack(
    [np.add.outer(np.arange(32) * 3, np.arange(48) * 2 + i * 20) for i in range(3)], axis=-1
).astype(np.uint8)


def written(**options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_jpeg_in_tiff_is_read_with_its_subsampling(subsampling, tile):
    options = {"compressionargs": {"level": 98, "outcolorspace": "ycbcr"}}
    options |= {"subsampling": subsampling, "tile": tile}
    data = written(data=SMOOTH, photometric="rgb", compression="jpeg", **options)
    assert file_facts(data, "a").kind == "YCbCr"
    check(data, SMOOTH, within=6)
    grey = written(data=SMOOTH[..., 0], compression="jpeg", compressionargs={"level": 98})
    check(grey, SMOOTH[..., :1], within=4)


@pytest.mark.parametrize("compression", ["webp", "jpeg2000"])
def test_webp_and_jpeg_2000_in_tiff_are_read(compression):
    options = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    check(written(data=SMOOTH, photometric="rgb", compression=compression, **options), SMOOTH)


def ycbcr_tiff(across: int, down: int, compression: str) -> bytes:
    """A flat colour, sRGB red, as subsampled YCbCr: blocks of luma with one pair of chroma."""
    block = bytes([76] * (across * down) + [85, 255])
    fields = {530: ("short", [across, down]), 258: ("short", [8, 8, 8]), 277: ("short", [3])}
    page, _ = page_of(np.zeros((4, 8, 3), int), YCBCR, bits=8, fields=fields)
    number, compress = COMPRESSIONS[compression]
    page[259] = ("short", [number])
    return file_of([(page, [compress(block * (8 * 4 // (across * down)))])])


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2)])
def test_ycbcr_without_jpeg_is_read(across, down, compression):
    red = np.full((4, 8, 3), [254, 0, 0], np.uint8)
    check(ycbcr_tiff(across, down, compression), red, within=2)


def test_old_style_jpeg_is_read():
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "JPEG", quality=98, subsampling=0)
    fields, _ = page_of(SMOOTH, YCBCR, bits=8, fields={259: ("short", [6])})
    fields |= {530: ("short", [1, 1]), 513: ("long", [8]), 514: ("long", [len(file.getvalue())])}
    check(file_of([(fields, [file.getvalue()])]), SMOOTH, within=6)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_is_read(compression):
    black = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    file = io.BytesIO()
    Image.fromarray(black).save(file, "TIFF", compression=compression)
    check(file.getvalue(), np.where(black, 255, 0)[..., None].astype(np.uint8))


def test_files_of_other_writers_are_read():
    rgb16 = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 4), np.uint16)
    for options in ({}, {"compression": "lzw", "predictor": "horizontal"}, {"tile": True}):
        image = libvips().Image.new_from_array(rgb16).copy(interpretation="rgb16")
        check(image.tiffsave_buffer(**options), rgb16[..., :3], rgb16[..., 3])
    planes = np.moveaxis(rgb16[..., :3], -1, 0)
    for options in ({}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}):
        data = written(data=planes, photometric="rgb", planarconfig="separate", **options)
        check(data, rgb16[..., :3])
    for mode in ("1", "L", "RGB"):
        image, file = Image.fromarray(SMOOTH).convert(mode), io.BytesIO()
        image.save(file, "TIFF", compression="tiff_lzw")
        expected = np.asarray(image.convert("L" if mode == "1" else mode)).reshape(32, 48, -1)
        check(file.getvalue(), expected)


def test_a_page_that_does_not_state_its_meaning_is_taken_as_libtiff_does():
    for channels in (1, 3):
        samples = numbers(8, channels)
        page, segments = page_of(samples, 1, bits=8)
        del page[262]
        check(file_of([(page, segments)]), samples.astype(np.uint8))


@pytest.mark.parametrize("orientation", range(9))
def test_every_orientation_is_applied_once(orientation):
    for bits in (1, 8, 16):
        samples = numbers(bits, 3)
        fields = {ORIENTATION: ("short", [orientation])}
        values = torch.from_numpy(np.moveaxis(spread(samples, bits), -1, 0).copy())
        expected = upright(values, orientation).permute(1, 2, 0).numpy()
        for options in ({}, {"planar": True, "tile_px": 16}):
            check(tiff_of(samples, RGB, bits=bits, fields=fields, **options), expected)
    file = io.BytesIO()
    black = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    options = {"compression": "group4", "tiffinfo": {ORIENTATION: max(orientation, 1)}}
    Image.fromarray(black).save(file, "TIFF", **options)
    grey = torch.from_numpy(np.where(black, 255, 0).astype(np.uint8))[None]
    check(file.getvalue(), upright(grey, orientation).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("bits", [1, 5, 8, 12, 16])
def test_a_single_pixel_is_a_picture(bits):
    for value in (0, 2**bits - 1):
        data = tiff_of(np.array([[[value]]]), MIN_IS_BLACK, bits=bits)
        check(data, spread(np.array([[[value]]]), bits))


# ---- pages --------------------------------------------------------------------------------------


def test_pages_are_those_of_the_document_without_thumbnails_and_masks():
    pages = [numbers(bits, 3, seed=bits) for bits in (8, 16, 12)]
    kinds = [(8, 2), (16, 0), (12, 2)]
    content = [
        page_of(samples, RGB, bits=bits, fields={254: ("long", [kind])})
        for samples, (bits, kind) in zip(pages, kinds, strict=True)
    ]
    small = page_of(numbers(8, 1)[:4, :4], 1, bits=8, fields={254: ("long", [1])})
    old = page_of(numbers(8, 1)[:4, :4], 1, bits=8, fields={255: ("short", [2])})
    mask = page_of(numbers(1, 1), MASK, bits=1, fields={254: ("long", [4])})
    data = file_of([small, content[0], small, content[1], mask, content[2], old])
    assert count_pages(data, "a") == 3
    for page, (samples, (bits, _)) in enumerate(zip(pages, kinds, strict=True)):
        picture = decode_picture(data, "a", page=page)
        assert np.array_equal(picture.colour.permute(1, 2, 0).numpy(), spread(samples, bits))
    for page in (3, -1):
        with pytest.raises(DataError, match=r"a: has \d pages; there is no page"):
            decode_picture(data, "a", page=page)
    assert count_pages(file_of([small]), "a") == 1
    assert decode_picture(file_of([small]), "a").size == (4, 4)


@pytest.mark.parametrize("big", [False, True])
def test_metadata_are_those_of_the_page_not_of_a_thumbnail_before_it(big):
    samples = numbers(8, 3)
    small = page_of(samples[:4, :4], RGB, bits=8, fields={254: ("long", [1]), 315: ("text", b"X")})
    fields = {315: ("text", b"Jane\0"), 700: ("bytes", b"<x/>"), 33723: ("bytes", b"\x1c\2x\0\1a")}
    data = file_of([small, page_of(samples, RGB, bits=8, fields=fields)], big=big)
    picture = decode_picture(data, "a")
    assert picture.size == (HEIGHT, WIDTH)
    assert (picture.metadata.xmp, picture.metadata.iptc) == (b"<x/>", b"\x1c\2x\0\1a")
    assert read_directories(picture.metadata.exif or b"")[MAIN][315] == b"Jane"


def test_a_picture_below_its_thumbnail_is_the_picture():
    file = io.BytesIO()
    samples = numbers(16, 3).astype(np.uint16)
    with tifffile.TiffWriter(file) as writer:
        writer.write(samples[:4, :4], photometric="rgb", subifds=2, subfiletype=1, metadata=None)
        writer.write(samples[:8, :8], photometric="rgb", subfiletype=1)
        writer.write(samples, photometric="rgb", subfiletype=0)
    check(file.getvalue(), samples)
    assert count_pages(file.getvalue(), "a") == 1


def test_pages_have_their_own_orientation_and_resolution():
    samples = numbers(8, 3)
    pages = [samples, samples]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page, (dpi, turn) in zip(pages, ((100, 1), (200, 6)), strict=True):
            options = {"resolution": (dpi, dpi // 2), "resolutionunit": "inch"}
            tags = [(ORIENTATION, 3, 1, turn, False)]
            writer.write(page.astype(np.uint8), photometric="rgb", extratags=tags, **options)
    first, second = (decode_picture(file.getvalue(), "a", page=page) for page in (0, 1))
    assert (first.dpi, first.size) == ((100, 50), (HEIGHT, WIDTH))
    assert (second.dpi, second.size) == ((100, 200), (WIDTH, HEIGHT))


# ---- damaged and hostile files ------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_strip_is_named(compression, order):
    samples = numbers(8, 3)
    page, segments = page_of(
        samples, RGB, bits=8, rows_per_strip=3, compression=compression, order=order
    )
    lengths = [*map(len, segments[:-1]), 10**6]
    data = file_of([(page | {279: ("long", lengths)}, segments)], order=order)
    with pytest.raises(DataError, match=r"a: .*truncated: 1 of 7 strips or tiles are missing"):
        decode_picture(data, "a")
    last = segments.pop()
    for broken in (segments, [*segments, last[: len(last) // 2]], [*segments, b"\0"]):
        with pytest.raises(DataError, match=r"a: not a readable image \(") as error:
            decode_picture(file_of([(page, broken)], order=order), "a")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({339: ("short", [3]), 258: ("short", [32])}, "has floats, signed values or more than 16"),
        ({339: ("short", [2])}, "has floats, signed values or more than 16"),
        ({258: ("short", [32])}, "has floats, signed values or more than 16"),
        ({262: ("short", [32803])}, "raw camera data"),
        ({262: ("short", [5]), 277: ("short", [4]), 332: ("short", [2])}, "inks other than CMYK"),
        ({262: ("short", [2])}, "1 samples per pixel are too few"),
        ({259: ("short", [34676])}, "compression 34676"),
        ({32997: ("long", [3])}, "a volume"),
        ({256: ("long", [10**9])}, "more than the .* pixels allowed"),
        ({257: ("long", [0])}, "19x0 px"),
        ({256: ("long", [0])}, "0x21 px"),
        ({278: ("long", [0])}, "a strip or tile of 19x0 px"),
        ({322: ("long", [10**9]), 323: ("long", [10**9])}, "a strip or tile of"),
    ],
)
def test_what_is_not_read_is_refused_with_its_cause(fields, message):
    page, segments = page_of(numbers(8, 1), MIN_IS_BLACK, bits=8)
    with pytest.raises(DataError, match=message) as error:
        decode_picture(file_of([(page | fields, segments)]), "a.tif")
    assert str(error.value).startswith("a.tif: ")
    assert "\n" not in str(error.value)


def test_channels_of_different_bits_are_refused():
    page, segments = page_of(numbers(8, 3), RGB, bits=8, fields={258: ("short", [8, 16, 8])})
    with pytest.raises(DataError, match=r"channels of 8, 16, 8 bits"):
        decode_picture(file_of([(page, segments)]), "a")


def test_a_strip_that_decodes_to_more_than_the_picture_is_refused(monkeypatch):
    jpeg = imagecodecs.jpeg8_encode(np.zeros((800, 800, 3), np.uint8))
    page, _ = page_of(np.zeros((16, 16, 3), int), RGB, bits=8, fields={259: ("short", [7])})
    with pytest.raises(DataError, match=r"a strip or tile of 16x16 px holds 800x800 px"):
        decode_picture(file_of([(page, [jpeg])]), "a")
    bomb = COMPRESSIONS["deflate"][1](bytes(50_000_000))
    page[259] = ("short", [8])
    decoded = []
    monkeypatch.setattr(opening, "MAX_PIXELS", 4096)
    picture = None
    try:
        picture = decode_picture(file_of([(page, [bomb])]), "a")
    except DataError as error:
        decoded.append(str(error))
    assert picture is not None or "\n" not in decoded[0]


def test_a_bit_of_damage_anywhere_is_refused_in_one_line_or_read_but_never_crashes():
    dice = np.random.default_rng(0)
    for compression in ("none", "lzw", "packbits"):
        data = tiff_of(numbers(8, 3), RGB, bits=8, compression=compression, rows_per_strip=5)
        for _ in range(60):
            broken = bytearray(data)
            for place in dice.integers(len(data) - 250, len(data), 3):
                broken[place] = dice.integers(256)
            message = "a: "
            try:
                decode_picture(bytes(broken), "a")
            except DataError as error:
                message = str(error)
            assert message.startswith("a: ")
            assert "\n" not in message


def test_pages_that_point_to_one_another_end():
    data = bytearray(tiff_of(numbers(8, 1), MIN_IS_BLACK, bits=8))
    (start,) = struct.unpack_from("<L", data, 4)
    data[-4:] = struct.pack("<L", start)
    assert count_pages(bytes(data), "a") == 1


@pytest.mark.parametrize("size_bytes", [4, 8])
def test_a_tiff_cut_off_before_its_first_page_is_called_that(size_bytes):
    data = io.BytesIO()
    tifffile.imwrite(data, np.zeros((16, 16), np.uint8))
    with pytest.raises(
        DataError, match=r"^a: not a readable image \(it is damaged or cut off\)\.$"
    ):
        decode_picture(data.getvalue()[:size_bytes], "a")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_cut_off_anywhere_loses_no_page_in_silence(big, order):
    pages = [page_of(numbers(8, 1), MIN_IS_BLACK, bits=8, order=order) for _ in range(4)]
    data = file_of(pages, order=order, big=big)
    assert count_pages(data, "a") == 4
    for end in range(16 if big else 8, len(data), 41):
        for door in (count_pages, decode_picture, decode_raster):
            with pytest.raises(DataError, match=r"^a: not a readable image \(.+\)\.$"):
                door(data[:end], "a")


def test_a_tiff_whose_next_page_is_no_page_is_refused():
    data = bytearray(tiff_of(numbers(8, 1), MIN_IS_BLACK, bits=8))
    for place in (10, len(data), 2**32 - 1):  # pixels; behind the end
        data[-4:] = struct.pack("<L", place)
        with pytest.raises(DataError, match=r"a: .*truncated: page \d or a later one"):
            count_pages(bytes(data), "a")
