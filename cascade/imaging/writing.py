"""From tensors to PIL images and PNG files: single pictures with their settings, contact sheets.

Shapes: B batch, H and W pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from cascade.errors import ContractError
from cascade.imaging.credentials import Signer, signed_file
from cascade.imaging.marks import with_mark

XMP = "XML:com.adobe.xmp"  # keyword of the text chunk of a PNG that holds an XMP packet
RECORD = "cascade"  # text chunk of a PNG, or key of a description, that says how it was made
SHEET_GREY = (235, 235, 235)  # of the gaps, 8-bit RGB


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits: uint8 in [0, 255], of the same shape."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """The inverse of `to_uint8`: float32 in [-1, 1], of the same shape."""
    return images.float() / 127.5 - 1


def to_pil(images: Tensor) -> list[Image.Image]:
    """Convert images, (B, 3 or 1, H, W) in [-1, 1], to PIL images of mode RGB or L.

    Raises:
        ContractError: for another number of channels.
    """
    check_can_be_pictures(images.shape[1])
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, C)
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]


def check_can_be_pictures(channels: int, kind: str = "pixels") -> None:
    """Check that images can be written as RGB or grey pictures.

    Args:
        channels: number of channels.
        kind: what their numbers are; see `Space.kind`.

    Raises:
        ContractError: if they are no pixels, or have neither 3 channels nor 1.
    """
    if kind != "pixels":
        raise ContractError(
            f"the last stage makes {kind}, which are not images; let a stage that makes images "
            "of them follow, or take them as tensors, output_type='pt'."
        )
    if channels not in (1, 3):
        raise ContractError(
            f"PIL images have 1 or 3 channels, these images have {channels}; take them as "
            "tensors, output_type='pt', or arrays, output_type='np'."
        )


def save_png(
    image: Image.Image,
    path: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    signer: Signer | None = None,
) -> None:
    """Write a PNG, which appears under its name only when it is complete.

    Args:
        image: a PIL image of any mode that PNG has.
        path: the file to write.
        settings: how the picture was made; recorded as JSON in the PNG text chunk `cascade`,
            together with a mark that a trained model made it (`marks.py`).
        signer: who signs the file; None for nobody.

    Raises:
        OutputError: if the file cannot be written.
    """
    text = PngInfo()
    if settings is not None:
        text.add_text(RECORD, json.dumps(settings))
        text.add_itxt(XMP, with_mark(None, "generated", settings).decode())
    with signed_file(path, signer, "generated", settings) as temporary:
        image.save(temporary, format="PNG", pnginfo=text)


def contact_sheet(
    images: Tensor | Sequence[Image.Image], *, columns: int | None = None, gap_px: int = 2
) -> Image.Image:
    """Lay out images in a grid, row by row.

    Args:
        images: (B, 3, H, W) in [-1, 1], B at least 1; or as many PIL images of one size.
        columns: images per row; by default, the grid is as square as possible.
        gap_px: width of the light grey lines between the images.
    """
    pictures = to_pil(images) if isinstance(images, Tensor) else images
    count, (width, height) = len(pictures), pictures[0].size
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    size = (columns * (width + gap_px) - gap_px, rows * (height + gap_px) - gap_px)
    sheet = Image.new("RGB", size, SHEET_GREY)
    for index, image in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(image, (column * (width + gap_px), row * (height + gap_px)))
    return sheet
