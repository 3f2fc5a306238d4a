"""A picture that is edited, in whatever form it came: its hole, and results in the same form.

Outside the hole, a result has exactly the values that the picture has, of the same type.

Shapes: B results, C channels, H and W pixels of the picture, h and w of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.conditioning.filling import filled
from cascade.conditioning.luminance import luminance
from cascade.errors import ContractError
from cascade.imaging.exchange import array_to_tensor, to_tensor
from cascade.imaging.picture import Picture, quantised
from cascade.resizing import resize
from cascade.restoration.holes import (
    Borders,
    MaskLike,
    grown,
    hole_of,
    ramp,
    transparent_pixels,
)
from cascade.restoration.windows import Box

EditedLike = Image.Image | Picture | np.ndarray | Tensor
NO_HOLE = (
    "nothing to inpaint is marked: give a mask, an image with transparent pixels, numbers of "
    "pixels to uncrop, or a strength below 1 to redraw the whole image."
)


@dataclass(frozen=True)
class Subject:
    """A picture to edit.

    Attributes:
        source: the picture as it came, but PIL images as a `Picture`.
        values: (C, H, W), its values in their own type, with the borders that it grows by.
        image: (C, H, W) float32 in [-1, 1], the picture for a network; borders and transparent
            pixels have the colours around them.
        hole: (H, W) bool, True where to repaint.
        alpha: (1, H, W) of the type of `values`, the opacity of results; None for opaque ones.
        is_pil: whether results are PIL images.
    """

    source: Picture | Tensor | np.ndarray
    values: np.ndarray
    image: Tensor
    hole: Tensor
    alpha: np.ndarray | None = None
    is_pil: bool = False

    @classmethod
    def of(
        cls,
        image: EditedLike,
        mask: MaskLike | None = None,
        *,
        uncrop: object = None,
        whole: bool = False,
        grow_px: int = 0,
    ) -> Subject:
        """Read a picture and its hole.

        Args:
            image: a PIL image; a `Picture`; a tensor (C, h, w) or (1, C, h, w) in [-1, 1]; or an
                array (h, w), (h, w, C) or (1, h, w, C) of 8 or 16 bits, or of floats in [0, 1].
            mask: white where to repaint, see `hole_of`; None for the transparent pixels.
            uncrop: pixels to add at left, top, right and bottom, which are repainted too; None for
                no pixels.
            whole: whether to repaint the whole picture if there is no hole.
            grow_px: number of pixels by which the hole grows at all sides.

        Raises:
            ContractError: if the picture or the mask cannot be read, or nothing is to be repainted.
        """
        subject = cls._read(image)
        borders = Borders() if uncrop is None else Borders.of(uncrop)
        picture = subject.source
        hole, alpha = subject.hole, subject.alpha
        if mask is not None:
            hole = hole_of(mask, (hole.shape[0], hole.shape[1]))
        elif isinstance(picture, Picture) and picture.alpha is not None:
            hole = transparent_pixels(picture)
            alpha = np.where(hole, 2**picture.bits - 1, picture.alpha.numpy())
            alpha = alpha.astype(picture.alpha.numpy().dtype)
        is_shown = torch.ones_like(hole) if mask is not None else ~hole
        if mask is None and uncrop is None and not hole.any():
            if not whole:
                raise ContractError(NO_HOLE)
            hole = torch.ones_like(hole)
        return cls(
            picture,
            _padded(subject.values, borders, 0),
            filled(
                borders.padded(subject.image, 0.0)[None],
                borders.padded(is_shown[None], False)[None],
            )[0],
            borders.padded(grown(hole, grow_px)[None], True)[0],
            None if alpha is None else _padded(alpha, borders, np.iinfo(alpha.dtype).max),
            subject.is_pil,
        )

    @classmethod
    def _read(cls, image: EditedLike) -> Subject:
        if isinstance(image, Image.Image | Picture):
            picture = image if isinstance(image, Picture) else Picture.from_pil(image, "the image")
            alpha = None if picture.alpha is None else picture.alpha.numpy()
            values, is_pil = picture.colour.numpy(), not isinstance(image, Picture)
            return cls(picture, values, picture.image(), _no_hole(values), alpha, is_pil)
        if not isinstance(image, Tensor | np.ndarray):
            raise ContractError(
                "image must be a single image: a PIL image, a Picture, an array or a tensor, got "
                f"{type(image).__name__}."
            )
        unit = to_tensor(image) if isinstance(image, Tensor) else array_to_tensor(image)
        if len(unit) != 1:
            raise ContractError(
                f"image must be a single image, got {len(unit)}; call edit for each."
            )
        if isinstance(image, Tensor):
            values = image.detach().reshape(unit.shape[1:]).cpu().numpy()
        else:
            values = np.moveaxis(image.reshape(*unit.shape[-2:], unit.shape[1]), -1, 0)
        return cls(image, values, unit[0].cpu(), _no_hole(values))

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width with the borders."""
        return self.hole.shape[0], self.hole.shape[1]

    # ---- results --------------------------------------------------------------------------------

    def pasted(
        self,
        results: Tensor,
        box: Box,
        feather_px: int = 0,
        *,
        from_hole: bool = False,
        stays_grey: bool = False,
    ) -> Any:
        """Put what a chain drew into the hole.

        Args:
            results: (B, C, h, w) in [-1, 1].
            box: where they lie in the picture.
            feather_px: see `Editing`.
            from_hole: whether results started from what the picture shows in the hole, so that
                soft edges blend with it; else they blend with the surroundings.
            stays_grey: see `Editing`.

        Returns:
            Lists of B PIL images or `Picture`s; or a tensor (B, C, H, W), or an array (B, H, W, C)
            or (B, H, W), of the picture's type.
        """
        part = resize(results.float().cpu(), (box.height, box.width), "bicubic")
        is_grey = len(self.values) == 1 or (stays_grey and self._is_grey)
        part = luminance(part) if is_grey and part.shape[1] > 1 else part
        part = part.expand(-1, len(self.values), -1, -1)
        part, rows, columns = box.put(part, self.size_px)  # (B, C, h, w)
        hole = self.hole[rows, columns]
        weight = ramp(self.hole, feather_px)[rows, columns]
        old = self.image[None, :, rows, columns]
        old = (old if from_hole else filled(old, ~hole[None, None])).expand_as(part)
        new = self._as_values(torch.lerp(old, part, weight))
        values = np.repeat(self.values[None], len(results), axis=0)
        before = values[..., rows, columns]
        values[..., rows, columns] = np.where(hole.numpy(), new, before)
        return self._in_form(values)

    @property
    def _is_grey(self) -> bool:
        """Whether all channels are the same in every pixel outside the hole, if there are such."""
        around = self.values[:, ~self.hole.numpy()]
        return around.size > 0 and bool((around == around[:1]).all())

    def unchanged(self, count: int) -> Any:
        """The picture itself, so many times, in the form of `pasted`."""
        return self._in_form(np.repeat(self.values[None], count, axis=0))

    def _as_values(self, images: Tensor) -> np.ndarray:
        """Convert numbers in [-1, 1] to those of the picture's type."""
        dtype = self.values.dtype
        if dtype.kind == "u":
            return quantised(images, 8 if dtype.itemsize == 1 else 16).numpy()
        unit = images if isinstance(self.source, Tensor) else (images + 1) / 2
        return unit.numpy().astype(dtype)

    def _in_form(self, values: np.ndarray) -> Any:
        """Values (B, C, H, W) in the form of the picture."""
        source = self.source
        if isinstance(source, Tensor):
            return torch.from_numpy(values)
        if isinstance(source, np.ndarray):
            return values[:, 0] if source.ndim == 2 else np.moveaxis(values, 1, -1)
        alpha = self.alpha
        if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
            alpha = None
        alpha = None if alpha is None else torch.from_numpy(alpha)
        pictures = [source.with_pixels(torch.from_numpy(each), alpha) for each in values]
        return [each.to_pil() for each in pictures] if self.is_pil else pictures


def _no_hole(values: np.ndarray) -> Tensor:
    return torch.zeros(values.shape[-2:], dtype=torch.bool)


def _padded(values: np.ndarray, borders: Borders, value: float) -> np.ndarray:
    sides = ((0, 0), (borders.top, borders.bottom), (borders.left, borders.right))
    return np.pad(values, sides, constant_values=value)
