"""Reads the arguments of a pipeline: which ones exist, and which stages run.

Shapes: B images, C channels, h and w pixels of input images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import Tensor

from cascade.call import CallOptions, split_fields
from cascade.call_inputs import completed_inputs, image_count
from cascade.chain import StageChain
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.latents import Latents
from cascade.devices import Precision, check_weights
from cascade.diffusion.noise import GeneratorLike, make_picture_seeds, make_seeds
from cascade.errors import ContractError
from cascade.familiar_names import ARGUMENTS, check_arguments
from cascade.imaging.exchange import (
    OutputType,
    PictureLike,
    as_output,
    check_output,
    count_images,
    to_tensor,
)
from cascade.restoration.colouring import Colouring
from cascade.restoration.measured import unit_images
from cascade.restoration.restoring import Restoration
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.overrides import Overrides
from cascade.sampling.settings import setting_names
from cascade.stage import Stage
from cascade.starting import check_latents, check_takes_image, reading_stage, starting_stage

CALL_ARGUMENTS = (
    "prompt",
    "negative_prompt",
    "num_images",
    "labels",
    "image",
    "like",
    "seed",
    "seeds",
    "generator",
    "output_type",
)
Restoring = TypeVar("Restoring", Upscaling, Colouring, Restoration)


@dataclass(frozen=True, kw_only=True)
class CallRequest:
    """A call of a pipeline, read and checked.

    Attributes:
        run: the stages that run, with their sampling settings.
        inputs: the completed inputs of all images.
        seeds: one whole number per image.
        options: batch size, precision and further options.
        output_type: `pil`, `pt` or `np`.
    """

    run: StageChain
    inputs: Inputs
    seeds: list[int]
    options: CallOptions
    output_type: OutputType


def read_call(chain: StageChain, arguments: Mapping[str, Any]) -> CallRequest:
    """Read the arguments of a call of a pipeline.

    Args:
        chain: the stages of the pipeline.
        arguments: what the caller passes, by name; see `CascadePipeline.__call__`.

    Raises:
        ContractError: if an argument does not exist or does not fit the stages.
    """
    own = {name: arguments.get(name) for name in CALL_ARGUMENTS}
    further = {name: each for name, each in arguments.items() if name not in CALL_ARGUMENTS}
    check_call_arguments(chain, further, (*CALL_ARGUMENTS, *field_names(CallOptions)))
    options, settings = split_fields(CallOptions, further)
    check_can_compute(chain, options.precision)
    if own["image"] is not None:
        check_takes_image(chain, options.start_at)  # latents would not be in the range of images
    start = None if own["image"] is None else _start(own["image"], chain, options.start_at)
    like = None if own["like"] is None else to_tensor(own["like"])
    varied = options.inputs.get("like") if like is None else like
    latents = options.inputs.get(Latents.input_name)
    if latents is not None:
        check_latents(chain, latents, options.start_at)
    first_of = varied if latents is None else latents
    count = image_count(own["num_images"], own["prompt"], own["labels"], start, first_of)
    seeds = make_seeds(count, own["seed"], own["seeds"], own["generator"])
    run = stages_to_run(chain, start, varied, latents, options, settings)
    output_type = arguments.get("output_type", "pil")
    check_output(output_type, run.last.space.channels, run.last.space.kind)
    values = {name: own[name] for name in ("labels", "prompt", "negative_prompt")}
    values |= {"image": start, "like": like}
    inputs = completed_inputs(run, options.inputs, values, seeds, chain=chain)
    return CallRequest(
        run=run, inputs=inputs, seeds=seeds, options=options, output_type=output_type
    )


def for_each(
    chain: StageChain,
    kind: type[Restoring],
    image: PictureLike,
    settings: Mapping[str, Any],
    generator: GeneratorLike | None,
) -> tuple[list[Restoring], list[Stage]]:
    """Read the arguments of `upscale`, `colourise` or `restore`.

    Args:
        chain: the stages of the pipeline.
        kind: `Upscaling`, `Colouring` or `Restoration`.
        image: one or more pictures.
        settings: fields of `kind` and sampling settings.
        generator: see `make_picture_seeds`.

    Returns:
        What to do with each picture, and the stages with the sampling settings.

    Raises:
        ContractError: if an argument does not exist or does not fit.
    """
    known = ("image", "progress", "generator", "seeds", "return_std", *field_names(kind))
    check_call_arguments(chain, settings, known)
    restoring, sampling = split_fields(kind, settings)
    check_can_compute(chain, restoring.precision)
    seeds = make_picture_seeds(count_images(image), settings.get("seed"), generator)
    names = chain.names
    changed = chain.with_sampling(Overrides.per_stage(names, names, **sampling))
    each = [replace(restoring, seed=seed) for seed in seeds]
    return each, [stage for _, stage in changed.items()]


def stages_to_run(
    chain: StageChain,
    start: Tensor | None,
    like: Tensor | None,
    latents: Tensor | None,
    options: CallOptions,
    settings: Mapping[str, Any],
) -> StageChain:
    """The stages that a call runs, with its sampling settings.

    Args:
        chain: the stages of the pipeline.
        start: the images to start from, (B, C, h, w); None to start from noise.
        like: the images to vary, (B, C, h, w); None for none.
        latents: the latents to decode, (B, c, h, w); None for none.
        options: options of the call.
        settings: sampling settings, which take precedence over those in the options.

    Raises:
        ContractError: if no stage takes the images, or a setting does not fit.
    """
    given = {"image": start, "like": like, "latents": latents}
    names = [name for name, each in given.items() if each is not None]
    if len(names) > 1:
        raise ContractError(f"{' and '.join(names)} exclude each other; give one of them.")
    if names in ([], ["image"]):
        size = None if start is None else (start.shape[-2], start.shape[-1])
        first = starting_stage(chain, size, options.start_at)
    else:
        first = reading_stage(chain, names[0], options.start_at)
    return with_settings(chain, chain.between(first, options.stop_at), options, settings)


def with_settings(
    chain: StageChain, run: StageChain, options: CallOptions, settings: Mapping[str, Any]
) -> StageChain:
    """The stages that run, with the sampling settings of a call.

    Args:
        chain: the stages of the pipeline.
        run: those that run.
        options: options of the call.
        settings: sampling settings, which take precedence over those in the options.

    Raises:
        ContractError: if a setting does not fit.
    """
    options.overrides.check(chain.names)
    overrides = Overrides.per_stage(chain.names, run.names, **settings)
    return run.with_sampling(options.overrides.within(run.names).with_later(overrides))


def as_outputs(
    run: StageChain, images: Mapping[str, Tensor], output_type: OutputType
) -> dict[str, Any]:
    """The images of stages as the caller wants them; latents and embeddings stay tensors."""
    return {
        name: as_output(each, output_type) if run[name].space.is_bounded else each
        for name, each in images.items()
    }


def _start(image: Any, chain: StageChain, start_at: str | None) -> Tensor:
    """The images (B, C, h, w) in [-1, 1] to start from; for stages of bands also their numbers."""
    stages = [chain[name] for name in (chain.names if start_at is None else [start_at])]
    stage = next(each for each in stages if each.contract.needs_image)
    spaces = [space for space in stage.contract.image_spaces if space.has_bands]
    reads_bands = stage.space.has_bands or stage.contract.needs_partner  # else it takes grey images
    values = unit_images(image, spaces[0]) if spaces and reads_bands else None
    return to_tensor(image) if values is None else values


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
