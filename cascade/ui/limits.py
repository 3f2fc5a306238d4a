"""Checks uploaded files before anything decodes them: their size, their kind and their pixels."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import DataError
from cascade.imaging.opening import format_of, opened_image, read_bytes
from cascade.imaging.pages import read_heads
from cascade.imaging.picture_reading import frames_of

MIB = 2**20
MEGAPIXEL = 10**6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a visitor may upload.

    Attributes:
        file_mib: largest size of a file in MiB.
        megapixels: largest number of millions of pixels in a file, all its pages together.
        files: largest number of files in one job.
    """

    file_mib: float = 200
    megapixels: float = 100
    files: int = 500

    def check(self, path: Path) -> None:
        """Check an uploaded file. Only its head is read, by the readers of `cascade.imaging`.

        Raises:
            DataError: if it is too large, or no picture.
        """
        name, mib = path.name, path.stat().st_size / MIB
        if mib > self.file_mib:
            raise DataError(
                f"{name}: {mib:,.1f} MiB is more than the {self.file_mib:g} MiB allowed; make it "
                "smaller."
            )
        if path.suffix == ".tar":  # the bulk commands would read it as a shard
            raise DataError(f"{name}: this page takes pictures, no shards; use the command line.")
        pixels = sum(math.prod(size) for size in _page_sizes(read_bytes(path), name))
        if pixels > self.megapixels * MEGAPIXEL:
            raise DataError(
                f"{name}: {pixels / MEGAPIXEL:,.1f} megapixels are more than the "
                f"{self.megapixels:g} allowed; make it smaller."
            )

    def sort(self, paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
        """Split uploaded files into those that pass, and one line about each of the others."""
        good, faults = [], []
        for path in paths[: self.files]:
            try:
                self.check(path)
            except FileNotFoundError:
                faults.append(f"{path.name}: the upload is gone; upload it again.")
            except DataError as error:
                faults.append(str(error))
            else:
                good.append(path)
        if len(paths) > self.files:
            faults.append(f"only the first {self.files} of {len(paths)} files are taken.")
        return good, faults


def _page_sizes(data: bytes, name: str) -> Sequence[tuple[int, int]]:
    """Height and width of all pages of a file in pixels."""
    if format_of(data, name) == "TIFF":
        return read_heads(io.BytesIO(data), name).sizes
    with opened_image(data, name) as image:
        return [(image.height, image.width)] * frames_of(image)
