"""Task: what a pipeline is for, and so how it runs, is shown, and is measured.

A new kind of task is one final subclass in a file of its own, and an entry in `TASKS` of
`cascade.tasks.table`. Nothing else in the package asks what kind of pipeline it has.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.saving.model_card import Usage
from cascade.space import Space
from cascade.stage import Stage

PairFigure = Callable[[Tensor, Inputs], float]  # of a result (1, C, H, W) and its inputs


class Task(ABC):
    """What the pipelines of one kind are for.

    Evaluation compares what they make with true pictures as a set, unless the task is a
    `PairedTask`.
    """

    name: ClassVar[str]  # in JSON
    description: ClassVar[str]  # completes "a pipeline that …"
    hub_type: ClassVar[str]  # task type of the Hugging Face Hub
    hub_title: ClassVar[str]  # its title in a model card's results

    @abstractmethod
    def suits(self, contracts: Sequence[Contract]) -> bool:
        """Whether a chain of stages with these contracts, first stage first, is of this kind."""

    @abstractmethod
    def command(self, folder: str) -> str:
        """An example command that uses the pipeline of a folder."""

    @abstractmethod
    def usage(self, folder: str) -> Usage:
        """What a model card says about using the pipeline of a folder."""


class PairedTask(Task):
    """A task whose results have originals, so that evaluation compares them one by one."""

    baseline_name: ClassVar[str]  # in tables, of what costs nothing and must be beaten

    @abstractmethod
    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        """Do what a user of the pipeline gets done.

        Args:
            stages: of the chain, first stage first.
            inputs: for one picture, as `Contract.inputs_of` makes them.
            seed: of all noise.

        Returns:
            (C, H, W) float32 in [-1, 1].

        Raises:
            ContractError: if the inputs do not fit the stages.
        """

    @abstractmethod
    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        """The result that costs nothing.

        Args:
            inputs: for one picture, as `Contract.inputs_of` makes them.
            space: that the last stage gives.

        Returns:
            (C, H, W) in [-1, 1].
        """

    @abstractmethod
    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        """How well a result agrees with what was given: figures by name, lower is better.

        Args:
            contracts: of the chain, first stage first.
        """
