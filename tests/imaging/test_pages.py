"""Pages of TIFF and frames of animations: read one at a time, and written as they were."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageSequence

from cascade.errors import DataError, OutputError
from cascade.imaging import opening
from cascade.imaging import pages as pages_module
from cascade.imaging.gif_blocks import XMP_HEAD, XMP_TRAILER
from cascade.imaging.marks import with_mark
from cascade.imaging.page_writing import pages_writer
from cascade.imaging.pages import FOREVER, ONCE, Page, Pages, read_heads
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import count_pages, decode_picture, read_picture
from cascade.imaging.picture_writing import check_format, write_picture
from cascade.imaging.rasters.recorded import read_mark

DURATIONS_MS = [100, 70, 200, 70]
SETTINGS = {"seed": 3, "model": "größe"}


def sprite(count: int = 4, size: tuple[int, int] = (24, 16)) -> list[Image.Image]:
    """Frames of few colours, in which a transparent square moves."""
    frames = []
    for number in range(count):
        pixels = np.full((size[1], size[0], 4), (200, 40, 40, 255), np.uint8)
        pixels[:, ::3] = (20, 90, 160, 255)
        x = 2 + 4 * number
        pixels[4:9, x : x + 5] = 0
        frames.append(Image.fromarray(pixels))
    return frames


def animation(kind: str, frames: Sequence[Image.Image] | None = None, **options: object) -> bytes:
    """An animation as Pillow writes it."""
    frames = sprite() if frames is None else frames
    file = io.BytesIO()
    own = {
        "GIF": {"disposal": 2},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    options = {"duration": DURATIONS_MS[: len(frames)], **own.get(kind, {}), **options}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


def rgba(picture: Picture) -> np.ndarray:
    """(H, W, 4) with black under full transparency."""
    pixels = np.array(picture.to_pil().convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0
    return pixels


@pytest.fixture
def rewrite(tmp_path) -> Callable:
    """A function that reads pages and writes them into a file; returns its path and losses."""

    def run(data: bytes, name: str, *, pixel_bytes: int = 0, times: int = 1, **options: bool):
        pages = Pages(data, "source")
        plays = pages.plays if pages.is_animation else None
        path = tmp_path / name
        with pages_writer(path, plays=plays, pixel_bytes=pixel_bytes, **options) as writer:
            for page in pages:
                for _ in range(times):
                    writer.add(page)
            writer.finish(SETTINGS)
        assert not list(tmp_path.glob(".*"))  # no temporary file is left
        return path, [loss.what for loss in writer.losses]

    return run


# ---- animations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "loop", "plays"),
    [
        ("GIF", None, ONCE),
        ("GIF", 0, FOREVER),
        ("GIF", 2, 3),  # the first time and two more
        ("PNG", 2, 2),
        ("PNG", 0, FOREVER),
        ("WEBP", 2, 2),
        ("WEBP", 0, FOREVER),
        ("AVIF", None, FOREVER),
    ],
)
def test_frames_are_read_as_a_viewer_shows_them(kind, loop, plays):
    frames = sprite(3)
    data = animation(kind, frames, **({} if loop is None else {"loop": loop}))
    pages = Pages(data, "x")
    assert (len(pages), pages.sizes, pages.plays) == (3, ((16, 24),) * 3, plays)
    assert [page.duration_ms for page in pages] == DURATIONS_MS[:3]
    for page, frame in zip(pages, frames, strict=True):
        tolerance = 12 if kind == "AVIF" else 0
        difference = rgba(page.picture).astype(int) - np.array(frame)
        assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("source", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
def test_animations_keep_every_frame_its_time_and_their_number_of_plays(rewrite, source, name):
    frames = sprite()
    data = animation(source, frames, loop=2)
    path, _ = rewrite(data, name)
    pages = Pages(path.read_bytes(), name)
    assert len(pages) == count_pages(data, "x") == 4
    assert pages.plays == Pages(data, "x").plays
    assert [page.duration_ms for page in pages] == DURATIONS_MS
    for page, frame in zip(pages, frames, strict=True):
        assert np.array_equal(rgba(page.picture)[..., 3], np.array(frame)[..., 3])
        if name != "x.webp":
            assert np.array_equal(rgba(page.picture), np.array(frame))
    assert read_mark(path).record == SETTINGS


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
def test_equal_frames_stay_frames_of_their_own(rewrite, name):
    path, _ = rewrite(animation("PNG"), name, times=2)
    pages = list(Pages(path.read_bytes(), name))
    assert [page.duration_ms for page in pages] == [each for each in DURATIONS_MS for _ in "ab"]
    for first, second in zip(pages[::2], pages[1::2], strict=True):
        assert np.array_equal(rgba(first.picture), rgba(second.picture))
    with Image.open(path) as image:
        assert len(list(ImageSequence.Iterator(image))) == 8


def test_a_frame_of_webp_equals_a_single_picture_of_that_quality(rewrite, tmp_path):
    path, _ = rewrite(animation("WEBP"), "x.webp")
    frames = [page.picture for page in Pages(path.read_bytes(), "x")]
    for frame, source in zip(frames, Pages(animation("WEBP"), "x"), strict=True):
        write_picture(source.picture, tmp_path / "single.webp")
        single = read_picture(tmp_path / "single.webp")
        assert np.array_equal(rgba(frame), rgba(single))


def test_png_keeps_durations_that_are_no_whole_milliseconds(tmp_path):
    picture = Picture.from_pil(sprite()[0])
    path = tmp_path / "x.png"
    with pages_writer(path, plays=FOREVER, pixel_bytes=0) as writer:
        for duration_ms in (1000 / 30, 1000 / 60, 12_345_678.0):
            writer.add(Page(picture=picture, duration_ms=duration_ms))
        writer.finish(None)
    first, second, third = (page.duration_ms for page in Pages(path.read_bytes(), "x"))
    assert (first, second) == pytest.approx((1000 / 30, 1000 / 60), rel=1e-12)
    assert third == pytest.approx(12_345_678, rel=1e-4)


def test_frames_of_a_grey_animation_are_grey_although_they_are_stored_as_rgb():
    pixels = [np.full((8, 8), value, np.uint8) for value in (10, 90, 200)]
    frames = [Image.fromarray(each).convert("P") for each in pixels]
    pages = Pages(animation("GIF", frames), "x")
    assert [len(page.picture.colour) for page in pages] == [1, 1, 1]
    assert [int(page.picture.colour[0, 0, 0]) for page in pages] == [10, 90, 200]


def test_frames_get_the_channels_that_any_frame_needs(monkeypatch):
    stored = [Image.new("L", (8, 8), 90), *sprite(2, (8, 8))]
    frames = [Page(picture=Picture.from_pil(each)) for each in stored]
    monkeypatch.setattr(pages_module, "_frames", lambda data, name: iter(frames))
    pages = list(Pages(animation("GIF"), "x"))
    assert [np.array(page.picture.to_pil()).shape for page in pages] == [(8, 8, 4)] * 3
    assert np.unique(rgba(pages[0].picture).reshape(-1, 4), axis=0).tolist() == [[90, 90, 90, 255]]


def test_gif_says_that_it_holds_256_colours_a_frame_and_hundredths_of_a_second(rewrite):
    noise = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    data = animation("PNG", [Image.fromarray(each) for each in noise], duration=[33, 40])
    _, losses = rewrite(data, "x.gif")
    assert losses == ["exact durations", "colours"]
    _, losses = rewrite(animation("GIF"), "x.gif")
    assert losses == []


def test_a_resting_background_does_not_change_in_a_gif(rewrite):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    frames = []
    for number in range(3):
        pixels = noise.copy()
        pixels[:8, 8 * number : 8 * number + 8] = 0
        frames.append(Image.fromarray(pixels))
    path, _ = rewrite(animation("PNG", frames), "x.gif")
    first, *others = (page.picture.colour[:, 8:] for page in Pages(path.read_bytes(), "x"))
    assert all(other.equal(first) for other in others)
    assert len(first.flatten(1).unique(dim=1).T) > 100


def test_comments_and_xmp_of_a_gif_are_kept_and_its_settings_are_no_comment(rewrite):
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    data = animation("GIF", comment="Grüße\nof two lines".encode())
    data = data[:-1] + XMP_HEAD + packet + XMP_TRAILER + data[-1:]
    path, losses = rewrite(data, "x.gif")
    assert losses == []
    for each in (data, path.read_bytes()):
        metadata = next(iter(Pages(each, "x"))).picture.metadata
        assert [text.text for text in metadata.texts] == ["Grüße\nof two lines"]
        assert metadata.xmp == (packet if each is data else with_mark(packet, "restored", SETTINGS))
    path, losses = rewrite(data, "x.gif", metadata=False)
    assert read_mark(path).record == {}
    assert b"Gr" not in path.read_bytes()


def test_metadata_and_profile_of_an_animation_are_kept(rewrite, camera_exif, srgb_profile):
    options = {"exif": camera_exif.tobytes(), "icc_profile": srgb_profile}
    for kind, name in (("WEBP", "x.webp"), ("PNG", "x.png")):
        path, losses = rewrite(animation(kind, **options), name)
        assert losses == ["maker notes"]
        with Image.open(path) as image:
            assert image.info["icc_profile"] == srgb_profile
            assert image.getexif()[0x0110] == "Model 5"
        assert read_mark(path).record == SETTINGS
    path, losses = rewrite(animation("PNG", **options), "x.gif")
    assert losses == ["maker notes", "EXIF"]


def deep_png_animation(channels: int) -> bytes:
    """Two frames of 16 bits, behind a picture that is no frame."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
        )

    def pixels(value: int) -> bytes:
        row = b"\0" + struct.pack(">H", value) * 4 * channels
        return zlib.compress(row * 4)

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">LLLLLHHBB", number, 4, 4, 0, 0, 1, 10, 0, 0))

    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">LLBBBBB", 4, 4, 16, channels - 1, 0, 0, 0)),
            chunk(b"acTL", struct.pack(">LL", 2, 0)),
            chunk(b"IDAT", pixels(1000)),
            control(0),
            chunk(b"fdAT", struct.pack(">L", 1) + pixels(0x1234)),
            control(2),
            chunk(b"fdAT", struct.pack(">L", 3) + pixels(0xFEDC)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("channels", "values", "losses"),
    [(1, [0x1234, 0xFEDC], []), (3, [0x12, 0xFE], ["more than 8 bits per channel"])],
)
def test_what_is_lost_of_an_animated_png_is_listed(rewrite, channels, values, losses):
    data = deep_png_animation(channels)
    path, reported = rewrite(data, "x.png")
    assert reported == [*losses, "the still image of an animation"]
    for pages in (Pages(data, "x"), Pages(path.read_bytes(), "x")):
        assert [int(page.picture.colour[0, 0, 0]) for page in pages] == values


# ---- TIFF ---------------------------------------------------------------------------------------


def scan(srgb_profile: bytes) -> tuple[bytes, list[np.ndarray]]:
    """A TIFF whose pages differ in everything, and their pixels."""
    random = np.random.default_rng(5)
    pages = [
        random.integers(0, 256, (16, 20, 3), np.uint8),
        random.integers(0, 2**16, (9, 30), np.uint16),
        random.integers(0, 2**16, (40, 12, 3), np.uint16),
        random.integers(0, 256, (7, 5, 4), np.uint8),
    ]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        inches, options = {"resolutionunit": 2}, {"metadata": None}
        writer.write(
            pages[0],
            photometric="rgb",
            description="one",
            resolution=(300, 200),
            **inches,
            **options,
        )
        writer.write(
            pages[1], description="two", resolution=(150, 150), rowsperstrip=2, **inches, **options
        )
        writer.write(
            pages[2], photometric="rgb", iccprofile=srgb_profile, compression="zlib", **options
        )
        writer.write(pages[3], photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    return file.getvalue(), pages


@pytest.mark.parametrize("is_big", [False, True])
def test_every_page_of_a_tiff_keeps_what_it_is(rewrite, srgb_profile, is_big):
    data, pixels = scan(srgb_profile)
    path, losses = rewrite(data, "x.tif", pixel_bytes=2**33 if is_big else 0)
    assert losses == []
    assert read_mark(path).record == SETTINGS
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == is_big
        assert len(file.pages) == 4
        for page, values in zip(file.pages, pixels, strict=True):
            assert np.array_equal(page.asarray(), values)
        descriptions = [page.tags.valueof("ImageDescription") for page in file.pages]
        assert descriptions == ["one", "two", None, None]
        profiles = [page.tags.valueof("InterColorProfile") for page in file.pages]
        assert profiles == [None, None, srgb_profile, None]
        assert all(page.tags.valueof(34665) is None for page in file.pages[1:])
    pages = list(Pages(path.read_bytes(), "x"))
    assert [page.picture.dpi for page in pages] == [(300, 200), (150, 150), None, None]
    with Image.open(path) as image:
        sizes = [each.size for each in ImageSequence.Iterator(image)]
    assert sizes == [(20, 16), (30, 9), (12, 40), (5, 7)]


def test_every_page_of_a_tiff_has_metadata_of_its_own(rewrite):
    file = io.BytesIO()
    packets = [f"<x:xmpmeta xmlns:x='adobe:ns:meta/' n='{number}'/>".encode() for number in (1, 2)]
    with tifffile.TiffWriter(file) as writer:
        for number, packet in enumerate(packets):
            tags = [(700, 1, len(packet), packet, True), (315, 2, 0, f"Artist {number}", True)]
            writer.write(np.zeros((4, 4), np.uint8), extratags=tags, metadata=None, software=False)
    source = file.getvalue()
    path, _ = rewrite(source, "x.tif")
    for data in (source, path.read_bytes()):
        metadata = [page.picture.metadata for page in Pages(data, "x")]
        first = packets[0] if data is source else with_mark(packets[0], "restored", SETTINGS)
        assert [each.xmp for each in metadata] == [first, packets[1]]
        assert [b"Artist 0" in (each.exif or b"") for each in metadata] == [True, False]
        assert [b"Artist 1" in (each.exif or b"") for each in metadata] == [False, True]
        assert decode_picture(data, "x", page=1).metadata.xmp == packets[1]


def test_reading_a_page_copies_no_other_page():
    """Else the time grows with the square of the number of pages."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(4):
            writer.write(np.zeros((1000, 1000), np.uint8), metadata=None)
    data = file.getvalue()
    pages = iter(Pages(data, "x"))
    next(pages)
    tracemalloc.start()
    next(pages)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3_500_000 < len(data)


def test_frames_become_pages_without_their_timing(rewrite):
    path, losses = rewrite(animation("GIF"), "x.tif")
    assert losses == ["timing of frames"]
    assert [rgba(page.picture).tolist() for page in Pages(path.read_bytes(), "x")] == [
        np.array(frame).tolist() for frame in sprite()
    ]


def test_a_damaged_page_is_named():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(3):
            writer.write(np.zeros((4, 4), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        start = tiff.pages[1].dataoffsets[0]
    data = bytearray(file.getvalue())
    data[start : start + 4] = b"\xff" * 4
    with pytest.raises(DataError, match=r"^scan\.tif: page 2: not a readable image \("):
        Pages(bytes(data), "scan.tif")
    gif = animation("GIF", sprite(3))
    with pytest.raises(DataError, match=r"^x\.png: frame \d: not a readable image|^x\.png: not a"):
        Pages(animation("PNG", sprite(3))[:-150], "x.png")
    assert len(Pages(gif, "x")) == 3


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_a_file_of_absurdly_many_pages_is_refused(monkeypatch, kind):
    monkeypatch.setattr(opening, "MAX_PAGES", 2)
    data = animation(kind, sprite(3))
    with pytest.raises(DataError, match=r"^x: has more than 2 pages or frames; split it\.$"):
        Pages(data, "x")


def test_an_animated_jpeg_xl_is_refused():
    imagecodecs = pytest.importorskip("imagecodecs")
    pytest.importorskip("pillow_jxl")
    frames = np.arange(3 * 16 * 20 * 3).reshape(3, 16, 20, 3).astype(np.uint8)
    data = imagecodecs.jpegxl_encode(frames, lossless=True)
    with pytest.raises(DataError, match=r"^x: animated JPEG XL cannot be read; save it as an ani"):
        decode_picture(data, "x")
    single = decode_picture(imagecodecs.jpegxl_encode(frames[1], lossless=True), "x")
    assert np.array_equal(np.moveaxis(single.colour.numpy(), 0, -1), frames[1])


# ---- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_animation", "message"),
    [
        ("a.jpg", True, "JPEG holds one page, this has 3; write PNG, WebP or TIFF, or take"),
        ("a.jpg", False, "JPEG holds one page, this has 3; write TIFF, or take the first alone"),
        ("a.png", False, "PNG holds several pages as an animation only, this has 3; write TIFF"),
        ("a.webp", False, "WebP holds several pages as an animation only"),
        ("a.gif", False, "GIF is written for animations only; write PNG"),
        ("a.gif", True, ""),
        ("a.tif", False, ""),
        ("a.tif", True, ""),
        ("a.png", True, ""),
        ("a.webp", True, ""),
    ],
)
def test_formats_that_cannot_hold_the_pages_are_refused(name, is_animation, message):
    facts = {"size": (9, 9), "bits": 8, "has_alpha": False, "pages": 3}
    if not message:
        check_format(Path(name), is_animation=is_animation, **facts)
        return
    with pytest.raises(OutputError, match=f"^cannot write {name}: {message}"):
        check_format(Path(name), is_animation=is_animation, **facts)


def test_heads_tell_the_sizes_of_all_pages(srgb_profile):
    data, pixels = scan(srgb_profile)
    heads = read_heads(io.BytesIO(data), "x")
    assert heads == ("TIFF", [each.shape[:2] for each in pixels])
    assert read_heads(io.BytesIO(animation("GIF")), "x") == ("GIF", [(16, 24)] * 4)


def test_memory_holds_one_page(tmp_path):
    """The pictures that were added can be freed."""
    path, picture = tmp_path / "x.tif", Picture.from_pil(sprite()[0])
    with pages_writer(path, plays=None, pixel_bytes=0) as writer:
        for _ in range(3):
            writer.add(Page(picture=replace(picture, colour=picture.colour.clone())))
        kept = [page.picture.colour.numel() for page in writer._pages]
        assert kept == [3, 3, 3]
        writer.finish(None)
    assert all(
        torch.equal(page.picture.colour, picture.colour) for page in Pages(path.read_bytes(), "x")
    )
