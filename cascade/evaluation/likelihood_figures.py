"""Bits per dimension of a pipeline's stages on held-out pictures, as figures of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.flow_likelihood import flow_bits_per_dimension
from cascade.evaluation.intervals import mean_estimate
from cascade.evaluation.likelihood import bits_per_dimension, check_likelihood
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.results import Measurements
from cascade.pipeline import CascadePipeline

Likelihood = Literal["bound", "ode"]
MOST_PICTURES = 100
AT_A_TIME = 4
BOUND_TIMESTEPS = 100  # of each picture
NAMES: dict[Likelihood, str] = {"bound": "bits/dim (bound)", "ode": "bits/dim (ODE)"}
NOTES: dict[Likelihood, str] = {
    "bound": "bits/dim (bound) is the variational bound of sampling with ddpm in all steps, "
    "without guidance and thresholding.",
    "ode": "bits/dim (ODE) is the exact density of the images that the sampler ode draws at "
    "timestep 0, without guidance and thresholding; uniform noise of one step dequantises the "
    "8-bit pictures.",
}


def check_stages(pipeline: CascadePipeline, likelihood: str) -> None:
    """Check that a kind of likelihood exists, and that all stages have it.

    Raises:
        ContractError: if it does not, or naming the stage that has none.
    """
    if likelihood not in get_args(Likelihood):
        raise ContractError(f"likelihood must be bound or ode, got {likelihood!r}.")
    for name, stage in pipeline.stages.items():
        if not isinstance(stage, DiffusionStage):
            raise ContractError(
                f"likelihood is for diffusion stages, but stage {name!r} is another kind; leave it "
                "out."
            )
        try:
            check_likelihood(stage)
        except ContractError as error:
            raise ContractError(f"stage {name!r} has no likelihood: {error}") from None


def with_likelihood(
    measurements: Measurements,
    pipeline: CascadePipeline,
    held_out: RealPictures,
    likelihood: Likelihood,
    num_images: int,
    progress: NamedProgress,
) -> Measurements:
    """Measure the bits per dimension of each stage alone, and add them to its figures.

    Args:
        measurements: the other figures of the pipeline.
        pipeline: the pipeline, on its device.
        held_out: pictures that it was not trained on.
        likelihood: `bound` for the variational bound, `ode` for the probability flow.
        num_images: number of pictures, of which the first 100 are measured.
        progress: called while the measurement runs.
    """
    count = min(num_images, len(held_out), MOST_PICTURES)
    measured = list(measurements.measured)
    for name, stage in pipeline.stages.items():
        assert isinstance(stage, DiffusionStage)
        bits = []
        for first in range(0, count, AT_A_TIME):
            progress(f"{name}, {NAMES[likelihood]}", first, count)
            places = range(first, min(first + AT_A_TIME, count))
            bits.append(_bits(stage, held_out.batch(places, stage.contract), likelihood))
        progress(f"{name}, {NAMES[likelihood]}", count, count)
        place = _place(measured, name)
        scores = (*measured[place].scores, _score(torch.cat(bits), likelihood))
        measured[place] = replace(measured[place], scores=scores)
    notes = [*measurements.notes, NOTES[likelihood], *_notes(pipeline)]
    return replace(measurements, measured=measured, notes=notes)


def _notes(pipeline: CascadePipeline) -> list[str]:
    """Name the stages whose training hardly covers what the figures measure."""
    return [
        f"stage {name!r} was trained with timesteps {stage.process.timesteps}, so on little at low "
        "noise, which bits per dimension weigh most: the figure says little about its pictures."
        for name, stage in pipeline.stages.items()
        if isinstance(stage, DiffusionStage) and stage.process.timesteps != "uniform"
    ]


def _bits(stage: DiffusionStage, batch: Batch, likelihood: Likelihood) -> Tensor:
    """Bits per dimension (B,) of the pictures of a batch."""
    if likelihood == "ode":
        return flow_bits_per_dimension(stage, batch)
    timesteps = min(BOUND_TIMESTEPS, stage.process.schedule.train_steps - 1)
    return bits_per_dimension(stage, batch, timesteps=timesteps).total


def _score(bits: Tensor, likelihood: Likelihood) -> Score:
    values = bits.tolist()
    estimate = mean_estimate(values) if len(values) > 1 else None
    return Score(
        name=NAMES[likelihood],
        value=float(bits.mean()),
        low=estimate and estimate.low,
        high=estimate and estimate.high,
        n=len(values),
        better="lower",
    )


def _place(measured: list[Measured], name: str) -> int:
    """The place of the figures of a stage alone; the last one is a pipeline of that stage only."""
    subjects = [each.subject for each in measured]
    return next((subjects.index(each) for each in (name, f"{name}, alone") if each in subjects), -1)
