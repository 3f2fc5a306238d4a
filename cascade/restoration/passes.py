"""Plans the passes of upsamplers that bring a picture to the requested size.

Before each pass except the first, the picture is downscaled as far as the remaining passes allow,
so that they end at that size and draw no pixel in vain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cascade.errors import ContractError
from cascade.stage import Stage


@dataclass(frozen=True)
class Pass:
    """One run of an upsampler.

    Attributes:
        stage: the upsampler.
        size_px: height and width of its input.
    """

    stage: Stage
    size_px: tuple[int, int]


def upsamplers_of(stages: Sequence[Stage]) -> list[Stage]:
    """Select the stages that upscale.

    Raises:
        ContractError: if there is none.
    """
    upsamplers = [
        stage for stage in stages if stage.contract.scale > 1 and stage.contract.needs_image
    ]
    if not upsamplers:
        raise ContractError("this pipeline has no upsampler; it cannot upscale images.")
    return upsamplers


def plan_passes(
    stages: Sequence[Stage], size_px: tuple[int, int], scale: float | None
) -> tuple[list[Pass], tuple[int, int]]:
    """Plan which stages upscale a picture, one after another, and to what size.

    Args:
        stages: the stages of a pipeline. Its upsamplers take turns; the last one repeats.
        size_px: height and width of the picture.
        scale: factor of both sides; None for the product of the factors of all upsamplers.

    Returns:
        The passes, and height and width of the result, which may be a little smaller than the
        result of the last pass.
    """
    upsamplers = upsamplers_of(stages)
    scale = scale or math.prod(stage.contract.scale for stage in upsamplers)
    sequence, factor = [], 1  # the upsamplers that run, and their factor from here on
    while factor < scale:
        sequence.append(upsamplers[min(len(sequence), len(upsamplers) - 1)])
        factor *= sequence[-1].contract.scale
    final = (round(size_px[0] * scale), round(size_px[1] * scale))
    passes = []
    for stage in sequence:
        least = (math.ceil(final[0] / factor), math.ceil(final[1] / factor))
        passes.append(Pass(stage, least if passes else size_px))
        factor //= stage.contract.scale
    return passes, final
