"""Checks uploaded files before anything decodes them: their size, their kind and their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import DataError
from cascade.imaging.opening import (
    PILLOW_FORMATS,
    format_of,
    opened_by_pillow,
    opened_image,
    read_bytes,
    readable,
)
from cascade.imaging.picture_reading import frames_of
from cascade.imaging.tiff_pages import main_pages, open_tiff

MIB = 2**20
MEGAPIXEL = 10**6
HEAD_BYTES = 512  # by which a format is recognised


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much visitors may ask for.

    Attributes:
        file_mib: largest size of a file in MiB.
        megapixels: largest number of millions of pixels in a file, all its pages together.
        files: largest number of files in one job.
        result_megapixels: largest number of millions of pixels in an upscaled result, all its pages
            together.
        disk_gib: size of all files of the page in GiB above which no job begins.
    """

    file_mib: float = 200
    megapixels: float = 100
    files: int = 500
    result_megapixels: float = 250
    disk_gib: float = 50

    def check(self, path: Path, scale: float = 1.0) -> None:
        """Check an uploaded file. Its pixels are not decoded.

        Args:
            path: the file.
            scale: factor for both sides of its result.

        Raises:
            DataError: if it is too large, would become so, or is no picture.
        """
        name, mib = path.name, path.stat().st_size / MIB
        if mib > self.file_mib:
            raise DataError(
                f"{name}: {mib:,.1f} MiB is more than the {self.file_mib:g} MiB allowed; make it "
                "smaller."
            )
        if path.suffix == ".tar":  # the bulk commands would read it as a shard
            raise DataError(f"{name}: this page takes images, not shards; use the command line.")
        pixels = sum(math.prod(size) for size in _page_sizes(path))
        if pixels > self.megapixels * MEGAPIXEL:
            raise DataError(
                f"{name}: {pixels / MEGAPIXEL:,.1f} megapixels are more than the "
                f"{self.megapixels:g} allowed; make it smaller."
            )
        if scale > 1 and scale**2 * pixels > self.result_megapixels * MEGAPIXEL:
            raise DataError(
                f"{name}: at {scale:g}×, {scale**2 * pixels / MEGAPIXEL:,.1f} megapixels are more "
                f"than the {self.result_megapixels:g} allowed; choose a smaller factor."
            )

    def sort(self, paths: Sequence[Path], scale: float = 1.0) -> tuple[list[Path], list[str]]:
        """Split uploaded files into those that pass, and one line about each of the others."""
        good, faults = [], []
        for path in paths[: self.files]:
            try:
                self.check(path, scale)
            except FileNotFoundError:
                faults.append(f"{path.name}: the upload is gone; upload it again.")
            except DataError as error:
                faults.append(str(error))
            else:
                good.append(path)
        if len(paths) > self.files:
            faults.append(f"only the first {self.files} of {len(paths)} files are taken.")
        return good, faults


def _page_sizes(path: Path) -> Sequence[tuple[int, int]]:
    """Height and width of all pages of a file in pixels, from its heads where that is possible."""
    with path.open("rb") as file, readable(path.name):
        file_format = format_of(file.read(HEAD_BYTES), path.name)
        file.seek(0)
        if file_format == "TIFF":
            with open_tiff(file) as tiff:
                return [(page.imagelength, page.imagewidth) for page in main_pages(tiff, path.name)]
        if file_format in PILLOW_FORMATS:
            # The reader of whole files says what is wrong, or mends the texts of a PNG.
            with suppress(Exception), opened_by_pillow(file, file_format) as image:
                return [(image.height, image.width)] * frames_of(image)
    data = read_bytes(path)
    with opened_image(data, path.name) as image:
        return [(image.height, image.width)] * frames_of(image)
