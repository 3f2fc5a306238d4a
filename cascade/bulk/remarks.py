"""Remarks on inputs and models that do not fit a command well, but that it does not refuse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.imaging.picture import Picture
from cascade.stage import Stage

SIDE_PX = 96  # of the small picture that is looked at
LEAST_SHRINKING = 4  # so that noise averages out
TINT_DEGREE = 2  # of the polynomial in brightness
LEAST_CHROMA = 6 / 255  # root mean square beside a tint; noise and JPEG stay below
EXAMPLES = 3


def colour_remark(picture: Picture) -> str:
    """Say that a picture to colour has colours already; empty if it has none.

    A picture of one tint, such as a sepia photograph, has none: its colour follows its brightness.
    """
    if len(picture.colour) == 1 or _chroma_beside_tint(picture.image()) < LEAST_CHROMA:
        return ""
    return "has colours already; only its brightness is kept"


def _chroma_beside_tint(image: Tensor) -> float:
    """Root mean square of the chroma of (3, H, W) in [-1, 1] that brightness does not explain."""
    height, width = (min(SIDE_PX, -(-side // LEAST_SHRINKING)) for side in image.shape[-2:])
    small = F.interpolate(image[None], (height, width), mode="area")[0].flatten(1) / 2 + 0.5
    brightness = small.mean(0)  # (pixels,)
    chroma = (small - brightness).T  # (pixels, 3)
    powers = torch.stack([brightness**degree for degree in range(TINT_DEGREE + 1)], dim=1)
    tint = powers @ torch.linalg.pinv(powers.double()).float() @ chroma
    return float((chroma - tint).square().mean().sqrt())


def model_remark(name: str, stages: Mapping[str, Stage]) -> str:
    """Say that a model was trained on pictures of certain classes; empty if it was not.

    Args:
        name: the model's name.
        stages: the stages that run, by name.
    """
    for stage in stages.values():
        for condition in stage.conditions:
            for classes in (condition.classes or {}).values():
                examples = ", ".join(classes[:EXAMPLES])
                more = " and others" if len(classes) > EXAMPLES else ""
                return (
                    f"{name} was trained on pictures of certain classes ({examples}{more}); it may "
                    "draw their features into other pictures"
                )
    return ""
