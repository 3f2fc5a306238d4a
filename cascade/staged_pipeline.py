"""What a pipeline of stages has in common with those of diffusers: attributes and devices.

DiffusionPipeline moves components; here the parts that move are stages. Its attributes and methods
that mean nothing for stages are refused with what to do instead.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline

from cascade.arguments import check_kind
from cascade.call import CALLBACK_TENSORS
from cascade.chain import StageChain
from cascade.devices import check_dtype, find_device, offload_device
from cascade.errors import ContractError
from cascade.familiar_names import ATTRIBUTES, attribute_text

EXPECTED_STAGES = "a StageChain; CascadePipeline.from_stages makes one"
WRITABLE = ("config", "hf_device_map")  # attributes that DiffusionPipeline sets


class StagedPipeline(DiffusionPipeline, ABC):
    """A pipeline whose only component is a chain of stages.

    Args:
        stages: the chain of stages.
    """

    _callback_tensor_inputs: ClassVar = list(CALLBACK_TENSORS)

    def __init__(self, stages: StageChain) -> None:
        super().__init__()
        check_kind("stages", stages, StageChain, EXPECTED_STAGES)
        self.register_modules(stages=stages)
        self.stages: StageChain = stages
        self._current_stage: str | None = None
        self._num_timesteps = 0

    @property
    def current_stage(self) -> str | None:
        """Name of the stage that is sampling, for callbacks; None between calls."""
        return self._current_stage

    @property
    def num_timesteps(self) -> int:
        """How many steps the current stage takes, for callbacks."""
        return self._num_timesteps

    def enter(self, stage: str | None, steps: int = 0) -> None:
        """Record which stage is sampling and in how many steps."""
        self._current_stage, self._num_timesteps = stage, steps

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "stages":
            check_kind(
                name, value, StageChain, "a StageChain; CascadePipeline.from_stages makes one"
            )
        elif name in ATTRIBUTES or not (name.startswith("_") or name in WRITABLE):
            raise ContractError(attribute_text(name, ["stages"]))
        super().__setattr__(name, value)

    def __getattribute__(self, name: str) -> Any:
        if name in ATTRIBUTES:  # also what DiffusionPipeline has, but does not work on stages
            raise AttributeError(attribute_text(name, ()))
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        names = [each for each in dir(type(self)) if not each.startswith("_")]
        raise AttributeError(attribute_text(name, names))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the weights to a device or convert them to a floating-point type.

        A device ends what `enable_model_cpu_offload` began.

        Raises:
            ContractError: if the device cannot compute, or the type is none for weights.
        """
        device = None
        for value in (*args, kwargs.get("device"), kwargs.get("dtype")):
            if isinstance(value, torch.dtype):
                check_dtype(value)
            elif value is not None:
                device = find_device(value)
        super().to(*args, **kwargs)
        if device is not None:
            self._compute_on(None)
        return self

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep the weights on the CPU, except those of the stage that is sampling.

        Args:
            gpu_id: number of the accelerator that computes; default: the first one.
            device: the accelerator; default: the one that PyTorch finds.

        Raises:
            ContractError: if there is no such accelerator.
        """
        computing = offload_device(device, gpu_id)
        self.to("cpu")
        self._compute_on(computing)

    def _compute_on(self, device: torch.device | None) -> None:
        for _, stage in self.stages.items():
            stage.computing_device = device
