"""What a user gives for one picture besides the picture itself: inputs of further conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.errors import ContractError
from cascade.stage import Stage


def check_read(further: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Check that every further input is read by one of the stages.

    Raises:
        ContractError: naming the input, and those that would be read.
    """
    readable = dict.fromkeys(name for stage in stages for name in stage.contract.input_names)
    for name in further:
        if name not in readable:
            raise ContractError(
                f"no stage of this run has a condition that reads {name!r}; its inputs: "
                f"{', '.join(readable)}."
            )


def inputs_for(stage: Stage, image: Tensor, further: Mapping[str, Any]) -> Inputs:
    """The inputs of one stage.

    Args:
        stage: that will run.
        image: (1, C, h, w) in [-1, 1].
        further: by the name of the input, each for one picture; those of other stages are left out.
    """
    return Inputs({**further, "image": image}).only(stage.contract.input_names)
