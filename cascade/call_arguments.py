"""Reads keyword arguments of a pipeline: which ones exist, and what each picture gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from cascade.call import split_fields
from cascade.chain import StageChain
from cascade.devices import Precision, check_weights
from cascade.diffusion.noise import GeneratorLike, make_picture_seeds
from cascade.familiar_names import ARGUMENTS, check_arguments
from cascade.imaging.exchange import PictureLike, count_images
from cascade.restoration.colouring import Colouring
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.settings import Overrides, setting_names
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
