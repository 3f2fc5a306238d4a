"""What is added to an image file that libvips wrote with its pixels alone.

libvips would pass EXIF through a library that drops the fields it does not know and adds some of
its own, it cannot put EXIF into TIFF at all, and it refuses colour profiles in PNG for faults that
other programs overlook. So `png_chunks.py`, `jpeg_segments.py`, `webp_chunks.py` and
`tiff_fields.py` copy such a file and add the metadata where the format keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cascade.imaging.metadata import Metadata


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Metadata that is added to an image file.

    Attributes:
        metadata: everything except its `exif`.
        exif: block without the header `Exif`, complete, or None.
        dpi: pixels per inch, across and down, or None. WebP and TIFF hold it in `exif` instead.
        settings: ASCII for the PNG text chunk `cascade`, or None; other formats ignore it.
        profile: ICC profile for PNG, or None; libvips writes it into other formats.
        size: (H, W) in pixels.
    """

    metadata: Metadata
    exif: bytes | None
    dpi: tuple[float, float] | None
    settings: str | None
    profile: bytes | None
    size: tuple[int, int]
