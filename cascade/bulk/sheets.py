"""Sheets for a quick look: before and after side by side, or one picture with several seeds."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from cascade.errors import OutputError
from cascade.imaging.credentials import Signer, signed_file
from cascade.imaging.marks import SHEET, lasting_source, with_mark
from cascade.imaging.picture import Picture
from cascade.imaging.reading import to_rgb
from cascade.imaging.writing import RECORD, XMP

MAX_PX = 1600
GAP_PX = 6
CAPTION_PX = 22
Before = Literal["bicubic", "grey", "same"]
Size = tuple[int, int]  # (width, height) in pixels, as PIL has it


class Pair(NamedTuple):
    """Where a sheet shows the same part before and after; all in pixels of the sheet.

    Attributes:
        left: x of the part before.
        right: x of the part after.
        top: y of both.
        width: width of each.
        height: height of each.
    """

    left: int
    right: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How the results on a sheet came about; the sheet is marked and signed as they are.

    Attributes:
        settings: how they were made; the name of the model and the version are taken from it.
        signer: who signs the sheet; None for nobody.
        xmp: packet of a result, which may say that a model generated its input; None for none.
        is_of_one: whether the sheet is about one result, whose settings a PNG then records.
    """

    settings: Mapping[str, Any]
    signer: Signer | None = None
    xmp: bytes | None = None
    is_of_one: bool = False

    def packet(self) -> bytes:
        """The XMP packet of the sheet, which holds the mark and nothing else."""
        return with_mark(None, lasting_source(self.xmp, "restored"), self.settings)


class Cell(NamedTuple):
    """An image on a sheet, with the text above it."""

    caption: str
    image: Image.Image


def write_comparison(
    source: Picture,
    result: Picture,
    path: Path,
    *,
    before: Before,
    caption: str,
    provenance: Provenance | None = None,
) -> None:
    """Write a sheet with the input on the left and the result on the right.

    If they must be shrunk to fit, a second row shows their middle at full size.

    Args:
        source: the input.
        result: the result of the input.
        path: file of the sheet, a JPEG.
        before: how the left side shows the input: upscaled by bicubic interpolation, in grey,
            or as it is.
        caption: text above the result.
        provenance: how the result came about; None leaves mark and signature out.

    Raises:
        OutputError: if the sheet cannot be written, or another file has its name.
    """
    shown_input, shown_result = _as_rgb(source), _as_rgb(result)
    if before == "grey":
        shown_input = shown_input.convert("L").convert("RGB")
    size = _size_on_sheet(shown_result.size, columns=2)
    input_caption = "before, upscaled by bicubic" if before == "bicubic" else "before"
    cells = [
        Cell(input_caption, _middle(shown_input, size)),
        Cell(caption, _middle(shown_result, size)),
    ]
    if size != shown_result.size:
        crop = (min(size[0], shown_result.width), min(size[0], shown_result.height))
        share = (crop[0] / shown_result.width, crop[1] / shown_result.height)
        cells += [
            Cell("the middle at full size", _middle(shown_input, crop, share)),
            Cell("", _middle(shown_result, crop, share)),
        ]
    save_sheet(_sheet(cells, columns=2), path, _pairs(cells), provenance)


def pairs_of(path: Path) -> tuple[Size, list[Pair]]:
    """Find the pairs on a before/after sheet by its head.

    Returns:
        The size of the sheet, and its pairs; none if the file is no such sheet.
    """
    with suppress(OSError, ValueError, SyntaxError, TypeError), Image.open(path) as image:
        comment = image.info.get("comment", b"")
        values = comment.decode() if isinstance(comment, bytes) else comment
        if values.startswith(SHEET):
            return image.size, [Pair(*map(int, pair)) for pair in json.loads(values[len(SHEET) :])]
    return (0, 0), []


def write_variants(
    variants: Sequence[tuple[str, Picture]], path: Path, provenance: Provenance | None = None
) -> None:
    """Write a sheet of several results of one picture.

    Args:
        variants: captions and results, all of one size.
        path: file of the sheet, a PNG.
        provenance: how the results came about; None leaves mark and signature out.

    Raises:
        OutputError: if the sheet cannot be written, or another file has its name.
    """
    columns = len(variants) if len(variants) < 4 else math.ceil(math.sqrt(len(variants)))
    cells = []
    for caption, picture in variants:
        image = _as_rgb(picture)
        cells.append(Cell(caption, _middle(image, _size_on_sheet(image.size, columns))))
    save_sheet(_sheet(cells, columns), path, provenance=provenance)


def _as_rgb(picture: Picture) -> Image.Image:
    """Convert to 8-bit sRGB, with transparent pixels on white."""
    image = picture.in_srgb().to_pil()
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    return to_rgb(image)


def _size_on_sheet(size: Size, columns: int) -> Size:
    """The size at which a row of pictures is at most `MAX_PX` wide and high."""
    width = (MAX_PX - (columns - 1) * GAP_PX) // columns
    factor = min(1.0, width / size[0], MAX_PX / size[1])
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def _middle(image: Image.Image, size: Size, share: tuple[float, float] = (1, 1)) -> Image.Image:
    """The middle of an image, a share of its width and of its height, resized to `size`."""
    margins = [side * (1 - part) / 2 for side, part in zip(image.size, share, strict=True)]
    box = (margins[0], margins[1], image.width - margins[0], image.height - margins[1])
    return image.resize(size, Image.Resampling.BICUBIC, box=box)


def _sheet(cells: Sequence[Cell], columns: int) -> Image.Image:
    width = max(cell.image.width for cell in cells)
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [CAPTION_PX + max(cell.image.height for cell in row) for row in rows]
    size = (columns * (width + GAP_PX) - GAP_PX, sum(heights) + GAP_PX * (len(rows) - 1))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=CAPTION_PX * 0.6)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            x = column * (width + GAP_PX)
            draw.text((x + 2, top + 3), cell.caption, fill="black", font=font)
            sheet.paste(cell.image, (x, top + CAPTION_PX))
        top += height + GAP_PX
    return sheet


def _pairs(cells: Sequence[Cell]) -> list[Pair]:
    """The pairs on a sheet of two columns."""
    right = max(cell.image.width for cell in cells) + GAP_PX
    pairs, top = [], CAPTION_PX
    for before in cells[::2]:
        pairs.append(Pair(0, right, top, before.image.width, before.image.height))
        top += before.image.height + GAP_PX + CAPTION_PX
    return pairs


def save_sheet(
    sheet: Image.Image,
    path: Path,
    pairs: Sequence[Pair] = (),
    provenance: Provenance | None = None,
) -> None:
    """Write a sheet with a comment by which it is known, as PNG or JPEG.

    Args:
        sheet: the sheet.
        path: file of the sheet.
        pairs: where it shows the same part before and after.
        provenance: how the results on it came about; None if it shows none, or for no metadata.

    Raises:
        OutputError: if the sheet cannot be written, or another file has its name.
    """
    check_sheet(path)
    comment = f"{SHEET} {json.dumps(pairs)}"
    packet = None if provenance is None else provenance.packet()
    origin = provenance or Provenance(settings={})
    with signed_file(path, origin.signer, "restored", origin.settings, origin.xmp) as temporary:
        if path.suffix == ".png":
            text = PngInfo()
            text.add_text("comment", comment)
            if packet is not None:
                text.add_itxt(XMP, packet.decode())
            if origin.is_of_one:
                text.add_text(RECORD, json.dumps(origin.settings))
            sheet.save(temporary, format="PNG", pnginfo=text)
        else:
            options = {} if packet is None else {"xmp": packet}
            sheet.save(
                temporary, format="JPEG", quality=92, subsampling=0, comment=comment, **options
            )


def check_sheet(path: Path) -> None:
    """Check that no other file has the name of a sheet.

    Raises:
        OutputError: if one has.
    """
    if path.exists() and not _is_sheet(path):
        raise OutputError(
            f"{path} already exists and is not a sheet of this command; move it away."
        )


def _is_sheet(path: Path) -> bool:
    kind = PngImageFile if path.suffix == ".png" else JpegImageFile  # maps may be of any size
    with suppress(OSError, ValueError, SyntaxError), kind(path) as image:
        comment = image.info.get("comment", b"")
        return comment.startswith(SHEET if isinstance(comment, str) else SHEET.encode())
    return False


def is_older(path: Path, other: Path) -> bool:
    """Whether a file is missing, or older than another one."""
    try:
        return path.stat().st_mtime_ns < other.stat().st_mtime_ns
    except OSError:
        return True


def date_after(path: Path, others: Sequence[Path]) -> None:
    """Set the time of a file that was made from others to now, or to theirs if that is later.

    So it does not look older than they are if the clock was set back in between.

    Args:
        path: the file.
        others: files that exist.
    """
    with suppress(OSError):  # then it is made again
        newest_ns = max(time.time_ns(), *(each.stat().st_mtime_ns for each in others))
        os.utime(path, ns=(newest_ns, newest_ns))
