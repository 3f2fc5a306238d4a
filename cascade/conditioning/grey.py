"""The grey image as a condition, and its luminance put back into a coloured one.

Luminance here is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B of the gamma-encoded values:
what Pillow's mode "L", OpenCV, JPEG and most image editors make of a colour picture, and so what
the grey pictures of the world hold. One function serves training and sampling.

Shapes: B batch, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cascade.errors import ContractError


def luminance(images: Tensor) -> Tensor:
    """The grey image of a colour image.

    Args:
        images: (B, 3, H, W) in [-1, 1], or (B, 1, H, W), which is grey already.

    Returns:
        (B, 1, H, W) in [-1, 1].

    Raises:
        ContractError: for another number of channels.
    """
    from kornia.color import rgb_to_grayscale

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ContractError(f"images must have 1 or 3 channels, got {tuple(images.shape)}.")
    return images if images.shape[1] == 1 else rgb_to_grayscale(images)


def impose_luminance(images: Tensor, grey: Tensor) -> Tensor:
    """Give coloured images exactly the luminance of grey ones.

    The difference is added to all three channels, which keeps the colour differences. Where that
    leaves the range of images, the colour is drawn towards the grey value until it fits: its hue
    stays, and no more of its saturation is lost than must be.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        grey: (B, 1, H, W) in [-1, 1].

    Returns:
        (B, 3, H, W) in [-1, 1], whose luminance is `grey`.

    Raises:
        ContractError: if the shapes do not go together.
    """
    if images.shape[1] != 3 or images[:, :1].shape != grey.shape:
        raise ContractError(
            f"images (B, 3, H, W) and grey (B, 1, H, W) must go together, got "
            f"{tuple(images.shape)} and {tuple(grey.shape)}."
        )
    chroma = images - luminance(images)  # its own luminance is 0, so it may be scaled
    room = torch.where(chroma > 0, 1 - grey, -1 - grey)
    tiny = torch.finfo(chroma.dtype).tiny
    fits = torch.where(chroma.abs() > tiny, room / chroma, 1.0)  # how much of each would fit
    share = fits.amin(dim=1, keepdim=True).clamp(0, 1)
    return (grey + share * chroma).clamp(-1, 1)
