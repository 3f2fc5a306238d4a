"""Objective: the loss that trains a stage.

A new objective is one final subclass in a file of its own, and an entry in `OBJECTIVES` of
`cascade.training.objectives.table`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cascade.conditioning.batch import Batch
from cascade.data.training_images import TrainingImages
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.stage import Stage


class Objective(ABC):
    """The loss of a stage on a batch."""

    @abstractmethod
    def check(self, stage: Stage) -> None:
        """Check before any work that the objective can train this stage.

        Raises:
            ContractError: naming what does not fit.
        """

    def begin(self, stage: Stage, device: torch.device) -> None:  # noqa: B027  most need nothing
        """Prepare for training on a device.

        Raises:
            ContractError: if the objective lacks something that the stage was declared with.
        """

    @property
    def learned(self) -> nn.Module | None:
        """A network that the objective trains besides the stage, from `begin` on; most have none.

        It lies whole on the device of every process, with the same weights in all. Its loss is a
        part of `loss`. The run gives it an AdamW of its own and keeps it in checkpoints, but does
        not average it or write it into the stage. A step in which it gets no gradient leaves it
        as it is.
        """
        return None

    @property
    def leaves_out_missing(self) -> bool:
        """Whether the loss leaves out what `Batch.known` says is missing; most count all values."""
        return False

    def check_leaves_out_missing(self) -> None:
        """Check that it can train on images whose missing values are masked.

        Raises:
            ContractError: if its loss counts all values.
        """
        if not self.leaves_out_missing:
            raise ContractError(
                f"missing=mask needs an objective that leaves values out of its loss, as denoising "
                f"does, but {type(self).__name__.lower()} counts all; use missing=refuse, and crop "
                "or fill such areas."
            )

    def set_progress(self, share: float) -> None:  # noqa: B027  most objectives do not change
        """Note which share of the run, in [0, 1), was trained before the next loss.

        If a run becomes longer, the share stays until the run has caught up with it.
        """

    @property
    def course(self) -> str:
        """What the progress has changed so far, in words for the log; most have nothing."""
        return ""

    def finish(self, stage: Stage, images: TrainingImages) -> None:  # noqa: B027
        """Complete the stage with averaged weights before it is written; most need nothing.

        Args:
            stage: the stage, which is changed.
            images: the training images.
        """

    def identity(self) -> dict[str, Any]:
        """What must stay the same when a run resumes, as plain values for JSON."""
        return {}

    def meters(
        self, stage: Stage, batch: Batch, samples: Tensor, precision: Precision
    ) -> dict[str, float]:
        """Measure what the objective aims at.

        Args:
            stage: the stage with averaged weights.
            batch: the images that the samples are compared with, and the data of the conditions.
            samples: (B, C, H, W) in [-1, 1], made from the seeds of the batch.
            precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

        Returns:
            Values by the names of meters; most objectives have none of their own.
        """
        return {}

    @abstractmethod
    def loss(self, stage: Stage, batch: Batch) -> Tensor:
        """The loss of each image.

        Everything random is drawn from the batch's seeds, so that a resumed run, or one on more
        processes, draws the same.

        Args:
            stage: the stage in training; if its flag `training` is off, it is only measured.
            batch: images (B, C, H, W) in [-1, 1] and the data of their conditions.

        Returns:
            (B,), differentiable.

        Raises:
            ContractError: if the batch does not fit the stage.
        """


class Learner(nn.Module):
    """A stage and its objective as one module, which DDP and FSDP can wrap.

    Args:
        stage: the stage in training.
        objective: the objective, which computes the stage's loss.
    """

    def __init__(self, stage: Stage, objective: Objective) -> None:
        super().__init__()
        self.stage = stage
        self.objective = objective

    def forward(self, batch: Batch) -> Tensor:
        """The loss of each image, (B,)."""
        return self.objective.loss(self.stage, batch)
