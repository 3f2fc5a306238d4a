"""A standard deviation as a picture: false colours, and a bar that says what they stand for.

Colours are those of viridis, which is perceptually uniform: dark where results agree, bright where
they differ. Missing numbers are grey. The picture has a palette, so a pixel takes one byte.

Shapes: H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cascade.imaging.rasters.showing import colours_of

COLOUR_MAP = "viridis"
COLOURS = 253
MISSING, BLACK, WHITE = 253, 254, 255  # numbers of the palette
GREY = (150, 150, 150)  # of missing numbers
TOP_QUANTILE = 0.995  # a few outliers would leave all else dark
LOOKED_AT = 2**20  # numbers by which the quantile is estimated
ROWS = 1024  # that are coloured at a time
GAP_PX = 8
LEAST_TEXT_PX, MOST_TEXT_PX = 13, 64
LETTERS = "1"  # smooth ones would need colours between two numbers of the palette


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One map of a picture.

    Attributes:
        values: (H, W) floats of at least 0; NaN where they are missing.
        caption: text below the bar.
        unit: unit of the values.
    """

    values: np.ndarray
    caption: str
    unit: str = ""


def deviation_picture(panels: Sequence[Panel]) -> Image.Image:
    """Draw maps side by side, each with a bar of its own below it.

    The first map begins in the upper left corner and has a pixel for each value, so that it can be
    laid over the result.

    Args:
        panels: at least one, all of one size.
    """
    images = [_drawn(panel) for panel in panels]
    width = sum(image.width for image in images) + GAP_PX * (len(images) - 1)
    picture = _blank((width, max(image.height for image in images)))
    left = 0
    for image in images:
        picture.paste(image, (left, 0))
        left += image.width + GAP_PX
    colours = (colours_of(COLOUR_MAP, COLOURS).T * 255).round().byte().flatten().tolist()
    picture.putpalette([*colours, *GREY, *(0, 0, 0), *(255, 255, 255)])
    return picture


def largest_shown(values: np.ndarray) -> float:
    """The value at the upper end of the bar, of two digits: nearly all values are below it."""
    flat = values.reshape(-1)
    if flat.size > LOOKED_AT:
        flat = flat[np.random.default_rng(0).integers(flat.size, size=LOOKED_AT)]
    flat = flat[np.isfinite(flat)]
    top = float(np.quantile(flat, TOP_QUANTILE)) if flat.size else 0.0
    if top <= 0:
        return float(flat.max()) if flat.size and flat.max() > 0 else 1.0
    step = 10.0 ** (math.floor(math.log10(top)) - 1)
    return float(f"{math.ceil(top / step) * step:.2g}")


def _drawn(panel: Panel) -> Image.Image:
    """A map with its bar, in numbers of the palette."""
    height, width = panel.values.shape
    top = largest_shown(panel.values)
    above = " and more" if np.nanmax(panel.values, initial=0) > top else ""
    text_px = min(max(LEAST_TEXT_PX, width // 30), MOST_TEXT_PX)
    font = ImageFont.load_default(size=text_px)
    last = f"{top:g} {panel.unit}".strip() + above
    texts = [f"0   {last}", panel.caption]
    full = max(width, *(math.ceil(font.getlength(text, mode=LETTERS)) + 4 for text in texts))
    line_px = round(text_px * 1.3)
    image = _blank((full, height + text_px + 2 * line_px + 4))
    image.paste(_coloured(panel.values, top), (0, 0))
    ramp = np.linspace(0, COLOURS - 1, full).round().astype(np.uint8)
    image.paste(Image.fromarray(np.tile(ramp, (text_px, 1))), (0, height + 2))
    draw = ImageDraw.Draw(image)
    draw.fontmode = LETTERS
    y = height + text_px + 3
    draw.text((1, y), "0", fill=BLACK, font=font)
    draw.text((full - 2, y), last, fill=BLACK, font=font, anchor="ra")
    draw.text((1, y + line_px), panel.caption, fill=BLACK, font=font)
    return image


def _coloured(values: np.ndarray, top: float) -> Image.Image:
    """The colours of values, in numbers of the palette."""
    places = np.empty(values.shape, np.uint8)
    for first in range(0, len(values), ROWS):
        part = values[first : first + ROWS]
        shares = np.nan_to_num(part / top).clip(0, 1)
        numbers = (shares * (COLOURS - 1)).round().astype(np.uint8)
        places[first : first + ROWS] = np.where(np.isnan(part), MISSING, numbers)
    return Image.fromarray(places)


def _blank(size: tuple[int, int]) -> Image.Image:
    return Image.new("L", size, WHITE)
