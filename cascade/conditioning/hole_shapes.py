"""Free-form holes for training: brush strokes, rectangles, and borders around what is known.

After Palette (Saharia et al. 2021, arXiv 2111.05826, section 4.2) and Yu et al. 2018 (arXiv
1806.03589): strokes stand for scratches and for what people paint over, rectangles for objects that
are cut out, borders for pictures that grow. All lengths are shares of the shorter side, so the
areas are the same at any size; `KINDS` states them as `tests/conditioning/test_mask.py` measures
them.

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.space import Size

KINDS = {  # share of the images
    "strokes": 0.6,  # cover up to 40 % of an image, 7 % on average
    "rectangle": 0.2,  # covers 4 to 49 %, 20 % on average
    "border": 0.2,  # covers 28 to 84 %, 60 % on average
}
LINES, SEGMENTS = 2, 5  # most lines of an image, and most segments of a line
LENGTH = (0.08, 0.35)  # of a segment
WIDTH = (0.012, 0.35)  # of the brush, drawn uniformly in its logarithm
LEAST_WIDTH_PX = 1.5  # so that every stroke covers a pixel
TURN = 0.8 * math.pi  # largest change of direction between segments, to either side
RECTANGLE, OUTCROP = (0.2, 0.7), (0.4, 0.85)  # sides of a rectangle, and of what a border leaves


def draw_holes(noise: SeededNoise, size_px: Size) -> Tensor:
    """Draw one hole per image.

    Args:
        noise: one random stream per image.
        size_px: height and width of the images.

    Returns:
        (B, 1, H, W) bool, True in the hole, which has at least one pixel.
    """
    place = noise.uniform().view(-1, 1, 1)
    strokes = _strokes(noise, size_px)
    hole = _rectangles(noise, size_px, RECTANGLE)
    border = ~_rectangles(noise, size_px, OUTCROP)
    first, second = KINDS["strokes"], KINDS["strokes"] + KINDS["rectangle"]
    chosen = torch.where(place < first, strokes, torch.where(place < second, hole, border))
    return chosen[:, None]


def _rectangles(noise: SeededNoise, size_px: Size, sides: tuple[float, float]) -> Tensor:
    """One rectangle inside each image, at least one pixel large: (B, H, W) bool."""
    u = noise.uniform(4)
    inside = torch.ones(len(u), *size_px, dtype=torch.bool, device=u.device)
    for axis, length in enumerate(size_px):
        side = ((sides[0] + (sides[1] - sides[0]) * u[:, axis]) * length).round().clamp(min=1)
        start = (u[:, 2 + axis] * (length - side + 1)).floor()
        places = torch.arange(length, device=u.device)
        within = (places >= start[:, None]) & (places < (start + side)[:, None])  # (B, length)
        inside &= within[:, :, None] if axis == 0 else within[:, None, :]
    return inside


def _strokes(noise: SeededNoise, size_px: Size) -> Tensor:
    """A few lines of a round brush in each image: (B, H, W) bool."""
    u = noise.uniform(LINES, 4 + 2 * SEGMENTS)
    height, width = size_px
    shorter = min(size_px)
    ys = torch.arange(height, device=u.device).view(-1, 1) + 0.5
    xs = torch.arange(width, device=u.device) + 0.5
    covered = torch.zeros(len(u), height, width, dtype=torch.bool, device=u.device)
    for line in range(LINES):
        y, x = u[:, line, 0] * height, u[:, line, 1] * width
        angle = 2 * math.pi * u[:, line, 2]
        thin, thick = map(math.log, WIDTH)
        brush = (thin + (thick - thin) * u[:, line, 3]).exp() * shorter
        radius = brush.clamp(min=LEAST_WIDTH_PX) / 2
        for segment in range(SEGMENTS):
            share, turn = u[:, line, 4 + 2 * segment], u[:, line, 5 + 2 * segment]
            angle = angle + TURN * (2 * turn - 1)
            length = (LENGTH[0] + (LENGTH[1] - LENGTH[0]) * share) * shorter
            to_y, to_x = y + length * angle.sin(), x + length * angle.cos()
            distance = _squared_distance((ys, xs), (y, x), (to_y, to_x))
            # The second line and the later segments of a line are there in a part of the images.
            drawn = (line == 0) | (u[:, 0, 5] < 0.5)
            drawn &= segment <= SEGMENTS * u[:, line, 4]
            covered |= (distance <= radius.view(-1, 1, 1) ** 2) & drawn.view(-1, 1, 1)
            y, x = to_y, to_x
    return covered


def _squared_distance(
    grid: tuple[Tensor, Tensor], start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]
) -> Tensor:
    """Squared distance of the pixels of a grid from a segment of each image: (B, H, W)."""
    (ys, xs), (y, x) = grid, (each.view(-1, 1, 1) for each in start)
    along_y, along_x = (b.view(-1, 1, 1) - a for a, b in zip((y, x), end, strict=True))
    squared = along_y**2 + along_x**2
    share = (((ys - y) * along_y + (xs - x) * along_x) / squared).clamp(0, 1)
    return (ys - y - share * along_y) ** 2 + (xs - x - share * along_x) ** 2
