"""Writes the pages of a TIFF, or the frames of an animation, one at a time.

- TIFF keeps size, kind, resolution, profile and metadata of every page.
- Animated PNG and WebP keep every frame whole, also equal ones, with its duration. PNG keeps
  fractions of a millisecond. The quality is that of single pictures.
- GIF holds 256 colours a frame and pixels that are transparent or not. It is not dithered, and one
  palette serves as many frames as possible, so that a resting background does not flicker.
- Each page is written into a temporary file of its own, so memory holds one page.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from cascade.errors import OutputError
from cascade.imaging.apng import join_pngs
from cascade.imaging.credentials import Signer, signed_file
from cascade.imaging.extras import Extras
from cascade.imaging.gif_blocks import add_to_gif
from cascade.imaging.metadata import Loss
from cascade.imaging.pages import Page
from cascade.imaging.picture import Picture
from cascade.imaging.picture_writing import (
    FORMAT_OF_SUFFIX,
    MAX_TIFF_BYTES,
    extras_of,
    lost_metadata,
    write_pixels,
)
from cascade.imaging.tiff_assembly import join_tiffs
from cascade.imaging.vips import cause_of, libvips
from cascade.imaging.webp_animation import join_webps
from cascade.saving.atomic import scratch_folder

MAX_COLOURS = 256  # of a frame of GIF
GIF_OPTIONS = {"dither": 0, "keep_duplicate_frames": True}
COLOURS = Loss("colours", f"GIF holds {MAX_COLOURS} a frame")
TIMING = Loss("timing of frames", "TIFF has none")
EXACT_TIMING = Loss("exact durations", "GIF counts hundredths of a second")


class PagesWriter:
    """Collects pages, and writes them as one file; made by `pages_writer`.

    Args:
        path: the file to write; its ending names the format, see `check_format`.
        folder: an empty folder for the pages.
        plays: how often an animation is played, 0 for no end; None for pages.
        pixel_bytes: size of the pixels of all pages together, without compression.
        metadata: whether to write metadata, resolution and settings.
        signer: who signs the file; None for nobody.

    Attributes:
        losses: what the file does not keep of the pages so far.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        *,
        plays: int | None,
        pixel_bytes: int,
        metadata: bool,
        signer: Signer | None,
    ) -> None:
        self.losses: tuple[Loss, ...] = ()
        self._path, self._folder = path, folder
        self._kind = FORMAT_OF_SUFFIX[path.suffix.lower()]
        self._plays = plays
        self._is_big = self._kind == "tiff" and pixel_bytes > MAX_TIFF_BYTES
        self._metadata, self._signer = metadata, signer
        self._pages: list[Page] = []  # with a single pixel instead of the picture's
        self._sizes: list[tuple[int, int]] = []

    def add(self, page: Page) -> None:
        """Add a page.

        Raises:
            OutputError: if it cannot be written.
        """
        picture = page.picture.in_srgb() if self._kind == "gif" else page.picture
        losses = (*self.losses, *self._losses_of(replace(page, picture=picture)))
        self.losses = tuple(dict.fromkeys(losses))
        with _reported(self._path), self._file(len(self._pages)).open("w+b") as file:
            if self._kind == "gif":
                np.save(file, _rgba(picture))
            else:
                options = {"bigtiff": True} if self._is_big else {}
                write_pixels(picture, self._kind, file, self._path, **options)
        self._sizes.append(picture.size)
        self._pages.append(replace(page, picture=_without_pixels(picture)))

    def _losses_of(self, page: Page) -> Iterator[Loss]:
        yield from lost_metadata(page.picture, self._path, metadata=self._metadata)
        if self._kind == "tiff" and self._plays is not None:
            yield TIMING
        if self._kind == "gif":
            if page.duration_ms % 10:
                yield EXACT_TIMING
            if page.picture.to_pil().convert("RGB").getcolors(MAX_COLOURS) is None:
                yield COLOURS

    def finish(self, settings: Mapping[str, Any] | None) -> None:
        """Write the file from the pages that were added.

        Args:
            settings: how the pages were made; recorded in the first one.

        Raises:
            OutputError: if the file cannot be written.
        """
        extras = [
            replace(
                extras_of(page.picture, self._kind, None if index else settings, self._metadata),
                size=size,
            )
            for index, (page, size) in enumerate(zip(self._pages, self._sizes, strict=True))
        ]
        xmp = self._pages[0].picture.metadata.xmp
        signed = signed_file(self._path, self._signer, "restored", settings, xmp)
        with signed as temporary, temporary.open("w+b") as target:
            self._join(target, extras)

    def _join(self, target: BinaryIO, extras: list[Extras]) -> None:
        files = [self._file(index) for index in range(len(self._pages))]
        durations_ms = [page.duration_ms for page in self._pages]
        if self._kind == "tiff":
            join_tiffs(files, target, extras, is_big=self._is_big)
        elif self._kind == "png":
            join_pngs(files, durations_ms, self._plays or 0, target, extras[0])
        elif self._kind == "webp":
            join_webps(files, durations_ms, self._plays or 0, target, extras[0])
        else:
            with self._file(len(files)).open("w+b") as source:
                self._write_gif(files, durations_ms, source)
                source.seek(0)
                add_to_gif(source, target, extras[0])

    def _write_gif(self, files: list[Path], durations_ms: list[float], target: BinaryIO) -> None:
        """Write frames as GIF, which libvips takes one below the other and reads row by row."""
        vips = libvips()
        frames = []
        for file in files:
            pixels = np.load(file, mmap_mode="r")  # (H, W, 4)
            height, width, bands = pixels.shape
            frames.append(vips.Image.new_from_memory(pixels.data, width, height, bands, "uchar"))
        image = vips.Image.arrayjoin(frames, across=1).copy(interpretation="srgb")
        image.set_type(vips.GValue.array_int_type, "delay", [round(each) for each in durations_ms])
        image.set_type(vips.GValue.gint_type, "loop", self._plays or 0)
        height = frames[0].height
        try:
            output = vips.Target.new_to_descriptor(target.fileno())
            image.gifsave_target(output, page_height=height, **GIF_OPTIONS)
        except vips.Error as error:
            raise OutputError(f"cannot write {self._path}: {cause_of(error)}.") from error

    def _file(self, index: int) -> Path:
        return self._folder / str(index)


@contextmanager
def pages_writer(
    path: Path,
    *,
    plays: int | None,
    pixel_bytes: int,
    metadata: bool = True,
    signer: Signer | None = None,
) -> Iterator[PagesWriter]:
    """Yield a `PagesWriter`, which see; its temporary files are removed at the end.

    Raises:
        OutputError: if there is no place for the temporary files.
    """
    with scratch_folder(path) as folder:
        yield PagesWriter(
            path, folder, plays=plays, pixel_bytes=pixel_bytes, metadata=metadata, signer=signer
        )


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error


def _rgba(picture: Picture) -> np.ndarray:
    """The pixels of a picture: (H, W, 4) uint8."""
    return np.array(picture.to_pil().convert("RGBA"))


def _without_pixels(picture: Picture) -> Picture:
    """What belongs to a picture, with a single pixel."""
    pixel = torch.zeros_like(picture.colour[:, :1, :1])
    return replace(picture, colour=pixel, alpha=None)
