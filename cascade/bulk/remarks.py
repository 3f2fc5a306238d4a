"""Remarks on inputs and models that do not fit a command well, but that it does not refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.defects import GOOD_QUALITY
from cascade.imaging.picture import Picture
from cascade.imaging.value_range import (
    ALMOST_NO_CONTRAST,
    is_narrow,
    outside_share,
    percentage,
    used_range,
)
from cascade.stage import Stage

SIDE_PX = 96  # of the small picture that is looked at
LEAST_SHRINKING = 4  # so that noise averages out
TINT_DEGREE = 2  # of the polynomial in brightness
LEAST_CHROMA = 6 / 255  # root mean square beside a tint; noise and JPEG stay below
EXAMPLES = 3
LEAST_NOISE = 2.0  # 8-bit steps; fine texture measures as much


def colour_remark(picture: Picture) -> str:
    """Say that a picture to colour has colours already; empty if it has none.

    A picture of one tint, such as a sepia photograph, has none: its colour follows its brightness.
    """
    return "has colours already; only its luminance is kept" if has_colours(picture) else ""


def reason_not_to_colour(picture: Picture) -> str:
    """Say that pictures to colour have colours already; empty if this one has none."""
    return "which have colours already (--recolour includes them)" if has_colours(picture) else ""


def has_colours(picture: Picture) -> bool:
    """Whether a picture has more colours than the tint of a print or the cast of a scanner."""
    if len(picture.colour) == 1:
        return False
    return _chroma_beside_tint(picture.image()) >= LEAST_CHROMA


def _chroma_beside_tint(image: Tensor) -> float:
    """Root mean square of the chroma of (3, H, W) in [-1, 1] that brightness does not explain."""
    height, width = (min(SIDE_PX, -(-side // LEAST_SHRINKING)) for side in image.shape[-2:])
    small = F.interpolate(image[None], (height, width), mode="area")[0].flatten(1) / 2 + 0.5
    brightness = small.mean(0)  # (pixels,)
    chroma = (small - brightness).T  # (pixels, 3)
    powers = torch.stack([brightness**degree for degree in range(TINT_DEGREE + 1)], dim=1)
    tint = powers @ torch.linalg.pinv(powers.double()).float() @ chroma
    return float((chroma - tint).square().mean().sqrt())


def range_remark(picture: Picture, ends: tuple[int, int] | None) -> str:
    """Say that a picture uses little of its numbers, or some outside its range; else empty.

    Pictures of 8 bits seldom mean other numbers than those that a viewer shows.

    Args:
        picture: the picture.
        ends: the numbers that are taken for black and white; None if the user stated none.
    """
    if ends is not None and ends[1] > 2**picture.bits - 1:
        return ""  # the picture fails, for this reason
    if ends is not None:
        share = outside_share(picture, *ends)
        return (
            f"has values outside the range, which are clipped: {percentage(share)}" if share else ""
        )
    low, high = used_range(picture)
    if picture.bits == 8 or not is_narrow(low, high, picture.bits):
        return ""
    return (
        f"uses {low} to {high} of {2**picture.bits - 1:,}, so it has {ALMOST_NO_CONTRAST}; "
        f"--range {low} {high} makes these two values black and white, and the result keeps the "
        "scale of the input"
    )


def defects_remark(picture: Picture, stages: Sequence[Stage]) -> str:
    """Say what will be repaired in a picture, and how much of it; empty if nothing will be.

    Args:
        picture: the picture.
        stages: the stages that run, in their order.
    """
    denoise = stages[0].sampling.denoise if stages[0].contract.has_dial else 0.0
    if denoise == 0:
        return ""
    noise, quality = picture.defects
    texts = [] if noise < LEAST_NOISE else [f"noise sigma {noise:.0f}"]
    texts += [] if quality >= GOOD_QUALITY else [f"JPEG quality about {quality:.0f}"]
    if not texts:
        return ""
    share = "" if denoise == 1 else f" by {percentage(denoise)}"
    return f"is repaired{share}: {', '.join(texts)}; a lower --denoise keeps more of its grain"


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
                    f"{name} was trained on images of certain classes ({examples}{more}); it may "
                    "add their features to other images"
                )
    return ""
