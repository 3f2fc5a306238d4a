"""How people see images of bands: three bands as red, green and blue, or one through a colour map.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from functools import cache

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cascade.space import Space

COLOURS = 256  # of a colour map
BAR_PX = 12  # height of a scale bar
TEXT_PX = 14


def as_rgb(images: Tensor, space: Space) -> Tensor:
    """The bands of images that people see.

    Args:
        images: (B, C, H, W) in [-1, 1].
        space: their space, which says which bands are shown; by default three channels are red,
            green and blue, and of other numbers the first one is shown in grey.

    Returns:
        (B, 3, H, W) in [-1, 1].
    """
    bands = [number - 1 for number in space.show]
    if not bands:
        return images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    shown = images[:, bands]
    if len(bands) == 3:
        return shown
    if space.colour_map == "grey":
        return shown.expand(-1, 3, -1, -1)
    places = ((shown[:, 0].clamp(-1, 1) + 1) / 2 * (COLOURS - 1)).round().long()  # (B, H, W)
    table = colours_of(space.colour_map, COLOURS).to(images.device)
    return table[:, places].transpose(0, 1) * 2 - 1


def with_scale_bar(sheet: Image.Image, space: Space) -> Image.Image:
    """Add a bar below a sheet that says which numbers the colours of its one band stand for.

    A sheet of three bands, or of a space that chooses none, is returned as it is.
    """
    if len(space.show) != 1:
        return sheet
    low, high = space.ranges[space.show[0] - 1]
    ramp = torch.linspace(-1, 1, sheet.width).expand(1, space.channels, BAR_PX, -1)
    pixels = ((as_rgb(ramp, space)[0] + 1) * 127.5).round().byte().permute(1, 2, 0)  # (H, W, 3)
    result = Image.new("RGB", (sheet.width, sheet.height + BAR_PX + TEXT_PX), "white")
    result.paste(sheet, (0, 0))
    result.paste(Image.fromarray(pixels.contiguous().numpy()), (0, sheet.height))
    draw = ImageDraw.Draw(result)
    y, last = sheet.height + BAR_PX + 1, f"{high:g} {space.unit}".strip()
    draw.text((1, y), f"{low:g}", fill="black")
    draw.text((max(1, sheet.width - 1 - draw.textlength(last)), y), last, fill="black")
    return result


def seen_bands(space: Space) -> str:
    """Which bands `as_rgb` shows, in words; empty for colours."""
    if not space.has_bands:
        return ""
    if len(space.show) == 3:
        return "bands {}, {} and {} as red, green and blue".format(*space.show)
    if space.show or space.channels != 3:
        return f"band {space.show[0] if space.show else 1} alone"
    return "bands 1, 2 and 3 as red, green and blue"


def shown_bands(space: Space) -> list[int]:
    """The bands that people see, counted from 1."""
    return list(space.show) or ([1, 2, 3] if space.channels == 3 else [1])


@cache
def colours_of(name: str, count: int) -> Tensor:
    """The colours of a map, (3, count) in [0, 1]."""
    from kornia.color import ColorMap

    return ColorMap(name, num_colors=count).colors.float()
