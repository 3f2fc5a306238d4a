"""Pictures as callers hand them over and want them back: PIL images, `Picture`s, `Raster`s, arrays.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.arguments import shown
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.reading import pil_to_tensor
from cascade.imaging.writing import check_can_be_pictures, to_pil

OutputType = Literal["pil", "pt", "np"]
StartLike = Image.Image | Sequence[Image.Image] | np.ndarray | Tensor
PictureLike = Image.Image | Picture | Raster | np.ndarray | Tensor | Sequence[Any]
TOLERANCE = 0.001  # beyond the ends of a range, for rounding
EXPECTED_ARRAYS = "image arrays must be uint8, uint16 or floats in [0, 1]"


def to_tensor(image: StartLike) -> Tensor:
    """Images to start from: (B, C, H, W) float32 in [-1, 1].

    Args:
        image: a PIL image or a list of them, all of the same size; a tensor (C, H, W) or
            (B, C, H, W) in [-1, 1]; or an array (H, W), (H, W, C) or (B, H, W, C), of 8 or 16 bits
            without sign, or of floats in [0, 1].

    Raises:
        ContractError: for anything else, another shape or range, or pictures of different sizes.
    """
    if isinstance(image, Tensor):
        return _checked(image)
    if isinstance(image, np.ndarray):
        return array_to_tensor(image)
    images = [image] if isinstance(image, Image.Image) else image
    if not isinstance(images, list | tuple) or not all(isinstance(e, Image.Image) for e in images):
        raise ContractError(
            "image must be a PIL image, a list of them, an array or a tensor, got "
            f"{_kinds(image)}{_advice(image)}."
        )
    sizes = dict.fromkeys(f"{each.width}x{each.height}" for each in images)
    if len(sizes) != 1:
        raise ContractError(
            "images to start from must all have the same size, at least one; got "
            f"{' and '.join(sizes) or 'none'}{' px' if sizes else ''}."
        )
    return torch.stack([pil_to_tensor(each) for each in images])


def _checked(image: Tensor) -> Tensor:
    """Check the shape and the range of a tensor: (B, C, H, W) float32."""
    if not image.is_floating_point():
        raise ContractError(
            f"image tensors must be floats in [-1, 1], got {image.dtype}; for 8 bits divide by "
            "127.5 and subtract 1."
        )
    image = image.detach()[None] if image.ndim == 3 else image.detach()
    low, high = (float(end) for end in image.aminmax()) if image.numel() else (0.0, 0.0)
    in_range = low >= -1 - TOLERANCE and high <= 1 + TOLERANCE  # neither holds for NaN
    if image.ndim != 4 or not image.numel() or not in_range:
        raise ContractError(
            f"image tensors must be (B, C, h, w) in [-1, 1], got {tuple(image.shape)} in "
            f"[{low:.3g}, {high:.3g}]."
        )
    return image.float()


def array_to_tensor(array: np.ndarray) -> Tensor:
    """Convert an array, see `to_tensor`: (B, C, H, W) float32 in [-1, 1].

    Raises:
        ContractError: if it has another shape, type or range.
    """
    if array.ndim not in (2, 3, 4) or not array.size:
        raise ContractError(
            f"image arrays must be (H, W), (H, W, C) or (B, H, W, C), got {array.shape}."
        )
    if array.dtype.kind not in ("u", "f") or (array.dtype.kind == "u" and array.itemsize > 2):
        raise ContractError(f"{EXPECTED_ARRAYS}, got {array.dtype}.")
    if array.dtype.kind == "u":  # of any byte order
        unit = array.astype(np.float32) / np.iinfo(array.dtype).max
    else:
        low, high = float(array.min()), float(array.max())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # neither holds for NaN
            raise ContractError(
                f"{EXPECTED_ARRAYS}, got {array.dtype} in [{low:.3g}, {high:.3g}]; tensors are in "
                "[-1, 1]."
            )
        unit = array.astype(np.float32)
    stacked = {2: unit[None, ..., None], 3: unit[None], 4: unit}  # by number of dimensions
    return torch.from_numpy(stacked[array.ndim]).permute(0, 3, 1, 2).contiguous() * 2 - 1


def tensor_to_array(images: Tensor, like: np.ndarray) -> np.ndarray:
    """Convert images to the type and the number of dimensions of an array.

    Args:
        images: (B, C, H, W) in [-1, 1], with B = 1 unless `like` has four dimensions.
        like: the array that they were made from.
    """
    unit = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()  # (B, H, W, C)
    if like.dtype.kind == "u":
        unit = np.rint(unit * np.iinfo(like.dtype).max)
    unit = unit.astype(like.dtype)
    if like.ndim == 4:
        return unit
    return unit[0, ..., 0] if like.ndim == 2 and unit.shape[-1] == 1 else unit[0]


def check_output(output_type: str, channels: int, kind: str = "pixels") -> None:
    """Check that images of a kind with that many channels can be returned as asked.

    Raises:
        ContractError: for an unknown type, or pictures of other images than RGB or grey ones.
    """
    if output_type not in get_args(OutputType):
        raise ContractError(
            f"output_type must be one of {get_args(OutputType)}, got {output_type!r}."
        )
    if output_type == "pil":
        check_can_be_pictures(channels, kind)


def as_output(images: Tensor, output_type: OutputType) -> Any:
    """Images (B, C, H, W) in [-1, 1] as tensors (`pt`), arrays (B, H, W, C) in [0, 1], or PIL."""
    if output_type == "pt":
        return images
    if output_type == "np":
        return ((images + 1) / 2).permute(0, 2, 3, 1).numpy()
    return to_pil(images)


def count_images(image: PictureLike) -> int:
    """How many images `of_each` works on.

    Raises:
        ContractError: if it takes no such thing.
    """
    if isinstance(image, Tensor | np.ndarray):
        return len(image) if image.ndim == 4 else 1
    if isinstance(image, Image.Image | Picture | Raster):
        return 1
    if isinstance(image, list | tuple) and all(
        isinstance(each, Image.Image | Picture | Raster | np.ndarray | Tensor) for each in image
    ):
        return sum(count_images(each) for each in image)
    raise ContractError(
        "image must be a PIL image, a Picture, an array, a tensor, or a list of these, got "
        f"{_kinds(image)}{_advice(image)}."
    )


def of_each(
    image: PictureLike,
    of_picture: Callable[[Picture, int], Picture],
    of_tensor: Callable[[Tensor, int], Tensor],
    of_raster: Callable[[Raster, int], Raster] | None = None,
    *,
    place: int = 0,
) -> Any:
    """Work on pictures in whatever form they came, and return the results in the same form.

    Args:
        image: a PIL image, a `Picture`, an array or a tensor as for `to_tensor`, or a list of
            these.
        of_picture: works on a picture and its place among all images.
        of_tensor: works on a tensor (C, H, W) and its place.
        of_raster: works on an image of bands and its place; None if such images do not fit.
        place: place of the first image.

    Raises:
        ContractError: for anything else.
    """
    count_images(image)
    if isinstance(image, Picture):
        return of_picture(image, place)
    if isinstance(image, Raster):
        if of_raster is None:
            raise ContractError("an image of bands does not fit here; give a colour image.")
        return of_raster(image, place)
    if isinstance(image, Image.Image):
        return of_picture(Picture.from_pil(image), place).to_pil()
    if isinstance(image, Tensor | np.ndarray):
        images = _checked(image) if isinstance(image, Tensor) else array_to_tensor(image)
        results = torch.stack([of_tensor(each, place + i) for i, each in enumerate(images)])
        if isinstance(image, np.ndarray):
            return tensor_to_array(results, image)
        return results if image.ndim == 4 else results[0]
    results = []
    for each in image:
        results.append(of_each(each, of_picture, of_tensor, of_raster, place=place))
        place += count_images(each)
    return results


def _kinds(image: Any) -> str:
    """The kind of what came, and of what is in it if it is a list."""
    if isinstance(image, list | tuple):
        kinds = dict.fromkeys(type(each).__name__ for each in image)
        return f"a {type(image).__name__} of {' and '.join(kinds) or 'nothing'}"
    return shown(image)


def _advice(image: Any) -> str:
    """How to make an image of what came, for the end of an error message."""
    first = image[0] if isinstance(image, list | tuple) and image else image
    if isinstance(first, str) or hasattr(first, "__fspath__"):
        return "; open the file first, with PIL.Image.open"
    if isinstance(first, np.ndarray | Tensor):
        return "; stack them along a new first axis"
    return "; use its to_pil()" if isinstance(first, Picture) else ""
