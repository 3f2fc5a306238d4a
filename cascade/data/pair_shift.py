"""Measures the shift between the two images of a pair, to a fraction of a pixel.

By phase correlation (Kuglin & Hines 1975): a shift only changes the phases of the spectrum. So its
amplitudes are levelled, which makes the measurement blind to blur, colours and contrast, inverted
ones included. High frequencies hold mostly noise, and count less. The peak is then found between
the pixels by a Fourier transform of that place alone (Guizar-Sicairos et al. 2008,
doi:10.1364/OL.33.000156). How far it can be wrong follows from how far the phases are from those of
this shift: noise on a smooth image, such as the grain of paper under a sky, moves the peak.

Shapes: C and C' bands, H and W pixels of the larger image, h and w of the smaller one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_PX = 512  # side of the middle part that is looked at
SMALLEST_PX = 32  # side of an image whose shift can be measured
WHITENING = 0.8  # power of the amplitudes by which the spectrum is divided; 1 trusts noise too much
LOW_PASS = 0.07  # standard deviation of the weights of frequencies, in cycles per pixel
PEAK_PX = math.ceil(3 / (2 * math.pi * LOW_PASS))  # half the width of a peak
STEP_PX = 0.02  # of the last search
REACH_PX = 1.0  # of the last search, around the nearest whole pixel
CERTAIN_PEAK = 12.0  # height above which a peak is no chance, in root mean squares of the rest
HANN_BINS = 1.5  # neighbouring frequencies, along each side, that a Hann window mixes
LARGEST_ERROR = 3.0  # standard errors within which the true shift is taken to lie


class Shift(NamedTuple):
    """How far one image lies from another, in pixels of the smaller one.

    Attributes:
        x_px: to the right.
        y_px: downwards.
        peak: height of the peak of the correlation, in root mean squares of the rest.
        covariance_px2: of the errors of x and y: xx, xy and yy.
    """

    x_px: float
    y_px: float
    peak: float
    covariance_px2: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def distance_px(self) -> float:
        """Length of the shift in pixels."""
        return math.hypot(self.x_px, self.y_px)

    @property
    def error_px(self) -> float:
        """Standard error of the length of the shift in pixels."""
        xx, xy, yy = self.covariance_px2
        length = self.distance_px
        if length == 0:
            return math.sqrt(max(xx, yy))
        x, y = self.x_px / length, self.y_px / length
        return math.sqrt(max(0.0, x * x * xx + 2 * x * y * xy + y * y * yy))

    def is_beyond(self, limit_px: float) -> bool:
        """Whether the images lie further apart than a limit in pixels, beyond doubt."""
        return self.is_certain and self.distance_px - LARGEST_ERROR * self.error_px > limit_px

    @property
    def is_certain(self) -> bool:
        """Whether the images show the same, so that the shift means something."""
        return self.peak >= CERTAIN_PEAK

    @property
    def with_error(self) -> str:
        """Its length and the standard error that it is judged by: `1.48 ± 0.02 px`."""
        return f"{self.distance_px:.2f} ± {self.error_px:.2f} px"

    @property
    def direction(self) -> str:
        """Where it goes: `+1.40 right, -0.48 down`."""
        return f"{self.x_px:+.2f} right, {self.y_px:+.2f} down"

    def __str__(self) -> str:
        return f"{self.with_error} ({self.direction})"


UNKNOWN = Shift(0.0, 0.0, 0.0)


def measured_shift(image: Tensor, partner: Tensor) -> Shift:
    """Measure how far an image lies from its smaller partner.

    Args:
        image: (C, H, W), any numbers.
        partner: (C', h, w), whose h and w divide H and W.

    Returns:
        The shift of the image against its partner; not certain if they show different things, or
        too little.
    """
    size = (partner.shape[-2], partner.shape[-1])
    second = F.adaptive_avg_pool2d(image.float().mean(0, keepdim=True), size)[0]
    first = partner.float().mean(0)
    shift = _correlated(first, second)
    x, y = round(shift.x_px), round(shift.y_px)
    if not shift.is_certain or x == y == 0:
        return shift
    rest = _correlated(_overlap(first, -x, -y), _overlap(second, x, y))
    if not rest.is_certain:
        return shift
    return Shift(x + rest.x_px, y + rest.y_px, shift.peak, rest.covariance_px2)


def _overlap(image: Tensor, x: int, y: int) -> Tensor:
    """The part of an image (h, w) that lies in another one too, which is x, y pixels before it."""
    rows = slice(max(0, y), image.shape[0] + min(0, y))
    return image[rows, max(0, x) : image.shape[1] + min(0, x)]


def _correlated(first: Tensor, second: Tensor) -> Shift:
    """The shift of the second image (h, w) against the first one, by phase correlation."""
    first, second = _windowed(first), _windowed(second)
    if min(first.shape) < SMALLEST_PX:
        return UNKNOWN
    cross = torch.fft.fft2(second) * torch.fft.fft2(first).conj()
    amplitude = cross.abs()
    if not amplitude.max() > 0:
        return UNKNOWN
    down, right = (torch.fft.fftfreq(side, dtype=torch.float64) for side in first.shape)
    weights = torch.exp(-(down[:, None] ** 2 + right[None] ** 2) / (2 * LOW_PASS**2))
    floor = amplitude.max() * torch.finfo(torch.float64).eps
    spectrum = weights * cross / amplitude.clamp(min=floor) ** WHITENING  # (h, w)
    correlation = torch.fft.ifft2(spectrum).real
    place = int(correlation.abs().argmax())
    y, x = place // correlation.shape[1], place % correlation.shape[1]
    peak = float(correlation[y, x].abs() / _rest(correlation, y, x))
    y_px, x_px = (
        float(at) - side if at > side // 2 else float(at)
        for at, side in zip((y, x), correlation.shape, strict=True)
    )
    spectrum = spectrum * correlation[y, x].sign()
    x_px, y_px = _refined(spectrum, x_px, y_px)
    return Shift(x_px, y_px, peak, _covariance(spectrum, x_px, y_px))


def _windowed(image: Tensor) -> Tensor:
    """The middle of an image (h, w) without its mean, fading out towards the edges, in float64."""
    part = [min(side, LARGEST_PX) for side in image.shape]
    y, x = ((side - cut) // 2 for side, cut in zip(image.shape, part, strict=True))
    middle = image[y : y + part[0], x : x + part[1]].double()
    rows, columns = (torch.hann_window(side, periodic=False, dtype=torch.float64) for side in part)
    return (middle - middle.mean()) * rows[:, None] * columns[None]


def _rest(correlation: Tensor, y: int, x: int) -> Tensor:
    """Root mean square of a correlation (h, w) away from its peak."""
    others = correlation.roll((PEAK_PX - y, PEAK_PX - x), (0, 1)).clone()
    others[: 2 * PEAK_PX + 1, : 2 * PEAK_PX + 1] = 0
    return others.square().mean().sqrt().clamp(min=torch.finfo(torch.float64).tiny)


def _refined(spectrum: Tensor, x_px: float, y_px: float) -> tuple[float, float]:
    """Find the peak around a place of the transform of a spectrum (h, w), between the pixels."""
    steps = torch.arange(-REACH_PX, REACH_PX + STEP_PX / 2, STEP_PX, dtype=torch.float64)
    down, right = (torch.fft.fftfreq(side, dtype=torch.float64) for side in spectrum.shape)
    rows = torch.exp(2j * math.pi * (y_px + steps)[:, None] * down[None])  # (steps, h)
    columns = torch.exp(2j * math.pi * right[:, None] * (x_px + steps)[None])  # (w, steps)
    values = (rows @ spectrum @ columns).real
    place = int(values.argmax())
    y, x = place // len(steps), place % len(steps)
    return x_px + float(steps[x]), y_px + float(steps[y])


def _covariance(spectrum: Tensor, x_px: float, y_px: float) -> tuple[float, float, float]:
    """Covariance of the errors of a shift: xx, xy and yy, in square pixels.

    The sandwich of an M-estimator (Huber 1967): a shift is the maximum of a sum over frequencies,
    whose curvature says how sharp it is, and whose slopes, which cancel in the sum, how noisy.

    Args:
        spectrum: (h, w), weighted and levelled.
        x_px: the shift to the right.
        y_px: the shift downwards.
    """
    down, right = (torch.fft.fftfreq(side, dtype=torch.float64) for side in spectrum.shape)
    angles = 2 * math.pi * torch.stack(torch.meshgrid(right, down, indexing="xy")).flatten(1)
    shift = torch.tensor([x_px, y_px], dtype=torch.float64)
    rest = spectrum.flatten() * torch.exp(1j * (shift @ angles))
    curvature = (angles * rest.real) @ angles.T
    slopes = (angles * rest.imag.square()) @ angles.T
    inverse = torch.linalg.pinv(curvature)
    mixed = 2 * HANN_BINS**2  # each frequency is there twice, as a real image has it
    covariance = mixed * inverse @ slopes @ inverse
    return float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])
