"""Noise-conditioning augmentation: a conditioning image with noise at a level that is embedded.

After CDM (Ho et al. 2021, arXiv 2106.15282): Gaussian noise is drawn once per image, and the
network receives its level. Training and sampling share these functions.

Shapes: B batch, C channels, h and w pixels of the conditioning image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.inputs import Request
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.mapped_arrays import bytes_in_memory, new_array, release_pages, row_slices
from cascade.space import Range, Size


def augment(images: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Add noise to conditioning images, keeping their variance.

    Args:
        images: (B, C, h, w) in [-1, 1], before upscaling.
        level: (B,) in [0, 1]: 0 leaves the image unchanged, 1 is pure noise.
        noise: (B, C, h, w) standard normal, drawn once per image.

    Returns:
        cos(pi/2 level) images + sin(pi/2 level) noise, (B, C, h, w).
    """
    angle = (level * math.pi / 2).view(-1, 1, 1, 1).to(images.dtype)
    return torch.cos(angle) * images + torch.sin(angle) * noise


def noised_image(
    name: str, image: Tensor, level: Tensor, noise: SeededNoise, *, scale: int
) -> Signals:
    """The signals of an augmented image: the image as channels, its level as a vector.

    Args:
        name: name of the condition whose signals these are.
        image: (B, C, h, w) in [-1, 1].
        level: (B,) in [0, 1].
        noise: random streams of the condition, from which the noise is drawn.
        scale: factor from the size of `image` to that of the result.
    """
    augmented = augment(image, level, noise.normal(*image.shape[1:]).to(image.device))
    return Signals(channels={name: ChannelSignal(augmented, scale)}, vectors={name: level})


def noised_request(name: str, image: Tensor, request: Request, *, scale: int) -> Signals:
    """Make the signals in sampling: pad to the canvas and use one level for all images."""
    padded = fit_to_canvas(image, request, scale)
    level = torch.full((request.count,), request.augmentation_level, device=image.device)
    if request.augmentation_level == 0:  # nothing changes the image, which may be huge
        return Signals(channels={name: ChannelSignal(padded, scale)}, vectors={name: level})
    return noised_image(name, padded, level, request.noise, scale=scale)


def draw_level(augmentation_range: Range, noise: SeededNoise) -> Tensor:
    """Draw each image's level (B,) uniformly from a range."""
    low, high = augmentation_range
    return low + (high - low) * noise.uniform().view(-1)


def without_image(signals: Signals) -> Signals:
    """Replace images by zeros at level 1, the level of pure noise, so that nothing is known."""
    return Signals(
        channels={
            name: ChannelSignal(torch.zeros_like(each.image), each.scale)
            for name, each in signals.channels.items()
        },
        vectors={name: torch.ones_like(level) for name, level in signals.vectors.items()},
    )


def dropped(signals: Signals, absent: Signals, drop: float, noise: SeededNoise) -> Signals:
    """Replace each image's signals by the absent ones with probability `drop`."""
    return signals.replaced(noise.uniform().view(-1) < drop, absent)


def fit_to_canvas(image: Tensor, request: Request, scale: int = 1) -> Tensor:
    """Check that a conditioning image belongs to the result of a call, and pad it to the canvas.

    Args:
        image: (B, C, h, w).
        request: the call.
        scale: factor from the size of `image` to that of the result.

    Returns:
        (B, C, H / scale, W / scale), where H and W are those of the canvas.

    Raises:
        ContractError: naming both sizes if they do not fit.
    """
    height, width = request.result_px or request.size_px
    if image.ndim != 4 or (image.shape[-2] * scale, image.shape[-1] * scale) != (height, width):
        raise ContractError(
            f"a conditioning image must be (B, C, {height // scale}, {width // scale}) for a "
            f"result of {width}x{height} px, got {tuple(image.shape)}."
        )
    return pad_to(image, request.size_px, scale)


def pad_to(image: Tensor, size_px: Size, scale: int) -> Tensor:
    """Pad a conditioning image to a canvas by repeating its last row and column.

    Args:
        image: (B, C, h, w).
        size_px: height and width of the canvas, multiples of `scale`.
        scale: factor from the size of `image` to that of the result.

    Returns:
        (B, C, height / scale, width / scale).
    """
    height, width = (side // scale for side in size_px)
    below, beside = height - image.shape[-2], width - image.shape[-1]
    if below == beside == 0:
        return image
    if bytes_in_memory(image.shape):
        return F.pad(image, (0, beside, 0, below), mode="replicate")
    padded = torch.from_numpy(new_array((*image.shape[:2], height, width), np.float32))
    for rows in row_slices(image.shape):
        padded[..., rows, :] = F.pad(image[..., rows, :], (0, beside, 0, 0), mode="replicate")
        release_pages()
    padded[..., image.shape[-2] :, :] = padded[..., image.shape[-2] - 1 : image.shape[-2], :]
    return padded


def check_range(augmentation_range: Range) -> None:
    """Check a range of levels.

    Raises:
        ContractError: if it is not 0 <= low <= high <= 1.
    """
    low, high = augmentation_range
    if not 0 <= low <= high <= 1:
        raise ContractError(
            f"augmentation_range must be 0 <= low <= high <= 1, got ({low}, {high})."
        )
