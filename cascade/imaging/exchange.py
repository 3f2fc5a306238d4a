"""Pictures as callers hand them over and want them back: PIL images, tensors, arrays, `Picture`s.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.imaging.reading import pil_to_tensor
from cascade.imaging.writing import check_can_be_pictures, to_pil

OutputType = Literal["pil", "pt", "np"]
PictureLike = Image.Image | Sequence[Image.Image] | Picture | Tensor


def to_tensor(image: Image.Image | Sequence[Image.Image] | Tensor) -> Tensor:
    """Images to start from: (B, C, H, W) float32 in [-1, 1].

    Raises:
        ContractError: for tensors of another shape or range, or pictures of different sizes.
    """
    if isinstance(image, Tensor):
        if image.ndim == 3:
            image = image[None]
        low, high = (float(end) for end in image.aminmax()) if image.numel() else (0.0, 0.0)
        in_range = low >= -1.001 and high <= 1.001  # neither holds for NaN
        if image.ndim != 4 or not image.numel() or not in_range:
            raise ContractError(
                f"image tensors must be (B, C, h, w) in [-1, 1], got {tuple(image.shape)} in "
                f"[{low:.3g}, {high:.3g}]."
            )
        return image.float()
    images = [image] if isinstance(image, Image.Image) else list(image)
    if not images or len({each.size for each in images}) > 1:
        raise ContractError("images to start from must all have the same size, at least one.")
    return torch.stack([pil_to_tensor(each) for each in images])


def check_output(output_type: str, channels: int) -> None:
    """Check that images of that many channels can be returned as asked.

    Raises:
        ContractError: for an unknown type, or pictures of other images than RGB or grey ones.
    """
    if output_type not in get_args(OutputType):
        raise ContractError(
            f"output_type must be one of {get_args(OutputType)}, got {output_type!r}."
        )
    if output_type == "pil":
        check_can_be_pictures(channels)


def as_output(images: Tensor, output_type: OutputType) -> Any:
    """Images (B, C, H, W) in [-1, 1] as tensors (`pt`), arrays (B, H, W, C) in [0, 1], or PIL."""
    if output_type == "pt":
        return images
    if output_type == "np":
        return ((images + 1) / 2).permute(0, 2, 3, 1).numpy()
    return to_pil(images)


def of_each(
    image: PictureLike,
    of_picture: Callable[[Picture], Picture],
    of_tensor: Callable[[Tensor], Tensor],
) -> Any:
    """Work on pictures in whatever form they came, and return the results in the same form.

    Args:
        image: a PIL image, a sequence of them, a `Picture`, or a tensor (C, H, W) or (B, C, H, W)
            in [-1, 1].
        of_picture: works on a picture.
        of_tensor: works on a tensor (C, H, W).

    Raises:
        ContractError: for anything else.
    """
    if isinstance(image, Picture):
        return of_picture(image)
    if isinstance(image, Image.Image):
        return of_picture(Picture.from_pil(image)).to_pil()
    if isinstance(image, Tensor):
        results = torch.stack([of_tensor(each) for each in to_tensor(image)])
        return results if image.ndim == 4 else results[0]
    if isinstance(image, Sequence) and all(isinstance(each, Image.Image) for each in image):
        return [of_picture(Picture.from_pil(each)).to_pil() for each in image]
    raise ContractError(
        f"pictures must be PIL images, Pictures or tensors, got {type(image).__name__}."
    )
