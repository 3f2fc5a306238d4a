"""The quality of the JPEG that a picture once was: from its file's tables, or from its pixels.

A JPEG rounds the waves in each block of 8 px to multiples of a step, and the table of the steps
follows from the quality. Pixels that were decoded from a JPEG still show it: their waves gather
around multiples of those steps (Fan & de Queiroz 2003, section III).

Shapes: C channels, H and W pixels, N blocks, Q qualities, K waves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.conditioning.patches import luminance_patches, waves_of
from cascade.space import UNITS_8_BIT

# Annex K of ITU-T T.81, the luminance table of libjpeg's quality 50.
STANDARD_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
BLOCK_PX = 8
MOST_BLOCKS = 2**12
NO_LOSS = 100.0  # no compression shows
QUALITIES = range(5, 96)
MOST_WAVE = 4  # waves whose indices add up to at most this are looked at
LEAST_STEP = 2.5  # 8-bit steps; smaller ones are lost in the rounding of the pixels
LEAST_WAVES = 24  # that are not rounded to zero, so that their multiples can be told from chance
LEAST_GATHERING = 0.5  # from 0 for chance to 1 for exact multiples
NEARLY_BEST = (
    0.95  # a quality that is lower, and explains the waves nearly as well, is the true one
)


def step_tables(qualities: Sequence[int]) -> Tensor:
    """The steps (Q, 8, 8) of libjpeg for qualities from 1 to 100."""
    table = torch.tensor(STANDARD_TABLE)
    scales = [5000 // each if each < 50 else 200 - 2 * each for each in qualities]
    return torch.stack([((table * scale + 50) // 100).clamp(1, 255) for scale in scales]).double()


def quality_of_table(steps: Sequence[int]) -> float:
    """The quality, from 1 to 100, whose luminance table is as coarse as that of a file.

    Args:
        steps: the 64 steps in any order.
    """
    sums = step_tables(range(1, 101)).sum(dim=(1, 2))
    return 1.0 + int((sums - float(sum(steps))).abs().argmin())


def jpeg_quality(image: Tensor) -> float:
    """Measure the JPEG quality of a picture by its pixels.

    Args:
        image: (C, H, W) in [-1, 1], of one or three channels.

    Returns:
        The quality from 5 to 95; 100 if no compression shows.
    """
    return min(_quality_on_grid(image, start) for start in {(0, 0), grid_start(image)})


def grid_start(image: Tensor) -> tuple[int, int]:
    """Row and column from 0 to 7 where a grid of blocks most likely begins, by its edges."""
    grey = luminance(image[None])[0, 0] * UNITS_8_BIT
    return _phase(grey), _phase(grey.T)


def _phase(grey: Tensor) -> int:
    """The row from 0 to 7, before which neighbouring rows differ most, beyond a smooth change."""
    rows = len(grey) // BLOCK_PX * BLOCK_PX
    if rows < 3 * BLOCK_PX:
        return 0
    steps = grey[1:] - grey[:-1]  # step i lies before row i + 1
    bends = (steps[1:-1] - (steps[:-2] + steps[2:]) / 2).abs().clamp(max=16).mean(dim=1)
    bends = bends[: len(bends) // BLOCK_PX * BLOCK_PX]  # bend i lies before row i + 2
    return (int(bends.view(-1, BLOCK_PX).mean(dim=0).argmax()) + 2) % BLOCK_PX


def _quality_on_grid(image: Tensor, start_px: tuple[int, int]) -> float:
    """The quality for blocks that begin at a row and column; 100 if no compression shows."""
    blocks = luminance_patches(
        image, BLOCK_PX, grid_px=BLOCK_PX, most=MOST_BLOCKS, start_px=start_px
    )
    waves = waves_of(blocks.unique(dim=0).double())  # equal blocks prove no more than one does
    n = torch.arange(BLOCK_PX)
    is_low = (n[:, None] + n <= MOST_WAVE) & (n[:, None] + n > 0)  # whole numbers gather in means
    waves, steps = waves[:, is_low], step_tables(list(QUALITIES))[:, is_low]  # (N, K), (Q, K)
    scores = torch.stack([_gathering(waves, each) for each in steps])
    if scores.max() < LEAST_GATHERING:
        return NO_LOSS
    return float(QUALITIES[int((scores >= NEARLY_BEST * scores.max()).nonzero()[0])])


def _gathering(waves: Tensor, steps: Tensor) -> Tensor:
    """How closely waves (N, K) gather around multiples of their steps (K,), other than zero."""
    is_counted = (waves.abs() > steps / 2) & (steps >= LEAST_STEP)
    if is_counted.sum() < LEAST_WAVES:
        return torch.zeros((), dtype=waves.dtype)
    return torch.cos(2 * math.pi * waves / steps)[is_counted].mean()
