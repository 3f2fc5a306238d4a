"""Denoising: the weighted squared error of a diffusion model (Ho et al. 2020, arXiv 2006.11239).

Shapes: B batch, C channels, H and W pixels, T training timesteps.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from cascade.conditioning.assembling import counted_values, training_signals
from cascade.conditioning.batch import Batch
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.stage import Stage
from cascade.training.objectives.objective import Objective


@final
class Denoising(Objective):
    """The loss of the process's own prediction, at timesteps that the process draws."""

    def check(self, stage: Stage) -> None:
        if not isinstance(stage, DiffusionStage):
            raise ContractError(f"denoising trains diffusion stages, not a {stage.kind} stage.")
        if stage.contract.student is not None:
            raise ContractError(
                f"denoising cannot train a {stage.contract.student.text}; use the objective "
                "consistency."
            )

    @property
    def leaves_out_missing(self) -> bool:
        return True

    def loss(self, stage: Stage, batch: Batch) -> Tensor:
        assert isinstance(stage, DiffusionStage)
        noise = SeededNoise(batch.seeds, "train", device=batch.images.device)
        return self.loss_at(stage, batch, stage.process.draw_timesteps(noise.uniform().view(-1)))

    def loss_at(self, stage: DiffusionStage, batch: Batch, timesteps: Tensor) -> Tensor:
        """The loss at certain timesteps (B,) in [0, T); all noise is drawn from the seeds."""
        x0 = batch.images
        stage.space.check(x0)
        if len(batch.seeds) != len(batch):
            raise ContractError(f"got {len(batch.seeds)} seeds for {len(batch)} images.")
        t = timesteps.to(x0.device)
        eps = SeededNoise(batch.seeds, "train noise", device=x0.device).normal(*x0.shape[1:])
        signals = training_signals(stage.conditions, batch, stage.space)
        x_t = stage.process.schedule.add_noise(x0, eps, t)
        output = stage.predict(x_t, t, signals)
        counted = counted_values(stage.conditions, batch, signals)
        return stage.process.loss(output, x0, x_t, eps, t, counted=counted)
