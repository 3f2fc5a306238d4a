"""Keeps the predicted image in range: static clipping and Imagen's dynamic thresholding.

Dynamic thresholding is from Saharia et al. 2022 (arXiv 2205.11487, section 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from cascade.errors import ContractError

Threshold = Literal["none", "static", "dynamic"]


@dataclass(frozen=True)
class Thresholding:
    """How a predicted image is kept in range.

    Attributes:
        kind: see `apply_threshold`.
        percentile: percentile of |x0| at which the dynamic threshold clips, in (0, 1].
        cap: largest number at which the dynamic threshold clips, above 1; None for any.

    Raises:
        ContractError: for an unknown kind, or a number out of range.
    """

    kind: Threshold = "static"
    percentile: float = 0.995
    cap: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Threshold):
            raise ContractError(
                f"threshold must be one of {get_args(Threshold)}, got {self.kind!r}."
            )
        if not isinstance(self.percentile, int | float) or not 0 < self.percentile <= 1:
            raise ContractError(f"percentile must be in (0, 1], got {self.percentile!r}.")
        if self.cap is not None and not (isinstance(self.cap, int | float) and self.cap > 1):
            raise ContractError(f"threshold_cap must be above 1, got {self.cap!r}.")

    @property
    def by_pixel(self) -> bool:
        """Whether each pixel is thresholded on its own, so that an image can come in parts."""
        return self.kind != "dynamic"

    def apply(self, x0: Tensor) -> Tensor:
        """Threshold x0 (B, C, H, W)."""
        return apply_threshold(x0, self.kind, percentile=self.percentile, cap=self.cap)


def apply_threshold(
    x0: Tensor, kind: Threshold, *, percentile: float = 0.995, cap: float | None = None
) -> Tensor:
    """Bring x0 into [-1, 1].

    Args:
        x0: (B, C, H, W).
        kind: `none`; `static`, which clips; or `dynamic`, which clips each image at its own
            percentile of |x0| where that exceeds 1, and divides by it.
        percentile: percentile of |x0| at which `dynamic` clips, in (0, 1].
        cap: largest number at which `dynamic` clips, above 1; None for any.

    Returns:
        (B, C, H, W), in [-1, 1] unless `kind` is `none`.
    """
    if kind == "none":
        return x0
    if kind == "static":
        return x0.clamp(-1, 1)
    scale = _quantile(x0.detach().abs().flatten(1).float(), percentile)  # (B,)
    scale = scale.clamp(min=1, max=cap).view(-1, 1, 1, 1).to(x0.dtype)
    return x0.clamp(-scale, scale) / scale


def _quantile(values: Tensor, q: float) -> Tensor:
    """Quantile of each row by sorting, because torch.quantile refuses more than 16 M elements."""
    position = q * (values.shape[1] - 1)
    below = int(position)
    ordered = values.sort(dim=1).values
    above = min(below + 1, values.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], position - below)
