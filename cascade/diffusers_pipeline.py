"""DiffusersPipeline: what `DiffusionPipeline.from_pretrained` makes of a saved pipeline's folder.

This is the only module that needs diffusers' own classes for pipelines and models. It stands apart
because importing them takes longer than sampling a small picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, final

import torch
from diffusers import DiffusionPipeline, ModelMixin

from cascade.call import CALLBACK_TENSORS
from cascade.chain import StageChain
from cascade.familiar_names import ATTRIBUTES, attribute_text
from cascade.pipeline import CascadePipeline
from cascade.restoration.expected_error import load_expected_error


@final
class DiffusersPipeline(CascadePipeline, DiffusionPipeline):
    """A `CascadePipeline` that diffusers takes for one of its own.

    Args:
        stages: the chain of stages.
    """

    _callback_tensor_inputs: ClassVar = list(CALLBACK_TENSORS)

    def __init__(self, stages: StageChain) -> None:
        super().__init__(stages)
        self.register_modules(stages=stages)

    def __getattribute__(self, name: str) -> Any:
        if name in ATTRIBUTES:  # also what DiffusionPipeline has, but does not work on stages
            raise AttributeError(attribute_text(name, ()))
        return super().__getattribute__(name)


@final
class ChainLoader(ModelMixin):
    """Where diffusers finds out how to load the stages."""

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, torch_dtype: torch.dtype | None = None, **ignored: Any
    ) -> StageChain:
        """Load the chain on the CPU, whatever device maps diffusers passes to every model.

        Args:
            folder: the folder to read.
            torch_dtype: floating-point type of the weights in memory; default: float32.
            ignored: device maps and the like; a chain is moved with `.to`.

        Raises:
            WeightsError: if a file is missing or damaged.
            ContractError: if the stages do not join.
        """
        chain = StageChain.from_pretrained(folder, torch_dtype=torch_dtype)
        chain.expected_error = load_expected_error(Path(folder).parent)
        return chain
