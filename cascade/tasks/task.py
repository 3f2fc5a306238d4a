"""Task: the purpose of a pipeline, which decides how it runs and how it is shown and measured.

A new task is one final subclass in a file of its own, and an entry in `TASKS` of
`cascade.tasks.table`. No other code asks what kind of pipeline it has.

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

PairFigure = Callable[[Tensor, Inputs], float]  # (result (1, C, H, W), its inputs)


class Task(ABC):
    """The purpose of the pipelines of one kind.

    Evaluation compares their images with real pictures as sets, unless the task is a `PairedTask`.

    Attributes:
        name: name of the task in reports and JSON.
        description: the end of a sentence that begins with "a pipeline that".
        hub_type: the task type of the Hugging Face Hub.
        hub_title: the heading of its results on the Hub.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    hub_type: ClassVar[str]
    hub_title: ClassVar[str]

    @abstractmethod
    def suits(self, contracts: Sequence[Contract]) -> bool:
        """Whether this is the task of a chain.

        Args:
            contracts: contracts of the stages, first stage first.
        """

    @abstractmethod
    def command(self, folder: str) -> str:
        """Write an example command that uses the pipeline of a folder."""

    @abstractmethod
    def usage(self, folder: str) -> Usage:
        """Write the examples for the model card of the pipeline in a folder."""


class PairedTask(Task):
    """A task whose results have originals, so evaluation compares them one by one.

    Attributes:
        baseline_name: name of the baseline in tables.
        hub_tag: the tag of a model card that says more than `hub_type`.
        example: lines of Python that use a `pipeline`, for the model card.
    """

    baseline_name: ClassVar[str]
    hub_tag: ClassVar[str]
    example: ClassVar[tuple[str, ...]]

    def usage(self, folder: str) -> Usage:
        return Usage(
            tags=(self.hub_tag, self.hub_type),
            command=self.command(folder),
            python=(
                "from PIL import Image",
                "",
                "from cascade import CascadePipeline",
                "",
                f'pipeline = CascadePipeline.from_pretrained("{folder}")',
                *self.example,
            ),
        )

    @abstractmethod
    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        """Make the result that a user of the pipeline gets.

        Args:
            stages: the chain, first stage first.
            inputs: inputs for one picture, as `Contract.inputs_of` makes them.
            seed: decides all noise.

        Returns:
            The result (C, H, W) float32 in [-1, 1].

        Raises:
            ContractError: if the inputs do not fit the stages.
        """

    @abstractmethod
    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        """Make a result without a model, which a pipeline should beat.

        Args:
            inputs: inputs for one picture, as `Contract.inputs_of` makes them.
            space: space of the last stage.

        Returns:
            The result (C, H, W) in [-1, 1].
        """

    @abstractmethod
    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        """List the task's own figures by name: how far a result is from its inputs.

        Lower is better.

        Args:
            contracts: contracts of the stages, first stage first.
        """
