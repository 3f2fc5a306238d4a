"""Areas of a picture whose look the input leaves no doubt about: neutral ones and flat ones.

A network that draws detail also draws a little colour where there is none, and a little noise on a
flat background. Both are taken out of its result:

- A picture whose channels are equal, apart from what compression adds, is grey. It is upscaled as
  one channel.
- In other pictures, the colour differences of neutral areas are those of the input, upscaled; the
  luminance is the network's. Nothing is desaturated, so a faint tint of the input stays.
- Neutral pixels beside coloured ones get colour differences that are at most a little outside the
  range of the input around them, so a network draws no halo of another colour around a red stamp.
- Where all channels of the input are constant, the result has exactly that value. All channels
  together, since the network draws texture in all of them: one held alone would tint the texture
  of the others. Only equal values count as constant, so noise is never smoothed away.

The neighbourhood that must be neutral or flat reaches as far as one pixel of the input shows in a
result: 2 input pixels, the radius of the bicubic kernels that resize pictures and that make results
consistent. A ramp of 2 more pixels joins these areas to the rest.

`NEUTRAL_LEVELS` was measured on grey pictures (smooth texture, a ramp, noise, small text) that were
stored as RGB. JPEG of quality 30 to 100, 4:2:0 and 4:4:4, and AVIF leave their channels equal; WebP
leaves them 1 of 255 apart, also when it is saved twice. If channels differ before the compression
because of rounding, an area may end one step of JPEG chroma away from neutral in both directions:
that is 3 of 255. Noise that differs between the channels counts as colour: a random level up or
down in each leaves them up to 8 of 255 apart in a JPEG of quality 100. Tinted photographs are
further apart: a sepia whose red is 4 % above and whose blue is 4 % below its green is 10 apart at
middle grey, and a uniform tint is no rounding.

Shapes: B images, C channels, h and w pixels of the input, H and W of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.mapped_arrays import NUMBERS_AT_ONCE, release_pages
from cascade.resizing import upscaled_rows

NEUTRAL_LEVELS = 3  # of 255: largest difference between the channels of a neutral pixel
COLOURED_LEVELS = 12  # of 255: from this difference on, the network's colours are used unchanged
TINT_LEVELS = 1  # of 255: largest mean difference between the channels of a grey picture
REACH_PX = 2  # input pixels that one input pixel shows in, to each side
MARGIN_PX = REACH_PX + 4  # input pixels around a band that its areas depend on
RANGE_SLACK_LEVELS = 1  # of 255, by which the range of colour differences around is widened
LEVEL = 2 / 255  # of 255, in [-1, 1]
BAND_PX, LEAST_BAND_PX = 512, 64


def bands_of_rows(shape: Sequence[int]) -> Iterator[slice]:
    """The rows of a result (…, C, H, W) that are worked on together: fewer if it is very wide."""
    height = min(BAND_PX, max(LEAST_BAND_PX, NUMBERS_AT_ONCE // (shape[-1] * shape[-3])))
    for first in range(0, shape[-2], height):
        yield slice(first, min(first + height, shape[-2]))


def is_grey(image: Tensor) -> bool:
    """Whether the channels of an image are equal, apart from what compression adds.

    A faint tint of the whole image makes it a colour image.

    Args:
        image: (1, 1 or 3, h, w) in [-1, 1].
    """
    if image.shape[1] == 1:
        return True
    tolerance = (NEUTRAL_LEVELS + 0.5) * LEVEL
    total = torch.zeros(3, dtype=torch.float64)
    for rows in image.split(BAND_PX, dim=-2):  # most colour images end at the first
        if _spread(rows).max() > tolerance:
            return False
        total += rows[0].sum(dim=(-2, -1), dtype=torch.float64)
    means = total / image[0, 0].numel()
    return bool(means.max() - means.min() <= TINT_LEVELS * LEVEL)


@dataclass(frozen=True)
class KeptAreas:
    """The neutral and the flat areas of one input, to be kept in results of any size.

    Attributes:
        image: (1, C, h, w) in [-1, 1].
        has_colours: whether the channels are red, green and blue; otherwise no area is neutral.
        are_kept: whether there are such areas at all; if not, nothing is changed.
    """

    image: Tensor
    has_colours: bool
    are_kept: bool = True

    def restore(self, result: Tensor) -> None:
        """Restore the areas of what a network drew, or of its resampled result, in place.

        Args:
            result: (1, C, H, W) in [-1, 1].
        """
        if not self.are_kept:
            return
        size_px = (result.shape[-2], result.shape[-1])
        for rows in bands_of_rows(result.shape):
            source = _Source(self.image, size_px, rows)
            band = result[..., rows, :]
            if self.has_colours:
                band = source.with_neutral_areas(source.with_limited_colours(band))
            result[..., rows, :] = source.with_flat_areas(band)
            release_pages()

    def reduce_on(self, rows: slice, size_px: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        """Make the function that reduces corrections of a restored result, so that it stays so.

        Args:
            rows: rows of the result that corrections (1, C, rows, W) belong to.
            size_px: height and width of the whole result.
        """
        if not self.are_kept:
            return lambda correction: correction
        source = _Source(self.image, size_px, rows)
        free = 1 - source.flatness()
        share = source.colour_share() if self.has_colours else None

        def reduce(correction: Tensor) -> Tensor:
            if share is not None:
                correction = torch.lerp(luminance(correction), correction, share)
            return free * correction

        return reduce


class _Source:
    """The part of an input that one band of a result shows.

    Args:
        image: (1, C, h, w) in [-1, 1].
        size_px: height H and width W of the result.
        rows: rows of the band.
    """

    def __init__(self, image: Tensor, size_px: tuple[int, int], rows: slice) -> None:
        height = image.shape[-2]
        first = max(0, math.floor(rows.start * height / size_px[0]) - MARGIN_PX)
        last = min(height, math.ceil(rows.stop * height / size_px[0]) + MARGIN_PX)
        self._part = image[..., first:last, :]  # (1, C, part of h, w)
        self._grid = (size_px, rows, first, height)
        self._upscaled = self._on_band(self._part)  # (1, C, rows, W)

    def with_limited_colours(self, band: Tensor) -> Tensor:
        """Limit the colours of neutral pixels of a band to the range of the input around them."""
        share = self._on_band(_colour_share(self._part, 0))
        if share.min() == 1:
            return band
        own = self._part - luminance(self._part)
        low, high = -_largest(-own, REACH_PX), _largest(own, REACH_PX)
        slack = RANGE_SLACK_LEVELS * LEVEL * (high > low)
        low = -_smoothed(_largest(slack - low, 1))
        high = _smoothed(_largest(high + slack, 1))
        grey = luminance(band)
        drawn = band - grey
        limited = drawn.clamp(self._on_band(low), self._on_band(high))
        return (grey + torch.lerp(limited - luminance(limited), drawn, share)).clamp(-1, 1)

    def with_neutral_areas(self, band: Tensor) -> Tensor:
        """Give neutral areas of a band the colour differences of the input."""
        share = self.colour_share()
        if share.min() == 1:
            return band
        grey = luminance(band)
        own, drawn = self._upscaled - luminance(self._upscaled), band - grey
        return (grey + torch.lerp(own, drawn, share)).clamp(-1, 1)

    def with_flat_areas(self, band: Tensor) -> Tensor:
        """Give flat areas of a band the value of the input."""
        flatness = self.flatness()
        return torch.lerp(band, self._upscaled, flatness) if flatness.any() else band

    def colour_share(self) -> Tensor:
        """How much of the network's colours to use: (1, 1, rows, W), 0 in neutral areas."""
        share = self._on_band(_smoothed(_colour_share(self._part, REACH_PX + 1)))
        return (1.5 * share - 0.5).clamp(min=0)  # see `flatness`

    def flatness(self) -> Tensor:
        """1 in flat areas, 0 where the input varies: (1, 1, rows, W)."""
        # Two thirds are enough to be flat, as interpolation between the pixels of the input would
        # otherwise leave the outer half of each flat area's outermost pixels not quite flat.
        return (1.5 * self._on_band(_flatness(self._part))).clamp(max=1)

    def _on_band(self, part: Tensor) -> Tensor:
        """Upscale values (1, N, part of h, w) to the band: (1, N, rows, W)."""
        size_px, rows, first, height = self._grid
        return upscaled_rows(part, size_px, rows, first_row=first, height_px=height)


def _spread(image: Tensor) -> Tensor:
    """Difference between the largest and the smallest channel: (..., 1, h, w)."""
    return image.amax(dim=-3, keepdim=True) - image.amin(dim=-3, keepdim=True)


def _colour_share(image: Tensor, reach_px: int) -> Tensor:
    """How much of the network's colours to use: (1, 1, h, w), 0 if all around a pixel is neutral.

    Args:
        image: (1, 3, h, w) in [-1, 1].
        reach_px: how far around a pixel to look, to each side.
    """
    excess = _spread(image) / LEVEL - NEUTRAL_LEVELS - 0.5
    return _largest((excess / (COLOURED_LEVELS - NEUTRAL_LEVELS)).clamp(0, 1), reach_px)


def _flatness(image: Tensor) -> Tensor:
    """1 where the input is constant around a pixel, 0 where it is not: (1, 1, h, w)."""
    varies = torch.zeros_like(image[:, :1])
    for channel in image.split(1, dim=1):
        varies += (_largest(channel, 1) + _largest(-channel, 1)) > 0
    return 1 - _smoothed(_largest(varies.clamp(max=1), 1))


def _largest(image: Tensor, reach_px: int) -> Tensor:
    """The largest value of the square around each pixel."""
    return F.max_pool2d(image, 2 * reach_px + 1, stride=1, padding=reach_px)


def _smoothed(image: Tensor) -> Tensor:
    """Average over the 3x3 pixels around each, as far as they are inside the image."""
    return F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
