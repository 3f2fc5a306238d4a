"""What upscaling and colouring have in common: seed, precision, inputs of further conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from cascade.arguments import check_kind, whole_number
from cascade.conditioning.inputs import Inputs
from cascade.devices import Precision, check_precision
from cascade.errors import ContractError
from cascade.stage import Stage


class Restoring(Protocol):
    """The settings that upscaling and colouring share."""

    @property
    def seed(self) -> int:
        """Whole number that decides all noise."""
        ...

    @property
    def precision(self) -> Precision:
        """`auto`, `fp32` or `bf16`."""
        ...

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Inputs of further conditions by name."""
        ...


def check_restoring(settings: Restoring) -> None:
    """Check the shared settings.

    Raises:
        ContractError: if a value is of the wrong kind.
    """
    whole_number("seed", settings.seed, low=0)
    check_precision(settings.precision)
    check_kind("inputs", settings.inputs, Mapping, "a mapping by name")


def check_read(further: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Check that a condition of the stages reads each input.

    Args:
        further: inputs by name.
        stages: the stages that will run.

    Raises:
        ContractError: naming the input, and the names that are read.
    """
    readable = dict.fromkeys(name for stage in stages for name in stage.contract.input_names)
    for name in further:
        if name not in readable:
            raise ContractError(
                f"no stage of this run has a condition that reads {name!r}; its inputs: "
                f"{', '.join(readable)}."
            )


def joined(images: Sequence[Tensor]) -> Tensor:
    """Join images (1, C, h, w) into one batch; a single one, which may be huge, is not copied."""
    return images[0] if len(images) == 1 else torch.cat(list(images))


def inputs_for(stage: Stage, images: Tensor, further: Mapping[str, Any]) -> Inputs:
    """Collect the inputs of one stage.

    Args:
        stage: the stage that will run.
        images: (B, C, h, w) in [-1, 1].
        further: inputs by name, each for one picture; those that the stage does not read are
            left out.

    Raises:
        ContractError: if there are such inputs and several pictures.
    """
    if further and len(images) > 1:
        raise ContractError(
            f"inputs are for one image, got {', '.join(further)} and {len(images)} images."
        )
    return Inputs({**further, "image": images}).only(stage.contract.input_names)
