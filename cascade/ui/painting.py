"""Painting on a picture in the browser, and what the strokes become: hints, or a mask."""

from __future__ import annotations

import base64
import binascii
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from cascade.errors import ContractError
from cascade.imaging.opening import read_bytes
from cascade.imaging.picture_reading import decode_picture
from cascade.imaging.writing import save_png
from cascade.ui.limits import Limits
from cascade.ui.previews import picture_url

SHEET_PX = 1024  # longer side of what is painted on
START = "data:image/png;base64,"
MOST_CHARACTERS = 16 * 2**20
STROKE_PERCENT, MASK_PERCENT = 3, 10  # of the longer side, at first
MASK_COLOUR = "#e0342b"
SWATCHES = ("#8f2f24", "#c98a5a", "#e3c9a8", "#3f6b35", "#5f8fc4", "#d9b53c", "#6b4a8a", "#7a6a58")


def painting(path: Path | None, name: str, *, colours: bool) -> str:
    """A picture to paint on, as HTML; empty without one.

    Args:
        path: file of the picture, which has passed the limits.
        name: name of the painting, by which the page finds its strokes.
        colours: whether the user chooses colours, or paints a mask.
    """
    if path is None:
        return ""
    picture = decode_picture(read_bytes(path), path.name)
    url, (width, height) = picture_url(picture, SHEET_PX)
    colour = "" if colours else f' data-colour="{MASK_COLOUR}"'
    tools = _colour_tools() if colours else ""
    brush = STROKE_PERCENT if colours else MASK_PERCENT
    return (
        f'<div class="paint" id="{name}"{colour}><div class="tools">{tools}'
        f'<label class="brush">Brush <input type="range" min="1" max="20" value="{brush}" '
        'aria-label="width of the brush"></label>'
        '<button type="button" data-paint="undo">Undo</button>'
        '<button type="button" data-paint="clear">Clear</button></div>'
        f'<div class="sheet"><img src="{url}" alt="{escape(path.name)}">'
        f'<canvas width="{width}" height="{height}"></canvas></div></div>'
    )


def _colour_tools() -> str:
    swatches = "".join(
        f'<button type="button" class="swatch" data-swatch="{each}" style="background:{each}" '
        f'aria-label="colour {each}"></button>'
        for each in SWATCHES
    )
    return (
        f'<label>Colour <input type="color" value="{SWATCHES[0]}"></label>'
        f'<span class="swatches">{swatches}</span>'
    )


def write_strokes(strokes: str, file: Path, limits: Limits) -> Path | None:
    """Write what a user painted, as the browser sends it; None if nothing was painted.

    Args:
        strokes: a `data:` URL of a PNG that is transparent where nothing was painted.
        file: the PNG to write.
        limits: limits of uploads, which hold for it too.

    Raises:
        CascadeError: if it is no such URL, or too large.
    """
    if not strokes:
        return None
    try:
        is_png = strokes.startswith(START) and len(strokes) <= MOST_CHARACTERS
        file.write_bytes(base64.b64decode(strokes[len(START) :] if is_png else "-", validate=True))
    except binascii.Error as error:
        raise ContractError("the strokes did not arrive; paint them again.") from error
    limits.check(file)
    return file


def write_mask(strokes: Path, picture: Path, file: Path) -> Path:
    """Write the mask of a picture, white where somebody has painted.

    Args:
        strokes: file of the strokes, of any size.
        picture: file of the picture.
        file: the PNG to write, which gets the size of the picture.

    Raises:
        DataError: if one of the files is not readable.
    """
    alpha = decode_picture(strokes.read_bytes(), "the strokes").alpha
    height, width = decode_picture(read_bytes(picture), picture.name).size
    if alpha is None or bool((alpha[0] > 127).all()):
        raise ContractError("the whole image is painted over; leave some of it.")
    mask = Image.fromarray(((alpha[0].numpy() > 127) * 255).astype(np.uint8))
    save_png(mask.resize((width, height), Image.Resampling.NEAREST), file)
    return file
