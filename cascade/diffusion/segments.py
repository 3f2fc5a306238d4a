"""Steps within segments of the noise levels, for consistency models of several steps.

Heek et al. 2024 (arXiv 2403.06807): the timesteps are cut into k segments, in each of which a model
maps an image at any t to the picture x0 with which one DDIM step reaches the segment's lower end e.
A teacher's small step from t to s, adjusted for the variance that the mean of all pictures lacks
(aDDIM, algorithm 3 there), carries the model's answer at s over to t.

With u = x / sigma and lambda = alpha / sigma, a DDIM step adds (lambda_s - lambda_t) x0 to u. So
the picture that leads from t to e is the average of those that lead from t to s and from s to e,
weighted by the rise of lambda. Written so, no small differences of large numbers are divided.

Shapes: B batch, C channels, H and W pixels, T training timesteps. All times are int64 on the CPU;
-1 stands for the clean image.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Segments:
    """The timesteps of a schedule, cut where a sampler of as many steps stops.

    Args:
        schedule: the noise schedule.
        count: number k of segments, from 1 to T.

    Raises:
        ContractError: if `count` is out of range.
    """

    schedule: NoiseSchedule
    count: int

    def __post_init__(self) -> None:
        self.schedule.sampling_timesteps(self.count)

    @property
    def ends(self) -> list[int]:
        """The k + 1 ends of the segments, rising from -1 to T - 1."""
        return [-1, *reversed(self.schedule.sampling_timesteps(self.count))]

    def draw(self, u: Tensor, grid_steps: int, *, last: int = 0) -> SegmentStep:
        """Draw a step of a grid that divides each segment evenly.

        Args:
            u: (B, 2) uniform numbers in [0, 1): for the segment and for the step in it.
            grid_steps: steps of the grid in all segments together. Each segment has at least one
                step, and at most one for each of its timesteps.
            last: the timestep from which a step leads to the clean image, in [0, T). Nothing is
                drawn below it, unless segments end below it, which many short ones do. Then the
                upper end of the lowest one takes its place, and timesteps between both are drawn.
        """
        count = max(1, round(grid_steps / self.count))
        grids = [_grid(*pair, count, last) for pair in itertools.pairwise(self.ends)]
        chosen: list[tuple[int, int, int]] = []
        for first, second in u.tolist():
            grid = grids[int(first * self.count)]
            place = int(second * (len(grid) - 1))
            chosen.append((grid[place + 1], grid[place], grid[0]))
        t, s, end = torch.tensor(chosen).unbind(dim=1)
        return SegmentStep(self.schedule, t, s, end)


def _grid(low: int, high: int, steps: int, last: int) -> list[int]:
    """The ends of at most `steps` even steps from `high` down to `low`, in rising order."""
    if low >= 0:
        return _even(low, high, steps)
    return [low, *(_even(last, high, steps - 1) if steps > 1 and last < high else [high])]


def _even(low: int, high: int, steps: int) -> list[int]:
    steps = min(steps, high - low)
    return [low + round((high - low) * number / steps) for number in range(steps + 1)]


def grid_steps(first: int, last: int, progress: float) -> int:
    """The number of steps of a grid that grows by a constant factor.

    Args:
        first: number at the start.
        last: number at the end.
        progress: position between them, in [0, 1].
    """
    return round(math.exp((1 - progress) * math.log(first) + progress * math.log(last)))


@dataclass(frozen=True)
class SegmentStep:
    """Steps of a batch from t to s, in segments that end at `end` <= s < t.

    Attributes:
        schedule: the noise schedule.
        t: (B,) timesteps in [0, T).
        s: (B,) earlier timesteps; -1 for the clean image.
        end: (B,) lower ends of the segments; -1 for the clean image.
    """

    schedule: NoiseSchedule
    t: Tensor
    s: Tensor
    end: Tensor

    def take(self, x0: Tensor, eps: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Take the adjusted step from t to s.

        A step to the clean image is not adjusted: x0 is returned, as by every sampler.

        Args:
            x0: (B, C, H, W) pictures that the teacher predicts.
            eps: (B, C, H, W) the noise in x_t for these pictures.
            variance: (B,) how far true pictures are from `x0`, as a mean square over all pixels.

        Returns:
            x_s (B, C, H, W), and the part (B, C, H, W) of the target that the adjustment adds.
        """
        (alpha_s, sigma_s), (alpha_e, sigma_e) = (
            self._alpha_sigma(self.s),
            self._alpha_sigma(self.end),
        )
        rate = self._rate(self.t)
        lost = _of_batch((alpha_s - rate * sigma_s) ** 2, x0) * variance.view(-1, 1, 1, 1)
        added = lost / (eps**2).mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        small, is_noisy = _of_batch(sigma_s, x0), _of_batch(self.s >= 0, x0)
        large = torch.where(is_noisy, (small**2 + added).sqrt(), 0.0)
        stretch = torch.where(is_noisy, large / small.clamp(min=1e-12) - 1, 0.0)
        share = _of_batch(sigma_e / (alpha_e - rate * sigma_e), x0)
        return _of_batch(alpha_s, x0) * x0 + large * eps, share * stretch * eps

    def target(self, x0: Tensor, later: Tensor, adjustment: Tensor) -> Tensor:
        """The picture with which one DDIM step from x_t at t reaches the end of the segment.

        Args:
            x0: (B, C, H, W) pictures that lead from t to s.
            later: (B, C, H, W) pictures that lead from s to the end; not used where s is the end.
            adjustment: what `take` returned besides x_s.
        """
        share = _of_batch(self._share_of_step(), x0)
        carried = torch.where(share == 1, x0, later)
        return share * x0 + (1 - share) * carried + adjustment

    def _share_of_step(self) -> Tensor:
        """The share (B,) of the step from t to s in the way from t to the end."""
        alpha_e, sigma_e = self._alpha_sigma(self.end)
        rise = self._rate(self.s.clamp(min=0)) - self._rate(self.t)
        share = rise * sigma_e / (alpha_e - self._rate(self.t) * sigma_e)
        return torch.where(self.s == self.end, 1.0, share)

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Scales of image and noise, (B,) float64; 1 and 0 for the clean image."""
        alpha_bar = torch.where(t >= 0, self.schedule.alpha_bar[t.clamp(min=0)], 1.0)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def _rate(self, t: Tensor) -> Tensor:
        """alpha / sigma of timesteps that are not clean: (B,) float64."""
        alpha, sigma = self._alpha_sigma(t)
        return alpha / sigma


def _of_batch(values: Tensor, images: Tensor) -> Tensor:
    """(B,) on the CPU -> (B, 1, 1, 1) float32 or bool beside the images."""
    values = values if values.dtype == torch.bool else values.float()
    return values.to(images.device).view(-1, 1, 1, 1)
