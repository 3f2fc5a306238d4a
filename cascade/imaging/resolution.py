"""The resolution of a picture in pixels per inch, and the EXIF and TIFF fields that hold it."""

from __future__ import annotations

import math
from fractions import Fraction

from PIL.ExifTags import Base
from PIL.TiffImagePlugin import IFDRational

from cascade.imaging.exif_blocks import Directory

RESOLUTION_TAGS = (Base.XResolution, Base.YResolution, Base.ResolutionUnit)
PER_INCH = 2  # values of the field ResolutionUnit
PER_CM = 3
CM_PER_INCH = 2.54
HALF_PX_PER_M_IN_DPI = 0.0254 / 2


def resolution_of(directory: Directory) -> tuple[float, float] | None:
    """Read pixels per inch, across and down, from the main directory of a TIFF file or EXIF block.

    Returns:
        None if the fields are missing, damaged or without a unit.
    """
    unit = directory.get(Base.ResolutionUnit, PER_INCH)
    if unit not in (PER_INCH, PER_CM):
        return None
    scale = CM_PER_INCH if unit == PER_CM else 1
    try:
        across, down = (float(directory[tag]) * scale for tag in RESOLUTION_TAGS[:2])
    except (KeyError, TypeError, ValueError):
        return None
    return plausible_dpi((across, down))


def set_resolution(directory: Directory, dpi: tuple[float, float]) -> None:
    """Write pixels per inch, across and down, into the main directory of an EXIF block."""
    directory[Base.ResolutionUnit] = PER_INCH
    for tag, value in zip(RESOLUTION_TAGS, dpi, strict=False):
        directory[tag] = IFDRational(Fraction(value).limit_denominator(10_000))


def plausible_dpi(dpi: object) -> tuple[float, float] | None:
    """Check a resolution that a file states.

    Numbers that are whole to within half a pixel per metre, the unit of PNG, are rounded.

    Returns:
        Pixels per inch, across and down, each at least 0.1 and below 2^16; None for anything else.
    """
    try:
        across, down = (float(value) for value in dpi)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(value) and 0.1 <= value < 2**16 for value in (across, down)):
        return None
    whole = round(across), round(down)
    if max(abs(across - whole[0]), abs(down - whole[1])) <= HALF_PX_PER_M_IN_DPI:
        return whole
    return across, down
