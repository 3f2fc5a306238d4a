"""The orientation that EXIF states: found in a file, applied to pixels and to the resolution.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from PIL import ExifTags, Image
from torch import Tensor

# orientation: (swap rows and columns, then mirror top to bottom, mirror left to right)
TURNS = {1: (0, 0, 0), 2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0)}
TURNS |= {5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


def orientation_of(image: Image.Image, block: bytes | None = None) -> int:
    """Read the orientation of a loaded PIL image, from 1 to 8; 1 if its EXIF is damaged.

    Args:
        image: opened by Pillow, whose EXIF allows for what a container or decoder turned already.
        block: EXIF of its file, where Pillow finds none, as in an old kind of text in PNG.
    """
    try:
        if image.format == "AVIF" and not image.info.get("exif"):
            return 1  # the container states it; Pillow would take that of XMP
        exif = image.getexif()
        if image.format == "PNG" and block is not None and not exif:
            exif.load(block)
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many kinds on damaged blocks
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn and mirror pixels so that they are upright.

    Args:
        pixels: (C, H, W) as stored.
        orientation: from 1 to 8; any other number counts as 1.

    Returns:
        (C, H, W), or (C, W, H) for the orientations from 5 to 8.
    """
    swap, down, across = TURNS.get(orientation, TURNS[1])
    if swap:
        pixels = pixels.transpose(1, 2)
    mirrored_axes = [axis for axis, mirror in ((1, down), (2, across)) if mirror]
    return pixels.flip(mirrored_axes) if mirrored_axes else pixels.contiguous()


def upright_dpi(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    """Pixels per inch, across and down, after `upright`."""
    swap, _, _ = TURNS.get(orientation, TURNS[1])
    return (dpi[1], dpi[0]) if swap and dpi is not None else dpi
