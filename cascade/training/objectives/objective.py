"""Objective: the loss that trains a stage.

A new objective is one final subclass in a file of its own, and an entry in `OBJECTIVES` of
`cascade.training.objectives.table`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from cascade.conditioning.batch import Batch
from cascade.stage import Stage


class Objective(ABC):
    """The loss of a stage on a batch."""

    @abstractmethod
    def check(self, stage: Stage) -> None:
        """Check before any work that the objective can train this stage.

        Raises:
            ContractError: naming what does not fit.
        """

    @abstractmethod
    def loss(self, stage: Stage, batch: Batch) -> Tensor:
        """The loss of each image.

        Everything random is drawn from the batch's seeds, so that a resumed run, or one on more
        processes, draws the same.

        Args:
            stage: the stage in training.
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
