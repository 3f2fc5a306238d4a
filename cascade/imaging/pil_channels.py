"""The colour and transparency of a PIL image as tensors, grey where the image is grey.

Shapes: C channels (1 or 3), H and W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.imaging.colour_profiles import lab_to_srgb, to_srgb

MODES_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
GREY_MODES = ("1", "L", "LA", "La")
MAX_WEBP_ROUNDING = 1  # of 255, between the channels of a grey picture


def channels_of_pil(image: Image.Image) -> tuple[Tensor, Tensor | None]:
    """Split a PIL image of any mode whose range is known.

    Args:
        image: loaded; CMYK and Lab are converted to sRGB.

    Returns:
        Colour, (1 or 3, H, W) uint8, or uint16 for grey of 16 bits; transparency, (1, H, W) of the
        same type, 0 transparent, or None.
    """
    if image.mode.startswith("I"):  # 16-bit grey
        return _channels(np.asarray(image).clip(0, 65535).astype(np.uint16)), None
    if image.mode in ("CMYK", "LAB"):
        srgb = lab_to_srgb(image) if image.mode == "LAB" else to_srgb(image).convert("RGB")
        return _channels(np.asarray(srgb)), None
    has_alpha = image.mode in MODES_WITH_ALPHA or "transparency" in image.info
    mode = ("L" if _is_grey(image) else "RGB") + ("A" if has_alpha else "")
    pixels = _channels(np.asarray(image if image.mode == mode else image.convert(mode)))
    if not has_alpha:
        return pixels, None
    # many programs leave the fourth byte of BMP at 0, and browsers do not take that for transparent
    is_unused = image.format == "BMP" and not pixels[-1].any()
    return pixels[:-1], None if is_unused else pixels[-1:]


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        entries = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        return bool((entries == entries[:, :1]).all())
    if image.format == "WEBP":
        spread = np.ptp(np.asarray(image)[..., :3], axis=-1)  # (H, W)
        return int(spread.max()) <= MAX_WEBP_ROUNDING
    return image.mode in GREY_MODES


def _channels(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) to (C, H, W)."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
