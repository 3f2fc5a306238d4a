"""Stage: one independently trained model with a contract; what every kind of stage can do.

Shapes: B images, C channels, H and W pixels of what the stage gives, h and w of what it takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.devices import Precision
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks
from cascade.saving.atomic import atomic_folder
from cascade.saving.model_card import StageSummary
from cascade.saving.stage_folder import STAGE_ENTRIES, write_config
from cascade.space import Space


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one call of a stage is carried out.

    Attributes:
        settings: of sampling; None for the stage's own.
        tiles: for images that are too large for one pass; None for whole images.
        hooks: what is done on the way, such as known pixels, callbacks and progress.
        stream: name of the random stream; the stages of a pipeline have different ones.
        precision: `fp32`, `bf16`, or `auto`.
    """

    settings: SamplingSettings | None = None
    tiles: Tiles | None = None
    hooks: Hooks = field(default_factory=Hooks)
    stream: str = "sample"
    precision: Precision = "fp32"


class Stage(nn.Module, ABC):
    """A trained model in a chain.

    Args:
        contract: what it gives and what it is told.
    """

    kind: ClassVar[str]  # in `stage.json`

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.contract = contract

    @property
    def space(self) -> Space:
        """Of the images that the stage gives."""
        return self.contract.space

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What the stage is told."""
        return self.contract.conditions

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    @abstractmethod
    def trunk(self) -> nn.Module:
        """The part that training compiles and saves memory in."""

    @property
    @abstractmethod
    def sampling(self) -> SamplingSettings:
        """How the stage samples unless a call says otherwise."""

    @abstractmethod
    def with_sampling(self, settings: SamplingSettings) -> Stage:
        """The same stage, weights shared, that samples otherwise by default."""

    @abstractmethod
    def default_tile_px(self) -> int:
        """The side of tiles, in pixels, that suits the stage and the free memory."""

    @abstractmethod
    def check_settings(self, settings: SamplingSettings) -> None:
        """Check, before any work, that the stage can sample like this.

        Raises:
            ContractError: naming the setting that does not fit.
        """

    @abstractmethod
    def run(
        self,
        seeds: Sequence[int],
        inputs: Inputs | None = None,
        previous: Tensor | None = None,
        run: Run | None = None,
    ) -> Tensor:
        """Make images, one per seed; the same seed gives the same image at any batch size.

        Args:
            seeds: one whole number per image.
            inputs: what the user gave; None for nothing.
            previous: (B, C, h, w) in [-1, 1], what the stage before gave; None for the first one.
            run: settings, tiles and hooks.

        Returns:
            (B, C, H, W) float32 in [-1, 1].

        Raises:
            ContractError: if inputs or settings do not fit the contract.
        """

    @abstractmethod
    def summary(self) -> StageSummary:
        """What a model card says about the stage."""

    # ---- saving ---------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""

    @abstractmethod
    def write_weights(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write everything but `stage.json` into a folder."""

    def write(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write into a folder that the caller makes atomic."""
        config = {"kind": self.kind, **self.config()}
        self.write_weights(folder, dtype=dtype)
        write_config(folder, config)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the stage in diffusers layout, with `stage.json` beside the components.

        Args:
            folder: it is replaced when the new one is complete.
            dtype: of the written tensors; default float32.
        """
        with atomic_folder(Path(folder), owned=STAGE_ENTRIES) as temporary:
            self.write(temporary, dtype=dtype)
