"""The pages of a TIFF and the frames of an animation, decoded one at a time.

- Pages of a TIFF are pictures of their own: sizes, colours, bits and metadata may differ.
- Frames of an animation are whole pictures of one size and kind, as a viewer shows them: grey only
  if every frame is grey, and with transparency if any frame has some. The file's metadata belong to
  the first one.
- Colour of animated PNG of 16 bits is read in its upper 8. A picture that a PNG shows where
  animations are not supported is left out if it is no frame.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

import torch
from PIL import Image

from cascade.imaging.metadata import Loss, Metadata
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.opening import (
    PILLOW_FORMATS,
    check_page_count,
    format_of,
    open_image,
    readable,
)
from cascade.imaging.picture import Picture, picture_of_pil
from cascade.imaging.picture_reading import (
    LOSS_OF_BITS,
    frames_of,
    has_picture_outside,
    is_deep,
    load_frame,
)
from cascade.imaging.tiff_pages import main_pages, open_tiff
from cascade.imaging.tiff_reading import picture_of_page

FOREVER, ONCE = 0, 1  # times that an animation plays
STILL = Loss("the still image of an animation", "it is not a frame")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, or a frame of an animation.

    Attributes:
        picture: its pixels and what belongs to them.
        duration_ms: for which a frame is shown; 0 for a page.
    """

    picture: Picture
    duration_ms: float = 0.0


class Pages:
    """The pages of a file; every iteration decodes them anew, one at a time.

    All of them are decoded once at the start, so that a damaged page is found before the work on
    the others begins.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Attributes:
        sizes: (H, W) of each page in pixels, as it is displayed.
        is_animation: whether the pages are frames.
        plays: how often an animation is played; `FOREVER` for no end.
        bits: per channel, of the page that has most.
        has_alpha: whether any page has transparency.

    Raises:
        DataError: if the file is damaged, too large or of a kind that is not read, naming the page.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        self.is_animation = format_of(data, name) != "TIFF"
        self.plays = _plays_of(data, name) if self.is_animation else ONCE
        self.bits, self.has_alpha, self._is_grey = 8, False, True
        sizes = []
        for page in self._pages():
            colour = page.picture.colour
            sizes.append(page.picture.size)
            self._is_grey = self._is_grey and bool((colour == colour[:1]).all())
            self.has_alpha = self.has_alpha or page.picture.alpha is not None
            self.bits = max(self.bits, page.picture.bits)
        self.sizes = tuple(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Page]:
        for page in self._pages():
            yield self._alike(page) if self.is_animation else page

    def _pages(self) -> Iterator[Page]:
        return (_frames if self.is_animation else _tiff_pages)(self._data, self._name)

    def _alike(self, page: Page) -> Page:
        """A frame with the channels that all frames have."""
        colour, alpha = page.picture.colour, page.picture.alpha
        if self._is_grey:
            colour = colour[:1]
        elif len(colour) == 1:
            colour = colour.expand(3, -1, -1)
        if self.has_alpha and alpha is None:
            alpha = torch.full_like(colour[:1], 2**page.picture.bits - 1)
        return replace(page, picture=replace(page.picture, colour=colour, alpha=alpha))


class Heads(NamedTuple):
    """What a file says about its pages without being decoded.

    Attributes:
        format: Pillow's name for the format.
        sizes: (H, W) of each page in pixels, as stored.
    """

    format: str
    sizes: Sequence[tuple[int, int]]


def read_heads(file: BinaryIO, name: str) -> Heads:
    """Read the heads of all pages of a file, of a format that needs no optional package.

    Args:
        file: an open file.
        name: the file's name, for error messages.

    Raises:
        DataError: if the file is not readable.
    """
    with readable(name):
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            if image.format != "TIFF":
                size = image.height, image.width
                return Heads(str(image.format), [size] * frames_of(image))
        file.seek(0)
        with open_tiff(file) as tiff:
            pages = main_pages(tiff, name)
            return Heads("TIFF", [(page.imagelength, page.imagewidth) for page in pages])


def _tiff_pages(data: bytes, name: str) -> Iterator[Page]:
    with open_tiff(io.BytesIO(data)) as file:
        with readable(name):
            pages = main_pages(file, name)
        for number, page in enumerate(pages):
            page_name = f"{name}: page {number + 1}"
            with readable(page_name):
                picture = picture_of_page(page, data, page_name)
            yield Page(picture=picture)


def _frames(data: bytes, name: str) -> Iterator[Page]:
    with open_image(data, name) as image:
        with readable(name):
            count = frames_of(image)
        check_page_count(count, name)
        for number in range(count):
            frame_name = f"{name}: frame {number + 1}"
            with readable(frame_name):
                load_frame(image, number)
                metadata = read_metadata(data, image.info) if number == 0 else Metadata()
                picture = picture_of_pil(image, metadata, frame_name)
                if number == 0:
                    picture = _with_losses(picture, data, image)
            yield Page(picture=picture, duration_ms=float(image.info.get("duration") or 0))


def _with_losses(picture: Picture, data: bytes, image: Image.Image) -> Picture:
    """The first frame, with what is lost when an animation is read."""
    losses = (
        (LOSS_OF_BITS, is_deep(data) and picture.bits == 8),
        (STILL, has_picture_outside(image)),
    )
    lost = tuple(loss for loss, is_lost in losses if is_lost)
    metadata = picture.metadata
    return replace(picture, metadata=replace(metadata, losses=metadata.losses + lost))


def _plays_of(data: bytes, name: str) -> int:
    """How often an animation is played. GIF counts the repetitions after the first time."""
    with open_image(data, name) as image:
        if image.format != "GIF":
            return int(image.info.get("loop", FOREVER))
        repetitions = image.info.get("loop")
    if repetitions is None:
        return ONCE
    return FOREVER if repetitions == 0 else int(repetitions) + 1
