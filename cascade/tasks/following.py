"""What follows a first stage that keeps the size of its image: upsamplers, if there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.stage import Stage

FirstStep = Callable[[Sequence[Stage], Tensor, Mapping[str, Any]], Tensor]


def then_enlarged(
    stages: Sequence[Stage], inputs: Inputs, name: str, seed: int, first_step: FirstStep
) -> Tensor:
    """Run the first stage on one image of any size, and enlarge its result with the others.

    Args:
        stages: the stages, first stage first.
        inputs: the inputs of all of them, for one image.
        name: the input that holds the image, (1, C', h, w).
        seed: seed of the image.
        first_step: called with the first stage, the image (C', h, w) and the stage's other inputs;
            returns (C, h, w).

    Returns:
        The result (C, H, W).
    """
    further = inputs.with_value(name, None)
    first, upsamplers = stages[:1], stages[1:]
    image = first_step(first, inputs.get(name)[0], _read_by(first, further))
    if not upsamplers:
        return image
    return upscale_image(
        upsamplers, image, Upscaling(seed=seed, inputs=_read_by(upsamplers, further))
    )


def _read_by(stages: Sequence[Stage], inputs: Inputs) -> Mapping[str, Any]:
    return inputs.only([name for stage in stages for name in stage.contract.input_names]).values
