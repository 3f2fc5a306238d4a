"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), everywhere or in an interval.

Shapes: B batch, C channels of the prediction, C' channels with learned variances after them, H and
W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from cascade.conditioning.signals import Signals
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.kept_features import KeptFeatures

Predict = Callable[[Tensor, Tensor, Signals], Tensor]
PredictReusing = Callable[[Tensor, Tensor, Signals, KeptFeatures | None], Tensor]


@dataclass(frozen=True)
class Guidance:
    """Pushes predictions away from those without conditions.

    Attributes:
        scale: guidance scale; 1 for no guidance, 0 for predictions without conditions.
        interval: lowest and highest noise level sigma / alpha at which guidance is applied; None
            for all levels (Kynkäänniemi et al. 2024, arXiv 2404.07724).

    Raises:
        ContractError: if a number is not finite, or the interval is not 0 <= low < high.
    """

    scale: float = 1.0
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ContractError(f"guidance must be a finite number, got {self.scale}.")
        low, high = self.interval or (0.0, 1.0)
        if not (math.isfinite(low) and 0 <= low < high):
            raise ContractError(f"guidance_interval must be 0 <= low < high, got ({low}, {high}).")

    def applies(self, alpha_bar: float) -> bool:
        """Whether predictions at a noise level are guided.

        Args:
            alpha_bar: cumulative alpha of the timestep, in [0, 1].
        """
        if self.scale == 1:
            return False
        if self.interval is None:
            return True
        low, high = self.interval
        sigma = math.sqrt((1 - alpha_bar) / alpha_bar) if alpha_bar > 0 else math.inf
        return low < sigma <= high

    def output(
        self, predict: Predict, x_t: Tensor, t: Tensor, signals: Signals, without: Signals
    ) -> Tensor:
        """The guided prediction, from one forward pass over both halves.

        Args:
            predict: called as `predict(x_t, t, signals)`.
            x_t: (B, C, H, W) noisy images.
            t: (B,) timesteps.
            signals: the signals of all conditions.
            without: the signals from which to push away.

        Returns:
            (B, C', H, W).
        """
        both = predict(torch.cat([x_t, x_t]), torch.cat([t, t]), signals.concatenate(without))
        conditional, unconditional = both.float().chunk(2)
        return guide(conditional, unconditional, self.scale, channels=x_t.shape[1])


@dataclass(frozen=True)
class GuidedSignals:
    """The signals of a call, and those from which guidance pushes away.

    Attributes:
        own: the signals of all conditions.
        against: the signals from which guidance pushes away, of those conditions whose signals
            differ; the other half of a guided step shares the rest.
    """

    own: Signals
    against: Signals = field(default_factory=Signals)

    @property
    def other(self) -> Signals:
        """The signals of the other half of a guided step."""
        joined = self.own.merged(self.against)
        return joined.without_features() if self.against.channels else joined

    def map(self, change: Callable[[Tensor], Tensor]) -> GuidedSignals:
        """Apply a function to every tensor."""
        return GuidedSignals(self.own.map(change), self.against.map(change))

    def concatenate(self, other: GuidedSignals) -> GuidedSignals:
        """Stack two batches for one forward pass over both."""
        against = self.against.concatenate(other.against)
        return GuidedSignals(self.own.concatenate(other.own), against)

    def window(self, rows: slice, columns: slice) -> GuidedSignals:
        """The signals of a window of the result."""
        return GuidedSignals(self.own.window(rows, columns), self.against.window(rows, columns))


@dataclass(frozen=True)
class GuidedNetwork:
    """A stage's network with guidance.

    Attributes:
        predict: the stage's prediction, called as `predict(x_t, t, signals, kept)`.
        guidance: scale and interval.
        schedule: noise schedule of the stage.
        precision: makes the context in which the network computes.
    """

    predict: PredictReusing
    guidance: Guidance
    schedule: NoiseSchedule
    precision: Callable[[], AbstractContextManager]

    def __call__(
        self, x_t: Tensor, t: int, signals: GuidedSignals, kept: KeptFeatures | None = None
    ) -> Tensor:
        """The output (B, C', H, W) for x_t (B, C, H, W) at one timestep.

        Args:
            x_t: noisy images.
            t: timestep.
            signals: signals of both halves.
            kept: features that the calls for these images share; None to share none.
        """
        times = torch.full((len(x_t),), t, dtype=torch.long, device=x_t.device)
        is_guided = self.guidance.applies(self.schedule.alpha_bar_at(t))
        if kept is not None:
            kept.begin_call(is_guided)
        with self.precision():
            if not is_guided:
                return self.predict(x_t, times, signals.own, kept)
            if self.guidance.scale == 0:  # nothing of the conditional half would remain
                return self.predict(x_t, times, signals.other, kept)
            own = signals.own.enlarged()  # as the other half is
            predict = partial(_keeping, self.predict, kept)
            return self.guidance.output(predict, x_t, times, own, signals.other)


def _keeping(
    predict: PredictReusing, kept: KeptFeatures | None, x_t: Tensor, t: Tensor, signals: Signals
) -> Tensor:
    return predict(x_t, t, signals, kept)


def guide(conditional: Tensor, unconditional: Tensor, scale: float, *, channels: int) -> Tensor:
    """Push a prediction away from the unconditional one.

    Args:
        conditional: (B, C', H, W) output with the conditions.
        unconditional: (B, C', H, W) output without them, for the same noisy image.
        scale: guidance scale; 1 returns the conditional output.
        channels: number C of leading channels that are the prediction. Learned variances after
            them are not guided, because a variance pushed too far is no variance.

    Returns:
        (B, C', H, W).
    """
    guided = unconditional + scale * (conditional - unconditional)
    return torch.cat([guided[:, :channels], conditional[:, channels:]], dim=1)
