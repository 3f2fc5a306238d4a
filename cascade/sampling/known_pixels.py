"""Pixels of the result that are known before a walk begins.

Shapes: B images, C channels, H and W pixels of the canvas, h and w of the known image, N known
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.arguments import check_kind
from cascade.errors import ContractError
from cascade.sampling.samplers.sampler import PairSampler, Sampler, batch_of


@dataclass(frozen=True)
class Known:
    """Pixels of the result that are known beforehand.

    Attributes:
        image: (B, C, h, w) in [-1, 1], no larger than the canvas; B may be 1 for all images.
        mask: (h, w) bool, True at known pixels; or (B, h, w) if they differ between the images.

    Raises:
        ContractError: if they are no tensors of such a shape.
    """

    image: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        for name in ("image", "mask"):
            check_kind(f"the {name} of known pixels", getattr(self, name), Tensor, "a tensor")
        if self.image.ndim != 4 or self.mask.ndim not in (2, 3) or self.mask.dtype != torch.bool:
            raise ContractError(
                "known pixels must be an image (B, C, h, w) and a bool mask (h, w), got "
                f"{tuple(self.image.shape)} and {tuple(self.mask.shape)} {self.mask.dtype}."
            )


class KnownPixels:
    """Known pixels with the noise that the canvas has there.

    Args:
        known: the pixels.
        noise: (B, C, H, W), the noise of the canvas at the start.

    Raises:
        ContractError: if the pixels do not fit the canvas.
    """

    def __init__(self, known: Known, noise: Tensor) -> None:
        size, channels = known.mask.shape[-2:], noise.shape[1]
        fits = all(mine <= theirs for mine, theirs in zip(size, noise.shape[-2:], strict=True))
        if not fits or known.image.shape[-3:] != (channels, *size):
            raise ContractError(
                f"known pixels must be an image (B, {channels}, h, w) and a mask (h, w), no larger "
                f"than {tuple(noise.shape[-2:])}, got {tuple(known.image.shape)} and "
                f"{tuple(known.mask.shape)}."
            )
        masks = 1 if known.mask.ndim == 2 else len(known.mask)
        if {len(known.image), masks} - {1, len(noise)}:
            raise ContractError(
                f"known pixels must be for all {len(noise)} images or for 1, got "
                f"{len(known.image)}{'' if masks == 1 else f' and masks for {masks}'}."
            )
        mask = known.mask.expand(len(noise), *size).to(noise.device)
        self._places = mask.nonzero(as_tuple=True)  # (N,) images, rows and columns
        self._x0 = self._taken(known.image.expand(len(noise), -1, -1, -1).to(noise))
        self._eps = self._taken(noise)

    def put_into(self, canvas: Tensor, sampler: Sampler, index: int | None) -> None:
        """Write the pixels into the canvas, as noisy as before step `index`, or clean for None."""
        value = self._x0 if index is None else sampler.noised(self._x0, self._eps, index)
        canvas.transpose(0, 1)[:, *self._places] = value[0, ..., 0].to(canvas)

    def follow_back(self, fresh: Tensor, sampler: PairSampler, index: int, earlier: int) -> None:
        """Take the noise that the canvas has at the known pixels after a jump back.

        Args:
            fresh: (B, C, H, W), the noise that the jump added.
            sampler: the sampler of the walk.
            index: number of the state before the jump; see `PairSampler.take_back`.
            earlier: number of the state after it.
        """
        is_clean = index == len(sampler.timesteps)
        pixels = self._x0.clone() if is_clean else sampler.noised(self._x0, self._eps, index)
        sampler.take_back(pixels, self._taken(fresh), index, earlier)
        t = batch_of(sampler.timesteps[earlier], pixels)
        self._eps = sampler.process.eps(self._x0, pixels, t)

    def _taken(self, images: Tensor) -> Tensor:
        """The values of images (B, C, H, W) at the known pixels: (1, C, N, 1)."""
        return images.transpose(0, 1)[:, *self._places][None, ..., None].clone()
