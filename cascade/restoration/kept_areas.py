"""Areas of a picture whose look the input leaves no doubt about: neutral ones and flat ones.

A network that draws detail also draws a little colour where there is none, and a little noise on a
flat background. Both are taken out of its result:

- A picture whose channels are equal, apart from what compression adds, is grey. It is upscaled as
  one channel.
- In other pictures, the colour differences of neutral areas are those of the input, upscaled; the
  luminance is the network's. Nothing else is desaturated, so a faint tint of the input stays.
- Where all channels of the input are constant, the result has exactly that value. All channels
  together, since the network draws texture in all of them: one held alone would tint the texture
  of the others. Only equal values count as constant, so noise is never smoothed away.

The neighbourhood that must be neutral or flat reaches as far as one pixel of the input shows in a
result: 2 input pixels, the radius of the bicubic kernels that resize pictures and that make results
consistent. A ramp of 2 more pixels joins these areas to the rest.

`NEUTRAL_LEVELS` was measured on grey pictures (smooth texture, a ramp, noise, small text) that were
stored as RGB. JPEG of quality 30 to 100, 4:2:0 and 4:4:4, and AVIF leave their channels equal; WebP
leaves them 1 of 255 apart, also when it is saved twice. Channels that are one step of JPEG chroma
away from neutral in both directions are 3 apart: that is the error that rounding before the
compression can cause. A faint sepia of 10 % of a usual tone is 4 to 6 apart.

Shapes: B images, C channels, h and w pixels of the input, H and W of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.resizing import upscaled_rows

NEUTRAL_LEVELS = 3  # of 255: largest difference between the channels of a neutral pixel
COLOURED_LEVELS = 12  # of 255: from this difference on, the network's colours are used unchanged
TINT_LEVELS = 1  # of 255: largest mean difference between the channels of a grey picture
REACH_PX = 2  # input pixels that one input pixel shows in, to each side
LEVEL = 2 / 255  # of 255, in [-1, 1]
BAND_PX = 512

Bands = Iterable[tuple[slice, Tensor]]


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


class KeptAreas:
    """The neutral and the flat areas of one input, to be kept in results of any size.

    Args:
        image: (1, C, h, w) in [-1, 1].
        has_colours: whether the channels are red, green and blue; otherwise no area is neutral.
    """

    def __init__(self, image: Tensor, *, has_colours: bool) -> None:
        self._image = image
        self._flatness = _flatness(image)  # (1, 1, h, w): 1 in flat areas, 0 in others
        self._colour = _colour_share(image) if has_colours else None  # 0 in neutral areas

    def restore(self, result: Tensor) -> None:
        """Restore the areas of a whole result (1, C, H, W), in place."""
        size_px = (result.shape[-2], result.shape[-1])
        for first in range(0, size_px[0], BAND_PX):
            rows = slice(first, min(first + BAND_PX, size_px[0]))
            result[..., rows, :] = self._restored(result[..., rows, :], rows, size_px)

    def restored_bands(
        self, bands: Bands, size_px: tuple[int, int]
    ) -> Iterator[tuple[slice, Tensor]]:
        """Restore the areas of bands of rows (1, C, rows, W) of a result of height and width."""
        for rows, band in bands:
            yield rows, self._restored(band, rows, size_px)

    def _restored(self, band: Tensor, rows: slice, size_px: tuple[int, int]) -> Tensor:
        source = upscaled_rows(self._image, size_px, rows)  # (1, C, rows, W)
        if self._colour is not None:
            share = upscaled_rows(self._colour, size_px, rows)
            if share.min() < 1:
                band = _with_colours_of(source, band, share)
        flatness = upscaled_rows(self._flatness, size_px, rows)
        # Two thirds are enough to be flat, so that interpolation does not reach into flat pixels.
        return torch.lerp(band, source, (1.5 * flatness).clamp(max=1)) if flatness.any() else band


def _with_colours_of(source: Tensor, band: Tensor, share: Tensor) -> Tensor:
    """Take the colour differences of the source, as far as `share` is below 1."""
    grey = luminance(band)
    own, drawn = source - luminance(source), band - grey
    return (grey + torch.lerp(own, drawn, share)).clamp(-1, 1)


def _spread(image: Tensor) -> Tensor:
    """Difference between the largest and the smallest channel: (..., 1, h, w)."""
    return image.amax(dim=-3, keepdim=True) - image.amin(dim=-3, keepdim=True)


def _colour_share(image: Tensor) -> Tensor:
    """How much of the network's colours to use: (1, 1, h, w), 0 in neutral areas, 1 in coloured."""
    excess = _spread(image) / LEVEL - NEUTRAL_LEVELS - 0.5
    share = (excess / (COLOURED_LEVELS - NEUTRAL_LEVELS)).clamp(0, 1)
    return _smoothed(_largest(share, REACH_PX + 1))


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
