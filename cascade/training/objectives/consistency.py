"""Consistency: a student learns to cross each of k segments of the noise levels in one step.

Multistep consistency distillation (Heek et al. 2024, arXiv 2403.06807, algorithm 1), written in x0.
A teacher takes one small step; the student's own answer there, without gradient, is carried over.
Without a teacher, the step follows the true image and the noise that was added to it, which is
consistency training. There is no second network besides these two, and no discriminator.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, final

import torch
from torch import Tensor

from cascade.arguments import real_number, shown, whole_number
from cascade.conditioning.assembling import training_signals
from cascade.conditioning.batch import Batch
from cascade.conditioning.signals import Signals
from cascade.devices import Precision
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.segments import Segments, SegmentStep, grid_steps
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling.student import Student
from cascade.space import UNITS_8_BIT
from cascade.stage import Stage
from cascade.training.grids import draw_samples
from cascade.training.objectives.objective import Objective
from cascade.training.objectives.teacher import Teacher, predicted_x0

UNIPC_CONFIGS = tuple(  # order 3 needs more steps
    {"solver_order": order, "solver_type": kind} for order in (1, 2) for kind in ("bh1", "bh2")
)
SMOOTH_BELOW = 1e-3  # root mean square below which the loss is a square, so that it has a gradient


@final
class Consistency(Objective):
    """The distance of the student's answer at t from the one that a small step and itself give.

    The loss of an image is the root mean square of the error over all its pixels, not its square,
    so that the few worst images do not decide. The error of x0 is weighted by SNR + 1 inside the
    root, which makes it the error of v; for eps prediction by SNR, the error of eps, because x0
    does not follow from eps where no image is left.

    Args:
        teacher: the stage that takes the small steps; None for consistency training. It is frozen.
        grid: steps of the grid over all noise levels at the start and at the end of the growth.
        growth: share of the run over which the grid grows, above 0 and at most 1.

    Raises:
        ContractError: if a value is no number, or out of range.
    """

    def __init__(
        self,
        teacher: DiffusionStage | None = None,
        *,
        grid: tuple[int, int] = (64, 1280),
        growth: float = 0.5,
    ) -> None:
        grid, growth = _as_grid(grid), real_number("growth", growth)
        if not 0 < growth <= 1:
            raise ContractError(f"growth must be above 0 and at most 1, got {growth}.")
        self.teacher = teacher
        self.grid = grid
        self.growth = growth
        self._progress = 0.0
        self._pictures: dict[Any, dict[str, Tensor]] = {}

    def check(self, stage: Stage) -> None:
        if not isinstance(stage, DiffusionStage) or stage.contract.student is None:
            raise ContractError(
                "consistency trains students; set the number of steps in which this stage samples."
            )
        if self.teacher is not None:
            self._teacher_of(stage).check_teaches(stage)

    def begin(self, stage: Stage, device: torch.device) -> None:
        student = _student_of(stage)
        if (self.teacher is None) == bool(student.teacher):
            raise ContractError(
                f"this is a {student.text}, but training has "
                f"{'no' if self.teacher is None else 'a'} teacher."
            )
        if self.teacher is not None:
            self._teacher_of(stage).freeze(device)

    def set_progress(self, share: float) -> None:
        self._progress = min(1.0, share / self.growth)

    @property
    def course(self) -> str:
        return f"the grid has {self._grid_steps:,} steps"

    @property
    def _grid_steps(self) -> int:
        return grid_steps(*self.grid, self._progress)

    def identity(self) -> dict[str, Any]:
        return {"grid": list(self.grid), "growth": self.growth}

    def _teacher_of(self, stage: Stage) -> Teacher:
        assert self.teacher is not None
        return Teacher(self.teacher, _student_of(stage).guide)

    # ---- the loss -------------------------------------------------------------------------------

    def loss(self, stage: Stage, batch: Batch) -> Tensor:
        assert isinstance(stage, DiffusionStage)
        noise = SeededNoise(batch.seeds, "consistency")
        segments = Segments(stage.process.schedule, _student_of(stage).steps)
        count, last = self._grid_steps, self._last_timestep()
        return self.loss_of(stage, batch, segments.draw(noise.uniform(2), count, last=last))

    def _last_timestep(self) -> int:
        """The timestep from which one step leads to the clean image; see `Segments.draw`.

        The teacher would lead the student astray at timesteps that it was hardly trained at.
        """
        return 0 if self.teacher is None else self.teacher.process.lowest_reliable_timestep

    def loss_of(self, stage: DiffusionStage, batch: Batch, step: SegmentStep) -> Tensor:
        """The loss (B,) for certain steps; all noise is drawn from the seeds."""
        x0, process = batch.images, stage.process
        stage.space.check(x0)
        eps = SeededNoise(batch.seeds, "train noise", device=x0.device).normal(*x0.shape[1:])
        signals = training_signals(stage.conditions, batch, stage.space)
        t = step.t.to(x0.device)
        x_t = process.schedule.add_noise(x0, eps, t)
        target = self.target(stage, step, x_t, signals, batch)
        prediction, _ = process.split(stage.predict(x_t, t, signals).float())
        error = process.x0(prediction, x_t, t) - target
        mean_square = (_weight(process, t) * error**2).mean(dim=(1, 2, 3))
        return (mean_square + SMOOTH_BELOW**2).sqrt() - SMOOTH_BELOW

    @torch.no_grad()
    def target(
        self, stage: DiffusionStage, step: SegmentStep, x_t: Tensor, signals: Signals, batch: Batch
    ) -> Tensor:
        """The pictures (B, C, H, W) that the student should predict from x_t (B, C, H, W) at t."""
        t = step.t.to(x_t.device)
        near, plain = batch.images, batch.images
        if self.teacher is not None:
            near, plain = self._teacher_of(stage).x0(x_t, t, signals)
        variance = ((plain - batch.images) ** 2).mean(dim=(1, 2, 3))
        eps = stage.process.eps(near, x_t, t)
        x_s, adjustment = step.take(near, eps, variance)
        s = step.s.clamp(min=0).to(x_t.device)  # where s is the clean image, `later` is not used
        later = predicted_x0(stage, stage.predict(x_s, s, signals), x_s, s)
        return step.target(near, later, adjustment)

    # ---- meters ---------------------------------------------------------------------------------

    def meters(
        self, stage: Stage, batch: Batch, samples: Tensor, precision: Precision
    ) -> dict[str, float]:
        """How far samples are from the teacher's with many steps and the same seeds.

        Returns:
            Root mean squares in 8-bit units: of the student, and for comparison of its teacher with
            DDIM and UniPC, which call the network no more often than the student; nothing without a
            teacher. UniPC is tuned on these images: the best of its orders and solvers counts.
        """
        if self.teacher is None:
            return {}
        pictures = self._teachers_pictures(stage, batch, precision)
        aim = pictures["many steps"]

        def distance(images: Tensor) -> float:
            return float((images.to(aim) - aim).square().mean().sqrt() * UNITS_8_BIT)

        unipc = [distance(each) for name, each in pictures.items() if name.startswith("unipc")]
        distances = {"student": distance(samples), "ddim": distance(pictures["ddim"])}
        distances["unipc"] = min(unipc)
        return {f"distance_to_teacher_{name}": each for name, each in distances.items()}

    def _teachers_pictures(
        self, stage: Stage, batch: Batch, precision: Precision
    ) -> dict[str, Tensor]:
        """What the teacher makes for the same seeds, by sampler; drawn once."""
        key = batch.seeds
        if key not in self._pictures:
            teacher = self._teacher_of(stage)
            steps = teacher.steps_within(_student_of(stage).steps)
            samplers: dict[str, dict[str, Any]] = {
                "many steps": {"sampler": "ddim", "eta": 0.0, "steps": teacher.many_steps},
                "ddim": {"sampler": "ddim", "eta": 0.0, "steps": steps},
            }
            for number, config in enumerate(UNIPC_CONFIGS):
                settings = {"sampler": "unipc", "steps": steps, "config": config}
                with suppress(ContractError):  # bh1 overshoots on some noise schedules
                    teacher.stage.check_settings(teacher.settings(**settings))
                    samplers[f"unipc {number}"] = settings
            self._pictures[key] = {
                name: draw_samples(
                    teacher.stage.with_sampling(teacher.settings(**settings)),
                    batch,
                    precision=precision,
                )
                for name, settings in samplers.items()
            }
        return self._pictures[key]


def _as_grid(value: Any) -> tuple[int, int]:
    with suppress(TypeError, ValueError, ContractError):
        first, last = (whole_number("grid", each, low=1) for each in value)
        if first <= last:
            return first, last
    raise ContractError(f"grid must be two whole numbers 1 <= first <= last, got {shown(value)}.")


def _student_of(stage: Stage) -> Student:
    student = stage.contract.student
    assert student is not None, "check comes first"
    return student


def _weight(process: NoiseProcess, t: Tensor) -> Tensor:
    """The weight (B, 1, 1, 1) of the squared error of x0 at timesteps t (B,)."""
    snr = process.schedule.snr(t)
    return snr if process.prediction == "eps" else snr + 1
