"""Fill the colours that are hidden under full transparency.

Nobody sees them, but a network and a filter do: the black or white that programs leave there would
bleed into the edge of what is visible.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from torch import Tensor

from cascade.conditioning.filling import filled


def fill_hidden(colour: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colours of their visible neighbours.

    Args:
        colour: (C, H, W), of any range.
        alpha: (1, H, W); 0 is fully transparent.

    Returns:
        (C, H, W) float32. Visible pixels keep their values; if none is visible, all pixels do.
    """
    visible = alpha != 0
    colour = colour.float()
    if visible.all() or not visible.any():
        return colour
    return filled(colour[None], visible[None])[0]
