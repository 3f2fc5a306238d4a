from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.errors import DataError, OutputError
from cascade.imaging import picture_writing
from cascade.imaging.kept_exif import kept_exif
from cascade.imaging.metadata import Metadata
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.picture_writing import write_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.imaging.vips import libvips
from cascade.imaging.writing import save_png

SETTINGS = {"seed": 5, "model": "größe, 猫", "steps": [50, 25]}
SUFFIXES = {"png": ".png", "jpeg": ".JPG", "webp": ".webp", "tiff": ".tif"}
HOLDS_ALPHA, HOLDS_16_BITS, LOSSLESS = {"png", "webp", "tiff"}, {"png", "tiff"}, {"png", "tiff"}
CASES = [
    pytest.param(kind, channels, alpha, bits, id=f"{kind}-{channels}{'a' * alpha}-{bits}")
    for kind in SUFFIXES
    for channels in (1, 3)
    for alpha in (False, True)
    for bits in (8, 16)
    if (kind in HOLDS_ALPHA or not alpha) and (kind in HOLDS_16_BITS or bits == 8)
]


def smooth_picture(channels: int, *, alpha: bool, bits: int) -> Picture:
    """Ramps, which a lossy format keeps."""
    down, across = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 17), indexing="ij")
    planes = torch.stack([down, across, (down + across) / 2, across])
    pixels = (planes * (2**bits - 1)).round().to({8: torch.uint8, 16: torch.uint16}[bits])
    return Picture(colour=pixels[:channels], alpha=pixels[3:] if alpha else None, bits=bits)


@pytest.mark.parametrize(("kind", "channels", "alpha", "bits"), CASES)
def test_every_kind_of_picture_comes_back(
    tmp_path, camera_exif, srgb_profile, kind, channels, alpha, bits
):
    picture = smooth_picture(channels, alpha=alpha, bits=bits)
    picture = replace(
        picture,
        format=kind,
        dpi=(300, 150),
        metadata=Metadata(exif=kept_exif(camera_exif.tobytes(), picture.size)),
        profile=srgb_profile if channels == 3 else None,
    )
    path = tmp_path / f"a{SUFFIXES[kind]}"
    write_picture(picture, path)
    back = read_picture(path)
    is_visible = 1 if picture.alpha is None else picture.alpha != 0  # WebP stores only that
    assert (back.colour.shape, back.colour.dtype) == (picture.colour.shape, picture.colour.dtype)
    difference = (back.colour.int() - picture.colour.int()).abs()
    difference = difference * is_visible if kind == "webp" else difference
    assert difference.float().mean() <= (0 if kind in LOSSLESS else 4)
    assert (back.alpha is not None) == alpha
    assert not alpha or back.alpha.equal(picture.alpha)
    names = ("bits", "profile", "metadata", "dpi", "format")
    assert [getattr(back, name) for name in names] == [getattr(picture, name) for name in names]


MODES = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA"}


@pytest.mark.parametrize(("kind", "channels", "alpha", "bits"), CASES)
def test_pillow_reads_the_files(tmp_path, camera_exif, srgb_profile, kind, channels, alpha, bits):
    if (kind, channels, alpha, bits) == ("tiff", 1, True, 16):
        pytest.skip("Pillow has no such TIFF")
    picture = smooth_picture(channels, alpha=alpha, bits=bits)
    block = kept_exif(camera_exif.tobytes(), picture.size)
    picture = replace(picture, dpi=(300, 150), metadata=Metadata(exif=block))
    picture = replace(picture, profile=srgb_profile if channels == 3 else None)
    path = tmp_path / f"a{SUFFIXES[kind]}"
    write_picture(picture, path, settings=SETTINGS)
    mode = MODES[max(channels, 3 if kind == "webp" else 1), alpha]
    if bits == 16 and channels == 1:
        mode = "RGBA" if alpha else "I;16"
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        assert (image.mode, image.size) == (mode, (17, 24))
        assert image.info.get("icc_profile") == picture.profile
        dpi = image.info.get("dpi") or (exif[282], exif[283])
    assert dpi == pytest.approx((300, 150), abs=0.0128)  # PNG has px per m
    assert (exif[0x010F], exif[0x0110], exif[0x0112]) == ("Maker", "Model 5", 1)
    inner, expected = exif.get_ifd(0x8769), camera_exif.get_ifd(0x8769)
    assert (inner.pop(0xA002), inner.pop(0xA003)) == (17, 24)
    assert inner[0x829A] == pytest.approx(1 / 250)
    assert all(inner[tag] == expected[tag] for tag in (0x9003, 0x9286, 0x9010))
    assert exif.get_ifd(0x8825) == camera_exif.get_ifd(0x8825)
    recorded = image.info["cascade"] if kind == "png" else inner[0x9213]
    assert json.loads(recorded) == SETTINGS


@pytest.mark.parametrize("kind", SUFFIXES)
def test_settings_are_read_back(tmp_path, noise_picture, kind):
    path, picture = tmp_path / f"a{SUFFIXES[kind]}", noise_picture(3, alpha=False, bits=8)
    write_picture(picture, path, settings=SETTINGS)
    assert read_mark(path).record == SETTINGS
    write_picture(read_picture(path), path, settings={"seed": 6})
    assert read_mark(path).record == {"seed": 6}
    write_picture(picture, path)
    assert read_mark(path).record == {}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_settings_of_deep_pictures_with_transparency_are_read_back(
    tmp_path, noise_picture, suffix, channels
):
    path = tmp_path / f"a{suffix}"
    write_picture(noise_picture(channels, alpha=True, bits=16), path, settings=SETTINGS)
    assert read_mark(path).record == SETTINGS


def test_settings_of_generated_pictures_are_read_back_and_other_texts_are_not(tmp_path):
    save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png", SETTINGS)
    assert read_mark(tmp_path / "a.png").record == SETTINGS
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9213] = "cropped by hand"
    Image.new("RGB", (2, 2)).save(tmp_path / "b.jpg", exif=exif)
    assert read_mark(tmp_path / "b.jpg").record == {}
    (tmp_path / "c.jpg").write_text("no picture")
    with pytest.raises(DataError, match="not a readable image"):
        read_mark(tmp_path / "c.jpg")


@pytest.mark.parametrize("kind", SUFFIXES)
def test_without_metadata_only_the_profile_is_written(tmp_path, camera_exif, srgb_profile, kind):
    picture = smooth_picture(3, alpha=False, bits=8)
    block = kept_exif(camera_exif.tobytes(), picture.size)
    picture = replace(picture, dpi=(300, 300), metadata=Metadata(exif=block), profile=srgb_profile)
    path = tmp_path / f"a{SUFFIXES[kind]}"
    write_picture(picture, path, settings=SETTINGS, metadata=False)
    back = read_picture(path)
    assert (back.metadata, back.dpi, back.profile) == (Metadata(), None, srgb_profile)
    assert read_mark(path).record == {}
    for text in (b"Maker", b"2020:01:02", b"seed"):
        assert text not in path.read_bytes()
    with Image.open(path) as image:
        assert image.info.get("dpi", (1, 1)) == (1, 1)  # Pillow's word for none in TIFF


def test_a_grey_profile_goes_with_grey(tmp_path):
    from test_reading import GREY_OF_GAMMA_1_8

    grey = replace(smooth_picture(1, alpha=False, bits=8), profile=GREY_OF_GAMMA_1_8)
    for kind in ("png", "jpeg", "tiff"):
        write_picture(grey, tmp_path / f"a{SUFFIXES[kind]}")
        assert read_picture(tmp_path / f"a{SUFFIXES[kind]}").profile == GREY_OF_GAMMA_1_8


def test_jpeg_keeps_all_its_colour(tmp_path):
    colour = torch.zeros(3, 16, 16, dtype=torch.uint8)
    colour[0, :, ::2] = colour[2, :, 1::2] = 255  # stripes of one pixel that differ in colour
    write_picture(Picture(colour=colour), tmp_path / "a.jpg")
    assert (read_picture(tmp_path / "a.jpg").colour.int() - colour.int()).abs().max() < 30


@pytest.mark.parametrize(
    ("name", "alpha", "bits", "message"),
    [
        ("a.jpg", True, 8, r"a\.jpg: JPEG has no transparency; write PNG, WebP or TIFF\."),
        ("a.jpeg", False, 16, r"a\.jpeg: JPEG has no 16 bits; write PNG or TIFF\."),
        ("a.webp", False, 16, r"a\.webp: WebP has no 16 bits; write PNG or TIFF\."),
        ("a.gif", False, 8, r"a\.gif: GIF is written for animations only; write PNG\."),
        ("a.bmp", False, 8, r"a\.bmp: the ending '\.bmp' names no format; use \.png, "),
        ("a", False, 8, r"a: the ending '' names no format"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, noise_picture, name, alpha, bits, message):
    with pytest.raises(OutputError, match=message):
        write_picture(noise_picture(3, alpha=alpha, bits=bits), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_pictures_too_large_for_a_format_are_refused(tmp_path):
    wide = Picture(colour=torch.zeros(1, 1, 16_384, dtype=torch.uint8))
    with pytest.raises(OutputError, match=r"WebP holds 16383 px a side at most; write PNG or TIFF"):
        write_picture(wide, tmp_path / "a.webp")
    write_picture(wide, tmp_path / "a.jpg")
    huge = Picture(colour=torch.zeros(1, 1, 1, dtype=torch.uint8).expand(1, 40_000, 40_000))
    with pytest.raises(OutputError, match="TIFF holds 4 GiB at most"):
        write_picture(huge, tmp_path / "a.tif")


def test_exif_too_large_for_jpeg_is_refused(tmp_path, noise_picture):
    exif = Image.Exif()
    exif[270] = "long " * 14_000
    picture = noise_picture(
        3, alpha=False, bits=8, metadata=Metadata(exif=kept_exif(exif.tobytes(), (17, 23)))
    )
    with pytest.raises(OutputError, match="64 KiB"):
        write_picture(picture, tmp_path / "a.jpg")
    write_picture(picture, tmp_path / "a.jpg", metadata=False)
    write_picture(picture, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").metadata == picture.metadata


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path, noise_picture, monkeypatch):
    picture = noise_picture(3, alpha=False, bits=8)
    write_picture(picture, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(TypeError):
        write_picture(picture, tmp_path / "a.png", settings={"bad": object()})
    monkeypatch.setitem(picture_writing.OPTIONS, "png", {"filter": "none such"})
    with pytest.raises(OutputError, match=r"cannot write .*a\.png: ") as error:
        write_picture(picture, tmp_path / "a.png")
    assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match="cannot write"):
        write_picture(picture, tmp_path / "a.png" / "b.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing(tmp_path, noise_picture, kind):
    import resource

    path = tmp_path / f"a{SUFFIXES[kind]}"
    path.write_text("before")
    picture = noise_picture(3, alpha=False, bits=8, size=(64, 64))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*a\.\w+: ") as error:
            write_picture(picture, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


MEMORY = """
import resource, sys, torch
from pathlib import Path
from cascade.imaging.picture import Picture
from cascade.imaging.picture_writing import write_picture
colour = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8).repeat(1, 10, 10)
picture, folder = Picture(colour=colour), Path(sys.argv[1])
for suffix in (".png", ".jpg", ".tif"):
    write_picture(Picture(colour=colour[:, :99]), folder / f"small{suffix}")
ballast = torch.ones(60_000_000)  # so that what came before is not the peak
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for suffix in (".png", ".jpg", ".tif"):
    write_picture(picture, folder / f"a{suffix}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts in KiB there")
def test_a_large_picture_is_written_without_a_copy_of_it(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 0.8 * 3 * 3000 * 3000 / 1024


def test_16_bits_are_written_as_libvips_reads_them(tmp_path, noise_picture):
    picture = noise_picture(3, alpha=True, bits=16)
    expected = torch.cat([picture.colour, picture.alpha]).permute(1, 2, 0).numpy()
    for name in ("a.png", "a.tif"):
        write_picture(picture, tmp_path / name)
        image = libvips().Image.new_from_file(str(tmp_path / name))
        assert image.interpretation == "rgb16"
        assert np.array_equal(image.numpy(), expected)
