"""The model of a request, loaded before its inputs are listed, because it decides what is one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from cascade.conditioning.paired_image import PairedImage
from cascade.devices import check_engine_device, find_device
from cascade.engines.running import as_if_with_engine
from cascade.errors import CascadeError
from cascade.pipeline import CascadePipeline

if TYPE_CHECKING:
    from cascade.bulk.request import Request


class RequestModel:
    """The model of a request, loaded once.

    An error is kept until the model is asked for, since those of the inputs come first.
    """

    def __init__(self, request: Request) -> None:
        self._pipeline: CascadePipeline | None = None
        self._error: CascadeError | None = None
        try:
            self._pipeline = request.pipeline or load_model(request)
        except CascadeError as error:
            self._error = error

    @property
    def is_of_pairs(self) -> bool:
        """Whether it makes one image of a pair from the other; no if it cannot be loaded."""
        contracts = self._pipeline.stages.contracts if self._pipeline is not None else []
        return any(each.condition(PairedImage.name) is not None for each in contracts)

    @property
    def takes_bands(self) -> bool:
        """Whether its inputs are bands of measured numbers; no if it cannot be loaded."""
        if self._pipeline is None:
            return False
        first = self._pipeline.stages.first
        condition = first.contract.condition(PairedImage.name)
        space = None if condition is None else condition.image_space(first.space)
        return self.makes_bands if space is None else space.has_bands

    @property
    def makes_bands(self) -> bool:
        """Whether its images are bands of measured numbers; no if it cannot be loaded."""
        if self._pipeline is None:
            return False
        return self._pipeline.stages.last.space.has_bands

    def load(self) -> CascadePipeline:
        """The pipeline.

        Raises:
            CascadeError: if it cannot be loaded.
        """
        if self._error is not None:
            raise self._error
        assert self._pipeline is not None
        return self._pipeline


def load_model(request: Request) -> CascadePipeline:
    """Load the model of a request onto its device, or let its engine run it.

    For a dry run it stays on the CPU, and its engine predicts nothing: both are checked only.

    Raises:
        CascadeError: if it cannot be loaded.
    """
    pipeline = CascadePipeline.from_pretrained(request.model)
    for folder, scale in request.adapters:
        pipeline = pipeline.with_adapter(folder, scale)
    if request.engine is None:
        device = _device_of_process(request.device)
        return pipeline if request.dry_run else pipeline.to(device)
    check_engine_device(request.device)
    if request.dry_run:
        return CascadePipeline(as_if_with_engine(pipeline.stages, request.engine))
    return pipeline.with_engine(request.engine)


def _device_of_process(name: str | None) -> torch.device:
    """The device with that name, or the best one; each process of a launcher gets its own."""
    device = find_device(name)
    if name is not None or device.type == "cpu":
        return device
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(device.type, rank % torch.accelerator.device_count())
