"""The teacher of a student: a trained stage whose weights stay as they are.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.assembling import absent_signals
from cascade.conditioning.signals import Signals
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling.guidance import Guidance, GuidedSignals, guide
from cascade.sampling.kept_features import KeptFeatures
from cascade.sampling.settings import SamplingSettings
from cascade.saving.differences import as_typed, differences

MANY_STEPS = 64  # after which further ones change a teacher's pictures little


@final
@dataclass(frozen=True, eq=False)
class Teacher:
    """Predicts pictures as the stage does when it samples: guided and thresholded.

    Args:
        stage: the trained stage; its weights are frozen.
        guidance: scale and interval of the guidance that the student learns.
    """

    stage: DiffusionStage
    guidance: Guidance

    def check_teaches(self, student: DiffusionStage) -> None:
        """Check that the student makes the same images from the same conditions and noise.

        Raises:
            ContractError: naming what differs.
        """
        if self.stage is student:
            raise ContractError("a student needs a copy of its teacher, not the teacher itself.")
        check_can_teach(self.stage)
        theirs, own = (_facts(each) for each in (self.stage, student))
        for name in ("conditions", "space", "schedule"):
            if theirs[name].keys() != own[name].keys():
                lists = (", ".join(each[name]) or "none" for each in (theirs, own))
                raise ContractError(
                    "the teacher takes other {} than the student: {} and {}.".format(name, *lists)
                )
            for each in differences(theirs[name], own[name]):
                word = name.removesuffix("s")
                raise ContractError(
                    f"the teacher has another {word} than the student: {each.key} is "
                    f"{as_typed(each.before)} there and {as_typed(each.now)} here."
                )

    def freeze(self, device: torch.device) -> None:
        """Put the teacher on a device, without gradients."""
        self.stage.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def x0(self, x_t: Tensor, t: Tensor, signals: Signals) -> tuple[Tensor, Tensor]:
        """Predict clean images.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) timesteps.
            signals: the signals of all conditions.

        Returns:
            The guided prediction and the one without guidance, each (B, C, H, W).
        """
        if self.guidance.scale == 1:
            plain = self._x0(self.stage.predict(x_t, t, signals), x_t, t)
            return plain, plain
        other = GuidedSignals(signals, absent_signals(self.stage.conditions, signals)).other
        both = self.stage.predict(
            torch.cat([x_t, x_t]),
            torch.cat([t, t]),
            signals.without_features().enlarged().concatenate(other.enlarged()),
        )
        own, against = both.float().chunk(2)
        plain = self._x0(own, x_t, t)
        guided = guide(own, against, self.guidance.scale, channels=x_t.shape[1])
        return torch.where(self._applies(t), self._x0(guided, x_t, t), plain), plain

    def _applies(self, t: Tensor) -> Tensor:
        """Whether guidance applies to each image: (B, 1, 1, 1) bool."""
        schedule = self.stage.process.schedule
        applies = [self.guidance.applies(schedule.alpha_bar_at(each)) for each in t.tolist()]
        return torch.tensor(applies, device=t.device).view(-1, 1, 1, 1)

    def _x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return predicted_x0(self.stage, output, x_t, t)

    def settings(self, **changes: object) -> SamplingSettings:
        """The stage's own settings with the student's guidance, no reuse, and with changes."""
        interval = self.guidance.interval or "none"
        own = self.stage.sampling.changed(reuse=1)
        return own.changed(guidance=self.guidance.scale, guidance_interval=interval, **changes)

    @property
    def many_steps(self) -> int:
        """The steps after which its pictures hardly change: its own, and at least 64.

        Its own may be few, chosen for speed.
        """
        longest = self.stage.process.schedule.train_steps
        return max(self.stage.sampling.steps, min(MANY_STEPS, longest))

    def steps_within(self, calls: int) -> int:
        """The most steps of one prediction each that take at most `calls` calls of the network.

        Args:
            calls: number of calls, at least 1. A guided step takes two of them. Where even one step
                takes more, it is one step.
        """
        counts = ((n, self.settings(sampler="ddim", steps=n)) for n in range(calls, 1, -1))
        return next((n for n, each in counts if network_calls(self.stage, each) <= calls), 1)


def network_calls(stage: DiffusionStage, settings: SamplingSettings) -> int:
    """How often a stage's network runs for a picture; a guided step runs it on two pictures."""
    return sum(_runs(settings, guided) for guided in _guided_calls(stage, settings))


def whole_network_calls(stage: DiffusionStage, settings: SamplingSettings) -> int:
    """How often all blocks of the network run, where some calls reuse features of earlier ones."""
    kept, runs = KeptFeatures(settings.reuse), 0
    for guided in _guided_calls(stage, settings):
        kept.begin_call(guided)
        if kept.features is None:
            runs += _runs(settings, guided)
            kept.keep(torch.empty(0))
    return runs


def _guided_calls(stage: DiffusionStage, settings: SamplingSettings) -> list[bool]:
    """For each call of the network, whether it is guided."""
    schedule, timesteps = stage.process.schedule, settings.make_sampler(stage.process).timesteps
    return [settings.guide.applies(schedule.alpha_bar_at(t)) for t in timesteps]


def _runs(settings: SamplingSettings, guided: bool) -> int:
    return 2 if guided and settings.guidance != 0 else 1


def predicted_x0(stage: DiffusionStage, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The clean images that an output implies, thresholded as the stage does when it samples."""
    process, sampling = stage.process, stage.sampling
    prediction, _ = process.split(output.float())
    return sampling.thresholding.apply(process.x0(prediction, x_t, t))


def check_can_teach(stage: DiffusionStage) -> None:
    """Check that a stage denoises at all noise levels.

    Raises:
        ContractError: for a student, or a regression.
    """
    student = stage.contract.student
    if student is not None:
        origin = f"; take its teacher {student.teacher}" if student.teacher else ""
        raise ContractError(
            f"this stage is itself a {student.text} and cannot teach another{origin}."
        )
    if stage.process.timesteps == "last":
        raise ContractError(
            "this stage was trained at the last timestep only, so it makes its images in 1 step "
            "already and cannot teach."
        )


def _facts(stage: DiffusionStage) -> dict[str, dict]:
    return {
        "conditions": {each.name: each.config() for each in stage.conditions},
        "space": stage.space.to_dict(),
        "schedule": stage.process.schedule.config(),
    }
