"""Pictures and EXIF for the tests of reading and writing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from cascade.imaging.picture import Picture

DATE, COMMENT, EXPOSURE, WIDTH, HEIGHT, OFFSET = 0x9003, 0x9286, 0x829A, 0xA002, 0xA003, 0x9010


@pytest.fixture
def camera_exif() -> Image.Exif:
    """What a phone writes: two directories, a place, a private note and the old size."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model 5"
    inner = exif.get_ifd(0x8769)
    inner[DATE], inner[OFFSET], inner[EXPOSURE] = "2020:01:02 03:04:05", "+02:00", 1 / 250
    inner[COMMENT] = b"UNICODE\0" + "größe".encode("utf-16-le")
    inner[WIDTH], inner[HEIGHT], inner[0x927C] = 999, 888, b"private"
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", (51.0, 30.0, 12.25)
    stored = Image.Exif()
    stored.load(exif.tobytes())
    stored[0x8298] = b"\xc2\xa9 Zo\xc3\xab"
    return stored


@pytest.fixture
def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def noise_picture() -> Callable[..., Picture]:
    """Makes pictures of random pixels that use the whole range."""
    return _noise_picture


def _noise_picture(channels: int, *, alpha: bool, bits: int, size=(17, 23), **extras) -> Picture:
    dtype = {8: np.uint8, 16: np.uint16}[bits]
    values = np.random.default_rng(channels).integers(0, 2**bits, (channels + 1, *size), dtype)
    pixels = torch.from_numpy(values)
    mask = pixels[channels:] if alpha else None
    return Picture(colour=pixels[:channels], alpha=mask, bits=bits, **extras)
