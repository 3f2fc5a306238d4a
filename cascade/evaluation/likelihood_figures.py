"""Bits per dimension of a pipeline's stages on held-out pictures, as figures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation.autoencoder_likelihood import (
    autoencoder_bits_per_dimension,
    check_variational,
    restored_std,
)
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.flow_likelihood import flow_bits_per_dimension
from cascade.evaluation.intervals import mean_interval
from cascade.evaluation.likelihood import bits_per_dimension, check_likelihood
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.results import Measurements
from cascade.pipeline import CascadePipeline
from cascade.stage import Stage

Likelihood = Literal["bound", "ode"]
MOST_PICTURES = 100
AT_A_TIME = 4
BOUND_TIMESTEPS = 100  # of each picture
LATENTS = 16  # that an autoencoder draws for each picture
NAMES: dict[Likelihood, str] = {"bound": "bits/dim (bound)", "ode": "bits/dim (ODE)"}
NOTES: dict[Likelihood, str] = {
    "bound": "bits/dim (bound) is the variational bound of sampling with ddpm in all steps, "
    "without guidance and thresholding.",
    "ode": "bits/dim (ODE) is the exact density of the images that the sampler ode generates at "
    "timestep 0, without guidance and thresholding; uniform noise of one step dequantises "
    "the 8-bit images.",
}


AUTOENCODER_NOTE = (
    "bits/dim (bound) of a variational autoencoder is the importance-weighted bound of {samples} "
    "latents per image; a decoded image is the mean of a normal distribution whose standard "
    "deviation {std:.3g} is the reconstruction error. It is fitted to the measured images, which "
    "makes the figure a little too good. Uniform noise of one step dequantises the 8-bit images."
)


def check_stages(pipeline: CascadePipeline, likelihood: str) -> None:
    """Check that a kind of likelihood exists, and that a stage has it.

    Raises:
        ContractError: if it does not, or naming the first stage and the reason if none has it.
    """
    if likelihood not in get_args(Likelihood):
        raise ContractError(f"likelihood must be bound or ode, got {likelihood!r}.")
    reasons = _reasons(pipeline, likelihood)
    if len(reasons) == len(pipeline.stages.names):
        name, reason = next(iter(reasons.items()))
        raise ContractError(f"stage {name!r} has no likelihood: {reason}")


def with_likelihood(
    measurements: Measurements,
    pipeline: CascadePipeline,
    held_out: RealPictures,
    likelihood: Likelihood,
    num_images: int,
    progress: NamedProgress,
) -> Measurements:
    """Measure the bits per dimension of each stage alone, and add them to its figures.

    Notes name the stages that have none, such as those that make latents.

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
    reasons, notes = _reasons(pipeline, likelihood), []
    for name, stage in pipeline.stages.items():
        if name in reasons:
            notes.append(f"stage {name!r} has no likelihood: {reasons[name]}")
            continue
        batches = partial(_batches, held_out, stage.contract, count)
        bits_of, note = _measure_of(stage, likelihood, batches)
        bits = []
        for first, batch in enumerate(batches()):
            progress(f"{name}, {NAMES[likelihood]}", first * AT_A_TIME, count)
            bits.append(bits_of(batch))
        progress(f"{name}, {NAMES[likelihood]}", count, count)
        place = _place(measured, name)
        scores = (*measured[place].scores, _score(torch.cat(bits), likelihood, held_out.files))
        measured[place] = replace(measured[place], scores=scores)
        notes.append(note)
    notes = [*measurements.notes, *dict.fromkeys(notes), *_notes(pipeline)]
    return replace(measurements, measured=measured, notes=notes)


def _reasons(pipeline: CascadePipeline, likelihood: str) -> dict[str, str]:
    """Why stages have no likelihood, by their names; without those that have one."""
    reasons = {}
    for name, stage in pipeline.stages.items():
        try:
            if isinstance(stage, DiffusionStage):
                check_likelihood(stage)
            else:
                _check_autoencoder(stage, likelihood, is_first=name == pipeline.stages.names[0])
        except ContractError as error:
            reasons[name] = str(error)
    return reasons


def _check_autoencoder(stage: Stage, likelihood: str, *, is_first: bool) -> None:
    if not isinstance(stage, AutoencoderStage):
        raise ContractError(f"likelihood is not for {stage.kind} stages.")
    check_variational(stage)
    if not is_first:
        raise ContractError("it decodes the latents of the stage before it, which are not its own.")
    if likelihood == "ode":
        raise ContractError("an autoencoder has no flow; use the bound.")


def _batches(held_out: RealPictures, contract: Contract, count: int) -> Iterator[Batch]:
    for first in range(0, count, AT_A_TIME):
        yield held_out.batch(range(first, min(first + AT_A_TIME, count)), contract)


def _notes(pipeline: CascadePipeline) -> list[str]:
    """Name the stages whose training hardly covers what the figures measure."""
    return [
        f"stage {name!r} was trained with timesteps {stage.process.timesteps}, which rarely "
        "include low noise, but bits per dimension give low noise most weight: the figure says "
        "little about the quality of its images."
        for name, stage in pipeline.stages.items()
        if isinstance(stage, DiffusionStage) and stage.process.timesteps != "uniform"
    ]


def _measure_of(
    stage: Stage, likelihood: Likelihood, batches: Callable[[], Iterator[Batch]]
) -> tuple[Callable[[Batch], Tensor], str]:
    """What computes the bits per dimension (B,) of a batch, and a note about it."""
    if isinstance(stage, AutoencoderStage):
        std = restored_std(stage, batches())
        note = AUTOENCODER_NOTE.format(samples=LATENTS, std=std)
        return partial(autoencoder_bits_per_dimension, stage, std=std, samples=LATENTS), note
    assert isinstance(stage, DiffusionStage)
    return partial(_bits, stage, likelihood=likelihood), NOTES[likelihood]


def _bits(stage: DiffusionStage, batch: Batch, likelihood: Likelihood) -> Tensor:
    """Bits per dimension (B,) of the pictures of a batch."""
    if likelihood == "ode":
        return flow_bits_per_dimension(stage, batch)
    timesteps = min(BOUND_TIMESTEPS, stage.process.schedule.train_steps - 1)
    return bits_per_dimension(stage, batch, timesteps=timesteps).total


def _score(bits: Tensor, likelihood: Likelihood, files: Sequence[str]) -> Score:
    values = bits.tolist()
    low, high = mean_interval(values, files)
    return Score(
        name=NAMES[likelihood],
        value=float(bits.mean()),
        low=low,
        high=high,
        n=len(values),
        better="lower",
    )


def _place(measured: list[Measured], name: str) -> int:
    """The place of the figures of a stage alone; the last one is a pipeline of that stage only."""
    subjects = [each.subject for each in measured]
    return next((subjects.index(each) for each in (name, f"{name}, alone") if each in subjects), -1)
