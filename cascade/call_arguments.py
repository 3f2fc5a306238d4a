"""Reads the arguments of a pipeline: which ones exist, which stages run, what each image gets.

Shapes: B images, C channels, h and w pixels of input images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor

from cascade.call import CallOptions, split_fields
from cascade.chain import StageChain
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import LabelsLike
from cascade.devices import Precision, check_weights
from cascade.diffusion.noise import GeneratorLike, make_picture_seeds
from cascade.errors import ContractError
from cascade.familiar_names import ARGUMENTS, check_arguments
from cascade.imaging.exchange import PictureLike, count_images
from cascade.restoration.colouring import Colouring
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.overrides import Overrides
from cascade.sampling.settings import setting_names
from cascade.stage import Stage

Restoring = TypeVar("Restoring", Upscaling, Colouring)


def for_each(
    chain: StageChain,
    kind: type[Restoring],
    image: PictureLike,
    settings: Mapping[str, Any],
    generator: GeneratorLike | None,
) -> tuple[list[Restoring], list[Stage]]:
    """Read the arguments of `upscale` or `colourise`.

    Args:
        chain: the stages of the pipeline.
        kind: `Upscaling` or `Colouring`.
        image: one or more pictures.
        settings: fields of `kind` and sampling settings.
        generator: see `make_picture_seeds`.

    Returns:
        What to do with each picture, and the stages with the sampling settings.

    Raises:
        ContractError: if an argument does not exist or does not fit.
    """
    check_call_arguments(chain, settings, ("image", "progress", "generator", *field_names(kind)))
    restoring, sampling = split_fields(kind, settings)
    check_can_compute(chain, restoring.precision)
    seeds = make_picture_seeds(count_images(image), settings.get("seed"), generator)
    names = chain.names
    changed = chain.with_sampling(Overrides.per_stage(names, names, **sampling))
    each = [replace(restoring, seed=seed) for seed in seeds]
    return each, [stage for _, stage in changed.items()]


def stages_to_run(
    chain: StageChain, start: Tensor | None, options: CallOptions, settings: Mapping[str, Any]
) -> StageChain:
    """The stages that a call runs, with its sampling settings.

    Args:
        chain: the stages of the pipeline.
        start: the images to start from, (B, C, h, w); None to start from noise.
        options: options of the call.
        settings: sampling settings, which take precedence over those in the options.

    Raises:
        ContractError: if no stage takes the images, or a setting does not fit.
    """
    size = None if start is None else (start.shape[-2], start.shape[-1])
    run = chain.from_stage(chain.start(size, options.start_at))
    options.overrides.check(chain.names)
    overrides = Overrides.per_stage(chain.names, run.names, **settings)
    return run.with_sampling(options.overrides.within(run.names).with_later(overrides))


def completed_inputs(
    run: StageChain,
    further: Mapping[str, Any],
    labels: LabelsLike | None,
    start: Tensor | None,
    seeds: list[int],
) -> Inputs:
    """The inputs of a call, each read and completed by the first condition that takes it.

    Args:
        run: the stages that run.
        further: inputs for conditions of the user's own, by name.
        labels: see `CascadePipeline.__call__`.
        start: the images to start from, (B, C, h, w); None to start from noise.
        seeds: one whole number per image.

    Raises:
        ContractError: if no stage reads an input.
    """
    for name in set(further) & {"labels", "image"}:
        raise ContractError(f"{name} is an argument of its own; leave it out of inputs.")
    values = {**further, "labels": labels, "image": start}
    completed = {}
    for condition in (each for _, stage in run.items() for each in stage.conditions):
        name = condition.input_name
        if name not in completed:
            completed[name] = condition.completed(values.get(name), seeds, draw=start is None)
    for name, value in values.items():
        if value is not None and name not in completed:
            readable = ", ".join(completed) or "none"
            raise ContractError(
                f"no stage of this pipeline has a condition that reads {name!r}; its inputs: "
                f"{readable}."
            )
    return Inputs(completed)


def check_call_arguments(
    chain: StageChain, arguments: Mapping[str, Any], known: Sequence[str]
) -> None:
    """Check that every argument is one of a method or a sampling setting.

    Raises:
        ContractError: naming the first that is not, with what to do instead.
    """
    samplers = [stage.sampling.sampler for _, stage in chain.items()]
    own = arguments.get("sampler")
    own = list(own.values()) if isinstance(own, Mapping) else own
    samplers += own if isinstance(own, list | tuple) else [own]
    options = setting_names(each for each in samplers if each is not None)
    check_arguments(arguments, [*known, *options], ARGUMENTS)


def check_can_compute(chain: StageChain, precision: Precision) -> None:
    """Check that the weights of all stages suit a precision and the device that computes.

    Raises:
        ContractError: if those of one stage do not.
    """
    for _, stage in chain.items():
        check_weights(precision, stage.dtype, stage.computing_device or stage.device)


def field_names(kind: type) -> list[str]:
    """The names of the fields of a dataclass."""
    return [each.name for each in fields(kind)]
