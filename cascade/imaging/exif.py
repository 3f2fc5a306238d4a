"""What a picture keeps of its EXIF, and what is written into it.

Kept is what describes the picture: camera, lens, exposure, dates, place, author, copyright,
comments and ratings, with every field of the Exif and GPS directories in its own type. Left out are

- the thumbnail, which shows the old picture, and all that tells how the old file was laid out;
- the orientation, which is applied to the pixels: the tag becomes 1;
- the maker's private notes, whose inner offsets no longer hold once they are moved;
- the resolution, which a picture holds as its `dpi`.

A directory that is damaged is left out as a whole. Settings are recorded as JSON in the Exif field
ImageHistory (0x9213, "what has been done to the image", TIFF/EP), where they never take the place
of anybody's comment.

Shapes: sizes are (H, W) in pixels. Blocks begin with the TIFF head, without the header `Exif`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from cascade.imaging.tiff_fields import (
    ASCII,
    EXIF_DIRECTORY,
    GPS_DIRECTORY,
    LONG,
    RATIONAL,
    SHORT,
    TYPES,
    DamagedFieldsError,
    Directory,
    Field,
    read_fields,
    write_fields,
)

HEADER = b"Exif\0\0"
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
EXIF_WIDTH, EXIF_HEIGHT, MAKER_NOTE, IMAGE_HISTORY = 0xA002, 0xA003, 0x927C, 0x9213
DOCUMENT_NAME, DESCRIPTION, MAKE, MODEL, PAGE_NAME = 269, 270, 271, 272, 285
SOFTWARE, DATE = 305, 306
ARTIST, HOST, RATING, RATING_PERCENT, COPYRIGHT, LENS_INFO = 315, 316, 18246, 18249, 33432, 50736
WINDOWS_TITLE_TO_SUBJECT = range(40091, 40096)
DESCRIPTIVE = {DOCUMENT_NAME, DESCRIPTION, MAKE, MODEL, PAGE_NAME, SOFTWARE, DATE, ARTIST, HOST}
DESCRIPTIVE |= {RATING, RATING_PERCENT, COPYRIGHT, LENS_INFO, *WINDOWS_TITLE_TO_SUBJECT}
DESCRIPTIVE |= {EXIF_DIRECTORY, GPS_DIRECTORY}
CM_PER_INCH = Fraction(254, 100)


def kept_exif(block: bytes, size: tuple[int, int]) -> bytes | None:
    """Make the block that a picture keeps.

    Args:
        block: of a file, or a whole TIFF file.
        size: of the upright picture.

    Returns:
        None where nothing describes the picture, or the block is damaged.
    """
    try:
        fields = read_fields(block.removeprefix(HEADER))
    except DamagedFieldsError:
        return None
    kept = {tag: field for tag, field in fields.items() if tag in DESCRIPTIVE}
    inner = kept.get(EXIF_DIRECTORY)
    if inner is not None and isinstance(inner.value, dict):
        inner.value.pop(MAKER_NOTE, None)
    if not kept:
        return None
    kept[ORIENTATION] = Field(SHORT, struct.pack("<H", 1))
    return _block(_sized(kept, size))


def sized_exif(block: bytes, size: tuple[int, int]) -> bytes:
    """The same block with the pixel dimensions of the Exif directory, where it has one, renewed."""
    return _block(_sized(read_fields(block), size))


def written_exif(
    block: bytes | None, dpi: tuple[float, float] | None, settings: Mapping[str, Any] | None
) -> bytes | None:
    """Complete a picture's block for a file that holds its resolution and settings in EXIF.

    Args:
        block: what the picture kept.
        dpi: across and down, in pixels per inch.
        settings: anything that JSON can hold.

    Returns:
        None if there is nothing to write.
    """
    fields = read_fields(block) if block is not None else {}
    if dpi is not None:
        fields |= resolution_fields(dpi)
    if settings is not None:
        text = json.dumps(settings).encode("ascii") + b"\0"
        inner = fields.get(EXIF_DIRECTORY)
        below = dict(inner.value) if inner is not None and isinstance(inner.value, dict) else {}
        below[IMAGE_HISTORY] = Field(ASCII, text)
        fields[EXIF_DIRECTORY] = Field(LONG, below)
    return _block(fields) if fields else None


def settings_in_exif(block: bytes) -> dict[str, Any] | None:
    """Read back the settings of `written_exif`; None where there are none."""
    try:
        inner = read_fields(block.removeprefix(HEADER))[EXIF_DIRECTORY].value
        text = inner[IMAGE_HISTORY].value if isinstance(inner, dict) else b""
    except (DamagedFieldsError, KeyError):
        return None
    return parsed_settings(text.rstrip(b"\0")) if isinstance(text, bytes) else None


def parsed_settings(text: bytes | str) -> dict[str, Any] | None:
    """A JSON object, or None where it is something else."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def resolution_fields(dpi: tuple[float, float]) -> Directory:
    """The three fields that say how many pixels make an inch, across and down."""
    fields = {RESOLUTION_UNIT: Field(SHORT, struct.pack("<H", 2))}
    for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
        ratio = Fraction(value).limit_denominator(10_000)
        fields[tag] = Field(RATIONAL, struct.pack("<LL", ratio.numerator, ratio.denominator))
    return fields


def resolution_of(fields: Directory) -> tuple[float, float] | None:
    """Pixels per inch, across and down, where the fields tell it."""
    unit = numbers(fields, RESOLUTION_UNIT, (2,))[0]
    across, down = numbers(fields, X_RESOLUTION), numbers(fields, Y_RESOLUTION)
    if unit not in (2, 3) or len(across) != 2 or len(down) != 2 or not across[1] or not down[1]:
        return None
    scale = CM_PER_INCH if unit == 3 else 1
    return plausible_dpi((float(Fraction(*across) * scale), float(Fraction(*down) * scale)))


def resolution_in_block(block: bytes) -> tuple[float, float] | None:
    """Pixels per inch across and down, where an EXIF block tells it."""
    try:
        return resolution_of(read_fields(block.removeprefix(HEADER)))
    except DamagedFieldsError:
        return None


def plausible_dpi(dpi: object) -> tuple[float, float] | None:
    """Two positive numbers below 2^16, or None.

    Files hold pixels per metre or centimetre too, so numbers next to a whole one are made whole.
    """
    try:
        across, down = (float(value) for value in dpi)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(value) and 0.1 <= value < 2**16 for value in (across, down)):
        return None
    half_px_per_m = 0.0254 / 2
    whole = round(across), round(down)
    if max(abs(across - whole[0]), abs(down - whole[1])) <= half_px_per_m:
        return whole
    return across, down


def numbers(fields: Directory, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Unsigned whole numbers of a field: of a rational, its numerator and denominator."""
    kind, value = fields.get(tag, Field(0, b""))
    if isinstance(value, dict) or kind not in (SHORT, LONG, RATIONAL, 16):
        return default
    unit = TYPES[kind][1]
    form = {2: "H", 4: "L", 8: "Q"}[unit]
    return struct.unpack(f"<{len(value) // unit}{form}", value) or default


def _sized(fields: Directory, size: tuple[int, int]) -> Directory:
    inner = fields.get(EXIF_DIRECTORY)
    if inner is not None and isinstance(inner.value, dict):
        for tag, value in zip((EXIF_HEIGHT, EXIF_WIDTH), size, strict=True):
            if tag in inner.value:
                inner.value[tag] = Field(LONG, struct.pack("<L", value))
    return fields


def _block(fields: Directory) -> bytes:
    return b"II*\0" + struct.pack("<L", 8) + write_fields(fields, 8)
